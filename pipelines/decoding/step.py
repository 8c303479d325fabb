"""What a decoder asks of a model, and what all decoders share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

# Entries of a vocabulary that are looked through together when the likeliest are sought.
GROUP = 64


class Frontier(NamedTuple):
    """The hypotheses that are to be extended by one token: K for each of B rows.

    A model with a key/value cache need not move its entries when hypotheses are dropped and doubled: they share the
    row's cache, in whose slot `position · K + k` the k-th one's step is written, and `visible` says which slots
    are each one's past. A model with a recurrent state gathers that by `parents`.

    Args:
        tokens: (B, K) int32, the last token of each.
        position: scalar int32, where these tokens stand.
        parents: (B, K) int32, which of the hypotheses of the step before each one extends.
        visible: (B or 1, K, L · K) bool.
    """

    tokens: tf.Tensor
    position: tf.Tensor
    parents: tf.Tensor
    visible: tf.Tensor


class Answers(NamedTuple):
    """The answers to each row, the best first.

    Args:
        ids: (B, N, L) int32, with the token that ends them; zeros follow it.
        scores: (B, N) float32; -inf where a row has fewer answers.
    """

    ids: tf.Tensor
    scores: tf.Tensor


# (frontier, state) -> (logits (B, K, V), state). The state's shapes do not change from step to step.
DecodingStep = Callable[[Frontier, Any], tuple[tf.Tensor, Any]]


def longest_limit(limits: tf.Tensor) -> tf.Tensor:
    """L, the room that answers of at most `limits` (B,) tokens need: a scalar, 0 where there are no rows."""
    return tf.reduce_max(tf.concat([limits, [0]], axis=0))


def private(state: Any) -> Any:
    """The state with a buffer of its own for every cache, so that a step may overwrite it (`donated_caches`).

    What makes a state may have given several caches one buffer, or a constant that the next call would find changed.
    Caches hold floats; masks and numbers are never overwritten.
    """
    return tf.nest.map_structure(lambda x: tf.raw_ops.DeepCopy(x=x) if x.dtype.is_floating else x, state)


def likeliest(logits: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest logits of each row, as log-probabilities.

    `tf.math.top_k` takes twice as long as the product that made the logits. But the k largest lie in
    the k groups with the largest maxima, and those are few.

    Args:
        logits: (N, V) float32.
        count: how many, at most V.

    Returns:
        Log-probabilities (N, count), descending, and their ids (N, count) int32.
    """
    rows, size = tf.shape(logits)[0], logits.shape[-1]
    filling = -size % GROUP
    if filling:
        logits = tf.pad(logits, [[0, 0], [0, filling]], constant_values=-float("inf"))
    groups = (size + filling) // GROUP
    grouped = tf.reshape(logits, [rows, groups, GROUP])
    maxima = tf.reduce_max(grouped, axis=-1)  # (N, groups)
    chosen = tf.sort(tf.math.top_k(maxima, min(count, groups), sorted=False).indices, axis=-1)
    values = tf.reshape(tf.gather(grouped, chosen, batch_dims=1), [rows, chosen.shape[-1] * GROUP])
    values, places = tf.math.top_k(values, count)
    ids = tf.gather(chosen, places // GROUP, batch_dims=1) * GROUP + places % GROUP
    # log p_i = x_i - max x + log p_max: a softmax is one pass in TensorFlow, a sum of exponentials is three.
    largest = tf.gather(tf.nn.softmax(logits), ids[:, :1], batch_dims=1)
    return values - values[:, :1] + tf.math.log(largest), ids
