"""Minutes are read from what runs leave behind, and every target is one that its app and the README know."""

import dataclasses
import importlib
import json
import shlex
from pathlib import Path

import pytest
from PIL import Image
from rich.progress import Progress

from pipelines.config import parse
from pipelines.runs import Run
from pipelines.training.history import History

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quality(benchmark):
    return benchmark("time_to_quality")


def leave_run(path, metric, values, test=None):
    """A run of a step and a validation a minute. `evaluate` noted that it took the mean of two checkpoints."""
    run = Run.new("nlp", path)
    history = History(run.history_file)
    for number, value in enumerate(values, 1):
        history.write(step=number, epoch=0, loss=1.0, seconds=60 * number - 1.0)
        history.write(step=number, epoch=0, **{f"val_{metric}": value}, seconds=60.0 * number)
    history.close()
    if test is not None:
        run.write_metrics({"splits": {"test": {metric: test, "options": {"checkpoint": "auto", "average": 2}}}})


@pytest.mark.parametrize(
    ("metric", "values", "minutes", "best"),
    [
        ("accuracy", [0.7, 0.8, 0.9, 0.75], 2.0, 0.9),
        ("accuracy", [0.7, 0.79], None, 0.79),
        ("wer", [0.9, 0.81, 0.8, 0.7], 3.0, 0.7),
        ("loss", [0.9, 1.1], None, 0.9),
    ],
)
def test_minutes_to_the_first_validation_that_reaches_the_target(quality, tmp_path, metric, values, minutes, best):
    target = quality.Target("nlp", metric, 0.8, None, evaluate="--average 2")
    leave_run(tmp_path / "run", metric, values, test=0.85)
    found = quality.read(target, tmp_path / "run")
    assert (found.minutes_to(target), found.best(target), found.minutes_in_all) == (minutes, best, len(values))
    assert found.test == 0.85 and found.as_stated
    otherwise = dataclasses.replace(target, evaluate="")
    assert not quality.read(otherwise, tmp_path / "run").as_stated


def test_a_run_without_the_metric_is_named(quality, tmp_path):
    leave_run(tmp_path / "run", "bleu", [30.0])
    with pytest.raises(quality.SystemFailed, match="run: no validation with accuracy in history.jsonl"):
        quality.read(quality.Target("nlp", "accuracy", 0.8, None), tmp_path / "run")


@pytest.mark.slow
def test_a_run_is_trained_and_evaluated(quality, tmp_path):
    target = quality.Target("image", "accuracy", 0.05, None, "--max-steps 4 --validate-every 2", "--top-k 3")
    with Progress(disable=True) as progress:
        quality.train("digits", target, tmp_path / "run", progress, progress.add_task(""))
    found = quality.read(target, tmp_path / "run")
    assert len(found.values) == 2 and 0 < found.minutes[0] < found.minutes[1] <= found.minutes_in_all < 5
    assert 0 <= found.test <= 1 and found.as_stated


def test_a_training_that_fails_is_named(quality, tmp_path):
    target = quality.Target("image", "accuracy", 0.05, None, "--epochs 0")
    message = "^digits: train ended with exit code 2: error: --epochs 0: takes a number from 1 on$"
    with pytest.raises(quality.SystemFailed, match=message), Progress(disable=True) as progress:
        quality.train("digits", target, tmp_path / "run", progress, progress.add_task(""))


def test_targets_are_what_apps_and_readme_know(quality):
    readme = (ROOT / "README.md").read_text()
    for name, target in quality.TARGETS.items():
        app = importlib.import_module(f"apps.{target.app}.__main__").APP
        dataset = parse(app.config(), shlex.split(target.train), name).dataset
        assert dataset in name and (dataset == "sample") == (name in quality.SAMPLES)
        assert parse(app.evaluate(), shlex.split(target.evaluate), name)
        if target.stated is not None:
            value = target.stated
            shown = {f"{value:.2f}", f"{value:.3f}", *(f"{100 * value:.{digits}f} %" for digits in (0, 1, 2))}
            assert any(figure in readme for figure in shown), f"{name}: the README says nothing of {sorted(shown)}"


def test_finished_runs_from_the_command_line(run_benchmark, tmp_path):
    leave_run(tmp_path / "sst2", "accuracy", [0.7, 0.815], test=0.82)
    leave_run(tmp_path / "stsb", "pearson", [0.7, 0.71])

    def run(*names):
        return run_benchmark("time_to_quality", "--runs", tmp_path, "--output", tmp_path / "results", *names)

    both = run("sst2", "stsb")
    assert both.returncode == 1 and "never" in both.stdout, both.stdout + both.stderr
    content = json.loads((tmp_path / "results" / "time_to_quality.json").read_text())
    rows = {(row["work"].split(":")[0], row["unit"]): row for row in content["rows"]}
    assert rows["sst2", "minutes to target"]["value"] == 2.0 and rows["sst2", "minutes to target"]["reached"]
    assert rows["stsb", "minutes to target"]["value"] is None and rows["stsb", "minutes in all"]["value"] == 2.0
    test = rows["sst2", "accuracy on test"]
    assert (test["value"], test["stated"], test["evaluated_as_stated"]) == (0.82, 0.826, False)
    assert content["validations"]["stsb"] == [[1.0, 0.7], [2.0, 0.71]]
    assert Image.open(tmp_path / "results" / "time_to_quality.png").size[0] > 600
    assert run("sst2").returncode == 0
    unknown, missing = run("no_such_set"), run("cifar10")
    assert unknown.returncode == 2 and "no set no_such_set" in unknown.stderr
    assert missing.returncode == 1 and "cifar10: no validation with accuracy" in missing.stderr
