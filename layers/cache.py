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
        cache: dict of arrays of shape (B, h, slots, dh), such as keys and values.
        steps: dict of the same names, of shape (B, h, K, dh): what goes to the slots `first` to `first + K - 1`.
        first: integer scalar or (B,): a slot for all rows or one for each.
    """
    overwrite = _DONATED.get() and keras.backend.backend() == "tensorflow"
    # Where they go is worked out once for all: in a decoder's small step that takes as long as to write them.
    return (_overwrite if overwrite else _choose)(cache, steps, first)


def _choose(cache, steps, first):
    batch, heads, slots, dim = ops.shape(next(iter(cache.values())))
    count = next(iter(steps.values())).shape[2]
    offset = ops.arange(slots)[None, :] - ops.reshape(ops.cast(first, "int32"), (-1, 1))  # (1 or B, slots)
    here = ops.logical_and(offset >= 0, offset < count)[:, None, :, None]
    if count > 1:
        index = ops.broadcast_to(ops.clip(offset, 0, count - 1)[:, None, :, None], (batch, heads, slots, dim))
        steps = {name: ops.take_along_axis(new, index, axis=2) for name, new in steps.items()}
    # A `where`, since slice_update would become an XLA op that TensorFlow Serving refuses.
    return {name: ops.where(here, steps[name], old) for name, old in cache.items()}


def _overwrite(cache, steps, first):
    import tensorflow as tf

    batch, heads, slots, dim = ops.shape(next(iter(cache.values())))
    count = next(iter(steps.values())).shape[2]
    # The op writes whole rows of a matrix: row (b · h + head) · slots + slot.
    blocks = tf.reshape(tf.range(batch * heads) * slots, (batch, heads, 1))
    rows = blocks + tf.reshape(tf.cast(first, "int32"), (-1, 1, 1)) + tf.range(count)  # (B, h, K)
    rows = tf.reshape(rows, (-1,))

    def written(old, new):
        found = tf.raw_ops.InplaceUpdate(x=tf.reshape(old, (-1, dim)), i=rows, v=tf.reshape(new, (-1, dim)))
        return tf.reshape(found, (batch, heads, slots, dim))

    return {name: written(old, steps[name]) for name, old in cache.items()}
