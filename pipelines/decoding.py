"""From a model that predicts one token to whole sequences, inside the graph and with static shapes."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# (tokens (B,), position scalar, state) -> (logits (B, V), state)
DecodingStep = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, Any]]


def greedy(
    step: DecodingStep,
    state: Any,
    batch_size: int | tf.Tensor,
    max_length: int | tf.Tensor,
    start_id: int,
    end_id: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the likeliest token at every position, until all rows have ended.

    Args:
        step: Predicts the next token from the one before. It keeps what it needs (a KV cache) in the state.
        state: Tensors whose shapes do not change from step to step.
        batch_size: Rows, B.
        max_length: Tokens at most in an answer, L.
        start_id: Token before the first one.
        end_id: Token that ends a row; it is part of the answer, zeros follow it.

    Returns:
        Token ids (B, L), int32, and the sum of their log-probabilities (B,), float32.
    """
    positions = tf.range(max_length)

    def unfinished(position, _tokens, _ids, _scores, done, _state):
        return (position < max_length) & ~tf.reduce_all(done)

    def body(position, tokens, ids, scores, done, state):
        logits, state = step(tokens, position, state)
        log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        scores += tf.where(done, 0.0, tf.gather(log_probabilities, best, batch_dims=1))
        tokens = tf.where(done, 0, best)
        ids = tf.where(positions == position, tokens[:, None], ids)
        return position + 1, tokens, ids, scores, done | (best == end_id), state

    shape = [batch_size]
    start = (
        tf.constant(0),
        tf.fill(shape, start_id),
        tf.zeros([batch_size, max_length], tf.int32),
        tf.zeros(shape),
        tf.zeros(shape, tf.bool),
        state,
    )
    _, _, ids, scores, _, _ = tf.while_loop(unfinished, body, start)
    return ids, scores
