"""Dropout: the right share, no pattern, the same mask wherever it runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from layers import Dropout
from layers.dropout import random_bits
from tests.layers.contract import check_layer


def test_contract():
    check_layer(lambda **kw: Dropout(0.3, seed=1, **kw), np.ones((2, 5, 4), "float32"))


def masks(seed, count=64, size=4096):
    layer = Dropout(0.25, seed=seed)
    return np.stack([layer(ops.ones((size,)), training=True) for _ in range(count)]) == 0


def test_share_and_scale():
    dropped = masks(0)
    # 262,144 draws: three standard deviations are 0.0025.
    assert abs(dropped.mean() - 0.25) < 0.0026
    kept = Dropout(0.25, seed=0)(ops.ones((1000,)), training=True).numpy()
    np.testing.assert_allclose(np.unique(kept), [0.0, 1 / 0.75])


def test_no_pattern_between_places_calls_or_seeds():
    dropped = masks(0) - 0.25
    deviation = 0.25 * 0.75 / np.sqrt(dropped.size)
    for other in (np.roll(dropped, 1, 1), np.roll(dropped, 64, 1), np.roll(dropped, 1, 0), masks(1) - 0.25):
        assert abs((dropped * other).mean()) < 4 * deviation
    # Shares of places over calls, and of calls over places, scatter as coins do.
    for axis, count in ((0, 64), (1, 4096)):
        scatter = dropped.mean(axis).var() / (0.25 * 0.75 / count)
        assert 0.9 < scatter < 1.1 if axis == 0 else 0.5 < scatter < 1.6


def test_every_bit_is_balanced():
    bits = random_bits((1 << 16,), np.array([7, 3])).numpy()
    for place in range(32):
        share = ((bits >> place) & 1).mean()
        assert abs(share - 0.5) < 0.01, place


def test_equal_with_and_without_xla_and_dynamic_shapes():
    values = np.random.default_rng(0).normal(size=(3, 50)).astype("float32")

    def run(jit, signature=None):
        layer = Dropout(0.5, seed=9)
        layer.build(values.shape)
        state = [v.value for v in layer.non_trainable_variables]

        @tf.function(jit_compile=jit, input_signature=signature)
        def call(x):
            return layer.stateless_call([], [tf.convert_to_tensor(v) for v in state], x, training=True)[0]

        return call(tf.constant(values)).numpy()

    np.testing.assert_array_equal(run(True), run(False))
    np.testing.assert_array_equal(run(False, [tf.TensorSpec([None, None])]), run(False))


def test_only_in_training_and_new_in_every_call():
    layer = Dropout(0.5, seed=1)
    x = ops.ones((100,))
    np.testing.assert_array_equal(layer(x), x)
    assert (layer(x, training=True).numpy() != layer(x, training=True).numpy()).any()
    np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="rate must be in"):
        Dropout(rate)


def test_a_global_seed_decides_where_none_is_given():
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        drawn.append(Dropout(0.5)(ops.ones((100,)), training=True).numpy())
    np.testing.assert_array_equal(*drawn)
