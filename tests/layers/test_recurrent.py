"""Recurrent layers against Keras' own with the same weights, gradients included; and what Keras' layers do not have:
single steps, the loops of other backends, the parallel scan against a loop in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import layers.recurrent
from layers import GRU, LSTM, Bidirectional, MinGRU, SimpleRNN, TiedEmbedding
from tests.layers.contract import check_layer

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


def test_the_backward_layer_begins_with_the_last_real_step():
    layer = Bidirectional(LSTM(U, return_sequences=True))
    output = np.asarray(layer(X, mask=RIGHT))
    for row, length in enumerate(RIGHT.sum(axis=1)):
        np.testing.assert_allclose(output[row, :length], layer(X[row : row + 1, :length])[0], atol=1e-6)
    assert not output[~RIGHT].any()


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
    with pytest.raises(ValueError, match="activation='swish'"):
        SimpleRNN(U, "swish")
    with pytest.raises(ValueError, match="LSTM has 2 states. Received: 1"):
        LSTM(U)(X, initial_state=np.zeros((B, U), "float32"))
    with pytest.raises(ValueError, match="merge_mode='mul'"):
        Bidirectional(GRU(U), merge_mode="mul")
    with pytest.raises(ValueError, match="opposite go_backwards and equal return_sequences"):
        Bidirectional(GRU(U), GRU(U))
    with pytest.raises(ValueError, match="equal return_sequences, return_state, units"):
        Bidirectional(GRU(U), GRU(U + 1, go_backwards=True), merge_mode="sum")
