"""Who takes part in training on several machines, as TF_CONFIG says, and how they find one another.

Everything here happens before TensorFlow's own server is up, in plain Python: a mistake in
TF_CONFIG, a port in use or a worker that never starts gets one clear line, where TensorFlow would
wait an hour without a word and hold the interpreter while it does.
"""

import contextlib
import dataclasses
import errno
import faulthandler
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.errors import UserError

EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
ADDRESS = re.compile(r"(?P<host>\[[0-9A-Za-z:.%_-]+\]|[0-9A-Za-z._-]+):(?P<port>[0-9]{1,5})")
PROBE_EVERY = 0.5  # seconds between two looks for missing workers
REPORT_EVERY = 10.0  # seconds between two lines about them
CREATION_LIMIT = 60.0  # seconds that TensorFlow gets at least, once all workers are there
GREETING = b"espalier: "  # how a waiting worker begins to speak to whoever connects to its port
HTTP2_SETTINGS = b"\x04"  # type of the frame, fourth byte, with which a gRPC server such as TensorFlow's greets


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one training run, and which of them this process is.

    Workers are counted as TensorFlow counts them: the task of the `chief` job first, where there is
    one, then those of the `worker` job; without a `chief` job, worker 0 is the chief.

    Args:
        addresses: "host:port" of every worker, the chief first.
        index: Index of this process in `addresses`.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def count(self) -> int:
        return len(self.addresses)

    @property
    def address(self) -> str:
        """This process's own address."""
        return self.addresses[self.index]

    def name(self, index: int) -> str:
        """A worker as messages call it: `worker 1 (10.0.0.2:2222)`."""
        return f"worker {index} ({self.addresses[index]})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Cluster | None":
        """Reads TF_CONFIG; returns None where it is unset or empty.

        Raises:
            UserError: TF_CONFIG is not the JSON object that TensorFlow documents, or asks for jobs other than
                `chief` and `worker`.
        """
        text = environment.get("TF_CONFIG", "")
        if not text.strip():
            return None
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"TF_CONFIG: not JSON ({error}); expected such as {EXAMPLE}. {_received(text)}") from None
        if not isinstance(config, dict):
            raise UserError(f"TF_CONFIG: expected a JSON object such as {EXAMPLE}. {_received(config)}")
        jobs = _jobs(config.get("cluster"))
        return cls(jobs["chief"] + jobs["worker"], _index(config.get("task"), jobs))

    def check_port(self) -> None:
        """Raises UserError where this worker's port is in use, or not ours to use.

        TensorFlow listens on all interfaces and shares its port (SO_REUSEPORT) with whoever does so too. A worker that
        was started twice by mistake would then receive the other's messages; an exclusive bind finds it.
        """
        self._listen().close()

    def unreachable(self, timeout: float = 1.0) -> list[int]:
        """Indices of the other workers on whose address nobody listens within `timeout` seconds."""
        replies = self._call(self._others, timeout)
        return [index for index in self._others if replies.get(index) is None]

    @contextlib.contextmanager
    def rendezvous(self, patience: float) -> Iterator[None]:
        """Waits until every worker is there; the body then creates tf.distribute.MultiWorkerMirroredStrategy.

        TensorFlow itself waits inside one C++ call that keeps the interpreter's lock: no thread runs, no Python
        signal handler is called, and no line is printed. So the waiting is done here, on the port that TensorFlow
        will use: each worker listens and greets whoever connects until it has seen all others, and only then lets
        TensorFlow have the port. Those still looking find TensorFlow's server there instead.

        While the body runs, Ctrl-C ends the process at once. Should another worker die at this very moment, the body
        would wait for it all the same; after `patience` seconds (and a minute at least) the process then ends with
        exit code 1 and a traceback of where it was waiting. On leaving, the handlers of SIGINT and SIGTERM are what
        they were: TensorFlow takes SIGTERM for itself.

        Args:
            patience: Seconds to wait for the others.

        Raises:
            UserError: A worker did not start in time or was started with another TF_CONFIG, or the port is in use.
        """
        with self._greeting_callers():
            self._wait_for_others(patience)
        # Its thread is one that needs no interpreter lock.
        faulthandler.dump_traceback_later(max(patience, CREATION_LIMIT), exit=True, file=2)
        try:
            with _interruptible():
                yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    @property
    def _others(self) -> list[int]:
        return [index for index in range(self.count) if index != self.index]

    def _listen(self) -> socket.socket:
        port = _host_and_port(self.address)[1]
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            return socket.create_server(("", port), family=family, backlog=128, dualstack_ipv6=dual)
        except OSError as error:
            whose = f"TF_CONFIG: port {port} of worker {self.index}"
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"{whose} is in use; stop what listens there or choose another port") from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise UserError(f"{whose} needs special permission; choose one from 1024 on") from None
            raise

    @contextlib.contextmanager
    def _greeting_callers(self) -> Iterator[None]:
        """Tells everyone who connects to this worker's port which worker of which cluster listens here."""
        server = self._listen()

        def greet():
            with contextlib.suppress(OSError):  # raised by accept once the server is shut down
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):  # a caller may have gone already
                        connection.sendall(self._greeting(self.index))

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes accept, which would otherwise keep the port
            thread.join()
            server.close()

    def _greeting(self, index: int) -> bytes:
        return GREETING + f"worker {index} of {', '.join(self.addresses)}\n".encode()

    def _wait_for_others(self, patience: float) -> None:
        start = time.monotonic()
        reports = 0
        missing = self._missing(self._others)
        while missing:
            waited = time.monotonic() - start
            names = ", ".join(self.name(index) for index in missing)
            if waited >= patience:
                it = "it" if len(missing) == 1 else "them"
                raise UserError(
                    f"{names} did not start within {patience:g} s; start {it}, or take {it} out of TF_CONFIG"
                )
            if waited >= REPORT_EVERY * (reports + 1):
                print(f"waiting for {names}", file=sys.stderr, flush=True)
                reports += 1
            time.sleep(min(PROBE_EVERY, patience - waited))
            # One that was there earlier may have died since, so the last look takes in everyone.
            missing = self._missing(missing) or self._missing(self._others)
        if reports:
            print("all workers have started", file=sys.stderr, flush=True)

    def _missing(self, indices: Sequence[int]) -> list[int]:
        """Those of the workers `indices` that neither greet nor have TensorFlow's server up.

        Raises:
            UserError: One is there, but as a member of another cluster or with another index.
        """
        replies = self._call(indices, timeout=1.0)
        missing = []
        for index in indices:
            reply = replies.get(index) or b""
            if reply == self._greeting(index) or reply[3:4] == HTTP2_SETTINGS:
                continue
            if reply.startswith(GREETING):
                claim = reply[len(GREETING) :].decode(errors="backslashreplace").strip()
                raise UserError(
                    f"TF_CONFIG: {self.name(index)} says that it is {claim}, and this is worker {self.index} of "
                    f"{', '.join(self.addresses)}; give every worker the same cluster, and each its own index"
                )
            missing.append(index)
        return missing

    def _call(self, indices: Sequence[int], timeout: float) -> dict[int, bytes | None]:
        """What `_reply` hears from the address of each worker; all are asked at once, and slow ones left out."""
        replies = {}

        def call(index):
            replies[index] = _reply(self.addresses[index], timeout)

        # Daemon threads, joined with a limit: looking up a host name may take far longer than any timeout.
        threads = [threading.Thread(target=call, args=(index,), daemon=True) for index in indices]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 2 * timeout  # one to connect, one to hear something
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return dict(replies)


def _reply(address: str, timeout: float) -> bytes | None:
    """The first bytes that come from an address: empty where a listener says nothing, None where nobody listens."""
    try:
        connection = socket.create_connection(_host_and_port(address), timeout)
    except (OSError, UnicodeError):  # the latter from a host name that cannot be one
        return None
    with connection:
        # Where nobody listens, the system may by chance give our own end the wanted port, and connect us to ourselves.
        if connection.getsockname() == connection.getpeername():
            return None
        said = b""
        with contextlib.suppress(OSError):
            said = more = connection.recv(4096)
            while more and said.startswith(GREETING) and not said.endswith(b"\n"):
                more = connection.recv(4096)
                said += more
        return said


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C end a process that is deep in C++, and afterwards gives SIGINT and SIGTERM their handlers back."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if handlers[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # None: set by C code, and not ours to set again
                signal.signal(number, handler)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _received(value: Any) -> str:
    try:
        shown = value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        shown = "something deeply nested"
    shown = " ".join(shown.split())
    return f"Received: {shown if len(shown) <= 120 else shown[:120] + ' ...'}"


def _jobs(cluster: Any) -> dict[str, tuple[str, ...]]:
    """The addresses of the two jobs that there may be, checked."""
    if not isinstance(cluster, dict):
        raise UserError(
            f'TF_CONFIG: "cluster" is missing or no object; expected such as {EXAMPLE}. {_received(cluster)}'
        )
    for job, addresses in cluster.items():
        if job not in ("chief", "worker") and addresses:
            raise UserError(
                f'TF_CONFIG: the job {json.dumps(job)} is not supported (nor are parameter servers, "ps", and a '
                'separate "evaluator"); list every machine under "worker"'
            )
    jobs = {job: _addresses(job, cluster.get(job)) for job in ("chief", "worker")}
    if not jobs["worker"]:
        raise UserError(
            'TF_CONFIG: "cluster" has no "worker" list; give one such as ["10.0.0.1:2222", "10.0.0.2:2222"]. '
            + _received(cluster)
        )
    if len(jobs["chief"]) > 1:
        raise UserError(f'TF_CONFIG: a cluster has one "chief"; list the others under "worker". {_received(cluster)}')
    seen = set()
    for address in jobs["chief"] + jobs["worker"]:
        host, port = _host_and_port(address)
        if (host.lower(), port) in seen:
            raise UserError(f"TF_CONFIG: the address {address} is there twice; give every worker its own")
        seen.add((host.lower(), port))
    return jobs


def _addresses(job: str, addresses: Any) -> tuple[str, ...]:
    if addresses is None:
        return ()
    if not isinstance(addresses, list):
        raise UserError(f'TF_CONFIG: "{job}" takes a list such as ["10.0.0.1:2222"]. {_received(addresses)}')
    for address in addresses:
        match = ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if not match or not 1 <= int(match["port"]) <= 65535:
            raise UserError(
                f'TF_CONFIG: "{job}" takes addresses of host and port (1 to 65535) such as "10.0.0.1:2222", '
                f'"worker-0.example.org:2222" or "[fd00::1]:2222". {_received(address)}'
            )
    return tuple(addresses)


def _index(task: Any, jobs: Mapping[str, Sequence[str]]) -> int:
    """The index of this process, the chief counted first."""
    if not isinstance(task, dict):
        raise UserError(
            'TF_CONFIG: "task" is missing or no object; give one such as {"type": "worker", "index": 0}. '
            + _received(task)
        )
    job, index = task.get("type"), task.get("index")
    if job not in ("chief", "worker"):
        raise UserError(
            'TF_CONFIG: the "type" of "task" is "worker" or "chief" (parameter servers, "ps", and a separate '
            f'"evaluator" are not supported). {_received(job)}'
        )
    if not jobs[job]:
        raise UserError(
            'TF_CONFIG: this task is the "chief", but "cluster" has no "chief"; list one, or make it a "worker"'
        )
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[job]):
        last = len(jobs[job]) - 1
        raise UserError(
            f'TF_CONFIG: the "index" of "task" is a whole number, here from 0 to {last} as "{job}" lists {last + 1}. '
            + _received(index)
        )
    return index + len(jobs["chief"]) * (job == "worker")
