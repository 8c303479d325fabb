"""An epoch that was set up beforehand has the batches that it has anyway, and mistakes in it are not lost."""

import threading
import time

import pytest
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.training.epochs import Epochs


class Data:
    """Three batches an epoch, which notes what is asked of it."""

    def __init__(self):
        self.made = []
        self.read = 0

    def __call__(self, epoch):
        if epoch == 9:
            raise UserError("epoch 9: no such file")
        self.made.append((epoch, threading.current_thread() is threading.main_thread()))

        def count(x):
            self.read += 1
            return x

        rows = tf.data.Dataset.range(10 * epoch, 10 * epoch + 3)
        return rows.map(lambda x: tf.py_function(count, [x], tf.int64)).prefetch(3)


@pytest.fixture
def data():
    return Data()


@pytest.fixture
def epochs(data):
    epochs = Epochs(data)
    yield epochs
    epochs.close()


def found(batches):
    return [int(batch) for batch in batches]


def test_an_epoch_set_up_beforehand_is_the_same(epochs, data):
    assert found(epochs.batches(1)) == [10, 11, 12]
    epochs.look_ahead(2)
    epochs.look_ahead(2)
    due = time.monotonic() + 20
    while data.read < 6 and time.monotonic() < due:  # read ahead before a batch is asked for
        time.sleep(0.01)
    assert data.read == 6
    assert found(epochs.batches(2)) == [20, 21, 22] == found(epochs.batches(2))
    assert data.made == [(1, True), (2, False), (2, True)]


def test_what_is_skipped_is_skipped_whatever_was_set_up(epochs):
    epochs.look_ahead(3)
    assert found(epochs.batches(3, skip=2)) == [32]


def test_mistakes_come_out_where_batches_are_asked_for(epochs):
    epochs.look_ahead(9)
    with pytest.raises(UserError, match="no such file"):
        epochs.batches(9)
