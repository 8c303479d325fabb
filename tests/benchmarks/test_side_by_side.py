"""Systems take turns, their figures come out as they went in, and a system that fails is named."""

import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

ROOT = Path(__file__).parents[2]

# A system that notes its name whenever it has a turn, and answers with the seconds a step it was told.
SCRIPT = """
import sys
from benchmarks.peers.worker import serve

name, log, *seconds = sys.argv[1:]
turns = iter(map(float, seconds))

def train(steps):
    print("not an answer")
    with open(log, "a") as file:
        print(name, steps, file=file)
    return next(turns) * steps, {"loss": 1.5}

serve(train, parameters=7, versions={"framework": "1.0"})
"""


@pytest.fixture
def side_by_side(benchmark):
    return benchmark("side_by_side")


@pytest.fixture
def python(side_by_side):
    """Makes a system of a program."""
    return lambda name, code, *arguments: side_by_side.System(name, [sys.executable, "-c", code, *arguments])


@pytest.fixture
def comparison(side_by_side):
    seconds = {"ours": (0.1, 0.2, 0.1), "other": (0.2, 0.5, 0.3)}
    answers = {name: [{"seconds": s, "wait": 2 * s} for s in turns] for name, turns in seconds.items()}
    return side_by_side.Comparison(
        "sorting", answers, ours="ours", amount=50, unit="images", versions={"framework": "1.0"}, shares=("wait",)
    )


def test_systems_take_turns(side_by_side, python, tmp_path):
    log = tmp_path / "log"
    figures = {"a": [9, 9, 0.25, 0.5], "b": [9, 9, 1.0, 2.0]}
    systems = [python(name, SCRIPT, name, log, *map(str, seconds)) for name, seconds in figures.items()]
    with side_by_side.Workers(systems) as workers:
        assert workers.hellos["a"] == {"parameters": 7, "versions": {"framework": "1.0"}}
        answers = workers.interleave(rounds=2, steps=3, warmup=2)
    assert log.read_text().split("\n")[:-1] == ["a 3", "b 3"] * 4
    seconds = {name: [answer["seconds"] for answer in turns] for name, turns in answers.items()}
    assert seconds == {"a": [0.25, 0.5], "b": [1.0, 2.0]}
    assert all(answer["loss"] == 1.5 for turns in answers.values() for answer in turns)


def test_ratios_are_taken_within_rounds(comparison):
    ours, other = comparison.rows()
    assert (ours["value"], ours["ratio"], ours["images_per_second"]) == (100.0, 1.0, 500)
    # Rounds give 2, 2.5 and 3; the medians of the two would give 3.
    assert (other["value"], other["ratio"], other["ratio_range"]) == (300.0, 2.5, [2.0, 3.0])
    assert other["rounds"] == [200.0, 500.0, 300.0]
    console = Console(width=120)
    with console.capture() as printed:
        console.print(comparison.table())
    assert ["other", "300", "2.50", "2.00", "3.00", "167", "60.0%"] in [
        line.replace("│", " ").split() for line in printed.get().splitlines()
    ]


def test_figures_and_chart_are_written(side_by_side, comparison, tmp_path):
    figures, chart = side_by_side.report("sorting", [comparison, comparison], tmp_path / "results")
    content = json.loads(figures.read_text())
    assert content["rows"] == 2 * comparison.rows()
    assert content["machine"]["cores"] == os.cpu_count()
    assert content["versions"] == {"framework": "1.0"}
    assert str(ROOT) not in figures.read_text() and platform.node() not in figures.read_text()
    pixels = np.asarray(Image.open(chart).convert("RGB"))
    green, grey = (np.all(pixels == colour, axis=-1).sum() for colour in ((44, 160, 44), (127, 127, 127)))
    assert 2 * green < grey < 4 * green  # bars as long as the figures: 100 and 300 ms


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no such model')", "broken: ended with exit code 1: no such model"),
        ("raise SystemExit(3)", "broken: ended with exit code 3: no message"),
        ("print('Hello!')", "broken: expected a JSON object. Received: Hello!"),
    ],
)
def test_a_system_that_does_not_start_is_named(side_by_side, python, code, message, tmp_path):
    healthy = python("healthy", SCRIPT, "healthy", tmp_path / "log", "1")
    with pytest.raises(side_by_side.SystemFailed) as error, side_by_side.Workers([healthy, python("broken", code)]):
        pass
    assert str(error.value) == message


def test_a_system_that_ends_in_the_middle_is_named(side_by_side, python, tmp_path):
    one_turn = python("brief", SCRIPT, "brief", tmp_path / "log", "1")
    with (
        pytest.raises(side_by_side.SystemFailed, match="^brief: ended with exit code 1: StopIteration$"),
        side_by_side.Workers([one_turn]) as it,
    ):
        it.interleave(rounds=2, steps=1, warmup=0)


def test_a_system_of_another_size_is_named(side_by_side, python, tmp_path):
    larger = python("larger", SCRIPT.replace("parameters=7", "parameters=1008"), "larger", tmp_path / "log", "1")
    same = [python(name, SCRIPT, name, tmp_path / "log", "1") for name in ("one", "other")]
    with side_by_side.Workers(same) as workers:
        assert workers.common_size() == 7
    with side_by_side.Workers([*same, larger]) as workers:
        with pytest.raises(side_by_side.SystemFailed, match="^larger: has 1,008 parameters, one has 7$"):
            workers.common_size()


def test_a_program_that_is_not_there_is_named(side_by_side):
    missing = side_by_side.System("PyTorch", ["no/such/python"])
    with pytest.raises(
        side_by_side.SystemFailed, match="^PyTorch: cannot start no/such/python: No such file or directory$"
    ):
        side_by_side.Workers([missing]).__enter__()
