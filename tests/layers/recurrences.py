"""What tests of recurrent layers have in common: inputs with masks, random weights and states, and gradients."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from layers import GRU, LSTM, MinGRU, SimpleRNN

RNG = np.random.default_rng(0)
B, T, D, U = 3, 7, 5, 4
X = RNG.normal(size=(B, T, D)).astype("float32")
# Padding after, padding before, and gaps.
MASK = np.array([[1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0, 1]], bool)
RIGHT = np.arange(T) < np.array([[7], [4], [1]])
KERAS = {SimpleRNN: keras.layers.SimpleRNN, GRU: keras.layers.GRU, LSTM: keras.layers.LSTM}
RECURRENT = list(KERAS)
ALL = [*RECURRENT, MinGRU]


def states(layer_type, rows=B):
    return [RNG.normal(size=(rows, U)).astype("float32") for _ in range(layer_type.STATES)]


def randomise(layer):
    layer.set_weights([RNG.normal(scale=0.5, size=w.shape) for w in layer.weights])


def gradients(function, variables, *tensors, jit=None):
    """Outputs, and the gradients of a random direction of them by the variables and then the tensors.

    Args:
        jit: compute all of that in a graph, with or without XLA; None for no graph.
    """

    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
            rng = np.random.default_rng(1)
            loss = sum(ops.sum(y * rng.normal(size=y.shape).astype("float32")) for y in outputs)
        return outputs, tape.gradient(loss, [*[v.value for v in variables], *tensors])

    run = run if jit is None else tf.function(run, jit_compile=jit)
    return run(*[tf.constant(x) for x in tensors])


def assert_all_close(found, expected, atol=1e-5):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)
