"""The batches of one epoch after the other, of which the next ones are set up before the last ones have been used."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import tensorflow as tf

AHEAD = 8  # steps before an epoch ends at which the next one is set up; buffers of both are in memory for that long


class Epochs:
    """Batches of epochs that need no waiting for at their beginning.

    To build the graph of an epoch's input and to read ahead takes some tenths of a second: where an epoch takes
    seconds, that is much of it. So another thread does it while the last steps are trained on.

    Args:
        make: From an epoch's number to its batches, the same ones each time.
    """

    def __init__(self, make: Callable[[int], tf.data.Dataset]):
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-epoch")
        self._coming: dict[int, Future] = {}

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Mapping[str, tf.Tensor]]:
        """The batches of an epoch but for the first `skip`. What setting them up raises is raised here."""
        coming = self._coming.pop(epoch, None)
        if coming is None or skip:
            return iter(self._make(epoch).skip(skip))
        return coming.result()

    def look_ahead(self, epoch: int) -> None:
        """Begins to set up an epoch, unless that has begun."""
        if epoch not in self._coming:
            self._coming[epoch] = self._thread.submit(self._begin, epoch)

    def _begin(self, epoch: int) -> Iterator[Mapping[str, tf.Tensor]]:
        options = tf.data.Options()
        options.experimental_warm_start = True  # reads ahead before the first batch is asked for
        return iter(self._make(epoch).with_options(options))

    def close(self) -> None:
        """Waits for what has begun, and lets it go."""
        self._thread.shutdown()
        self._coming.clear()
