"""Recurrent layers against Keras' own with the same weights, gradients included; and what Keras' layers do not have:
single steps, and the loops of other backends."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import layers.recurrent
from layers import LSTM, SimpleRNN, TiedEmbedding
from tests.layers.contract import check_layer
from tests.layers.recurrences import (
    ALL,
    KERAS,
    MASK,
    RECURRENT,
    RIGHT,
    RNG,
    B,
    D,
    T,
    U,
    X,
    assert_all_close,
    gradients,
    randomise,
    states,
)


def stepped(layer, inputs):
    """What a call returns, made step by step."""
    x, mask = inputs["inputs"], inputs.get("mask", np.ones(inputs["inputs"].shape[:2], bool))
    state, outputs = layer.initial_state(len(x)), []
    for t in range(x.shape[1]):
        _, new = layer.step(x[:, t], state)
        state = [np.where(mask[:, t, None], a, b) for a, b in zip(new, state, strict=True)]
        outputs.append(state[0])
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("layer_type", ALL)
def test_sequences_keep_the_contract(layer_type):
    check_layer(
        lambda **kw: layer_type(U, return_sequences=True, **kw),
        {"inputs": X, "mask": MASK},
        padding={"inputs": "mask"},
        causal=True,
        decode=stepped,
    )


@pytest.mark.parametrize("layer_type", ALL)
def test_last_outputs_and_states_keep_the_contract(layer_type):
    check_layer(
        lambda **kw: layer_type(U, return_state=True, go_backwards=True, **kw),
        {"inputs": X, "mask": MASK},
        padding={"inputs": "mask"},
        jit=False,
    )


@pytest.mark.parametrize("layer_type", RECURRENT)
@pytest.mark.parametrize(
    "mask, go_backwards, jit",
    [
        pytest.param(None, False, None, id="all real"),
        pytest.param(None, True, False, id="all real, backwards, graph"),
        pytest.param(MASK, False, False, id="gaps, graph"),
        pytest.param(MASK, True, None, id="gaps, backwards"),
        pytest.param(RIGHT, False, None, id="padding"),
        pytest.param(RIGHT, True, True, id="padding, backwards, XLA"),
    ],
)
def test_outputs_states_and_gradients_equal_keras(layer_type, mask, go_backwards, jit):
    options = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    ours, theirs = layer_type(U, **options), KERAS[layer_type](U, **options)
    ours.build(X.shape)
    theirs.build(X.shape)
    randomise(ours)
    theirs.set_weights(ours.get_weights())
    begin = states(layer_type)

    def run(layer, jit):
        return gradients(
            lambda x, *begin: layer(x, initial_state=list(begin), mask=mask), layer.weights, X, *begin, jit=jit
        )

    found, found_gradients = run(ours, jit)
    expected, expected_gradients = run(theirs, False)
    assert_all_close(found, expected)
    assert_all_close(found_gradients, expected_gradients)


@pytest.mark.parametrize("activation", SimpleRNN.ACTIVATIONS)
def test_each_activation_equals_keras(activation):
    ours = SimpleRNN(U, activation, return_sequences=True)
    theirs = keras.layers.SimpleRNN(U, activation, return_sequences=True)
    ours.build(X.shape)
    theirs.build(X.shape)
    randomise(ours)
    theirs.set_weights(ours.get_weights())
    found, found_gradients = gradients(lambda x: [ours(x)], ours.weights, X)
    expected, expected_gradients = gradients(lambda x: [theirs(x)], theirs.weights, X)
    assert_all_close(found, expected)
    assert_all_close(found_gradients, expected_gradients)


@pytest.mark.parametrize("layer_type", RECURRENT)
def test_a_fresh_layer_is_laid_out_as_that_of_keras(layer_type):
    ours, theirs = layer_type(U), KERAS[layer_type](U)
    ours.build(X.shape)
    theirs.build(X.shape)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in theirs.weights]
    np.testing.assert_array_equal(ours.weights[2], theirs.weights[2])  # with it the ones that make an LSTM remember
    for layer in (ours, theirs):
        recurrent = layer.get_weights()[1]
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(U), atol=1e-5)


@pytest.mark.parametrize("layer_type", RECURRENT)
def test_second_derivatives_equal_keras(layer_type):
    ours, theirs = layer_type(U), KERAS[layer_type](U)
    ours.build(X.shape)
    theirs.build(X.shape)
    randomise(ours)
    theirs.set_weights(ours.get_weights())

    def second(layer):
        def first(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x) ** 2
            return [tape.gradient(y, x)]

        return gradients(first, [], X, jit=False)[1]

    assert_all_close(second(ours), second(theirs))


@pytest.mark.parametrize("layer_type", RECURRENT)
@pytest.mark.parametrize("mask", [None, MASK])
def test_the_loop_of_other_backends_equals_that_of_tensorflow(layer_type, mask, monkeypatch):
    layer = layer_type(U, return_sequences=True, return_state=True, recurrent_dropout=0.5, seed=1)
    layer.build(X.shape)
    randomise(layer)
    begin = states(layer_type)

    def run(x, *begin):
        layer.state_dropout.seed_generator.state.assign([1, 2])
        return layer(x, initial_state=list(begin), mask=mask, training=True)

    fused = gradients(run, layer.trainable_weights, X, *begin)
    monkeypatch.setattr(layers.recurrent, "_kernels", lambda: None)
    plain = gradients(run, layer.trainable_weights, X, *begin)
    assert_all_close(fused[0], plain[0])
    assert_all_close(fused[1], plain[1])


@pytest.mark.parametrize("layer_type", ALL)
def test_padding_and_its_garbage_change_nothing(layer_type):
    layer = layer_type(U, return_state=True)
    layer.build(X.shape)
    randomise(layer)
    garbage = np.where(RIGHT[:, :, None], X, np.float32(1e6))
    found, found_gradients = gradients(lambda x: layer(x, mask=RIGHT), layer.weights, garbage)
    expected, expected_gradients = gradients(lambda x: layer(x, mask=RIGHT), layer.weights, X)
    assert_all_close(found, expected)
    assert_all_close(found_gradients, expected_gradients)
    assert not np.asarray(found_gradients[-1])[~RIGHT].any()
    for row, length in enumerate(RIGHT.sum(axis=1)):  # a row of a batch equals the row alone
        alone = layer(X[row : row + 1, :length])
        assert_all_close([y[row] for y in found], [y[0] for y in alone])


@pytest.mark.parametrize("layer_type", ALL)
@pytest.mark.parametrize("jit", [False, True])
def test_unknown_batch_and_time_sizes(layer_type, jit):
    layer = layer_type(U, return_sequences=True, go_backwards=True)
    layer.build(X.shape)

    def run(x, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, mask=mask > 0)
        return tape.gradient(output, x), output

    signature = [tf.TensorSpec((None, None, D)), tf.TensorSpec((None, None))]
    layer_gradients = tf.function(run, input_signature=signature, jit_compile=jit)
    for x, mask in ((X, MASK), (X[:2, :3], MASK[:2, :3])):
        gradient, output = layer_gradients(x, mask.astype("float32"))
        expected_gradient, expected = run(tf.constant(x), tf.constant(mask.astype("float32")))
        np.testing.assert_allclose(output, expected, atol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("layer_type", ALL)
@pytest.mark.parametrize("known", [False, True])
def test_no_steps_and_no_rows(layer_type, known):
    layer = layer_type(U, return_sequences=True, return_state=True)
    layer.build(X.shape)
    begin = states(layer_type)
    for rows, length in ((B, 0), (0, T)):
        x = np.zeros((rows, length, D), "float32")
        signature = [tf.TensorSpec(x.shape if known else (None, None, D)), *[tf.TensorSpec((None, U))] * len(begin)]

        def run(x, *begin):
            with tf.GradientTape() as tape:
                tape.watch(x)
                results = layer(x, initial_state=list(begin))
                loss = sum(ops.sum(y) for y in results)
            return results, tape.gradient(loss, x)

        first = [h[:rows] for h in begin]
        (output, *last), gradient = tf.function(run, input_signature=signature)(x, *first)
        assert output.shape == (rows, length, U) and gradient.shape == x.shape
        for found, expected in zip(last, first, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layer_type", ALL)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_gradients_of_long_sequences_stay_near_those_of_double_precision(layer_type, policy):
    x = RNG.normal(size=(2, 400, D)).astype("float32")
    exact, layer = layer_type(U, dtype="float64"), layer_type(U, dtype=policy)
    exact.build(x.shape)
    layer.build(x.shape)
    exact.set_weights(layer.get_weights())

    def run(layer):
        return gradients(lambda x: [ops.cast(layer(x), "float32")], layer.weights, x, jit=False)[1]

    for found, expected in zip(run(layer), run(exact), strict=True):
        tolerance = {"float32": 1e-5, "mixed_float16": 0.02, "mixed_bfloat16": 0.1}[policy] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("layer_type", RECURRENT)
def test_dropout_takes_the_same_features_at_all_steps(layer_type):
    layer = layer_type(U, dropout=0.5, seed=1)
    np.testing.assert_array_equal(layer(X), layer(X, training=False))
    dropped = np.asarray(layer.input_dropout(np.ones_like(X), training=True))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    np.testing.assert_array_equal(dropped, np.repeat(dropped[:, :1], T, axis=1))
    assert np.abs(layer(X, training=True) - layer(X)).max() > 1e-3


@pytest.mark.parametrize("layer_type", RECURRENT)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_states_are_dropped_on_their_way_to_the_product_only(layer_type, rate):
    """By the matrix: to drop a row's feature with one mask is to do without a row of W, the rest scaled up."""
    layer = layer_type(U, recurrent_dropout=rate, seed=1)
    x = X[:1]
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    factors = np.ones(U, "float32")
    if rate:
        layer.state_dropout.seed_generator.state.assign([5, 2])
        factors = np.asarray(layer.state_dropout(np.ones((1, U), "float32"), training=True))[0]
        assert set(np.unique(factors)) == {0.0, 2.0}
        layer.state_dropout.seed_generator.state.assign([5, 2])
    found, found_gradients = gradients(lambda x: [layer(x, training=True)], layer.trainable_weights, x)
    plain = layer_type(U)
    plain.build(x.shape)
    kernel, recurrent, bias = layer.get_weights()[:3]
    plain.set_weights([kernel, recurrent * factors[:, None], bias])
    expected, expected_gradients = gradients(lambda x: [plain(x)], plain.trainable_weights, x)
    expected_gradients[1] = expected_gradients[1] * factors[:, None]
    assert_all_close(found, expected)
    assert_all_close(found_gradients, expected_gradients)


@pytest.mark.parametrize("layer_type", ALL)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_masks_that_keras_attaches_are_used_and_handed_on(layer_type, go_backwards):
    ids = np.array([[3, 4, 0, 0], [5, 1, 2, 8]])
    embedding = TiedEmbedding(9, D, mask_zero=True)
    layer = layer_type(U, return_sequences=True, return_state=True, go_backwards=go_backwards)
    explicit = layer(np.asarray(embedding(ids)), mask=ids != 0)
    for found in (layer(embedding(ids)), layer(embedding(ids), initial_state=layer.initial_state(2))):
        assert_all_close(found, explicit, atol=1e-6)
    order = slice(None, None, -1 if go_backwards else 1)
    np.testing.assert_array_equal(layer(embedding(ids))[0]._keras_mask, (ids != 0)[:, order])


def test_misuse_is_refused_clearly():
    with pytest.raises(ValueError, match="activation='swish'"):
        SimpleRNN(U, "swish")
    with pytest.raises(ValueError, match="LSTM has 2 states. Received: 1"):
        LSTM(U)(X, initial_state=np.zeros((B, U), "float32"))
