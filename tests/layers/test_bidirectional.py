"""Both directions of recurrent layers against Keras' own, with masks, in a decoder's place and in an export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import GRU, LSTM, Bidirectional, MinGRU, SimpleRNN, TiedEmbedding
from tests.layers.contract import check_layer
from tests.layers.recurrences import (
    ALL,
    KERAS,
    RECURRENT,
    RIGHT,
    D,
    T,
    U,
    X,
    assert_all_close,
    gradients,
    randomise,
    states,
)


@pytest.mark.parametrize(
    "layer_type, merge_mode", [(SimpleRNN, "concat"), (GRU, "sum"), (LSTM, "concat"), (MinGRU, "sum")]
)
def test_both_directions_keep_the_contract(layer_type, merge_mode):
    check_layer(
        lambda **kw: Bidirectional(layer_type(U, return_sequences=True, dtype=kw.get("dtype")), None, merge_mode, **kw),
        {"inputs": X, "mask": RIGHT},
        padding={"inputs": "mask"},
        jit=layer_type is LSTM,
    )


@pytest.mark.parametrize("layer_type", RECURRENT)
@pytest.mark.parametrize("mask, merge_mode", [(None, "concat"), (RIGHT, "concat"), (RIGHT, "sum")])
def test_both_directions_equal_keras(layer_type, mask, merge_mode):
    options = {"return_sequences": True, "return_state": True}
    ours = Bidirectional(layer_type(U, **options), merge_mode=merge_mode)
    theirs = keras.layers.Bidirectional(KERAS[layer_type](U, **options), merge_mode=merge_mode)
    ours.build(X.shape)
    theirs.build(X.shape)
    randomise(ours)
    theirs.set_weights(ours.get_weights())
    begin = states(layer_type) + states(layer_type)
    found, found_gradients = gradients(
        lambda x, *begin: ours(x, initial_state=list(begin), mask=mask), ours.weights, X, *begin
    )
    expected, expected_gradients = gradients(
        lambda x, *begin: theirs(x, initial_state=list(begin), mask=mask), theirs.weights, X, *begin
    )
    assert_all_close(found, expected)
    assert_all_close(found_gradients, expected_gradients)


def test_the_backward_layer_begins_with_the_last_real_step():
    layer = Bidirectional(LSTM(U, return_sequences=True))
    output = np.asarray(layer(X, mask=RIGHT))
    for row, length in enumerate(RIGHT.sum(axis=1)):
        np.testing.assert_allclose(output[row, :length], layer(X[row : row + 1, :length])[0], atol=1e-6)
    assert not output[~RIGHT].any()


@pytest.mark.parametrize("layer_type", ALL)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_masks_that_keras_attaches_are_used_and_handed_on(layer_type, go_backwards):
    ids = np.array([[3, 4, 0, 0], [5, 1, 2, 8]])
    embedding = TiedEmbedding(9, D, mask_zero=True)
    both = Bidirectional(layer_type(U, return_sequences=True, go_backwards=go_backwards))
    np.testing.assert_array_equal(both(embedding(ids))._keras_mask, ids != 0)
    symbolic = keras.Input((None,), dtype="int32")
    model = keras.Model(symbolic, both(embedding(symbolic)))
    np.testing.assert_allclose(model(ids), both(embedding(ids)), atol=1e-6)


DROPPING = [(layer, "dropout") for layer in ALL] + [(layer, "recurrent_dropout") for layer in RECURRENT]


@pytest.mark.parametrize("layer_type, what", DROPPING)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_both_directions_drop_features_of_their_own(layer_type, what, rate):
    both = Bidirectional(layer_type(U, return_sequences=True, seed=3, **{what: rate}))
    both.build((None, T, D))
    for mine, other in zip(both.backward_layer.trainable_variables, both.layer.trainable_variables, strict=True):
        mine.assign(other)
    output = both(np.ones((2, T, D), "float32"), training=True)  # from either end the same
    alike = np.allclose(output[..., :U], output[:, ::-1, U:], atol=1e-6)
    assert alike == (rate == 0)


def summed_states(both, x):
    _, *last = both(x)
    half = len(last) // 2
    return [forward + backward for forward, backward in zip(last[:half], last[half:], strict=True)]


@pytest.mark.parametrize("layer_type", ALL)
def test_a_decoder_starts_with_the_states_of_an_encoder(layer_type, tmp_path):
    source, target = keras.Input((None, D)), keras.Input((None, D))
    both = Bidirectional(layer_type(U, return_state=True), merge_mode="sum")
    decoder = layer_type(U, return_sequences=True)
    model = keras.Model([source, target], decoder(target, initial_state=summed_states(both, source)))
    found = model([X, X[:, :3]])
    state = summed_states(both, X)
    for t in range(3):
        output, state = decoder.step(X[:, t], state)
        np.testing.assert_allclose(found[:, t], output, atol=1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")([X, X[:, :3]]), found, atol=1e-6)


def test_an_export_runs_in_a_session_with_any_sizes(tmp_path):
    """The session loader is TensorFlow Serving's own path, which links neither XLA's operations nor cuDNN's."""
    parts = [Bidirectional(layer_type(U, return_sequences=True)) for layer_type in ALL]
    inputs = keras.Input((None, D))
    output = inputs
    for part in parts:
        output = part(output)
    model = keras.Model(inputs, output)
    expected = model(X)
    module = tf.Module()
    module.variables_ = [v.value for v in model.variables]
    signature = tf.function(lambda x: {"y": model(x)}, input_signature=[tf.TensorSpec((None, None, D), name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures=signature)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        names = meta.signature_def["serving_default"]
        fetch, feed = names.outputs["y"].name, names.inputs["x"].name
        np.testing.assert_allclose(session.run(fetch, {feed: X}), expected, atol=1e-5)
        assert session.run(fetch, {feed: X[:1, :2]}).shape == (1, 2, 2 * U)
        operations = {node.op for function in meta.graph_def.library.function for node in function.node_def}
        operations |= {operation.type for operation in graph.get_operations()}
    assert "While" in operations or "StatelessWhile" in operations
    assert not [name for name in operations if "Xla" in name or "Cudnn" in name]


def test_misuse_is_refused_clearly():
    with pytest.raises(ValueError, match="merge_mode='mul'"):
        Bidirectional(GRU(U), merge_mode="mul")
    with pytest.raises(ValueError, match="opposite go_backwards and equal return_sequences"):
        Bidirectional(GRU(U), GRU(U))
    with pytest.raises(ValueError, match="equal return_sequences, return_state, units"):
        Bidirectional(GRU(U), GRU(U + 1, go_backwards=True), merge_mode="sum")
