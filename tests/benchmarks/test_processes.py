"""What a process said, took and held is known when it has ended, and one that fails is named by its last line."""

import resource
import sys

import pytest


@pytest.fixture
def processes(benchmark):
    return benchmark("processes")


def test_a_process_is_told_by_what_it_said_and_held(processes):
    code = "import os, sys; x = b'1' * (256 << 20); print('words'); print('[3, %s]' % os.environ['LEFT'])"
    done = processes.run("-c", code, environment={"LEFT": "4"})
    assert done.out.splitlines()[0] == "words" and done.answer == [3, 4] and done.errors == ""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # a test's process may hold gigabytes
    assert 256 < done.megabytes < max(1000, own + 500) and 0 < done.seconds < 60 and 0 < done.processor_seconds < 60


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; print('first', file=sys.stderr); sys.exit('no room')",
            "^sorter: ended with exit code 1: no room$",
        ),
        ("raise SystemExit(3)", "^sorter: ended with exit code 3: no message$"),
        ("import os; os.kill(os.getpid(), 9)", "^sorter: ended with exit code -9: no message$"),
    ],
)
def test_a_process_that_fails_is_named(processes, code, message):
    with pytest.raises(processes.SystemFailed, match=message):
        processes.run("-c", code, name="sorter")


def test_lines_of_imports_are_no_reason(processes):
    with pytest.raises(processes.SystemFailed, match="^-X importtime -c: ended with exit code 2: no message$"):
        processes.run("-X", "importtime", "-c", "raise SystemExit(2)", python=sys.executable)
