"""The Conformer block against its formulas in NumPy, the depthwise convolution over time against Keras' layer, and
what padding must not do to either."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

from layers import ConformerBlock, ConformerConvolution, DepthwiseConv1D
from pipelines.export.session import refused_operations, registered
from tests.layers.contract import check_layer
from tests.layers.test_convolution import assert_equal

RNG = np.random.default_rng(0)
B, T, D, HEADS, WINDOW = 2, 9, 8, 2, 5
SOUND = RNG.normal(size=(B, T, D)).astype("float32")
MASK = np.arange(T) < np.array([[9], [5]])
MASKED = {"x": SOUND, "mask": MASK}


def block(**settings):
    return ConformerBlock(**{"num_heads": HEADS, "feedforward_dim": 12, "kernel_size": WINDOW} | settings)


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_depthwise_convolution_keeps_the_contract(padding):
    inputs = {"inputs": SOUND, "mask": MASK}
    check_layer(lambda **kw: DepthwiseConv1D(3, padding=padding, **kw), inputs, padding={"inputs": "mask"})


@pytest.mark.parametrize(
    "window", [{}, {"strides": 2, "padding": "same"}, {"dilation_rate": 2, "padding": "same"}, {"use_bias": False}]
)
def test_depthwise_convolution_equals_keras(window):
    settings = {**window, "activation": "tanh"}
    assert_equal(DepthwiseConv1D(3, **settings), keras.layers.DepthwiseConv1D(3, **settings), SOUND)


@pytest.mark.parametrize("window", [{}, {"strides": 2}, {"dilation_rate": 2}])
def test_causal_depthwise_convolution_sees_the_past_alone(window):
    check_layer(
        lambda **kw: DepthwiseConv1D(3, padding="causal", **kw), SOUND, causal=True, jit=False, half_precision=()
    )
    layer = DepthwiseConv1D(3, padding="causal", **window)
    stride, dilation = window.get("strides", 1), window.get("dilation_rate", 1)
    y = layer(SOUND)
    kernel = layer.get_weights()[0][:, :, 0]
    past = np.pad(SOUND, [(0, 0), (2 * dilation, 0), (0, 0)])
    expected = sum(past[:, m * dilation : m * dilation + T] * kernel[m] for m in range(3))
    np.testing.assert_allclose(y, expected[:, ::stride], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["valid", "causal"]),
)
def test_a_row_of_a_batch_of_sounds_equals_the_row_alone(lengths, window, stride, padding):
    real = np.arange(12) < np.array(lengths)[:, None]
    x = np.random.default_rng(0).normal(size=(len(lengths), 12, 2)).astype("float32")
    layer = DepthwiseConv1D(window, strides=stride, padding=padding, bias_initializer="ones")
    y = layer(x, mask=tf.constant(real))
    mask = np.asarray(y._keras_mask)
    for row, length in enumerate(lengths):
        if length < (window if padding == "valid" else 1):
            assert not mask[row].any()
            continue
        alone = layer(x[row : row + 1, :length])
        assert mask[row].sum() == alone.shape[1]
        np.testing.assert_allclose(y[row][mask[row]], alone[0], atol=1e-5)


def test_a_fresh_depthwise_kernel_over_time_keeps_the_scale():
    layer = DepthwiseConv1D(9, use_bias=False)
    layer.build((None, None, 512))
    assert layer.kernel.numpy().std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)  # not 2 / (9 · 512)


def test_blocks_keep_the_contract():
    check_layer(lambda **kw: block(**kw), MASKED, padding={"x": "mask"})


def test_attention_scores_of_a_block_keep_the_contract():
    options = {"return_attention_scores": True}
    check_layer(lambda **kw: block(rotary_base=None, **kw), SOUND, options=options, jit=False, half_precision=())


def test_the_convolution_module_keeps_the_contract():
    check_layer(lambda **kw: ConformerConvolution(WINDOW, **kw), MASKED, padding={"x": "mask"})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalised(x, gamma, beta):
    return gamma * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) + beta


def rotated(x, base):
    """Each pair of features of frame t, one of either half, as a complex number: turned by t times its own angle."""
    real, imaginary = np.split(x, 2, axis=1)
    angles = base ** (-np.arange(0, x.shape[1], 2) / x.shape[1])
    turned = (real + 1j * imaginary) * np.exp(1j * np.arange(len(x))[:, None] * angles)
    return np.concatenate([turned.real, turned.imag], axis=1)


def attended(x, kernel, bias, output_kernel, output_bias, base):
    heads = []
    parts = np.split(x @ kernel + bias, 3, axis=1)
    for q, k, v in zip(*(np.split(part, HEADS, axis=1) for part in parts), strict=True):
        scores = np.exp(rotated(q, base) @ rotated(k, base).T / np.sqrt(q.shape[1]))
        heads.append(scores / scores.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(heads, axis=1) @ output_kernel + output_bias


def convolved(x, w_1, b_1, kernel, bias, gamma, beta, w_2, b_2):
    a, gate = np.split(x @ w_1 + b_1, 2, axis=1)
    h = np.pad(a * sigmoid(gate), [(WINDOW // 2, WINDOW // 2), (0, 0)])
    h = sum(h[m : m + len(x)] * kernel[m, :, 0] for m in range(WINDOW)) + bias
    h = normalised(h, gamma, beta)
    return h * sigmoid(h) @ w_2 + b_2


def conformer(x, layer):
    """The block's formulas for one row (T, d) without padding, in float64."""

    def of(*parts):
        return [w.astype("float64") for part in parts for w in part.get_weights()]

    def half_step(x, norm, network):
        hidden = normalised(x, *of(norm)) @ of(network.hidden)[0] + of(network.hidden)[1]
        kernel, bias = of(network.output_projection)
        return x + (hidden * sigmoid(hidden) @ kernel + bias) / 2

    module, attention = layer.convolution, layer.attention
    x = half_step(x, layer.feedforward_1_norm, layer.feedforward_1)
    weights = of(attention.query_key_value, attention.output_projection)
    x = x + attended(normalised(x, *of(layer.attention_norm)), *weights, layer.rotary_base)
    weights = of(module.gated, module.depthwise, module.norm, module.output_projection)
    x = x + convolved(normalised(x, *of(layer.convolution_norm)), *weights)
    return normalised(half_step(x, layer.feedforward_2_norm, layer.feedforward_2), *of(layer.output_norm))


@pytest.mark.parametrize("length", [1, 3, T])  # shorter than the window, and longer
def test_a_block_is_its_formulas(length):
    layer = block(rotary_base=100.0)
    layer.build((None, None, D))
    layer.set_weights([RNG.normal(scale=0.5, size=w.shape) for w in layer.weights])
    y = layer(SOUND, mask=np.arange(T) < np.array([[length], [T]]))
    np.testing.assert_allclose(y[0, :length], conformer(SOUND[0, :length], layer), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y[1], conformer(SOUND[1], layer), rtol=1e-5, atol=1e-5)


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(2, T), min_size=B, max_size=B),
    padding=st.integers(0, 6),
    garbage=st.floats(-1e4, 1e4),
)
def test_a_row_of_a_batch_equals_the_row_alone(lengths, padding, garbage):
    assume(padding or min(lengths) < T)
    layer = block(kernel_size=7)
    real = np.arange(T + padding) < np.array(lengths)[:, None]
    x = np.pad(SOUND, [(0, 0), (0, padding), (0, 0)])
    x[~real] = garbage
    together = layer(x, mask=real)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(together[row, :length], layer(x[row : row + 1, :length])[0], atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_an_empty_row_gives_finite_outputs_and_gradients(policy):
    layer = block(dtype=policy)
    with tf.GradientTape() as tape:
        y = layer(SOUND, mask=MASK & np.array([[True], [False]]))
        loss = tf.reduce_sum(tf.square(tf.cast(y, "float32")))
    assert np.isfinite(np.asarray(tf.cast(y, "float32"))).all()
    for gradient in tape.gradient(loss, [w.value for w in layer.trainable_weights]):
        assert np.isfinite(gradient).all()


def test_masks_that_keras_attaches_reach_every_block():
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(10, D, mask_zero=True)(inputs)
    model = keras.Model(inputs, block()(block()(x)))
    ids = np.array([[3, 4, 2, 6, 0, 0], [5, 1, 2, 8, 7, 9]])
    np.testing.assert_allclose(model(ids)[0, :4], model(ids[:1, :4])[0], atol=1e-5)
    np.testing.assert_array_equal(model(ids)._keras_mask, ids != 0)


@pytest.mark.parametrize("rates", [{"dropout": 0.3}, {"attention_dropout": 0.3}])
def test_dropout_acts_in_training_alone(rates):
    layer = block(**rates)
    calm = layer(SOUND)
    np.testing.assert_array_equal(layer(SOUND, training=False), calm)
    first, second = layer(SOUND, training=True), layer(SOUND, training=True)
    assert np.abs(first - calm).max() > 1e-3 and np.abs(first - second).max() > 1e-3


def test_a_block_is_nothing_that_tensorflow_serving_refuses():
    layer = block()
    function = tf.function(lambda x, mask: layer(x, mask=mask)).get_concrete_function(
        tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)
    )
    graph = function.graph.as_graph_def()
    assert refused_operations(graph, registered(pywrap_tf_session, op_def_pb2)) == []
    assert sum(node.op == "DepthwiseConv2dNative" for node in graph.node) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: block(kernel_size=4), "kernel_size must be odd and positive. Received: kernel_size=4"),
        (lambda: block(num_heads=3)(SOUND), "num_heads=3, width 8"),
        (lambda: DepthwiseConv1D(3, padding="full"), "one of valid, same, causal. Received: padding='full'"),
        (lambda: DepthwiseConv1D(3)(SOUND[0]), r"takes \(batch, time, channels\)"),
    ],
)
def test_misuse_is_refused_clearly(make, message):
    with pytest.raises(ValueError, match=message):
        make()
