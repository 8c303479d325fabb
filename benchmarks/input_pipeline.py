"""How fast every app's input pipeline is, beside the training step that it feeds: input should never be what is slow.

    python benchmarks/input_pipeline.py                 # every app on its sample
    python benchmarks/input_pipeline.py --real          # on public data sets, downloaded once or from $ESPALIER_DATA
    python benchmarks/input_pipeline.py --app translate speech --steps 300

The data of each app are gone through with nothing behind them, as `train` does it: the first epoch, and later ones,
each with the time until its first batch is there ("an epoch's start"). Then the app's own `train` takes some steps with
the same configuration, and its history says what share of each was spent waiting for its batch; the first batch of a
later epoch is got ready while the last steps of the one before are trained on. `ratio` is examples a second over those
of training; `of the cores` is what share of all cores the input of a training at full speed takes. Exits with 1 where
the median step waits longer than --limit: to fetch a batch that is ready takes some tenths of a millisecond, which is
much of a step that takes few.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml
from matplotlib.figure import Figure
from processes import SystemFailed, run, train
from results_files import RESULTS, refuse_to_lose, save, versions
from rich.console import Console
from rich.progress import track
from rich.table import Table

# Each app, or task of one: its name, its flags, the data set of --real, and what its examples are made of.
APPS = {
    "translate": ("translate", [], "multi30k", "tokens"),
    "image": ("image", [], "fashion_mnist", ""),
    "speech": ("speech", [], "fsdd", "seconds of audio"),
    "nlp classify": ("nlp", [], "sst2", "tokens"),
    "nlp similarity": ("nlp", ["--task", "similarity"], "stsb", "tokens"),
    "nlp generate": ("nlp", ["--task", "generate"], "tinyshakespeare", "tokens"),
}
NOT_COUNTED = 10  # first steps of a training


def measure(name: str, options: argparse.Namespace) -> dict:
    """Goes through one app's data, and trains it. Returns its figures.

    Raises:
        SystemFailed: one of the two processes did.
    """
    app, flags, real, unit = APPS[name]
    flags = [*flags, *(["--dataset", real] if options.real else [])]
    asked = {"name": app, "flags": flags, "epochs": options.epochs, "seconds": options.seconds}
    epochs = run("-m", "benchmarks.peers.espalier_app", "input", json.dumps(asked)).answer
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "run"
        history = train(app, flags, options.steps, folder)["history"]
        batch_size = yaml.safe_load((folder / "config.yaml").read_text())["batch_size"]
    return {
        "work": _work(name, options.real),
        "unit": unit,
        **of_input(epochs["epochs"]),
        **of_training(history, batch_size),
    }


def _work(name: str, real: bool) -> str:
    return f"{name}, {APPS[name][2] if real else 'sample'}"


def of_input(epochs: Sequence[dict]) -> dict:
    """What the epochs gone through say: speeds are of whole epochs, their beginnings included."""
    cold, *warm = epochs

    def median(of) -> float:
        return statistics.median(map(of, warm))

    return {
        "cold": cold["examples"] / cold["seconds"],
        "warm": median(lambda epoch: epoch["examples"] / epoch["seconds"]),
        # Once an epoch has begun: without its first batch, and the time until that was there.
        "begun": median(lambda e: e["examples"] * (1 - 1 / e["batches"]) / (e["seconds"] - e["first"])),
        "cold_start": cold["first"],
        "warm_start": median(lambda epoch: epoch["first"]),
        "amount": median(lambda epoch: epoch["amount"] / epoch["seconds"]),
        "processor": median(lambda epoch: epoch["processor"] / epoch["examples"]),
        "examples": median(lambda epoch: epoch["examples"]),
    }


def of_training(history: Sequence[dict], batch_size: int) -> dict:
    """What the steps of a training say, but for the first ones."""
    steps = history[NOT_COUNTED:]
    times = sorted(after["seconds"] - before["seconds"] for before, after in pairwise(steps))
    # The slowest tenth are those in which XLA compiled, an epoch ended, or something else took the cores.
    kept = times[: -max(1, len(times) // 10)]
    step = sum(kept) / len(kept)
    # Of the first step of an epoch, whose share of waiting is that beside a step's work.
    shares = [after["input_wait"] for before, after in pairwise(steps) if after["epoch"] != before["epoch"]]
    return {
        "training": batch_size / step,
        "waiting": statistics.median(step["input_wait"] for step in steps),
        "waited_at_start": statistics.median(step * share / (1 - share) for share in shares) if shares else None,
    }


def rows(found: Sequence[dict]) -> list[dict]:
    """One row a figure, as all benchmarks write them."""
    result = []
    for each in found:
        training = each["training"]
        amount = {f"{each['unit'].replace(' ', '_')}_per_second": round(each["amount"])} if each["unit"] else {}
        input_of_an_epoch = {
            "once_begun": round(each["begun"], 1),
            "start_seconds": round(each["warm_start"], 3),
            "share_of_the_cores": round(core_share(each), 4),
        }
        waits = {"input_wait": round(each["waiting"], 4), "waited_seconds_at_an_epochs_start": each["waited_at_start"]}
        for system, speed, more in (
            ("input, first epoch", each["cold"], {"start_seconds": round(each["cold_start"], 3)}),
            ("input, later epochs", each["warm"], input_of_an_epoch | amount),
            ("training", training, waits),
        ):
            row = {"work": each["work"], "system": system, "value": round(speed, 1), "unit": "examples/s"}
            result.append(row | {"ratio": round(speed / training, 2)} | more)
    return result


def start(figures: dict) -> str:
    """What setting up an epoch takes by itself, and how much of that a training waits for."""
    waited = figures["waited_at_start"]
    return f"{figures['warm_start']:.2f} s" + ("" if waited is None else f", waits {waited:.3f} s")


def core_share(figures: dict) -> float:
    """Share of all cores that goes into input while a training runs at full speed."""
    return figures["processor"] * figures["training"] / os.cpu_count()


def table(found: Sequence[dict], title: str) -> Table:
    """The figures for a terminal."""
    made = Table(title=title, title_justify="left")
    made.add_column("")
    speeds = "first epoch", "later ones", "once begun", "training"
    for column in (*speeds, "ratio", "waits", "of the cores", "an epoch's start"):
        made.add_column(column, justify="right")
    for each in found:
        made.add_row(
            each["work"],
            *(f"{each[speed]:,.0f}" for speed in ("cold", "warm", "begun", "training")),
            f"{each['warm'] / each['training']:.1f}",
            f"{each['waiting']:.2%}",
            f"{core_share(each):.1%}",
            start(each),
        )
    return made


def draw(found: Sequence[dict], title: str) -> Figure:
    """Examples a second as bars: above, input's; below, training's."""
    figure = Figure(figsize=(9, 1.6 + 0.85 * len(found)), layout="constrained")
    axes = figure.subplots()
    bars = (("warm", "input alone", "tab:green"), ("training", "training", "tab:gray"))
    for index, each in enumerate(found):
        for offset, (key, label, colour) in zip((-0.2, 0.2), bars, strict=True):
            axes.barh(index + offset, each[key], 0.38, color=colour, label="" if index else label)
            axes.text(each[key], index + offset, f"  {each[key]:,.0f}", va="center", fontsize=9)
    names = [f"{e['work']}\n{e['warm'] / e['training']:.1f} ×, waits {e['waiting']:.1%}" for e in found]
    axes.set_yticks(range(len(found)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    speeds = [each[key] for each in found for key, *_ in bars]
    axes.set_xlim(min(speeds) / 3, max(speeds) * 5)
    axes.set_xlabel("examples a second; × is input over training; waits: median share of a training step")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    axes.set_title(title, loc="left", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--app", nargs="+", choices=list(APPS), default=list(APPS), help="which (all)")
    parser.add_argument("--real", action="store_true", help="public data sets, not samples")
    parser.add_argument("--epochs", type=int, default=5, help="without training, after the first (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="after which no other begins (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of training (%(default)s)")
    parser.add_argument("--limit", type=float, default=0.1, help="share of a step that it may wait (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    if options.steps < 2 * NOT_COUNTED or options.epochs < 1:
        parser.error(f"--steps takes {2 * NOT_COUNTED} at least, --epochs 1")
    results = f"input_pipeline{'_real' if options.real else ''}"
    refuse_to_lose(results, [_work(name, options.real) for name in options.app], options.output)
    console = Console(width=120)
    found = [measure(name, options) for name in track(options.app, "input", console=Console(stderr=True))]
    title = "Examples a second of input pipelines, without and with a training step behind them"
    console.print(table(found, title))
    save(results, rows(found), options.output, versions(), draw(found, title))
    slow = [f"{each['work']} ({each['waiting']:.1%})" for each in found if each["waiting"] > options.limit]
    if slow:
        sys.exit(f"input is the bottleneck of {', '.join(slow)}: more than {options.limit:.1%} of a step is waiting")


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
