"""The key/value cache of step-by-step decoding: slots of a fixed number, filled one step at a time."""

import contextlib
import contextvars

import keras
from keras import ops

_DONATED = contextvars.ContextVar("donated", default=False)


@contextlib.contextmanager
def donated_caches():
    """Within this scope a cached step may overwrite the cache it is given, as nobody reads the old one again.

    A decoding loop spends most of its time on copying caches otherwise. Whoever opens the scope sees to it that
    every cache is a buffer of its own (not a constant, not shared). It is for TensorFlow's graphs, not for XLA,
    which finds out by itself what it may overwrite.
    """
    token = _DONATED.set(True)
    try:
        yield
    finally:
        _DONATED.reset(token)


def write_slots(cache, steps, first):
    """Returns the cache with some of its slots replaced. Within `donated_caches` the given one is no more.

    Args:
        cache: shape (B, h, slots, dh).
        steps: shape (B, h, K, dh): what goes to the slots `first` to `first + K - 1`.
        first: integer scalar or (B,): a slot for all rows or one for each.
    """
    if _DONATED.get() and keras.backend.backend() == "tensorflow":
        return _overwrite(cache, steps, first)
    batch, heads, slots, dim = ops.shape(cache)
    count = steps.shape[2]
    offset = ops.arange(slots)[None, :] - ops.reshape(ops.cast(first, "int32"), (-1, 1))  # (1 or B, slots)
    here = ops.logical_and(offset >= 0, offset < count)[:, None, :, None]
    if count > 1:
        index = ops.broadcast_to(ops.clip(offset, 0, count - 1)[:, None, :, None], (batch, heads, slots, dim))
        steps = ops.take_along_axis(steps, index, axis=2)
    # A `where`, since slice_update would become an XLA op that TensorFlow Serving refuses.
    return ops.where(here, steps, cache)


def _overwrite(cache, steps, first):
    import tensorflow as tf

    batch, heads, slots, dim = ops.shape(cache)
    count = steps.shape[2]
    # The op writes whole rows of a matrix: row (b · h + head) · slots + slot.
    blocks = tf.reshape(tf.range(batch * heads) * slots, (batch, heads, 1))
    rows = blocks + tf.reshape(tf.cast(first, "int32"), (-1, 1, 1)) + tf.range(count)  # (B, h, K)
    written = tf.raw_ops.InplaceUpdate(
        x=tf.reshape(cache, (-1, dim)), i=tf.reshape(rows, (-1,)), v=tf.reshape(steps, (-1, dim))
    )
    return tf.reshape(written, (batch, heads, slots, dim))
