"""Rows of token ids as batches of few static lengths."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from pipelines.batching import WHOLE, Shard
from pipelines.bucketing import covering, plan


def lengths_of(rows: Sequence[np.ndarray], *more: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) the longest that each row has in any of the given lists."""
    return np.max([[len(ids) for ids in one] for one in (rows, *more)], axis=0)


def ragged_of(rows: Sequence[np.ndarray]) -> tf.RaggedTensor:
    """Rows of ids as one tensor. (`tf.ragged.constant` looks at every number in Python: minutes for a corpus.)"""
    flat = np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32)
    return tf.RaggedTensor.from_row_lengths(flat, [len(ids) for ids in rows])


def batches(
    tokens: Mapping[str, Sequence[np.ndarray]],
    columns: Mapping[str, np.ndarray],
    boundaries: Sequence[int],
    batch_size: int,
    shard: Shard = WHOLE,
    order: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Rows as a model takes them, those of like length together.

    Args:
        tokens: lists of N rows of ids, by name; rows of a batch are padded to one length in all lists.
        columns: arrays of N rows, by name, that go with them as they are.
        boundaries: ascending lengths.
        batch_size: rows of a whole batch.
        shard: which rows of every batch to give.
        order: (M,) indices of rows; by default all as they come.

    Returns:
        Batches of each list (B, L) int32, zero padded, each column (B, ...), and `weight` (B,) float32, 0 for rows that
        only fill a batch up.
    """
    lengths = lengths_of(*tokens.values())
    boundaries = covering(boundaries, lengths)
    planned = plan(lengths, boundaries, batch_size, order)
    mine = shard.rows(batch_size)
    with tf.device("CPU:0"):
        ragged = {name: ragged_of(rows) for name, rows in tokens.items()}
        columns = {name: tf.constant(values) for name, values in columns.items()}
        widths = tf.constant(boundaries, tf.int32)

    def batch(indices, weights, bucket):
        found = {"weight": weights}
        for name, rows in ragged.items():
            padded = tf.gather(rows, indices).to_tensor(shape=[batch_size // shard.count, None])
            found[name] = tf.pad(padded, [[0, 0], [0, widths[bucket] - tf.shape(padded)[1]]])
        return found | {name: tf.gather(values, indices) for name, values in columns.items()}

    parts = (planned.indices[:, mine], planned.weights[:, mine], planned.buckets)
    return tf.data.Dataset.from_tensor_slices(parts).map(batch, tf.data.AUTOTUNE).prefetch(4)
