"""Processes of their own, in which benchmarks measure: run to their end, or a training followed from outside."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDED = (0, 130)  # by itself, or with a checkpoint after SIGTERM
NEVER = "1000000000"


class SystemFailed(Exception):
    """A process ended, or answered with something else than a figure. The message is one line that names it."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A process that has ended well.

    Args:
        out: what it printed.
        errors: what it printed to standard error.
        seconds: from its start to its end.
        processor_seconds: in it and those that it waited for.
        megabytes: the most memory that it held; at least what the process holds that starts it, which Linux counts too.
    """

    out: str
    errors: str
    seconds: float
    processor_seconds: float
    megabytes: float

    @property
    def answer(self):
        """The last line printed, which is JSON."""
        return json.loads(self.out.splitlines()[-1])


def last_line(text: str) -> str:
    """The last thing that was said."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1]


def run(
    *arguments: str | Path | float,
    name: str = "",
    python: str | Path = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Runs a Python program in the repository's root to its end.

    Args:
        arguments: of the interpreter.
        name: what errors call it; the first three arguments where it has none.
        python: the interpreter.
        environment: further variables.

    Raises:
        SystemFailed: it ended with an error; the message is the last line that it said.
    """
    name = name or " ".join(map(str, arguments[:3]))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        process = _start([python, *arguments], environment, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), errors.seek(0)
        said = errors.read()
        if status:
            # Of a program under -X importtime, lines of imports say nothing of why it ended.
            words = "\n".join(line for line in said.splitlines() if not line.startswith("import time:"))
            raise SystemFailed(f"{name}: ended with exit code {process.returncode}: {last_line(words)}")
        return Done(out.read(), said, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def train(app: str, flags: Sequence[str], steps: int, folder: Path) -> dict:
    """Trains until so many steps are done, and ends the training as a user would who has seen enough: no validation
    takes place.

    Args:
        app: its name.
        flags: of `train`.
        steps: at least.
        folder: becomes the run directory.

    Returns:
        `history`, an object a step; `first`, seconds from the start of the process until its first step was done;
        `peak`, the most memory that it held, in MB.

    Raises:
        SystemFailed: it ended with an error.
    """
    command = [sys.executable, "-m", f"apps.{app}", "train", "--run-dir", folder, *flags]
    command += ["--validate-every", NEVER, "--checkpoint-every", NEVER]
    history = folder / "history.jsonl"
    first = 0.0
    with tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        process = _start(command, stdout=subprocess.DEVNULL, stderr=errors)
        asked = False
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            done = _lines(history)
            first = first or (done > 0) * (time.perf_counter() - begin)
            if done >= steps and not asked:
                os.kill(process.pid, signal.SIGTERM)  # a second one would end it without a checkpoint
                asked = True
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in ENDED:
            errors.seek(0)
            code = process.returncode
            raise SystemFailed(f"{app} train: ended with exit code {code}: {last_line(errors.read())}")
    return {"history": list(_steps(history)), "first": first, "peak": usage.ru_maxrss / 1024}


def _start(
    command: Sequence[str | Path | float], environment: Mapping[str, str] | None = None, **streams
) -> subprocess.Popen:
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **(environment or {})}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=variables, **streams)


def _lines(history: Path) -> int:
    try:
        return history.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _steps(history: Path) -> Iterator[dict]:
    """The rows of steps; those of validations are left out."""
    for line in history.read_text().splitlines():
        row = json.loads(line)
        if "input_wait" in row:
            yield row
