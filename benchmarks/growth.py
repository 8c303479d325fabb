"""How a training step's time and memory grow with batch, length, width and corpus, and where a start's time goes.

    python benchmarks/growth.py
    python benchmarks/growth.py --model translate language --series batch length --jit on
    python benchmarks/growth.py --start-up

Each point is a process of its own that makes an app's task and model as `train` does, trains on one random batch of the
size asked for, and gives its fastest step. Memory is the most that the process held, less what one held that took the
smallest step of all: TensorFlow and the program themselves. A series changes one size and leaves the others as
they are. Its exponent is the slope of a straight line through its logarithms: 1 is growth in proportion.

The corpus is made of sentences of translate's sample with numbers between them, no two alike. Of it, the real `train`
of a small translator takes some steps: time is that until the first one is done (`benchmarks/memory.py` does the
same with a gigabyte). --start-up is told of in start_up.py.
"""

import argparse
import dataclasses
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import start_up
from cases.sizes import MODELS, Model
from matplotlib.figure import Figure
from memory import write_corpus
from processes import SystemFailed, run, train
from results_files import RESULTS, digits, refuse_to_lose, save, versions
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SERIES = ("batch", "length", "width", "corpus")
CORPUS = (1_000, 10_000, 100_000)  # sentence pairs
CORPUS_WORK = "translate: sentence pairs, until the first step is done"
CORPUS_STEPS = 10
LEAST_MEGABYTES = 10
ABOVE = {"textcoords": "offset points", "ha": "center", "fontsize": 8}  # where a point's value is written
BYTES_A_PAIR = 200  # more than the mean, so that there are enough


@dataclasses.dataclass(frozen=True)
class Growth:
    """What was measured of one series.

    Args:
        work: the model and what its size counts.
        sizes: ascending.
        seconds: of a step, or until the first one.
        megabytes: of memory.
        memory: what they are called.
    """

    work: str
    sizes: Sequence[float]
    seconds: Sequence[float]
    megabytes: Sequence[float]
    memory: str = "MB above the smallest"

    def exponent(self, values: Sequence[float]) -> float:
        """The slope of a straight line through the logarithms; not a number where one of them says nothing."""
        if len(values) < 2 or not self._tells(values):
            return math.nan
        return float(np.polyfit(np.log(self.sizes), np.log(values), 1)[0])

    def last_exponent(self, values: Sequence[float]) -> float:
        """The slope between the two largest sizes, where what every step takes anyway weighs least."""
        if len(values) < 2 or not self._tells(values, last=2):
            return math.nan
        return math.log(values[-1] / values[-2]) / math.log(self.sizes[-1] / self.sizes[-2])

    def _tells(self, values: Sequence[float], last: int = 0) -> bool:
        """Whether all figures, or the last ones, have a slope: little memory hides below what preparing data takes."""
        return min(values[-last:]) > 0 and (values is not self.megabytes or min(values[-last:]) >= LEAST_MEGABYTES)

    @property
    def units(self) -> dict[str, tuple[Sequence[float], float]]:
        """The two figures by their units, and what to multiply them by for that."""
        return {"ms": (self.seconds, 1000.0), self.memory: (self.megabytes, 1.0)}

    def rows(self) -> list[dict]:
        """One row a point and figure. `ratio` is that to the smallest size."""
        found = []
        for unit, (values, factor) in self.units.items():
            slopes = {"exponent": self.exponent(values), "exponent_at_the_end": self.last_exponent(values)}
            slopes = {name: None if math.isnan(slope) else round(slope, 2) for name, slope in slopes.items()}
            for size, value in zip(self.sizes, values, strict=True):
                ratio = round(value / values[0], 2) if values[0] > 0 else None
                row = {"work": self.work, "system": f"{size:g}", "size": size, "value": round(factor * value, 1)}
                found.append(row | {"unit": unit, "ratio": ratio} | slopes)
        return found

    def table(self) -> Table:
        """The points for a terminal."""
        made = Table(title=self.work, title_justify="left")
        made.add_column("")
        for size in (*map("{:g}".format, self.sizes), "exponent", "at the end"):
            made.add_column(size, justify="right")
        for unit, (values, factor) in self.units.items():
            slopes = (self.exponent(values), self.last_exponent(values))
            slopes = ("–" if math.isnan(slope) else f"{slope:.2f}" for slope in slopes)
            made.add_row(unit, *(f"{factor * value:,.1f}" for value in values), *slopes)
        return made


def points(model: Model, series: Sequence[str]) -> dict[tuple, dict[str, float]]:
    """All sizes at which a model is trained for some series, each once, and the smallest step of all."""
    wanted = [model.floor, *itertools.chain.from_iterable(map(model.sizes, series))]
    return {_key(sizes): sizes for sizes in wanted}


def _key(sizes: Mapping[str, float]) -> tuple:
    return tuple(sorted(sizes.items()))


def measure(name: str, series: Sequence[str], options: argparse.Namespace, done: Callable[[], None]) -> list[Growth]:
    """Trains a model at all sizes of some series. `done` is called after each of them.

    Raises:
        SystemFailed: a process did.
    """
    model, found = MODELS[name], {}
    for key, sizes in points(model, series).items():
        flags = [f"--batch-size={sizes['batch']}", f"--jit={options.jit}", *model.flags(sizes)]
        asked = {"name": model.app, "flags": flags, "length": sizes["length"], "steps": options.steps}
        done_step = run("-m", "benchmarks.peers.espalier_app", "step", json.dumps(asked))
        found[key] = done_step.answer["seconds"], done_step.megabytes
        done()
    floor = found[_key(model.floor)][1]
    result = []
    for each in series:
        sizes = model.sizes(each)
        seconds, megabytes = zip(*(found[_key(size)] for size in sizes), strict=True)
        above = [memory - floor for memory in megabytes]
        result.append(Growth(_work(name, each), [size[each] for size in sizes], seconds, above))
    return result


def _work(name: str, series: str) -> str:
    counted = {"batch": "rows in a batch", "length": MODELS[name].length, "width": "width"}
    return f"{name}: {counted[series]}"


def measure_corpus(sizes: Sequence[int], steps: int, done: Callable[[], None]) -> Growth:
    """Trains some steps of a small translator on ever more sentence pairs."""
    trained = []
    with tempfile.TemporaryDirectory() as directory:
        whole = Path(directory) / "whole.tsv"
        write_corpus(whole, BYTES_A_PAIR * max(sizes))
        for pairs in sizes:
            part = Path(directory) / f"{pairs}.tsv"
            with open(whole) as lines, open(part, "w") as file:
                file.writelines(itertools.islice(lines, pairs))
            flags = ["--train", part, "--jit=off", "--model.encoder-layers=1", "--model.decoder-layers=1"]
            trained.append(train("translate", flags, steps, Path(directory) / f"run-{pairs}"))
            done()
    first, peaks = ([each[key] for each in trained] for key in ("first", "peak"))
    return Growth(CORPUS_WORK, sizes, first, peaks, "MB peak")


def draw(found: Sequence[Growth]) -> Figure:
    """A panel a figure of every series, logarithmic both ways, with the line through the points."""
    figure = Figure(figsize=(9, 0.6 + 2.4 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 2, squeeze=False)
    for growth, row in zip(found, panels, strict=True):
        for axes, (unit, (values, factor)), colour in zip(
            row, growth.units.items(), ("tab:green", "tab:blue"), strict=True
        ):
            slope = growth.exponent(values)
            if not math.isnan(slope):
                sizes = np.log(growth.sizes)
                line = np.exp(np.mean(np.log(values)) + slope * (sizes - np.mean(sizes)))
                axes.plot(growth.sizes, factor * line, color="lightgray", zorder=0)
                axes.set_yscale("log")
            axes.plot(growth.sizes, [factor * value for value in values], "o-", color=colour, markersize=4)
            axes.set_xscale("log")
            axes.set_xticks(growth.sizes, [f"{size:,g}" for size in growth.sizes])
            axes.minorticks_off()
            shown = "not fitted" if math.isnan(slope) else f"exponent {slope:.2f}"
            axes.set_title(f"{growth.work.split(':')[0]}: {shown}", loc="left", fontsize=10)
            axes.set_xlabel(growth.work.split(": ")[1], fontsize=9)
            axes.set_ylabel(unit, fontsize=9)
            axes.margins(0.08, 0.3)
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_yticks([])  # the points say it themselves
            for size, value in zip(growth.sizes, values, strict=True):
                axes.annotate(digits(factor * value), (size, factor * value), (0, 6), **ABOVE)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(MODELS), default=list(MODELS), help="which (all)")
    parser.add_argument("--series", nargs="+", choices=SERIES, default=list(SERIES), help="what grows (all)")
    parser.add_argument("--steps", type=int, default=3, help="of which the fastest counts (%(default)s)")
    parser.add_argument("--jit", choices=("on", "off"), default="off", help="XLA (%(default)s)")
    parser.add_argument("--corpus", nargs="+", type=int, default=CORPUS, help="sentence pairs (%(default)s)")
    parser.add_argument("--start-up", action="store_true", help="measure what starting takes instead")
    parser.add_argument("--app", nargs="+", choices=start_up.APPS, default=start_up.APPS, help="for --start-up (all)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    console = Console()
    if options.start_up:
        refuse_to_lose(start_up.NAME, start_up.works(options.app), options.output)
        return start_up.report(start_up.measure(options.app), options.output, console)

    series = {name: [each for each in options.series if each in MODELS[name].series] for name in options.model}
    series = {name: chosen for name, chosen in series.items() if chosen}
    corpus = sorted(options.corpus) if "corpus" in options.series and "translate" in options.model else []
    total = sum(len(points(MODELS[name], chosen)) for name, chosen in series.items()) + len(corpus)
    expected = [_work(name, each) for name, chosen in series.items() for each in chosen]
    refuse_to_lose("growth", [*expected, *([CORPUS_WORK] if corpus else [])], options.output)
    found = []
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("training", total=total)
        for name, chosen in series.items():
            progress.update(bar, description=name)
            found += measure(name, chosen, options, lambda: progress.advance(bar))
        if corpus:
            progress.update(bar, description="corpus")
            found.append(measure_corpus(corpus, CORPUS_STEPS, lambda: progress.advance(bar)))
    for growth in found:
        console.print(growth.table())
    rows = [row for growth in found for row in growth.rows()]
    save("growth", rows, options.output, versions(), draw(found), jit=options.jit)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
