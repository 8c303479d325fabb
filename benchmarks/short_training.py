"""The real `train` for a few steps, followed from outside, for benchmarks that look at its start and first steps."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from side_by_side import ROOT, SystemFailed

ENDED = (0, 130)  # by itself, or with a checkpoint after SIGTERM
NEVER = "1000000000"


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
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
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
            said = [line.strip() for line in errors if line.strip()]
            code = process.returncode
            raise SystemFailed(f"{app} train: ended with exit code {code}: {said[-1] if said else 'no message'}")
    return {"history": list(_steps(history)), "first": first, "peak": usage.ru_maxrss / 1024}


def versions() -> dict[str, str]:
    """Of the software that trains, known without importing it."""
    return {name: version(name) for name in ("tensorflow", "keras", "tensorflow-text")}


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
