"""Normalisations in fewer operations equal Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import BatchNormalization, LayerNormalization, normalisation
from tests.layers.contract import check_layer

X = np.random.default_rng(0).normal(2, 3, size=(4, 5, 6, 7)).astype("float32")


@pytest.mark.parametrize("kind", [BatchNormalization, LayerNormalization])
def test_layer_contract(kind):
    check_layer(lambda **options: kind(**options), {"inputs": X})


BATCH = {"momentum": 0.9, "epsilon": 1e-5}, {"training": True}
VECTOR = {"epsilon": 1e-5}, {}


def _step(kind, settings, policy, jit, x):
    """Output, gradients of input and weights, and new statistics of a training step."""
    arguments, options = settings
    layer = kind(**arguments, dtype=policy)
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    trainable = [tf.convert_to_tensor(v) for v in layer.trainable_variables]
    state = [tf.convert_to_tensor(v) for v in layer.non_trainable_variables]

    @tf.function(jit_compile=jit)
    def step(x, trainable):
        with tf.GradientTape() as tape:
            tape.watch([x, *trainable])
            y, new = layer.stateless_call(trainable, state, x, **options)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, "float32")))
        return [y, *tape.gradient(loss, [x, *trainable]), *new]

    return [np.asarray(tf.cast(value, "float32")) for value in step(tf.constant(x), trainable)]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("float32", 1e-5), ("mixed_float16", 2e-2), ("mixed_bfloat16", 1e-1)]
)
@pytest.mark.parametrize(
    ("kind", "own", "settings"),
    [
        (BatchNormalization, keras.layers.BatchNormalization, BATCH),
        (LayerNormalization, keras.layers.LayerNormalization, VECTOR),
    ],
)
def test_a_training_step_equals_keras(kind, own, settings, policy, tolerance, jit):
    ours, keras_own = (_step(each, settings, policy, jit, X) for each in (kind, own))
    for a, b in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("shape", [(8, 5), (4, 6, 5)])
def test_other_shapes_are_keras_own(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer, own = BatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(layer(x, training=True), own(x, training=True), atol=1e-6)


@pytest.mark.parametrize("settings", [{"axis": 1}, {"axis": [1, 2]}, {"scale": False}, {"center": False}])
def test_other_vectors_are_keras_own(settings):
    layer, own = LayerNormalization(**settings), keras.layers.LayerNormalization(**settings)
    np.testing.assert_allclose(layer(X), own(X), atol=1e-6)


def test_kinds():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 24)).astype("float32")
    assert isinstance(normalisation("batch", 24), BatchNormalization)
    np.testing.assert_allclose(
        normalisation("group", 24)(x), keras.layers.GroupNormalization(3, epsilon=1e-5)(x), atol=1e-5
    )
    np.testing.assert_array_equal(normalisation("none", 24)(x), x)
    with pytest.raises(ValueError, match="batch, group or none"):
        normalisation("layer", 24)
