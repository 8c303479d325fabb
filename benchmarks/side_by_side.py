"""Compares the speed of several systems in one run, so that a noisy machine treats them all alike.

Each system is a process of its own that stays up and waits while another one is timed
(`benchmarks/peers/worker.py` is their side of the conversation). They take turns, A B C A B C ..., and
are compared within each round: whatever slows a round down hits its ratios little. What was measured
is printed as a table and written as JSON, with what is known of the machine, and as a bar chart.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from processes import ROOT, SystemFailed, last_line
from results_files import RESULTS, save
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def command_line(description: str, a_step: str, steps: int = 5) -> argparse.ArgumentParser:
    """A parser with the flags that all comparisons have.

    Args:
        description: what --help begins with.
        a_step: what a turn is made of, in words and in the plural.
        steps: default number of them.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each system (%(default)s)")
    parser.add_argument("--steps", type=int, default=steps, help=f"{a_step} in a turn (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    return parser


@dataclasses.dataclass(frozen=True)
class System:
    """One of the things compared.

    Args:
        name: what tables call it.
        command: program and arguments; run in the repository's root.
        environment: further variables for it.
    """

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Worker:
    """The process of a system.

    Args:
        system: what to start.

    Raises:
        SystemFailed: its program is not there.
    """

    def __init__(self, system: System):
        self.name = system.name
        self._errors = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                list(map(str, system.command)),
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **system.environment},
            )
        except OSError as error:
            raise SystemFailed(f"{self.name}: cannot start {system.command[0]}: {error.strerror}") from None

    def read(self) -> dict:
        """The next answer. Waits for it.

        Raises:
            SystemFailed: the process ended, or said something that is no JSON object.
        """
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise SystemFailed(f"{self.name}: ended with exit code {code}: {last_line(self._errors.read())}")
        try:
            return json.loads(line)
        except ValueError:
            raise SystemFailed(f"{self.name}: expected a JSON object. Received: {line.strip()[:100]}") from None

    def run(self, steps: int) -> dict:
        """Lets the system take that many steps. Returns its answer: `seconds` for all of them, and what it adds."""
        try:
            self._process.stdin.write(f"run {steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended; reading says why
        return self.read()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()


class Workers:
    """All systems, started together and ended together: `with Workers(systems) as workers`.

    `hellos` are their first answers, by name.
    """

    def __init__(self, systems: Sequence[System]):
        self._systems = systems
        self._workers: list[Worker] = []

    def __enter__(self) -> "Workers":
        try:
            for system in self._systems:
                self._workers.append(Worker(system))
            self.hellos = {worker.name: worker.read() for worker in self._workers}
        except BaseException:
            self.__exit__()
            raise
        return self

    @property
    def versions(self) -> dict[str, str]:
        """Of all software in use, by name."""
        return {name: version for hello in self.hellos.values() for name, version in hello["versions"].items()}

    def common_size(self) -> int:
        """The number of parameters, which all systems must have in common.

        Raises:
            SystemFailed: one has more or fewer than the first.
        """
        (first, size), *others = ((name, hello["parameters"]) for name, hello in self.hellos.items())
        for name, parameters in others:
            if parameters != size:
                raise SystemFailed(f"{name}: has {parameters:,} parameters, {first} has {size:,}")
        return size

    def __exit__(self, *_) -> None:
        for worker in self._workers:
            worker.close()

    def run(self, steps: int) -> dict[str, dict]:
        """One turn for each system, in order. Returns their answers by name."""
        return {worker.name: worker.run(steps) for worker in self._workers}

    def interleave(self, rounds: int, steps: int, warmup: int = 2) -> dict[str, list[dict]]:
        """Times the systems in turns.

        Args:
            rounds: turns of each system that count.
            steps: steps in a turn.
            warmup: turns before them, in which systems compile.

        Returns:
            By system, its answers to the turns that count, `seconds` made those of one step.
        """
        answers = {worker.name: [] for worker in self._workers}
        columns = TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=(warmup + rounds) * len(self._workers))
            for turn in range(-warmup, rounds):
                for worker in self._workers:
                    progress.update(bar, description=f"{'warm-up' if turn < 0 else 'round'}: {worker.name}")
                    answer = worker.run(steps)
                    if turn >= 0:
                        answers[worker.name].append(answer | {"seconds": answer["seconds"] / steps})
                    progress.advance(bar)
        return answers


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What was measured.

    Args:
        work: what one step is, in words.
        answers: of each round, by system: the seconds of a step, and what else is to be shown.
        ours: the system that the others are compared with.
        amount: how much one step works through.
        unit: what `amount` counts: tokens, images ...
        versions: of the software, by name.
        shares: names of further figures in the answers, shares of the time, of which the median is shown.
    """

    work: str
    answers: dict[str, list[dict]]
    ours: str
    amount: float
    unit: str
    versions: dict[str, str]
    shares: tuple[str, ...] = ()

    @property
    def seconds(self) -> dict[str, np.ndarray]:
        """Seconds a step in each round, by system."""
        return {name: np.array([answer["seconds"] for answer in turns]) for name, turns in self.answers.items()}

    def rows(self) -> list[dict]:
        """One row a system.

        `ratio` is its time over ours, taken within each round: the median, the lowest and the highest
        of the rounds. Above 1, ours is the faster. `rounds` are the milliseconds of each.
        """
        rows = []
        for system, seconds in self.seconds.items():
            ratios = seconds / self.seconds[self.ours]
            rows.append(
                {
                    "work": self.work,
                    "system": system,
                    "value": round(1000 * float(np.median(seconds)), 2),
                    "unit": "ms",
                    "ratio": round(float(np.median(ratios)), 3),
                    "ratio_range": [round(float(ratios.min()), 3), round(float(ratios.max()), 3)],
                    f"{self.unit}_per_second": round(self.amount / float(np.median(seconds))),
                    "rounds": [round(1000 * float(each), 3) for each in seconds],
                }
            )
            for name in self.shares:
                rows[-1][name] = round(float(np.median([answer[name] for answer in self.answers[system]])), 3)
        return rows

    def table(self) -> Table:
        """The rows for a terminal."""
        rounds = len(self.seconds[self.ours])
        table = Table(title=f"{self.work}: median of {rounds} rounds", title_justify="left")
        table.add_column("system")
        for column in ("ms", f"time / {self.ours}", "lowest", "highest", f"{self.unit}/s", *self.shares):
            table.add_column(column, justify="right")
        for row in self.rows():
            low, high = row["ratio_range"]
            ratios = [f"{ratio:.2f}" for ratio in (row["ratio"], low, high)]
            shares = [f"{row[name]:.1%}" for name in self.shares]
            table.add_row(row["system"], _digits(row["value"]), *ratios, f"{row[f'{self.unit}_per_second']:,}", *shares)
        return table

    def draw(self, axes: Axes) -> None:
        """The rows as bars."""
        rows = self.rows()
        values = [row["value"] for row in rows]
        # The middle half of the rounds: on a busy machine, one slow round would make the rest unreadable.
        spread = [1000 * np.abs(np.percentile(s, [25, 75]) - np.median(s)) for s in self.seconds.values()]
        colours = ["tab:green" if row["system"] == self.ours else "tab:gray" for row in rows]
        axes.barh(range(len(rows)), values, xerr=np.transpose(spread), color=colours, error_kw={"ecolor": "black"})
        axes.set_yticks(range(len(rows)), [row["system"] for row in rows])
        axes.invert_yaxis()
        for index, (row, (_, above)) in enumerate(zip(rows, spread, strict=True)):
            axes.text(row["value"] + above, index, f"  {_digits(row['value'])} ms, {row['ratio']:.2f} ×", va="center")
        axes.set_xlim(0, 1.3 * max(value + above for value, (_, above) in zip(values, spread, strict=True)))
        axes.set_title(self.work, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)


def _digits(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.1f}"


def report(name: str, comparisons: Sequence[Comparison], directory: Path) -> list[Path]:
    """Prints the tables, writes the rows and draws them, and says where. Returns the two files."""
    console = Console()
    for comparison in comparisons:
        console.print(comparison.table())
    heights = [1.2 + 0.45 * len(each.answers) for each in comparisons]
    figure = Figure(figsize=(9, 0.4 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(comparisons), squeeze=False, height_ratios=heights)[:, 0]
    for comparison, axes in zip(comparisons, panels, strict=True):
        comparison.draw(axes)
    panels[-1].set_xlabel("ms a step: median and middle half of the rounds; × is time over that of the green bar")
    versions = {name: version for each in comparisons for name, version in each.versions.items()}
    return save(name, [row for each in comparisons for row in each.rows()], directory, versions, figure)
