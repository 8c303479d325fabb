"""Whether memory stays flat in a long run of the trainer, or of the server under load.

    python benchmarks/endurance.py train --minutes 30                  # --app image, or speech, nlp
    python benchmarks/endurance.py serve --minutes 30 --export saved_models/translate

`train` trains an app on its sample without end, and stops it by Ctrl-C after the time. `serve` has several clients ask
the embedded server without pause, half of them over gRPC and half over REST: short, long and empty texts, batches, and
requests that are to be refused; without --export it first trains a small translator. Every few seconds the resident and
the private memory of the process and its children are noted, and their open files and threads.

Growth is from the median of what was seen between 20 and 30 % of the time to that of the last 10 %. The slope is of a
line through the second half: through the means of ten equal parts of it, since samples that follow one another are not
independent. Exits with 1 where resident memory grew by more than --limit percent or a request was answered otherwise
than before the load.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure
from processes import ROOT, SystemFailed, last_line
from results_files import RESULTS, refuse_to_lose, save, versions
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from apps.translate import sample
from pipelines.errors import UserError
from pipelines.serving.client.base import Client, Signature, Tensor, connect
from pipelines.serving.client.load import Report, run
from pipelines.serving.process import ServerProcess
from pipelines.serving.status import StatusError

MEASURES = {"resident memory": "MB", "private memory": "MB", "open files": "files", "threads": "threads"}
FEWEST = 20  # samples that say something of a trend
MOST_POINTS = 60  # of each curve that are written
PARTS = 10  # of the second half, through whose means the line goes
ANSWERED = "answered"
BRIEFLY = "--max-steps", "400", "--jit", "off"  # enough to end its sentences
SERVER = "server under load"
SECONDS_TO_START = 600
SECONDS_TO_STOP = 120


def measure(process: psutil.Process) -> dict[str, float]:
    """What a process and its children hold. Pages that they share count once for each as resident, never as private."""
    found = dict.fromkeys(MEASURES, 0.0)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            memory = each.memory_full_info()
            found["resident memory"] += memory.rss / 2**20
            found["private memory"] += memory.uss / 2**20
            found["open files"] += each.num_fds()
            found["threads"] += each.num_threads()
    return found


def watch(process: subprocess.Popen, minutes: float, every: float, why: Callable[[], str]) -> list[dict[str, float]]:
    """Notes what a process holds, for so long and every so many seconds, `minutes` since the beginning with it.

    Args:
        why: gives the last words of a process that has ended.

    Raises:
        SystemFailed: the process ended.
    """
    samples, began = [], time.monotonic()
    about = psutil.Process(process.pid)
    columns = TextColumn("{task.description:40}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=minutes)
        while (passed := (time.monotonic() - began) / 60) < minutes or len(samples) < FEWEST:
            with contextlib.suppress(psutil.NoSuchProcess):
                samples.append({"minutes": passed} | measure(about))
            if process.poll() is not None:
                raise SystemFailed(f"ended with exit code {process.returncode} after {passed:.1f} minutes: {why()}")
            resident = samples[-1]["resident memory"]
            progress.update(bar, completed=passed, description=f"{resident:,.0f} MB after {passed:.1f} minutes")
            time.sleep(every)
    return samples


def trend(minutes: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """How a measure went: `early` and `late`, `growth` between them in percent, `per_hour` and its `standard_error`."""
    minutes, values = np.asarray(minutes), np.asarray(values)
    share = minutes / minutes[-1]
    early = float(np.median(values[(share >= 0.2) & (share <= 0.3)]))
    late = float(np.median(values[share >= 0.9]))
    half = np.flatnonzero(share >= 0.5)
    x, y = (np.array([part.mean() for part in np.array_split(each[half], PARTS)]) for each in (minutes / 60, values))
    x, y = x - x.mean(), y - y.mean()
    slope = x @ y / (x @ x)
    error = math.sqrt(((y - slope * x) ** 2).sum() / (PARTS - 2) / (x @ x))
    return {
        "early": early,
        "late": late,
        "growth": 100 * (late / early - 1) if early else 0.0,
        "per_hour": float(slope),
        "standard_error": error,
    }


def start(app: str, arguments: Sequence[str | Path], log: Path) -> subprocess.Popen:
    line = [sys.executable, "-m", f"apps.{app}", *map(str, arguments)]
    with open(log, "w") as out:
        return subprocess.Popen(line, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)


def command(folder: Path, app: str, *arguments: str | Path) -> None:
    """Runs a command of an app to its end.

    Raises:
        SystemFailed: it failed.
    """
    log = folder / f"{arguments[0]}.log"
    if code := start(app, arguments, log).wait():
        raise SystemFailed(f"{app} {arguments[0]}: ended with exit code {code}: {last_line(log.read_text())}")


def train(options: argparse.Namespace, folder: Path) -> tuple[str, list[dict], dict]:
    """Watches a training, from its first step on. Returns what it was, the samples, and facts.

    Raises:
        SystemFailed: it ended before its time, or did not stop with a checkpoint when it was told to.
    """
    directory, log = folder / "run", folder / "train.log"
    # A cosine to the last step would never fall, and training at the peak might not last.
    arguments = "--epochs=1000000", "--max-steps=0", "--optimizer.schedule=inverse_sqrt", "--run-dir", directory
    process = start(options.app, ("train", *arguments), log)
    try:
        history, due = directory / "history.jsonl", time.monotonic() + SECONDS_TO_START
        while not (history.exists() and history.stat().st_size):
            if process.poll() is not None or time.monotonic() > due:
                raise SystemFailed(f"{options.app} train: never came to a step: {last_line(log.read_text())}")
            time.sleep(0.1)
        samples = watch(process, options.minutes, options.every, lambda: last_line(log.read_text()))
        process.send_signal(signal.SIGINT)
        code = process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        raise SystemFailed(f"{options.app} train: did not stop within {SECONDS_TO_STOP} s of Ctrl-C") from None
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    steps, newest = lines[-1]["step"], max((directory / "checkpoints").glob("[0-9]*"), default=None)
    if code != 130 or newest is None or int(newest.name) != steps:  # 130: the shells' code for Ctrl-C
        raise SystemFailed(f"{options.app} train: ended with exit code {code} on Ctrl-C: {last_line(log.read_text())}")
    validations = sum(any(name.startswith("val_") for name in line) for line in lines)
    return f"{options.app} train", samples, {"steps": steps, "validations": validations}


def texts_to_send(count: int = 40) -> list[list[str]]:
    """What requests that are to be answered ask, the same each time: short, long and empty texts, and batches."""
    sentences = [source for source, _ in sample.generate(8 * count, seed=1)]
    groups = [sentences[start : start + 8] for start in range(0, len(sentences), 8)]
    shapes: list[Callable[[list[str]], list[str]]] = [
        lambda group: group[:1],
        lambda group: [" ".join(group[:4])],
        lambda group: [""],
        lambda group: group,
        lambda group: ["", group[0].upper(), "Ünïcödé ⠿ " + group[1]],
    ]
    return [shape(group) for group in groups for shape in shapes]


class Load:
    """One API's clients, each of whose answers must be as the first was: given, or refused for the same reason.

    Args:
        client: to ask through.
        clients: how many requests are under way at a time.
    """

    def __init__(self, client: Client, clients: int):
        self.client = client
        self.report = Report(clients)
        self.refused = 0
        self.failed: collections.Counter = collections.Counter()  # by what was said
        self._requests: list[bytes] = []
        self._expected: dict[bytes, str] = {}

    async def prepare(self) -> None:
        """Encodes the requests and asks each once.

        Raises:
            SystemFailed: one that is to be answered is refused, or the other way round.
        """
        signature = await self.client.signature()
        if len(signature.inputs) != 1:
            raise SystemFailed(f"serve: takes a model with one input; this one has {', '.join(signature.inputs)}")
        ((name, tensor),) = signature.inputs.items()
        numbers = Signature({name: Tensor("DT_FLOAT", tensor.shape)}, signature.outputs)
        good = [self.client.encode(signature, {name: texts}) for texts in texts_to_send()]
        bad = [self.client.encode(numbers, {name: [float(number)]}) for number in range(len(good) // 20)]
        # Some models refuse so long a text, and others read its beginning.
        either = [self.client.encode(signature, {name: ["dog " * 1000 * n]}) for n in range(1, len(good) // 20)]
        self._requests = [*good, *bad, *either]
        np.random.default_rng(1).shuffle(self._requests)  # mixes the kinds, the same way each time
        self._expected = {request: await self._ask(request) for request in dict.fromkeys(self._requests)}
        wrong = {self._expected[request] for request in good} - {ANSWERED}
        if wrong or any(self._expected[request] == ANSWERED for request in bad):
            raise SystemFailed(f"serve: {wrong.pop() if wrong else 'a number was taken for a text'}")

    async def _ask(self, request: bytes) -> str:
        try:
            await self.client.send(request)
        except StatusError as error:
            return str(error)
        return ANSWERED

    async def _send(self, request: bytes) -> None:
        said, expected = await self._ask(request), self._expected[request]
        self.refused += said != ANSWERED
        if said != expected:
            self.failed[f"{said[:100]}; before the load: {expected[:100]}"] += 1

    async def run(self) -> None:
        """Asks until it is cancelled."""
        await run(self._send, self._requests, sys.maxsize, self.report, show=False)


def serve(options: argparse.Namespace, folder: Path) -> tuple[str, list[dict], dict]:
    """Watches a server under load. Returns what it was, the samples, and facts; `failed` are answers that changed.

    Raises:
        SystemFailed: the server ended, or does not answer as it should.
    """
    base = options.export
    if base is None:
        with Console(stderr=True).status("training and exporting a small translator"):
            command(folder, "translate", "train", "--run-dir", folder / "run", *BRIEFLY)
            command(folder, "translate", "export", "--run-dir", folder / "run", "--output", folder / "export")
        base = folder / "export" / "translate"
    with ServerProcess("--model_name=m", f"--model_base_path={base.absolute()}", seconds=SECONDS_TO_START) as server:
        return asyncio.run(_serve(options, server))


async def _serve(options: argparse.Namespace, server: ServerProcess) -> tuple[str, list[dict], dict]:
    async with contextlib.AsyncExitStack() as stack:
        loads = []
        for api, url in (("grpc", server.grpc), ("rest", f"http://{server.rest}")):
            client = await stack.enter_async_context(connect(api, url, "m", retries=0))
            loads.append(Load(client, max(1, options.clients // 2)))
            await loads[-1].prepare()
        tasks = [asyncio.create_task(load.run()) for load in loads]
        try:
            why = lambda: last_line(server.log)  # noqa: E731
            samples = await asyncio.to_thread(watch, server.process, options.minutes, options.every, why)
        finally:
            for task in tasks:
                if not task.cancel():
                    task.result()  # raises what ended it
            await asyncio.gather(*tasks, return_exceptions=True)
    facts = {
        "clients": sum(load.report.concurrency for load in loads),
        "requests": sum(load.report.done for load in loads),
        "refused_as_expected": sum(load.refused for load in loads),
        "failed": dict(sum((load.failed for load in loads), collections.Counter())),
    }
    return SERVER, samples, facts


def report(
    options: argparse.Namespace, work: str, samples: list[dict], facts: dict, console: Console
) -> dict[str, dict[str, float]]:
    """Prints the table, writes the figures and draws the curves. Returns the trends by measure."""
    minutes = [each["minutes"] for each in samples]
    trends = {name: trend(minutes, [each[name] for each in samples]) for name in MEASURES}
    rows = [
        {"work": work, "system": name, "value": round(found["late"], 1), "unit": unit}
        | {"ratio": round(found["late"] / found["early"], 4) if found["early"] else None}
        | {"early": round(found["early"], 1), "growth_percent": round(found["growth"], 2)}
        | {"per_hour": round(found["per_hour"], 2), "standard_error": round(found["standard_error"], 2)}
        | {"minutes": round(minutes[-1], 1)}
        for (name, unit), found in zip(MEASURES.items(), trends.values(), strict=True)
    ]
    counts = [f"{value:,} {name.replace('_', ' ')}" for name, value in facts.items() if isinstance(value, int)]
    title = f"{work}, {minutes[-1]:.3g} minutes: {', '.join(counts)}"
    table = Table(title=title, title_justify="left")
    for column in ("", "after a fifth", "at the end", "growth", "an hour"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        slope = f"{row['per_hour']:+,.1f} ± {row['standard_error']:,.1f}"
        figures = f"{row['early']:,.1f}", f"{row['value']:,.1f}", f"{row['growth_percent']:+.2f} %", slope
        table.add_row(row["system"] + (", MB" if row["unit"] == "MB" else ""), *figures)
    console.print(table)
    step = math.ceil(len(samples) / MOST_POINTS)
    curves = {
        name: [round(each[name], 2 if name == "minutes" else 1) for each in samples[::step]] for name in samples[0]
    }
    figure = draw(rows, samples, title)
    more = facts | {"limit_percent": options.limit, "curves": curves}
    save(f"endurance_{options.work}", rows, options.output, versions(), figure, **more)
    return trends


def draw(rows: list[dict], samples: list[dict], title: str) -> Figure:
    """Memory against minutes with the line through the second half, and below it open files and threads."""
    minutes = np.array([each["minutes"] for each in samples])
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    for index, row in enumerate(rows):
        values = np.array([each[row["system"]] for each in samples])
        axes, colour = (above, below)[index // 2], ("tab:green", "tab:gray")[index % 2]
        axes.plot(minutes, values, color=colour, linewidth=1, label=row["system"])
        if axes is above:
            half = minutes >= minutes[-1] / 2
            line = values[half].mean() + row["per_hour"] / 60 * (minutes[half] - minutes[half].mean())
            label = f"{row['per_hour']:+.1f} ± {row['standard_error']:.1f} MB an hour"
            axes.plot(minutes[half], line, color="black", linewidth=1.5, linestyle=("-", ":")[index % 2], label=label)
    above.axvspan(0, minutes[-1] / 5, color="0.93", label="not judged")
    for axes, unit in ((above, "MB"), (below, "count")):
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])
        axes.set_ylabel(unit)
        axes.legend(loc="lower right" if axes is above else "upper right", ncols=2, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    below.set_xlabel("minutes")
    above.set_title(f"{title}\n{rows[0]['growth_percent']:+.2f} % resident", loc="left", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("train", "serve"))
    parser.add_argument("--minutes", type=float, default=30, help="how long to watch (%(default)s)")
    parser.add_argument("--every", type=float, default=5, help="seconds between two samples (%(default)s)")
    parser.add_argument("--limit", type=float, default=2, help="allowed growth in percent (%(default)s)")
    parser.add_argument("--app", choices=("translate", "image", "speech", "nlp"), default="translate", help="to train")
    parser.add_argument("--export", type=Path, help="directory of versions of a model that takes texts, to serve")
    parser.add_argument("--clients", type=int, default=8, help="requests under way at a time (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    if 60 * options.minutes < FEWEST * options.every:
        parser.error(f"--minutes {options.minutes:g}: takes {FEWEST} samples at least, one --every {options.every:g} s")
    works = {"train": f"{options.app} train", "serve": SERVER}
    refuse_to_lose(f"endurance_{options.work}", [works[options.work]], options.output)
    with tempfile.TemporaryDirectory() as folder:
        work, samples, facts = {"train": train, "serve": serve}[options.work](options, Path(folder))
    console = Console()
    grown = report(options, work, samples, facts, console)["resident memory"]["growth"]
    console.print(f"resident memory grew by {grown:.2f} %, allowed {options.limit:g} %")
    if failed := facts.get("failed"):
        console.print(f"answered otherwise than before the load: {failed}")
    sys.exit(not grown <= options.limit or bool(failed))  # so that no number is no success


if __name__ == "__main__":
    try:
        main()
    except (SystemFailed, UserError) as error:
        sys.exit(str(error))
