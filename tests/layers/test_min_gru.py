"""The parallel scan of MinGRU against a loop in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from layers import MinGRU
from tests.layers.recurrences import RNG, D, U, randomise, states


@pytest.mark.parametrize("length", [1, 15, 16, 17, 300])
@pytest.mark.parametrize("known", [False, True])
def test_the_parallel_scan_equals_a_loop(length, known):
    layer = MinGRU(U, return_sequences=True)
    x = RNG.normal(scale=3, size=(2, length, D)).astype("float32")
    layer.build(x.shape)
    randomise(layer)
    first = states(MinGRU, 2)
    kernel, bias = layer.get_weights()
    gate, candidate = np.split((x @ kernel + bias).astype("float64"), 2, axis=-1)
    gate, h, expected = 1 / (1 + np.exp(-gate)), first[0], []
    for t in range(length):
        h = (1 - gate[:, t]) * h + gate[:, t] * candidate[:, t]
        expected.append(h)
    shape = x.shape if known else (None, None, D)
    call = tf.function(
        lambda x, h: layer(x, initial_state=[h]), input_signature=[tf.TensorSpec(shape), tf.TensorSpec((None, U))]
    )
    np.testing.assert_allclose(call(x, first[0]), np.stack(expected, axis=1), atol=1e-5)
    layer.return_state = True  # and nothing but padding changes nothing
    np.testing.assert_array_equal(layer(x, initial_state=first, mask=np.zeros((2, length), bool))[1], first[0])
