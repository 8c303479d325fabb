"""Additive attention against NumPy and against Keras' own layer with the same weights; memories projected once, rows
without a single visible key, recomputation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from layers import AdditiveAttention, TiedEmbedding, rematerialise
from tests.layers.contract import check_layer

RNG = np.random.default_rng(0)
B, T, S, D, UNITS = 2, 6, 5, 12, 7
QUERY = RNG.normal(size=(B, T, D)).astype("float32")
MEMORY = RNG.normal(size=(B, S, 10)).astype("float32")
MASK = np.arange(S) < np.array([[3], [5]])
INPUTS = {"query": QUERY, "value": MEMORY, "value_mask": MASK}


def steps_over_projected_memory(layer, inputs):
    keys = layer.project_memory(inputs["value"])
    steps = [layer(QUERY[:, t : t + 1], MEMORY, value_mask=inputs.get("value_mask"), keys=keys) for t in range(T)]
    return ops.concatenate(steps, axis=1)


@pytest.mark.parametrize("masked", [False, True])
def test_contexts_keep_the_contract(masked):
    check_layer(
        lambda **kw: AdditiveAttention(UNITS, **kw),
        INPUTS if masked else {"query": QUERY, "value": MEMORY},
        padding={"value": "value_mask"},
        decode=steps_over_projected_memory,
    )


def test_scores_keep_the_contract():
    check_layer(lambda **kw: AdditiveAttention(UNITS, **kw), INPUTS, options={"return_attention_scores": True})


def randomised(**kwargs):
    """A layer with weights that make scores differ clearly."""
    layer = AdditiveAttention(UNITS, **kwargs)
    layer.build(QUERY.shape, MEMORY.shape)
    layer.set_weights([RNG.normal(scale=0.6, size=w.shape) for w in layer.weights])
    return layer


def in_numpy(query, memory, mask, w, u, v):
    """One query and one key at a time, as the paper has it."""
    contexts, scores = np.zeros((B, T, memory.shape[-1])), np.zeros((B, T, S))
    for b in range(B):
        visible = np.flatnonzero(mask[b])
        for i in range(T):
            e = np.array([v[:, 0] @ np.tanh(w.T @ query[b, i] + u.T @ memory[b, j]) for j in visible])
            scores[b, i, visible] = np.exp(e) / np.exp(e).sum()
            contexts[b, i] = sum(scores[b, i, j] * memory[b, j] for j in visible)
    return contexts, scores


def weights(layer):
    projections = layer.query_projection.kernel, layer.key_projection.kernel
    return [np.asarray(w) for w in (*projections, layer.score_kernel)]


@pytest.mark.parametrize("mask", [np.ones_like(MASK), MASK])
def test_contexts_and_scores_equal_numpy(mask):
    layer = randomised()
    context, scores = layer(QUERY, MEMORY, value_mask=mask, return_attention_scores=True)
    expected, expected_scores = in_numpy(QUERY, MEMORY, mask, *weights(layer))
    np.testing.assert_allclose(context, expected, atol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    assert np.asarray(scores).max() > 0.4  # not all alike, which would prove little


@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_equal_keras(masked):
    """Keras' layer has v alone: it is given what W and U make of its inputs."""
    layer, theirs = randomised(), keras.layers.AdditiveAttention()
    theirs.build([(B, T, UNITS), MEMORY.shape, (B, S, UNITS)])
    w, u, v = weights(layer)
    theirs.set_weights([v[:, 0]])
    query, memory = tf.constant(QUERY), tf.constant(MEMORY)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([query, memory])
        found = layer(query, memory, value_mask=MASK if masked else None)
        mask = [None, MASK] if masked else None
        expected = theirs([query @ w, memory, memory @ u], mask=mask)
        loss, expected_loss = ops.sum(ops.sin(found)), ops.sum(ops.sin(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    ours, scale = [query, memory, layer.score_kernel.value], theirs.scale.value
    theirs_too = tape.gradient(expected_loss, [query, memory, scale])
    for gradient, reference in zip(tape.gradient(loss, ours), theirs_too, strict=True):
        np.testing.assert_allclose(np.reshape(gradient, np.shape(reference)), reference, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), length=st.integers(1, S), padding=st.integers(1, 4))
def test_padding_never_changes_contexts(data, length, padding):
    layer = AdditiveAttention(UNITS)
    real = np.arange(length) < np.array(data.draw(st.lists(st.integers(1, length), min_size=B, max_size=B)))[:, None]
    garbage = data.draw(st.floats(-1e4, 1e4)) * np.ones((B, padding, 10), "float32")
    memory = MEMORY[:, :length]
    short = np.asarray(layer(QUERY, memory, value_mask=real))
    longer = np.concatenate([memory, garbage], axis=1).astype("float32")
    padded = layer(QUERY, longer, value_mask=np.pad(real, [(0, 0), (0, padding)]))
    np.testing.assert_allclose(padded, short, atol=1e-5)
    for row, n in enumerate(real.sum(1)):  # and a row of a batch equals the row alone
        np.testing.assert_allclose(short[row], layer(QUERY[row : row + 1], memory[row : row + 1, :n])[0], atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_an_empty_row_gives_finite_outputs_and_gradients(policy):
    layer = AdditiveAttention(UNITS, dtype=policy)
    with tf.GradientTape() as tape:
        output = layer(QUERY, MEMORY, value_mask=MASK & np.array([[True], [False]]))
        loss = ops.sum(ops.square(ops.cast(output, "float32")))
    assert np.isfinite(np.asarray(output, "float32")).all()
    for gradient in tape.gradient(loss, [w.value for w in layer.trainable_weights]):
        assert np.isfinite(gradient).all()


def test_large_projections_do_not_overflow_half_precision():
    layer = AdditiveAttention(UNITS, kernel_initializer="ones", dtype="mixed_float16")
    x = tf.constant(np.full((1, 2, 64), 600.0, "float32"))  # W q is 38,400: with U m more than float16 can hold
    with tf.GradientTape() as tape:
        output = layer(x, x)
        loss = ops.sum(ops.cast(output, "float32"))
    np.testing.assert_allclose(np.asarray(output, "float32"), 600.0)
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, [w.value for w in layer.trainable_weights]))


def test_a_mask_that_keras_attaches_is_used():
    embedding, layer = TiedEmbedding(9, 10, mask_zero=True), randomised()
    ids = np.array([[3, 4, 0, 0, 0], [5, 1, 2, 8, 6]])
    memory = embedding(ids)
    explicit = np.asarray(layer(QUERY, np.asarray(memory), value_mask=ids != 0))
    np.testing.assert_allclose(layer(QUERY, memory), explicit, atol=1e-6)
    assert np.abs(explicit - layer(QUERY, np.asarray(memory))).max() > 1e-4


def test_dropout_acts_in_training_only_and_scores_are_those_before_it():
    layer = randomised(dropout=0.5)
    output, scores = layer(QUERY, MEMORY, return_attention_scores=True)
    np.testing.assert_array_equal(layer(QUERY, MEMORY), output)
    dropped, training_scores = layer(QUERY, MEMORY, return_attention_scores=True, training=True)
    assert np.abs(dropped - output).max() > 1e-3
    np.testing.assert_allclose(training_scores, scores, atol=1e-6)


def test_recomputation_changes_no_gradient():
    layer = randomised(dropout=0.3)
    variables = layer.trainable_variables, layer.non_trainable_variables

    def gradients(call):
        @tf.function
        def run(trainable, state):
            with tf.GradientTape() as tape:
                tape.watch(trainable)
                values = zip(sum(variables, []), trainable + state, strict=True)
                with keras.StatelessScope(state_mapping=list(values)):
                    loss = tf.reduce_sum(tf.sin(call(tf.constant(QUERY), tf.constant(MEMORY))))
            return tape.gradient(loss, trainable)

        return run(*([tf.identity(v.value) for v in group] for group in variables))

    whole = gradients(lambda q, m: layer(q, m, value_mask=MASK, training=True))
    again = gradients(lambda q, m: rematerialise(layer, q, m, value_mask=MASK, training=True))
    for found, expected in zip(again, whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_memory_is_projected_by_a_built_layer_only():
    with pytest.raises(ValueError, match="build it first"):
        AdditiveAttention(UNITS).project_memory(MEMORY)
