"""Greedy decoding on a chain whose answers are known by hand."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.decoding import greedy

START, END = 2, 3


def follow(table):
    """A step that predicts `table[token]` with probability 0.9 among 10 tokens."""

    def step(tokens, position, state):
        best = tf.gather(tf.constant(table), tokens)
        probabilities = tf.one_hot(best, 10, on_value=0.9, off_value=0.1 / 9)
        return tf.math.log(probabilities), state + 1

    return step


TABLE = [0, 0, 5, 0, 4, 6, 7, END, 4, 9]  # from the start: 5 6 7 END; from 4 and 9 for ever


@pytest.mark.parametrize("jit", [False, True])
def test_follows_the_likeliest_and_stops(jit):
    @tf.function(jit_compile=jit)
    def run():
        return greedy(follow(TABLE), tf.constant(0), 2, 6, START, END)

    ids, scores = run()
    np.testing.assert_array_equal(ids, [[5, 6, 7, END, 0, 0]] * 2)
    np.testing.assert_allclose(scores, 4 * np.log(0.9) * np.ones(2), rtol=1e-5)


def test_stops_at_the_limit():
    ids, scores = greedy(follow(TABLE), tf.constant(0), 1, 3, START, END)
    np.testing.assert_array_equal(ids, [[5, 6, 7]])
    np.testing.assert_allclose(scores, [3 * np.log(0.9)], rtol=1e-5)


def test_ends_early_and_lets_each_row_end_by_itself():
    steps = tf.Variable(0)

    def step(tokens, position, state):
        steps.assign_add(1)
        # Row 0 ends at once, row 1 after two tokens.
        best = tf.stack([END, tf.where(position < 2, 8, END)])
        return tf.one_hot(best, 10), state

    ids, _ = greedy(step, tf.constant(0), 2, 50, START, END)
    np.testing.assert_array_equal(ids[:, :4], [[END, 0, 0, 0], [8, 8, END, 0]])
    assert int(steps) == 3
