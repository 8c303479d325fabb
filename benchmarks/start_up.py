"""What starting an app takes and where that time goes: `--help`, `train` to its first step, `serve` to AVAILABLE.

Of `python benchmarks/growth.py --start-up`. Each command is timed from outside, as a user waits for it; then a process
of its own does the same things in the same order and says when each was done (`peers/espalier_app.py`); then that
once more under `python -X importtime`, for the packages whose import takes longest. The difference between the
first two is what a command does besides: logs, a checkpoint, sockets.
"""

import dataclasses
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from processes import SystemFailed, run, train
from results_files import save, versions
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipelines.errors import UserError
from pipelines.serving.process import ServerProcess

APPS = ("translate", "image", "speech", "nlp")
NAME = "start_up"
HELP, TRAIN, SERVE = "{} --help", "{} train, first step", "{} serve, available"
REPEATS = 3  # of --help, the fastest of which counts
PACKAGES = 6  # of which imports are named
COLOURS = {  # of the phases that espalier_app.py tells of
    "interpreter": "dimgray",
    "imports": "darkgray",
    "data, vocabulary": "tab:blue",
    "model, optimizer": "tab:cyan",
    "trying XLA": "tab:pink",
    "tracing": "tab:olive",
    "compilation": "tab:orange",
    "first step": "tab:green",
    "loading": "tab:purple",
    "warm-up": "tab:brown",
}


@dataclasses.dataclass(frozen=True)
class Start:
    """What one command took.

    Args:
        work: the command.
        seconds: until it was there, from outside.
        phases: seconds of each, in their order, from inside.
        imports: seconds of the packages whose own modules took longest to import.
    """

    work: str
    seconds: float
    phases: dict[str, float]
    imports: dict[str, float]


def works(apps: Sequence[str]) -> list[str]:
    """What is measured of some apps."""
    return [work.format(app) for app in apps for work in (HELP, TRAIN, SERVE)]


def measure(apps: Sequence[str]) -> list[Start]:
    """Starts all commands of some apps, one after the other.

    Raises:
        SystemFailed: one of them ended with an error.
    """
    found = []
    with Progress(console=Console(stderr=True)) as progress, tempfile.TemporaryDirectory() as directory:
        bar = progress.add_task("", total=4 * len(apps))
        for app in apps:
            folder = Path(directory) / app
            progress.update(bar, description=f"{app}: --help")
            found.append(_help(app))
            progress.advance(bar)
            progress.update(bar, description=f"{app}: train")
            found.append(_train(app, folder / "run"))
            progress.advance(bar)
            progress.update(bar, description=f"{app}: export")
            run("-m", f"apps.{app}", "export", "--run-dir", folder / "run", "--output", folder)
            progress.advance(bar)
            progress.update(bar, description=f"{app}: serve")
            found.append(_serve(app, folder / app))
            progress.advance(bar)
    return found


def _help(app: str) -> Start:
    command = ("-m", f"apps.{app}", "--help")
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run(*command)
        seconds.append(time.perf_counter() - begin)
    times = import_times(*command)
    imports = min(sum(times.values()), min(seconds))
    phases = {"interpreter": min(seconds) - imports, "imports": imports}
    return Start(HELP.format(app), min(seconds), phases, _largest(times))


def _train(app: str, folder: Path) -> Start:
    seconds = train(app, [], 1, folder)["first"]
    return Start(TRAIN.format(app), seconds, *_inside("train", {"name": app, "flags": []}))


def _serve(app: str, base: Path) -> Start:
    begin = time.perf_counter()
    try:
        with ServerProcess(f"--model_name={app}", f"--model_base_path={base}"):
            seconds = time.perf_counter() - begin
    except UserError as error:
        raise SystemFailed(f"{app} serve: {error}") from None
    return Start(SERVE.format(app), seconds, *_inside("serve", {"version": str(base / "1")}))


def _inside(task: str, asked: dict) -> tuple[dict[str, float], dict[str, float]]:
    """The seconds of each phase, and of the imports that take longest."""

    def command() -> tuple[str, ...]:
        return "-m", "benchmarks.peers.espalier_app", task, json.dumps(asked | {"spawned": time.time()})

    return run(*command()).answer["phases"], _largest(import_times(*command()))


def import_times(*arguments: str) -> Counter:
    """Seconds that the imports of a Python program take, by package.

    Raises:
        SystemFailed: it ended with an error.
    """
    return by_package(run("-X", "importtime", *arguments).errors)


def by_package(lines: str) -> Counter:
    """Seconds by package of what `-X importtime` prints: microseconds of a module itself | with what it imports | name.

    The time of a module itself belongs to the package it is in, and so the packages' times add up.
    """
    found = Counter()
    for line in lines.splitlines():
        head, *rest = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and head.strip().isdigit():
            found[rest[-1].strip().split(".")[0]] += int(head) / 1e6
    return found


def _largest(times: Counter) -> dict[str, float]:
    return dict(times.most_common(PACKAGES))


def rows(found: Sequence[Start]) -> list[dict]:
    """One row a command, and one each of its phases, whose `ratio` is its share of all phases."""
    result = []
    for start in found:
        inside = sum(start.phases.values())
        whole = {"value": round(start.seconds, 3), "unit": "s", "ratio": None}
        imports = {name: round(seconds, 3) for name, seconds in start.imports.items()}
        result.append({"work": start.work, "system": "from outside"} | whole | {"imports": imports})
        for name, seconds in start.phases.items():
            row = {"work": start.work, "system": name, "value": round(seconds, 3), "unit": "s"}
            result.append(row | {"ratio": round(seconds / inside, 3)})
    return result


def table(found: Sequence[Start]) -> Table:
    """The commands and their phases for a terminal."""
    made = Table("", title="Seconds to start", title_justify="left", caption_justify="left")
    made.add_column("in all", justify="right")
    made.add_column("phases")
    made.add_column("imports that take longest")
    for start in found:
        phases, imports = (
            ", ".join(f"{name} {seconds:.2f}" for name, seconds in each.items())
            for each in (start.phases, start.imports)
        )
        made.add_row(start.work, f"{start.seconds:.2f}", phases, imports)
    return made


def draw(found: Sequence[Start]) -> Figure:
    """A bar a command, of its phases, and a mark where it was there as seen from outside."""
    figure = Figure(figsize=(9, 1.6 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    for index, start in enumerate(found):
        left = 0.0
        for name, seconds in start.phases.items():
            axes.barh(index, seconds, left=left, color=COLOURS[name], label=name)
            left += seconds
        axes.plot([start.seconds] * 2, [index - 0.4, index + 0.4], color="black", label="from outside")
        axes.text(max(left, start.seconds), index, f"  {start.seconds:.1f} s", va="center", fontsize=9)
    axes.set_yticks(range(len(found)), [start.work for start in found])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(max(sum(s.phases.values()), s.seconds) for s in found))
    axes.set_xlabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    bars, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, bars, strict=True))  # each once
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    axes.set_title("What starting takes, on the sample", loc="left", fontsize=10)
    return figure


def report(found: Sequence[Start], directory: Path, console: Console) -> None:
    """Prints the table, and writes `start_up.json` and `start_up.png`."""
    console.print(table(found))
    save(NAME, rows(found), directory, versions(), draw(found))
