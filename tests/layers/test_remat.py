"""Recomputing a block gives the gradients, the output and the random state of computing it once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import TransformerDecoderBlock, rematerialise


def step(policy, jit, call):
    """One forward and backward pass through a decoder block with dropout, called by `call(block, x, memory, ...)`."""
    keras.utils.set_random_seed(3)
    block = TransformerDecoderBlock(2, 16, dropout=0.3, dtype=policy)
    block.build((None, None, 8), (None, None, 8))
    model = keras.Model()
    model.block, model.call = block, lambda inputs: call(block, *inputs)
    model.built = True
    x, memory = (tf.random.stateless_normal((2, 5, 8), (seed, 0)) for seed in (1, 2))

    @tf.function(jit_compile=jit)
    def run(weights, state, x, memory):
        with tf.GradientTape() as tape:
            tape.watch([weights, x, memory])
            output, state = model.stateless_call(weights, state, (x, memory))
            loss = tf.reduce_sum(tf.cast(output, tf.float32) ** 2)
        return output, tape.gradient(loss, [x, memory, *weights]), state

    weights, state = ([tf.convert_to_tensor(v) for v in group] for group in _variables(block))
    return run(weights, state, x, memory)


def _variables(block):
    return [v.value for v in block.trainable_variables], [v.value for v in block.non_trainable_variables]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("policy, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 0.05)])
def test_recomputation_changes_nothing(policy, jit, tolerance):
    options = {"training": True}
    once = step(policy, jit, lambda block, x, memory: block(x, memory, **options))
    again = step(policy, jit, lambda block, x, memory: rematerialise(block, x, memory, **options))
    for a, b in zip(tf.nest.flatten(again), tf.nest.flatten(once), strict=True):
        if a.dtype.is_integer:  # of the generators of random numbers
            np.testing.assert_array_equal(a, b)
        else:
            a, b = tf.cast(a, tf.float32), tf.cast(b, tf.float32)
            np.testing.assert_allclose(a, b, atol=tolerance * float(tf.reduce_max(tf.abs(b))))


def test_dropout_is_on():
    outputs = [
        step("float32", False, lambda block, x, memory, on=on: rematerialise(block, x, memory, training=on))[0]
        for on in (False, True)
    ]
    assert not np.allclose(*outputs)
