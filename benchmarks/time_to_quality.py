"""Minutes to the stated quality, for the apps' samples and for every real data set that the README names.

    python benchmarks/time_to_quality.py                     # the samples, about 20 minutes on two cores
    python benchmarks/time_to_quality.py sst2 stsb           # these; --all takes about four hours
    python benchmarks/time_to_quality.py --runs DIR sst2     # the finished run DIR/sst2, without training

Each set is trained by the command in `TARGETS` and evaluated. The run's own history says how many minutes after the
start of the command, start-up, validations and checkpoints included, a validation first reached the target, and how
many the whole training took, earlier parts of a resumed one included. A target is what the run behind the README's
figure showed on the validation split, rounded to what the next run reaches as well; the README's figure itself, of the
test split, is laid beside the test quality found here. Exits with 1 where a target was never reached.

Real sets are downloaded, or read from the directory that ESPALIER_DATA names. The sample of speech needs espeak-ng.
With --keep DIR the trained runs stay, and the same command goes on where it was stopped. --runs takes it on trust that
runs were trained as `TARGETS` says; a test quality found with other options of `evaluate` is marked.
"""

import argparse
import dataclasses
import importlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from processes import ROOT, SystemFailed, last_line
from results_files import RESULTS, refuse_to_lose, save, versions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.config import parse, to_dict
from pipelines.training import history

NAME = "time_to_quality"
PANELS = 4  # in a row of the chart
OPTIONS = "checkpoint", "average", "quantize", "search"  # of `evaluate`, on which a figure depends


@dataclasses.dataclass(frozen=True)
class Target:
    """A data set, how it is trained and evaluated, and what is expected of it.

    Args:
        app: which app.
        metric: as validation and `evaluate` name it.
        target: what validation must reach.
        stated: the README's figure of the test split; None where there is none.
        train: flags of `train`.
        evaluate: flags of `evaluate`.
        split: which of the splits found by `evaluate` is stated.
    """

    app: str
    metric: str
    target: float
    stated: float | None
    train: str = ""
    evaluate: str = ""
    split: str = "test"

    @property
    def command(self) -> str:
        return f"python -m apps.{self.app} train {self.train}".strip()

    @property
    def falls(self) -> bool:
        """Whether less is better."""
        return self.metric in ("loss", "wer", "cer")

    def reached(self, value: float) -> bool:
        return value <= self.target if self.falls else value >= self.target


MULTI30K = "--dataset multi30k --epochs 100 --optimizer.schedule cosine --validate-every 1000 --checkpoint-every 500"
BFLOAT16 = "--precision mixed_bfloat16 --jit off"

# The README's figures for speech are those without a language model. A new speaker is in the test alone, so that
# validation says less of that than it seems.
TARGETS = {
    "translate_sample": Target("translate", "bleu", 95.0, 95.55),
    "image_sample": Target("image", "accuracy", 0.98, 0.9889),
    "speech_sample": Target("speech", "wer", 0.03, 0.037),
    "classify_sample": Target("nlp", "accuracy", 0.99, 0.995),
    "similarity_sample": Target("nlp", "pearson", 0.82, 0.786, "--task similarity"),
    "generate_sample": Target("nlp", "loss", 0.22, None, "--task generate"),
    "multi30k": Target(
        "translate", "bleu", 40.0, 39.80,
        f"{MULTI30K} --max-steps 11000 --model.dropout 0.25 --keep-checkpoints 10 --jit on",
        "--split all --average 5", "test_2016_flickr",
    ),
    "multi30k_rnn": Target(
        "translate", "bleu", 35.0, 35.47,
        f"{MULTI30K} --model.kind rnn --jit on --max-steps 6500 --model.dropout 0.3 --optimizer.learning-rate 4e-3 "
        "--keep-checkpoints 6",
        "--split all --average 5", "test_2016_flickr",
    ),
    "fashion_mnist": Target("image", "accuracy", 0.93, 0.9373, f"--dataset fashion_mnist {BFLOAT16}"),
    "cifar10": Target("image", "accuracy", 0.85, 0.8635, f"--dataset cifar10 {BFLOAT16}"),
    "fsdd": Target("speech", "wer", 0.01, 0.0054, "--dataset fsdd --jit off", "--split all"),
    "fsdd_new_speaker": Target(
        "speech", "wer", 0.01, 0.129, "--dataset fsdd --jit off --hold-out-speaker theo", "--split all"
    ),
    "ljspeech": Target("speech", "wer", 0.76, 0.757, "--dataset ljspeech --jit off --epochs 50"),
    "sst2": Target("nlp", "accuracy", 0.81, 0.826, "--dataset sst2"),
    "sst2_phrases": Target("nlp", "accuracy", 0.82, 0.823, "--dataset sst2_phrases"),
    "ag_news": Target("nlp", "accuracy", 0.91, 0.884, "--dataset ag_news"),
    "stsb": Target("nlp", "pearson", 0.79, 0.748, "--task similarity --dataset stsb"),
    "tinyshakespeare": Target(
        "nlp", "loss", 1.7, 1.649, "--task generate --dataset tinyshakespeare --validate-every 250",
        "--split validation", "validation",
    ),
}  # fmt: skip
SAMPLES = [name for name in TARGETS if name.endswith("_sample")]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a run showed.

    Args:
        minutes: of each validation, since the start of the command.
        values: what it found.
        minutes_in_all: of the last line of the history.
        test: quality on the test split; None where nobody evaluated the run.
        as_stated: whether it was evaluated by the flags in `TARGETS`, as far as its options were noted.
    """

    minutes: Sequence[float]
    values: Sequence[float]
    minutes_in_all: float
    test: float | None
    as_stated: bool

    def best(self, target: Target) -> float:
        return (min if target.falls else max)(self.values)

    def minutes_to(self, target: Target) -> float | None:
        """Minutes to the first validation that reached the target; None where none did."""
        pairs = zip(self.minutes, self.values, strict=True)
        return next((minutes for minutes, value in pairs if target.reached(value)), None)


def read(target: Target, run: Path) -> Found:
    """What a run has left behind.

    Raises:
        SystemFailed: it holds no validation, or none with this metric.
    """
    file, metrics = run / "history.jsonl", run / "metrics.json"
    lines = history.read(file) if file.is_file() else []
    name = f"val_{target.metric}"
    found = [(line["seconds"] / 60, line[name]) for line in lines if name in line]
    if not found:
        raise SystemFailed(f"{run}: no validation with {target.metric} in history.jsonl; is it a run of {target.app}?")
    splits = json.loads(metrics.read_text())["splits"] if metrics.is_file() else {}
    split = splits.get(target.split, {})
    app = importlib.import_module(f"apps.{target.app}.__main__").APP
    options = to_dict(parse(app.evaluate(), shlex.split(target.evaluate), f"apps.{target.app} evaluate"))
    noted = split.get("options", {})
    as_stated = bool(noted) and all(noted[key] == options[key] for key in OPTIONS if key in noted)
    return Found(*zip(*found, strict=True), lines[-1]["seconds"] / 60, split.get(target.metric), as_stated)


def train(name: str, target: Target, run: Path, progress: Progress, bar) -> None:
    """Trains and evaluates. The bar tells the newest validation meanwhile.

    Raises:
        SystemFailed: a command failed.
    """
    for command, flags in (("train", target.train), ("evaluate", target.evaluate)):
        line = [sys.executable, "-m", f"apps.{target.app}", command, "--run-dir", str(run), *shlex.split(flags)]
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            try:
                while process.poll() is None:
                    time.sleep(0.5)
                    progress.update(bar, description=f"{name}: {command}{newest(log)}")
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                log.seek(0)
                said = last_line(log.read())
                raise SystemFailed(f"{name}: {command} ended with exit code {process.returncode}: {said}")


def newest(log) -> str:
    """What the newest validation in a log says, for the bar."""
    with open(f"/proc/self/fd/{log.fileno()}", errors="replace") as again:  # its own place in the file
        said = [line.split(":", 1)[1].strip() for line in again if line.startswith("validation at step")]
    return f", {said[-1]}" if said else ""


def work_of(name: str, target: Target) -> str:
    return f"{name}: {target.command}"


def rows_of(name: str, target: Target, found: Found) -> list[dict]:
    """Three rows: minutes to the target, minutes in all, and the test quality."""
    to_target = found.minutes_to(target)
    about = {"work": work_of(name, target), "system": "espalier"}
    goal = {"metric": target.metric, "target": target.target, "reached": to_target is not None}
    minutes = None if to_target is None else round(to_target, 2)
    test = None if found.test is None else round(found.test, 4)
    quality = {"stated": target.stated, "evaluated_as_stated": found.as_stated}
    return [
        about
        | {"value": minutes, "unit": "minutes to target", "ratio": None, **goal}
        | {"best": round(found.best(target), 4)},
        about | {"value": round(found.minutes_in_all, 2), "unit": "minutes in all", "ratio": None},
        about | {"value": test, "unit": f"{target.metric} on {target.split}", "ratio": None, **quality},
    ]


def table(found: dict[str, Found]) -> Table:
    """A line a set."""
    otherwise = any(each.test is not None and not each.as_stated for each in found.values())
    note = "* evaluated with other options than the README's figure" if otherwise else None
    made = Table(
        title="minutes from the start of the command", title_justify="left", caption=note, padding=(0, 0, 0, 1)
    )
    for column in ("", "metric"):
        made.add_column(column, no_wrap=True)
    for column in ("target", "best", "min. to it", "in all", "test", "README"):
        made.add_column(column, justify="right")
    for name, each in found.items():
        target = TARGETS[name]
        to_target = each.minutes_to(target)
        minutes = "never" if to_target is None else f"{to_target:.1f}"
        values = target.target, each.best(target), each.test, target.stated
        goal, best, test, stated = ("–" if value is None else f"{value:.{4 if value < 10 else 2}f}" for value in values)
        mark = "" if each.test is None or each.as_stated else " *"
        made.add_row(name, target.metric, goal, best, minutes, f"{each.minutes_in_all:.1f}", test + mark, stated)
    return made


def draw(name: str, found: Found, axes: Axes) -> None:
    """Validation quality against minutes, and the target as a line."""
    target = TARGETS[name]
    to_target = found.minutes_to(target)
    axes.axhline(target.target, color="tab:gray", linestyle="--", linewidth=1)
    axes.plot(found.minutes, found.values, color="tab:green", marker="o", markersize=2.5, linewidth=1.2)
    if to_target is not None:
        axes.axvline(to_target, color="tab:gray", linestyle=":", linewidth=1)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    if target.falls and max(found.values) > 10 * target.target:
        axes.set_yscale("log")
    minutes = "not reached" if to_target is None else f"{to_target:.1f} min"
    axes.set_title(f"{name}\n{target.metric} {target.target:g}: {minutes}", loc="left", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def report(found: dict[str, Found], names: Sequence[str], directory: Path) -> None:
    """Writes the figures and draws the curves. Of the sets named, some may have yet to be trained."""
    columns = min(PANELS, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(max(5, 3.2 * columns), 0.8 + 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for (name, each), axes in zip(found.items(), panels, strict=False):
        draw(name, each, axes)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    figure.supxlabel("minutes from the start of the command", fontsize=9)
    rows = [row for name, each in found.items() for row in rows_of(name, TARGETS[name], each)]
    curves = {
        name: [[round(m, 2), round(v, 4)] for m, v in zip(each.minutes, each.values, strict=True)]
        for name, each in found.items()
    }
    coming = [work_of(name, TARGETS[name]) for name in names]
    save(NAME, rows, directory, versions(), figure, coming=coming, validations=curves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}; default: the samples")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--runs", type=Path, help="folder of finished runs, each under its set's name")
    parser.add_argument("--keep", type=Path, help="folder for the runs; without it they go when they were read")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no set {', '.join(sorted(unknown))}; there is {', '.join(TARGETS)}")
    names = list(TARGETS) if options.all else options.names or SAMPLES
    refuse_to_lose(NAME, [work_of(name, TARGETS[name]) for name in names], options.output)
    console, found = Console(), {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with tempfile.TemporaryDirectory() as temporary, Progress(*columns, console=Console(stderr=True)) as progress:
        folder = options.runs or options.keep or Path(temporary)
        bar = progress.add_task("", total=len(names))
        for name in names:
            run = (folder / name).absolute()
            if not options.runs:
                train(name, TARGETS[name], run, progress, bar)
            found[name] = read(TARGETS[name], run)
            if not options.runs or name == names[-1]:  # after each training, since the whole takes long
                report(found, names, options.output)
            progress.advance(bar)
    console.print(table(found))
    sys.exit(any(each.minutes_to(TARGETS[name]) is None for name, each in found.items()))


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
