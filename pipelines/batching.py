"""From single examples to batches of few static shapes, in an order fixed by (seed, epoch).

Sequences of like length share a batch, so that little of it is padding (bucketing); every batch of a run has
one of a handful of shapes, so that XLA compiles the training step a handful of times; and the order of an
epoch depends on nothing but the seed and the epoch's number, so that an interrupted run goes on where it was
by skipping the batches that it has seen.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Shard(NamedTuple):
    """Which rows of every batch a process takes: the index-th of count equal parts."""

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        share = batch_size // self.count
        return slice(self.index * share, (self.index + 1) * share)


WHOLE = Shard()
GRANULARITY = 4  # boundaries are multiples of it: finer ones save next to nothing


def bucket_boundaries(lengths: np.ndarray, max_length: int, count: int = 4) -> tuple[int, ...]:
    """Chooses the few lengths to which sequences are padded, so that padding is least.

    Exact, by dynamic programming over the multiples of 4: the best way to cover the lengths up to b with k
    boundaries, the last of them b, extends the best way to cover those up to some a < b with k - 1.

    Args:
        lengths: the lengths of a sample of sequences.
        max_length: the longest that is kept; longer ones are not counted.
        count: boundaries at most.

    Returns:
        Ascending boundaries. The last is the smallest multiple of 4 that covers the longest length kept, or
        max_length where that multiple exceeds it.

    Raises:
        ValueError: no length is between 1 and max_length.
    """
    lengths = np.asarray(lengths)
    kept = lengths[(lengths > 0) & (lengths <= max_length)]
    if not kept.size:
        raise ValueError(f"no length between 1 and max_length={max_length}. Received: lengths={lengths}")
    ends = np.arange(0, kept.max() + GRANULARITY, GRANULARITY)  # 0, 4, 8, ...
    ends[-1] = min(ends[-1], max_length)
    covered = np.searchsorted(np.sort(kept), ends, side="right")  # (C,): how many are no longer than each
    # tokens[a, b]: what it costs to pad all lengths in (ends[a], ends[b]] to ends[b].
    tokens = np.where(ends[:, None] < ends, (covered - covered[:, None]) * ends, np.inf)  # (C, C)

    best = np.where(ends == 0, 0.0, np.inf)  # (C,): least tokens that cover the lengths up to each
    previous = []
    totals = []
    for _ in range(count):
        through = best[:, None] + tokens  # (C, C): from a to b
        previous.append(through.argmin(axis=0))
        best = through.min(axis=0)
        totals.append(best[-1])
    boundaries = []
    end = len(ends) - 1
    for step in range(int(np.argmin(totals)), -1, -1):  # argmin takes the first: no boundary without use
        boundaries.append(int(ends[end]))
        end = previous[step][end]
    return tuple(reversed(boundaries))


def bucketed_batches(
    blocks: tf.data.Dataset, boundaries: Sequence[int], batch_size: int, shard: Shard = WHOLE
) -> tf.data.Dataset:
    """Batches sequences with others of like length.

    An example's length is that of its longest feature. It goes to the smallest boundary that holds it; one
    longer than the last boundary is dropped. The order depends on that of the examples alone.

    Args:
        blocks: the examples, many at once, as dicts of int32 ragged tensors (N, None). How they are cut into blocks
            makes no difference to the batches.
        boundaries: ascending lengths.
        batch_size: rows of every batch; what is missing at the end is filled with rows of zeros.
        shard: which part of every batch to give; all of it by default.

    Returns:
        A dataset of dicts of int32 (batch_size / shard.count, boundary), padded with zeros: len(boundaries) shapes
        in all, and as many batches for every shard.
    """
    limits = tf.constant(boundaries, tf.int64)
    names = list(blocks.element_spec)

    # A function called for each example costs tens of microseconds, so lengths and buckets are computed for
    # a block of them at once, and only the choice of the window is left to do one by one.
    def pad(block):  # {name: ragged (N, None)} -> bucket (N,), {name: (N, last boundary)}
        lengths = tf.reduce_max([block[name].row_lengths() for name in names], axis=0)
        fits = lengths <= limits[-1]
        padded = {name: block[name].to_tensor(shape=[None, boundaries[-1]])[fits] for name in names}
        return tf.searchsorted(limits, lengths[fits], out_type=tf.int64), padded

    def batch(bucket, window):
        return window.batch(batch_size).map(lambda _, rows: fill(limits[bucket], rows))

    def fill(width, rows):
        missing = batch_size - tf.shape(rows[names[0]])[0]
        filled = {name: tf.pad(rows[name][:, :width], [[0, missing], [0, 0]]) for name in names}
        return {name: tf.ensure_shape(ids, [batch_size, None])[shard.rows(batch_size)] for name, ids in filled.items()}

    rows = blocks.map(pad).unbatch()
    return rows.group_by_window(lambda bucket, _: bucket, batch, window_size=batch_size)


def shuffled(dataset: tf.data.Dataset, buffer_size: int, seed: int, epoch: int) -> tf.data.Dataset:
    """Shuffles in an order that depends on (seed, epoch) alone, not on TensorFlow's global seed.

    Args:
        dataset: the elements, in an order that repeats.
        buffer_size: how many are held in memory to draw from.
        seed: of the run.
        epoch: its number; another gives another order.
    """
    mixed = epoch_seed(seed, epoch)

    def shuffle(_):
        # Dataset.shuffle mixes in the seed of the graph where it is built. Here that is this function's own.
        tf.random.set_seed(mixed)
        return dataset.shuffle(buffer_size, seed=mixed, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(0).flat_map(shuffle)


def epoch_seed(seed: int, epoch: int) -> int:
    """Mixes both numbers, so that (seed 1, epoch 0) and (seed 0, epoch 1) have nothing in common."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:4]) % (2**31 - 1)
