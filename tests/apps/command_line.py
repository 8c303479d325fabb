"""Runs an app's commands as a user does: in a process of their own.

A process takes seconds to import TensorFlow. `run` forks one that has imported it and done nothing else, which is
all that `python -m apps.<app>` does before it reads its arguments; `start` begins from nothing.
"""

import importlib
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
READY = multiprocessing.get_context("forkserver")


def start(app: str, *arguments, stdin=subprocess.DEVNULL) -> subprocess.Popen:
    """Starts `python -m apps.<app> ...`."""
    return subprocess.Popen(
        [sys.executable, "-m", f"apps.{app}", *(a if isinstance(a, bytes) else str(a) for a in arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=_environment(),
    )


def run(app: str, *arguments, stdin="") -> tuple[int, str, str]:
    """Runs a command to its end. Returns the exit code, standard output and standard error."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(stdin if isinstance(stdin, bytes) else stdin.encode())
        READY.set_forkserver_preload(["tests.apps.ready"])
        process = READY.Process(
            target=_command,
            args=(
                app,
                [os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments],
                list(map(str, streams)),
                _environment(),
            ),
        )
        process.start()
        process.join()
        return process.exitcode, streams[1].read_text(), streams[2].read_text()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != LOG_LEVEL}


def _command(app, arguments, streams, environment):
    """In the new process: what the interpreter does with a program of its own."""
    os.environ.clear()
    os.environ.update(environment, TF_CPP_MIN_LOG_LEVEL="2")
    os.chdir(ROOT)
    for number, (file, flags) in enumerate(zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        os.dup2(os.open(file, flags), number)
    sys.stdin = open(0, closefd=False)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w"), line_buffering=True) for n in (1, 2))
    sys.argv = [f"apps.{app}", *arguments]
    module = importlib.import_module(f"apps.{app}.__main__")
    from pipelines.cli import main

    main(module.APP)


def refused(result: tuple[int, str, str], *parts: str) -> None:
    """Checks that a command ended with one clear line that has these parts, and with code 2."""
    code, out, err = result
    lines = err.strip().splitlines()
    assert code == 2, (out, err)
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in parts:
        assert part in lines[0]
