"""TF_CONFIG in all its wrong forms, and workers that wait for one another on real ports of this machine."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import cluster as module
from pipelines.cluster import Cluster
from pipelines.errors import UserError

ROOT = Path(__file__).parents[2]
WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222"]
TENSORFLOW = b"\0\0\x18\x04\0\0\0\0\0"  # how its server begins: the header of an HTTP/2 settings frame


def read(config) -> Cluster | None:
    return Cluster.from_environment({"TF_CONFIG": config if isinstance(config, str) else json.dumps(config)})


def config(worker=WORKERS, kind="worker", index=0, **jobs):
    return {"cluster": {"worker": worker, **jobs}, "task": {"type": kind, "index": index}}


def local(*ports, index=0) -> Cluster:
    return Cluster(tuple(f"localhost:{port}" for port in ports), index)


@pytest.fixture
def ports():
    """Four free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(4)]
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def listener(port, says=b""):
    """Another program at a port, which says something to everyone who connects; yields an event for the first one."""
    with socket.create_server(("", port), reuse_port=True) as server:
        connections, heard = [], threading.Event()

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].sendall(says)
                    heard.set()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()


def test_no_cluster_without_tf_config():
    assert Cluster.from_environment({}) is None
    assert read(" ") is None


def test_worker_0_is_the_chief():
    first, second = read(config(index=0)), read(config(index=1))
    assert first == Cluster(tuple(WORKERS), 0) and first.count == 2
    assert second.index == 1 and second.address == "10.0.0.2:2222"
    assert first.name(1) == "worker 1 (10.0.0.2:2222)"


def test_the_chief_job_comes_first():
    chief = ["head:2222"]
    assert read(config(kind="chief", chief=chief)) == Cluster(("head:2222", *WORKERS), 0)
    assert read(config(index=1, chief=chief)) == Cluster(("head:2222", *WORKERS), 2)


def test_addresses_may_be_ipv6():
    assert read(config(["[::1]:1", "[fd00::1]:65535"])).addresses == ("[::1]:1", "[fd00::1]:65535")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{'cluster': 1}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([1], "expected a JSON object"),
        ({}, '"cluster" is missing'),
        ({"cluster": []}, '"cluster" is missing'),
        ({"cluster": {}}, 'no "worker" list'),
        (config([]), 'no "worker" list'),
        (config("a:1"), "takes a list such as .* Received: a:1"),
        (config(["a"]), "host and port .* Received: a$"),
        (config([None]), "host and port .* Received: null"),
        (config(["a:0"]), "host and port"),
        (config(["a:65536"]), "host and port"),
        (config(["http://a:1"]), "host and port"),
        (config(["::1:2222"]), "host and port"),
        (config(["a:1", "A:01"]), "A:01 is there twice"),
        (config(["a:1"], chief=["a:1"]), "a:1 is there twice"),
        (config(chief=["a:1", "b:1"]), 'one "chief"'),
        (config(ps=["a:1"]), '"ps" is not supported'),
        ({"cluster": {"worker": WORKERS}}, '"task" is missing'),
        ({"cluster": {"worker": WORKERS}, "task": {"index": 0}}, '"type" .* Received: null'),
        (config(kind="ps"), 'parameter servers, "ps", .* Received: ps'),
        (config(kind="evaluator"), '"evaluator" are not supported'),
        (config(kind="chief"), 'no "chief"'),
        ({"cluster": {"worker": WORKERS}, "task": {"type": "worker"}}, '"index" .* Received: null'),
        (config(index="0"), '"index" .* from 0 to 1 '),
        (config(index=True), '"index" .* Received: true'),
        (config(index=0.0), '"index"'),
        (config(index=-1), '"index"'),
        (config(index=2), '"index"'),
    ],
)
def test_a_wrong_tf_config_gets_one_line(value, message):
    with pytest.raises(UserError, match=message) as raised:
        read(value)
    assert str(raised.value).startswith("TF_CONFIG: ") and "\n" not in str(raised.value)


# Values of any shape, rich in those that almost make a cluster.
NEARLY = st.sampled_from(["a:1", "b:2", "[::1]:3", "a", "worker", "chief", "ps", 0, 1, -1, 1e400, None, True, [], {}])
VALUES = st.recursive(
    NEARLY | st.text() | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({}, optional={key: inner for key in ("cluster", "task", "worker", "chief", "ps")})
        | st.fixed_dictionaries({}, optional={"type": inner, "index": inner})
        | st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=12,
)
ADDRESSES = st.from_regex(r"(n[0-9]{1,3}|10\.0\.0\.[1-9]|\[fd00::[1-9a-f]\]):[1-9][0-9]{0,3}", fullmatch=True)


@settings(deadline=None)
@given(VALUES | st.builds(lambda cluster, task: {"cluster": cluster, "task": task}, VALUES, VALUES))
def test_no_value_raises_anything_but_user_error(value):
    with contextlib.suppress(UserError):
        found = read(json.dumps(value))
        assert 0 <= found.index < found.count


@settings(deadline=None)
@given(st.text())
def test_no_text_raises_anything_but_user_error(text):
    with contextlib.suppress(UserError):
        assert read(text) is None or text.strip()


@settings(deadline=None)
@given(st.lists(ADDRESSES, min_size=1, max_size=6, unique=True), st.booleans(), st.data())
def test_every_valid_value_is_accepted(addresses, with_chief, data):
    index = data.draw(st.integers(0, len(addresses) - 1))
    if with_chief and len(addresses) > 1:
        task = {"type": "worker", "index": index - 1} if index else {"type": "chief", "index": 0}
        jobs = {"chief": addresses[:1], "worker": addresses[1:]}
    else:
        task, jobs = {"type": "worker", "index": index}, {"worker": addresses, "chief": []}
    assert read({"cluster": jobs, "task": task, "rpc_layer": "grpc"}) == Cluster(tuple(addresses), index)


def test_a_port_in_use_is_found_even_if_shared(ports):
    cluster = local(*ports, index=1)
    cluster.check_port()
    with listener(ports[1]):  # with SO_REUSEPORT, as TensorFlow listens
        with pytest.raises(UserError, match=f"port {ports[1]} of worker 1 is in use; stop what listens there"):
            cluster.check_port()


def test_a_port_that_is_not_ours_to_use(ports, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(UserError, match="port 80 of worker 0 needs special permission; choose one from 1024 on"):
        local(80).check_port()


def test_unreachable_names_the_others_on_whose_port_nobody_listens(ports):
    with listener(ports[2]):
        assert local(*ports).unreachable(timeout=0.2) == [1, 3]
    cluster = Cluster((f"localhost:{ports[0]}", "no-such-host.invalid:1", f"{'x' * 70}.y:1"), 0)
    assert cluster.unreachable(timeout=0.2) == [1, 2]


def test_workers_wait_for_the_last_one(ports):
    arrived, left, all_left = {}, {}, threading.Barrier(3, timeout=20)

    def work(index):
        time.sleep(0.3 * index)
        arrived[index] = time.monotonic()
        cluster = local(*ports[:3], index=index)
        with cluster.rendezvous(patience=20):
            left[index] = time.monotonic()
            with listener(ports[index], TENSORFLOW):  # the port is free for it again
                all_left.wait()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(left) == 3 and min(left.values()) >= max(arrived.values())


def test_a_worker_that_does_not_start_is_named(ports, monkeypatch, capsys):
    monkeypatch.setattr(module, "REPORT_EVERY", 0.2)
    monkeypatch.setattr(module, "PROBE_EVERY", 0.05)
    names = f"worker 1 (localhost:{ports[1]}), worker 2 (localhost:{ports[2]})"
    with pytest.raises(UserError) as raised, local(*ports[:3]).rendezvous(patience=0.7):
        pytest.fail("nobody else is there")
    assert str(raised.value) == f"{names} did not start within 0.7 s; start them, or take them out of TF_CONFIG"
    lines = capsys.readouterr().err.splitlines()
    assert set(lines) == {f"waiting for {names}"} and len(lines) <= 3
    local(*ports).check_port()  # given back


def test_a_worker_that_was_there_but_died_is_waited_for(ports, monkeypatch):
    monkeypatch.setattr(module, "PROBE_EVERY", 0.05)
    given_up = threading.Event()

    def others():
        with listener(ports[1], TENSORFLOW) as heard:
            heard.wait(10)
        time.sleep(0.3)  # worker 2 comes when the look that found worker 1 is over
        with listener(ports[2], TENSORFLOW):
            given_up.wait(10)

    thread = threading.Thread(target=others)
    thread.start()
    with pytest.raises(UserError, match=rf"^worker 1 \(localhost:{ports[1]}\) did not start"):
        with local(*ports[:3]).rendezvous(patience=1.5):
            pytest.fail("worker 1 has gone")
    given_up.set()
    thread.join()


def test_another_program_at_the_port_is_no_worker(ports):
    with listener(ports[1], b"SSH-2.0-OpenSSH_9.6\r\n"), pytest.raises(UserError, match="worker 1 .* did not start"):
        with local(*ports[:2]).rendezvous(patience=0.3):
            pytest.fail("that was no worker")


@pytest.mark.parametrize(("used", "index"), [(2, 0), (3, 1)])
def test_a_worker_with_another_tf_config_is_named(ports, used, index):
    other = local(*ports[:used], index=index)
    greeting = other._greeting(index)
    with listener(ports[1], greeting), pytest.raises(UserError) as raised, local(*ports[:2]).rendezvous(patience=5):
        pytest.fail("that was another cluster")
    addresses = ", ".join(other.addresses)
    assert f"worker 1 (localhost:{ports[1]}) says that it is worker {index} of {addresses}, and" in str(raised.value)
    assert "\n" not in str(raised.value)


# A body that keeps the interpreter's lock, as TensorFlow does while it waits: PyDLL calls do.
SCRIPT = """
import ctypes, os, signal, sys
from pipelines import cluster
cluster.CREATION_LIMIT = {limit}
signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
signal.signal(signal.SIGTERM, lambda *_: print("terminated"))
with cluster.Cluster(("localhost:{port}",), 0).rendezvous(0.1):
    print("waiting", flush=True)
    ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(1))  # ignore it, behind Python's back
    ctypes.PyDLL(None).sleep({seconds})
for number in (signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
"""


pytestmark = pytest.mark.usefixtures("interruptible")


def start(port, limit, seconds):
    script = SCRIPT.format(port=port, limit=limit, seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def waiting(port, limit, seconds):
    process = start(port, limit, seconds)
    assert process.stdout.readline() == "waiting\n"
    return process


def test_ctrl_c_ends_a_body_that_keeps_the_interpreter(ports):
    process = waiting(ports[0], limit=60, seconds=30)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


def test_signal_handlers_are_given_back(ports):
    # Read at once: what `readline` has read ahead is lost to `communicate`.
    said = start(ports[0], limit=60, seconds=0).communicate(timeout=10)
    assert said == ("waiting\ninterrupted\nterminated\n", "")


def test_a_body_that_never_returns_is_ended(ports):
    process = waiting(ports[0], limit=0.3, seconds=30)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1 and "in <module>" in said
