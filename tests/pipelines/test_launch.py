"""The launcher with real processes: what they get, what they print, and how they end, together."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

# Every worker begins with these.
WORKER = """
import json, os, signal, subprocess, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
"""

# In every worker: report each interrupt, write a "checkpoint", end well.
CHECKPOINTING = """
def stop(number, frame):
    print("told to stop by", signal.Signals(number).name)
    stop.asked = True
stop.asked = False
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
print("ready")
while not stop.asked:
    time.sleep(0.01)
time.sleep(0.3)
print("checkpoint written")
"""

STUBBORN = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", os.getpid())
time.sleep(60)
"""


pytestmark = pytest.mark.usefixtures("interruptible")


def start(script, *flags, environment=None, grace=10.0, first="", **options):
    """Starts the launcher with workers that run `script`; the launcher's process runs `first` before."""
    launcher = f"{first}\nfrom pipelines import launch; launch.GRACE = {grace}; launch.main()"
    command = [sys.executable, "-c", launcher, *flags, "--", "-c", WORKER + script]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, cwd=ROOT, env=dict(os.environ, **(environment or {})), **options)


def finish(process, timeout=20):
    """Exit code, lines of standard output, lines of standard error."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out.splitlines(), err.splitlines()


def await_lines(process, count):
    """The first lines of standard output, in the order of workers."""
    return sorted(process.stdout.readline() for _ in range(count))


def gone(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def await_gone(pids, seconds=5):
    end = time.monotonic() + seconds
    while not all(map(gone, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return all(map(gone, pids))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to run; say what after --"),
        (["--workers", "2"], "nothing to run"),
        (["--workers", "2", "--"], "nothing to run"),
        (["--workers", "0", "--", "x.py"], "--workers 0: takes a number from 1 to 64"),
        (["--workers", "65", "--", "x.py"], "--workers 65: takes"),
        (["--workers", "two", "--", "x.py"], "invalid int value: 'two'"),
        (["--threads", "0", "--", "x.py"], "--threads 0: takes a number from 1 on"),
        (["--wokers", "2", "--", "x.py"], "unrecognized arguments: --wokers 2"),
        (["x.py", "--", "y"], "unrecognized arguments: x.py"),
    ],
)
def test_bad_use_gets_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.launch", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_imports_nothing_heavy():
    script = """
import contextlib, sys
import pipelines.cluster, pipelines.launch
with contextlib.suppress(SystemExit):
    pipelines.launch.main(["--help"])
print(sorted({"tensorflow", "keras", "numpy"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "example: python -m pipelines.launch --workers 2 -- -m apps.translate train" in said
    assert said.endswith("[]\n")


def test_every_worker_gets_its_own_tf_config():
    code, out, err = finish(start("print(os.environ['TF_CONFIG'])", "--workers", "3"))
    assert (code, err) == (0, [])
    found = {int(line[1:2]): json.loads(line[4:]) for line in out}
    addresses = found[0]["cluster"]["worker"]
    assert len(set(addresses)) == 3 and all(re.fullmatch(r"localhost:\d+", address) for address in addresses)
    for index in range(3):
        assert found[index] == {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}


@pytest.mark.parametrize(
    ("flags", "environment", "threads"),
    [
        ([], {}, [max(1, len(os.sched_getaffinity(0)) // 2)] * 2),
        ([], {"TF_NUM_INTRAOP_THREADS": "7"}, [7, max(1, len(os.sched_getaffinity(0)) // 2)]),
        (["--threads", "3"], {"TF_NUM_INTRAOP_THREADS": "7"}, [3, 3]),
    ],
)
def test_threads_of_each_worker(monkeypatch, flags, environment, threads):
    names = ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    code, out, _ = finish(start(f"print([int(os.environ[n]) for n in {names}])", *flags, environment=environment))
    assert code == 0 and sorted(out) == [f"[{index}] {threads}".encode() for index in range(2)]


def test_lines_never_mix_and_streams_stay_apart():
    script = """
for number in range(300):
    for stream, name in (sys.stdout, "out"), (sys.stderr, "err"):
        for part in (name, " ", str(index) * 3000, f" {number}\\n"):
            stream.write(part)  # four writes for each line
"""
    code, out, err = finish(start(script, "--workers", "3"))
    assert code == 0
    for name, lines in (b"out", out), (b"err", err):
        for index in range(3):
            mine = [line for line in lines if line.startswith(b"[%d] " % index)]
            assert mine == [b"[%d] %s %s %d" % (index, name, b"%d" % index * 3000, n) for n in range(300)]
        assert len(lines) == 900


def test_a_line_appears_at_once():
    process = start("print('ready'); time.sleep(60)", "--workers", "1")
    assert process.stdout.readline() == b"[0] ready\n"
    assert process.poll() is None
    process.terminate()
    assert finish(process)[0] == 143


def test_partial_lines_and_undecodable_bytes_are_kept():
    script = r"sys.stdout.buffer.write(b'\xff\x00 first\nlast'); sys.stderr.buffer.write(b'\r50% \xfe')"
    code, out, err = finish(start(script, "--workers", "1"))
    assert code == 0
    assert out == [b"[0] \xff\0 first", b"[0] last"]
    assert b"\n".join(err) == b"[0] \n50% \xfe"  # splitlines cuts at the carriage return, too


def test_the_first_failure_stops_the_others_and_names_itself():
    script = """
if index == 1:
    time.sleep(0.3)
    print("my last words", file=sys.stderr)
    sys.exit(7)
if index == 2:
    signal.signal(signal.SIGTERM, lambda *_: (print("terminated"), sys.exit(9)))
time.sleep(60)
"""
    code, out, err = finish(start(script, "--workers", "3", grace=0.5))
    assert code == 7
    assert out == [b"[2] terminated"]
    assert err == [b"[1] my last words", b"error: worker 1 ended with exit code 7; the others are stopped"]


def test_after_a_failure_the_others_may_end_by_themselves():
    script = "sys.exit(4) if index == 0 else (time.sleep(0.5), print('lost worker 0'), sys.exit(5))"
    started = time.monotonic()
    code, out, err = finish(start(script))
    assert (code, out) == (4, [b"[1] lost worker 0"])
    assert err == [b"error: worker 0 ended with exit code 4; the others are stopped"]
    assert time.monotonic() - started < 8  # nobody waited for the grace to end


def test_stubborn_workers_are_killed_after_a_failure():
    script = f"if index == 0: time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)\n{STUBBORN}"
    code, out, err = finish(start(script, grace=0.4))
    assert code == 128 + 9
    assert err == [b"error: worker 0 was killed by SIGKILL; the others are stopped"]
    assert gone(int(out[0].split()[-1]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_passed_on_once_and_waited_for(number, code):
    process = start(CHECKPOINTING, "--workers", "3")
    assert await_lines(process, 3) == [b"[%d] ready\n" % index for index in range(3)]
    process.send_signal(number)
    found, out, err = finish(process)
    assert found == code and err == [b"stopping the workers; Ctrl-C again kills them"]
    received = b"SIGINT" if number == signal.SIGINT else b"SIGTERM"
    for index in range(3):
        mine = [line for line in out if line.startswith(b"[%d]" % index)]
        assert mine == [b"[%d] told to stop by %s" % (index, received), b"[%d] checkpoint written" % index]


def test_a_second_ctrl_c_kills():
    process = start(STUBBORN)
    pids = [int(line.split()[-1]) for line in await_lines(process, 2)]
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # the same key, passed on by a parent process as well
    time.sleep(1.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert all(map(gone, pids))


def test_ctrl_c_on_a_terminal_reaches_each_worker_once():
    mine, theirs = pty.openpty()
    process = start(
        CHECKPOINTING,
        environment={"NO_COLOR": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        first="import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)",
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while more := os.read(mine, 4096):
            said += more
            if said.count(b"ready") == 2 and b"^C" not in said:
                os.write(mine, b"\x03")
    os.close(mine)
    assert process.wait(timeout=10) == 130
    assert said.count(b"told to stop by SIGINT") == 2 and said.count(b"checkpoint written") == 2


def test_prefixes_are_coloured_on_a_terminal_only(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    mine, theirs = pty.openpty()
    process = start("print('out'); print('err', file=sys.stderr)", "--workers", "1", stdout=theirs)
    os.close(theirs)
    assert process.wait(timeout=10) == 0
    assert os.read(mine, 4096) == b"\x1b[36m[0] \x1b[0mout\r\n"
    assert process.stderr.read() == b"[0] err\n"
    os.close(mine)


def test_workers_do_not_outlive_a_killed_launcher():
    process = start("print(os.getpid()); time.sleep(60)")
    pids = [int(line.split()[-1]) for line in await_lines(process, 2)]
    process.kill()
    process.communicate()
    assert await_gone(pids)


def test_nothing_that_a_worker_started_outlives_it():
    script = "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    started = time.monotonic()
    code, out, _ = finish(start(script))
    assert code == 0 and time.monotonic() - started < 10
    assert await_gone([int(line.split()[-1]) for line in out])


def test_the_launcher_ends_when_nobody_reads_its_output():
    process = start("while True: print('on and on')")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=10) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""


def test_two_workers_train_together():
    script = """
from pipelines.cluster import Cluster
cluster = Cluster.from_environment()
cluster.check_port()
import tensorflow as tf
if index == 1:
    time.sleep(1)  # meanwhile worker 0 looks for it
with cluster.rendezvous(60):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
assert cluster.unreachable() == []

@tf.function
def total():
    def add():
        return tf.distribute.get_replica_context().all_reduce("sum", tf.constant(index + 1.0))
    return strategy.run(add)

print("sum", total().numpy())
"""
    code, out, err = finish(start(script, environment={"TF_CPP_MIN_LOG_LEVEL": "3"}), timeout=240)
    assert code == 0, err
    assert sorted(out) == [b"[0] sum 3.0", b"[1] sum 3.0"]
