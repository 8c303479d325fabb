"""Decoding that follows one hypothesis a row: the likeliest token each time, or one drawn at random."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from layers import donated_caches
from pipelines.decoding.step import Answers, DecodingStep, Frontier, likeliest, longest_limit, private


def greedy(step: DecodingStep, state: Any, limits: tf.Tensor, start_id: int, end_id: int) -> Answers:
    """Takes the likeliest token at every position, until all rows have ended.

    Args:
        step: predicts the next token.
        state: what the step keeps between calls, with room for the longest answer, L = max(limits).
        limits: (B,) int32, how many tokens each row's answer may have; 0 for a row that needs none.
        start_id: token before the first one.
        end_id: token that ends an answer.

    Returns:
        One answer a row, scored by the sum of its log-probabilities.
    """

    def choose(logits, _position):
        scores, ids = likeliest(logits, 1)
        return ids[:, 0], scores[:, 0]

    return _extend(step, state, limits, start_id, end_id, choose)


def sample(
    step: DecodingStep,
    state: Any,
    limits: tf.Tensor,
    start_id: int,
    end_id: int,
    seeds: tf.Tensor,
    temperature: float | tf.Tensor = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Answers:
    """Draws every token from the model's distribution, sharpened and cut as asked for.

    A row's answer depends on its own seed alone: the same row and seed give the same answer in any batch.

    Args:
        step, state, limits, start_id, end_id: as in `greedy`.
        seeds: (B,) integers.
        temperature: scalar or (B,), what logits are divided by; 0 takes the likeliest token.
        top_k: draw from the k likeliest tokens only; 0 for all.
        top_p: draw from the fewest tokens that together have this probability (nucleus sampling), in (0, 1].

    Returns:
        One answer a row, scored by the sum of its log-probabilities under the model itself: at temperature 1, uncut.

    Raises:
        ValueError: top_k is negative, or top_p outside (0, 1].

    References:
        Fan et al. 2018, Hierarchical Neural Story Generation (top-k). https://arxiv.org/abs/1805.04833
        Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (top-p). https://arxiv.org/abs/1904.09751
    """
    choose = _drawing(longest_limit(limits), seeds, temperature, top_k, top_p)
    return _extend(step, state, limits, start_id, end_id, choose)


def sample_one_by_one(
    step: DecodingStep,
    state: Any,
    limit: int,
    start_id: int,
    end_id: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Iterator[int]:
    """The tokens that `sample` draws for a single row, each as soon as it is known, the end token too.

    Args:
        step, state, start_id, end_id, temperature, top_k, top_p: as in `sample`, of one row.
        limit: how many tokens the answer may have.
        seed: of the row.
    """
    choose = _drawing(limit, tf.constant([seed], tf.int64), temperature, top_k, top_p)
    positions = tf.range(limit)

    @tf.function
    def advance(position, token, state):
        visible = (positions <= position)[None, None]
        logits, state = step(Frontier(token[:, None], position, tf.zeros([1, 1], tf.int32), visible), state)
        return choose(tf.cast(logits[:, 0], tf.float32), position)[0], state

    token = tf.constant([start_id])
    for position in range(limit):
        token, state = advance(tf.constant(position), token, state)
        yield int(token[0])
        if int(token[0]) == end_id:
            return


def _drawing(longest, seeds, temperature, top_k, top_p) -> Callable:
    """What `sample` does at each step: (logits (B, V), position) -> (tokens (B,), their log-probabilities (B,))."""
    if top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"top_k must not be negative, and top_p in (0, 1]. Received: top_k={top_k}, top_p={top_p}")
    temperature = tf.reshape(tf.cast(temperature, tf.float32), [-1])

    def draw(seed):
        return tf.random.stateless_uniform([longest], tf.stack([seed, 0]))

    # With a seed too many, since of no rows TensorFlow would not know the shape.
    seeds = tf.concat([tf.cast(seeds, tf.int64), [0]], axis=0)
    draws = tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec([None], tf.float32))[:-1]  # (B, L)

    def choose(logits, position):
        certain = tf.argmax(logits, axis=-1, output_type=tf.int32)
        # Below zero, so that division by a small temperature ends in -inf at worst, and never in NaN.
        scaled = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
        scaled /= tf.where(temperature > 0, temperature, 1.0)[:, None]
        cumulative = tf.cumsum(tf.nn.softmax(_cut(scaled, top_k, top_p)), axis=-1)
        # The share of the last entry is the whole, but for rounding; and u < 1 stays below it.
        target = tf.gather(draws, position, axis=1)[:, None] * cumulative[:, -1:]
        drawn = tf.reduce_sum(tf.cast(cumulative <= target, tf.int32), axis=-1)
        ids = tf.where(temperature > 0, drawn, certain)
        return ids, tf.gather(tf.nn.log_softmax(logits), ids, batch_dims=1)

    return choose


def _cut(logits: tf.Tensor, top_k: int, top_p: float) -> tf.Tensor:
    """Logits (B, V) with -inf where no token is to be drawn."""
    size = logits.shape[-1]
    if top_k and top_k < size:
        least = tf.math.top_k(logits, top_k).values[:, -1:]
        logits = tf.where(logits < least, -float("inf"), logits)
    if top_p < 1:
        descending = tf.sort(logits, direction="DESCENDING")
        # Tokens before which the nucleus is not yet full; the first one always is such.
        wanted = tf.cumsum(tf.nn.softmax(descending), axis=-1, exclusive=True) < top_p
        least = tf.reduce_min(tf.where(wanted, descending, float("inf")), axis=-1, keepdims=True)
        logits = tf.where(logits < least, -float("inf"), logits)
    return logits


def _extend(step, state, limits, start_id, end_id, choose: Callable) -> Answers:
    """The loop around `choose`: (logits (B, V), position) -> (tokens (B,), their log-probabilities (B,))."""
    rows, longest = tf.size(limits), longest_limit(limits)
    positions = tf.range(longest)

    def unfinished(_position, _tokens, _ids, _scores, done, _state):
        return ~tf.reduce_all(done)

    def body(position, tokens, ids, scores, done, state):
        visible = (positions <= position)[None, None]
        frontier = Frontier(tokens[:, None], position, tf.zeros([rows, 1], tf.int32), visible)
        with donated_caches():
            logits, state = step(frontier, state)
        chosen, log_probabilities = choose(tf.cast(logits[:, 0], tf.float32), position)
        scores += tf.where(done, 0.0, log_probabilities)
        tokens = tf.where(done, 0, chosen)
        ids = tf.where(positions == position, tokens[:, None], ids)
        done |= (chosen == end_id) | (position + 1 >= limits)
        return position + 1, tokens, ids, scores, done, state

    start = (
        tf.constant(0),
        tf.fill([rows], start_id),
        tf.zeros([rows, longest], tf.int32),
        tf.zeros([rows]),
        limits <= 0,
        private(state),
    )
    _, _, ids, scores, _, _ = tf.while_loop(unfinished, body, start)
    return Answers(ids[:, None], scores[:, None])
