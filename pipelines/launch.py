"""Starts the workers of a cluster on this machine: `python -m pipelines.launch --workers 4 -- -m apps.translate train`.

A rehearsal of training on several machines. Every worker is a process of its own with its own
TF_CONFIG, as a cluster manager would start it. Their output appears here line by line, one failure
ends all of them, and Ctrl-C reaches each of them once.
"""

import argparse
import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, NoReturn

from pipelines.errors import UserError

PROGRAM = "python -m pipelines.launch"
MOST_WORKERS = 64
GRACE = 15.0  # seconds for workers to end by themselves after one has failed, then again after SIGTERM
ECHO = 1.0  # seconds within which a second Ctrl-C is the same one, passed on by a parent process as well
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # of the prefixes, as ANSI codes; no red, which means trouble
PR_SET_PDEATHSIG = 1  # prctl: the signal to get when the parent process dies


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the launcher and exits.

    The exit code is 0 when all workers ended well, that of the first worker to fail (128 + N after signal N), 130 after
    Ctrl-C, 143 after SIGTERM, 129 when the terminal was closed, and 2 for a mistake on the command line.
    """
    try:
        workers, threads, command = _parse(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(launch([sys.executable, *command], workers, threads))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; try {PROGRAM} --help")


def _parse(arguments: list[str]) -> tuple[int, int | None, list[str]]:
    """Workers, threads a worker, and the arguments of the interpreter that each worker runs."""
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--workers N] [--threads N] -- ARGUMENTS OF PYTHON",
        description="Start the workers of a cluster on this machine, each with its own TF_CONFIG.",
        epilog=f"example: {PROGRAM} --workers 2 -- -m apps.translate train --max-steps 100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes to start (default: 2)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of TensorFlow in each (default: its share of the cores)"
    )
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:end])
    command = arguments[end + 1 :]
    if not 1 <= options.workers <= MOST_WORKERS:
        raise UserError(f"--workers {options.workers}: takes a number from 1 to {MOST_WORKERS}")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: takes a number from 1 on")
    if not command:
        raise UserError(f"nothing to run; say what after --, such as: {PROGRAM} --workers 2 -- -m apps.translate train")
    return options.workers, options.threads, command


def launch(command: Sequence[str], workers: int, threads: int | None = None) -> int:
    """Runs `workers` processes of one cluster until all have ended; returns the exit code for `main`.

    Args:
        command: Program and arguments of each process.
        workers: Number of processes.
        threads: Threads of TensorFlow in each; default is what the environment says, else an equal share of the cores.
    """
    events = queue.SimpleQueue()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # as under nohup, or in the background of a script
            signal.signal(number, lambda number, frame: events.put(("signal", number)))
    processes = []
    try:
        addresses = free_addresses(workers)
        for index in range(workers):
            processes.append(_start(command, worker_environment(addresses, index, threads)))
        return _Supervisor(processes, events).run()
    finally:
        for process in processes:
            if process.poll() is None:  # only after an error of the launcher itself
                _signal_group(process, signal.SIGKILL)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def free_addresses(count: int) -> list[str]:
    """Addresses `localhost:PORT` on which nobody listens, all different.

    The ports are free again when this returns: whoever is to listen on them should soon do so.
    """
    with contextlib.ExitStack() as stack:  # all are held until all are chosen, so that none is chosen twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [f"localhost:{each.getsockname()[1]}" for each in sockets]


def worker_environment(addresses: Sequence[str], index: int, threads: int | None = None) -> dict[str, str]:
    """The environment of one worker: that of this process, with its place in the cluster and its share of the cores.

    Args:
        addresses: Of all workers, in order.
        index: Which of them this one is, from 0.
        threads: Threads of TensorFlow; default is what the environment says, else an equal share of the cores.
    """
    task = {"type": "worker", "index": index}
    environment = dict(os.environ, TF_CONFIG=json.dumps({"cluster": {"worker": list(addresses)}, "task": task}))
    environment.setdefault("PYTHONUNBUFFERED", "1")  # lines come when they are printed
    share = max(1, len(os.sched_getaffinity(0)) // len(addresses))
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # XLA and tf.data keep within them, too
        if threads is not None:
            environment[name] = str(threads)
        environment.setdefault(name, str(share))
    return environment


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    """Starts a worker in a session of its own: a terminal's Ctrl-C reaches the launcher alone, which passes it on."""
    launcher = os.getpid()
    libc = ctypes.CDLL(None)

    def end_with_launcher():  # even if it is killed by SIGKILL; runs in the new process
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != launcher:  # it was quicker
            os._exit(1)

    # The launcher has no other thread yet: a fork would copy locks that it may hold.
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=end_with_launcher,
    )


def _signal_group(process: subprocess.Popen, number: int) -> None:
    """Signals a worker and the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Supervisor:
    """Passes on the output of workers, and waits for them.

    Args:
        processes: The workers, with pipes at their standard output and error.
        events: Receives ("signal", number) for what the launcher is sent. The supervisor adds ("ended", index).
    """

    def __init__(self, processes: Sequence[subprocess.Popen], events: queue.SimpleQueue):
        self.processes = processes
        self.events = events
        self.running = set(range(len(processes)))
        self.failure = 0  # exit code after the first worker that failed
        self.interrupted = 0  # the signal by which the launcher was told to stop
        self.interrupted_at = 0.0
        self.pending: list[tuple[float, int]] = []  # (time, signal) that those who still run will get
        self.writing = threading.Lock()  # lines of different workers never mix
        self.readers: list[list[threading.Thread]] = []

    def run(self) -> int:
        """Returns the exit code once all workers have ended."""
        for index, process in enumerate(self.processes):
            streams = ((process.stdout, 1), (process.stderr, 2))
            self.readers.append([_thread(self._forward, index, source, target) for source, target in streams])
            _thread(self._wait, index)
        while self.running:
            try:
                due = max(0.0, self.pending[0][0] - time.monotonic()) if self.pending else None
                event, value = self.events.get(timeout=due)
            except queue.Empty:
                self._signal_all(self.pending.pop(0)[1])
                continue
            if event == "ended":
                self._ended(value)
            else:
                self._interrupt(value)
        for index in range(len(self.processes)):
            self._finish_output(index)
        return 128 + self.interrupted if self.interrupted else self.failure

    def _wait(self, index: int) -> None:
        self.processes[index].wait()
        self.events.put(("ended", index))

    def _ended(self, index: int) -> None:
        self.running.discard(index)
        process = self.processes[index]
        _signal_group(process, signal.SIGKILL)  # what it has left behind
        if not process.returncode or self.failure or self.interrupted:
            return
        self._finish_output(index)  # so that the line below comes after the worker's own last words
        killed = process.returncode < 0
        self.failure = 128 - process.returncode if killed else process.returncode
        how = f"was killed by {_signal_name(-process.returncode)}" if killed else f"ended with exit code {self.failure}"
        self._say(f"error: worker {index} {how}" + ("; the others are stopped" if self.running else ""))
        now = time.monotonic()
        self.pending = [(now + GRACE, signal.SIGTERM), (now + 2 * GRACE, signal.SIGKILL)]

    def _interrupt(self, number: int) -> None:
        if not self.interrupted:
            self.interrupted, self.interrupted_at = number, time.monotonic()
            if number != signal.SIGPIPE:
                self._say("stopping the workers; Ctrl-C again kills them")
            self._signal_all(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        elif number != signal.SIGPIPE and time.monotonic() - self.interrupted_at > ECHO:
            self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: int) -> None:
        for index in self.running:
            _signal_group(self.processes[index], number)

    def _forward(self, index: int, source: BinaryIO, target: int) -> None:
        """Copies lines from a worker to a file descriptor of the launcher, as bytes."""
        prefix = _prefix(index, target)
        with source:
            for line in source:
                end = b"" if line.endswith(b"\n") else b"\n"
                try:
                    with self.writing:
                        _write(target, prefix + line + end)
                except OSError:  # nobody reads any more, as in `... | head`; go on reading, so that no worker is stuck
                    self.events.put(("signal", signal.SIGPIPE))

    def _finish_output(self, index: int) -> None:
        """Waits for the last lines of a worker that has ended."""
        for thread in self.readers[index]:
            thread.join(timeout=2.0)  # a process that left the worker's group may keep the pipe open for ever

    def _say(self, message: str) -> None:
        with self.writing, contextlib.suppress(OSError):
            _write(2, message.encode() + b"\n")


def _thread(target: Callable, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _prefix(index: int, target: int) -> bytes:
    prefix = f"[{index}] "
    if os.isatty(target) and "NO_COLOR" not in os.environ:
        prefix = f"\x1b[{COLOURS[index % len(COLOURS)]}m{prefix}\x1b[0m"
    return prefix.encode()


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


if __name__ == "__main__":
    main()
