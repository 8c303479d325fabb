"""Whole numbers stand for weights as closely as can be, and functions read them in the weights' stead."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipelines.errors import UserError
from pipelines.quantisation import SMALLEST, StoredWeights, dequantise, quantise, round_weights

NUMBERS = st.floats(-1e6, 1e6, width=32)
ARRAYS = arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=20), elements=NUMBERS)


@given(ARRAYS)
def test_no_number_is_off_by_more_than_half_a_level(array):
    values, scale = quantise(array)
    assert values.dtype == np.int8 and values.shape == array.shape and np.abs(values.astype(int)).max() <= 127
    assert scale.dtype == np.float32 and scale.ndim == array.ndim and sum(size > 1 for size in scale.shape) <= 1
    error = np.abs(dequantise(values, scale).astype(float) - array)
    assert np.all(error <= scale * 0.50001)


@given(ARRAYS)
def test_what_was_rounded_stays_as_it_is(array):
    once = dequantise(*quantise(array))
    np.testing.assert_array_equal(dequantise(*quantise(once)), once)


def test_products_are_exact_for_every_mantissa():
    greatest = np.float32(1) + np.arange(0, 2**23, 97, dtype=np.float32) * np.float32(2**-23)
    scale = quantise(np.repeat(greatest[None], 8, axis=0)).scale.astype(np.float64)
    for value in (3, 77, 126, 127):
        np.testing.assert_array_equal((value * scale).astype(np.float32), value * scale)


def test_zeros_and_equal_numbers():
    array = np.zeros((16, 12), np.float32)
    array[:, 3], array[:, 5] = -2.5, 1e-35
    found = dequantise(*quantise(array))
    np.testing.assert_allclose(found, array, rtol=2e-5, atol=1e-30)
    assert not found[:, :3].any()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
def test_what_no_whole_number_stands_for(number):
    array = np.ones((8, 8), np.float32)
    array[2, 3] = number
    with pytest.raises(ValueError, match="not finite, or beyond"):
        quantise(array)


@pytest.mark.parametrize(
    ("shape", "uneven", "channels"),
    [
        ((300, 32), 0, (300, 1)),  # an embedding, whose rows differ
        ((300, 32), 1, (1, 32)),  # a kernel, whose outputs differ
        ((31, 64, 1), 1, (1, 64, 1)),  # a convolution of each channel
        ((3, 3, 16, 24), 3, (1, 1, 1, 24)),
        ((5000, 1), 0, (1, 1)),  # a scale each would take more room than the numbers
        ((3, 3), 0, (1, 1)),
    ],
)
def test_channels_are_those_that_differ(shape, uneven, channels):
    rng = np.random.default_rng(0)
    sizes = [length if axis == uneven else 1 for axis, length in enumerate(shape)]
    array = rng.normal(size=shape) * rng.lognormal(sigma=2, size=sizes)
    assert quantise(array.astype(np.float32)).scale.shape == channels


def layers():
    """An embedding, a convolution, norms that keep statistics, Keras' recurrence, and a head that is small."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input([None], dtype="int32"),
            keras.layers.Embedding(256, 32),
            keras.layers.Conv1D(48, 3, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.LSTM(40),
            keras.layers.Dense(6),
        ]
    )
    rng = np.random.default_rng(0)
    for variable in model.layers[2].variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


TOKENS = tf.constant(np.random.default_rng(1).integers(0, 256, (3, 7)), tf.int32)


def test_large_weights_are_rounded_and_small_ones_are_not():
    model = layers()
    before = [variable.numpy() for variable in model.variables]
    answer = model(TOKENS).numpy()
    round_weights(model)
    changed = {v.path for v, old in zip(model.variables, before, strict=True) if not np.array_equal(v.numpy(), old)}
    large = {v.path for v in model.variables if v.ndim > 1 and np.prod(v.shape) >= SMALLEST}
    assert changed == large and len(large) == 4
    rounded = [variable.numpy() for variable in model.variables]
    np.testing.assert_allclose(model(TOKENS), answer, atol=0.02)
    round_weights(model)
    for variable, old in zip(model.variables, rounded, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_a_damaged_weight_is_named():
    model = layers()
    model.layers[0].embeddings.assign(np.full((256, 32), np.nan))
    for use in (round_weights, StoredWeights):
        with pytest.raises(UserError, match="--quantize int8: the weight .*embeddings has numbers that are not finite"):
            use(model)


def definitions(concrete):
    """The nodes of a function, and by name those of the functions and loops in it."""
    graph = concrete.graph.as_graph_def()
    return list(graph.node), {found.signature.name: found.node_def for found in graph.library.function}


def int8_casts(nodes):
    return sum(node.op == "Cast" and node.attr["SrcT"].type == tf.int8.as_datatype_enum for node in nodes)


def test_functions_read_the_stored_weights_once():
    model = layers()
    shared = tf.function(lambda tokens: model(tokens), input_signature=[tf.TensorSpec([None, None], tf.int32)])
    shape = tf.TensorSpec([3, 7], tf.int32, name="tokens")

    @tf.function(input_signature=[shape])
    def looped(tokens):
        """As a decoder does: the model at every step, and a part of it on a condition."""

        def step(number, total):
            return number + 1, total + tf.cond(number > 1, lambda: model(tokens), lambda: 2.0 * model(tokens))

        return {"y": tf.while_loop(lambda number, total: number < 4, step, (0, tf.zeros([3, 6])))[1]}

    @tf.function(input_signature=[shape])
    def called(tokens):
        return {"y": shared(tokens)}

    stored = StoredWeights(model)
    functions = [stored.reading(function) for function in (looped, called, called)]
    float_handles = {id(v.value.handle) for v in model.variables if v.ndim > 1 and np.prod(v.shape) >= SMALLEST}
    int8_handles = {id(v.handle) for v in stored.variables if v.dtype == tf.int8}
    assert len(int8_handles) == len(float_handles) == 4
    for function in functions:
        captured = {id(tensor) for tensor in function.get_concrete_function().captured_inputs}
        assert captured >= int8_handles and not captured & float_handles
    nodes, inner = definitions(functions[0].get_concrete_function())
    assert int8_casts(nodes) == 4 and not any(int8_casts(body) for body in inner.values())
    nodes, inner = definitions(functions[1].get_concrete_function())
    assert int8_casts(nodes) == 0 and sorted(map(int8_casts, inner.values()))[-1] == 4
    round_weights(model)
    np.testing.assert_allclose(functions[0](TOKENS)["y"], 6 * model(TOKENS), rtol=1e-5, atol=1e-6)
    for function in functions[1:]:
        np.testing.assert_allclose(function(tokens=TOKENS)["y"], model(TOKENS), rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_inputs():
    head = keras.Sequential([keras.Input([64]), keras.layers.Dense(64), keras.layers.Dense(1)])

    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = head(x)
        return tape.gradient(y, x)

    x = tf.ones([2, 64])
    found = StoredWeights(head).reading(slope)(x)
    round_weights(head)
    np.testing.assert_allclose(found, slope(x), rtol=1e-5, atol=1e-7)


def test_a_function_that_was_traced_before_is_refused():
    model = keras.Sequential([keras.Input([64]), keras.layers.Dense(64)])
    shape = tf.TensorSpec([None, 64], tf.float32, name="x")
    early = tf.function(lambda x: model(x), input_signature=[shape])
    early(tf.ones([2, 64]))
    late = tf.function(lambda x: {"y": early(x)}, input_signature=[shape])
    with pytest.raises(ValueError, match="kernel is read by a function that was traced before"):
        StoredWeights(model).reading(late)
