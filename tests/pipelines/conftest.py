"""What tests of processes share."""

import signal

import pytest


@pytest.fixture
def interruptible():
    """A test run in the background of a script, or under nohup, ignores signals, and so would all its children."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
