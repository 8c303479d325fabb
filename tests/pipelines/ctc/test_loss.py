"""The CTC loss against every path, against TensorFlow's own, with and without XLA, and on bad rows."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ctc import ctc_loss, feasible
from tests.pipelines.ctc.reference import labellings, random_log_probs


def with_gradient(logits, logit_lengths, labels, label_lengths, weights, function=ctc_loss):
    """Losses, and the gradient of their weighted sum."""
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = function(logits, logit_lengths, labels, label_lengths)
        total = tf.reduce_sum(losses * weights)
    return losses, tape.gradient(total, logits)


def native(logits, logit_lengths, labels, label_lengths):
    labels = tf.RaggedTensor.from_tensor(labels, lengths=label_lengths).to_sparse()
    logits = tf.transpose(logits, [1, 0, 2])
    return tf.nn.ctc_loss(labels, logits, None, logit_lengths, blank_index=0)


SIGNATURE = [
    tf.TensorSpec([None, None, None], tf.float32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None, None], tf.int32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None], tf.float32),
]
ANY_SHAPE = tf.function(with_gradient, input_signature=SIGNATURE)
# Traced once for all shapes, as the training step is; XLA compiles for each.
COMPILED = tf.function(with_gradient, input_signature=SIGNATURE, jit_compile=True)
NATIVE = tf.function(functools.partial(with_gradient, function=native), input_signature=SIGNATURE)


def batch(seed, rows, frames, size, longest, spread=2.0):
    """Random arguments of `with_gradient`; where there can be symbols, at least one row has all of them."""
    rng = np.random.default_rng(seed)
    logit_lengths, label_lengths = rng.integers(0, frames + 1, rows), rng.integers(0, longest + 1, rows)
    logit_lengths[0], label_lengths[0] = frames, longest
    return (
        rng.normal(0, spread, (rows, frames, size)).astype("float32"),
        logit_lengths.astype("int32"),
        rng.integers(1, size, (rows, longest)).astype("int32"),
        label_lengths.astype("int32"),
        rng.uniform(0.5, 2, rows).astype("float32"),
    )


def test_sums_over_every_path():
    log_probs = random_log_probs(1, 4, 3)
    expected = labellings(log_probs)
    texts = [text for length in range(5) for text in itertools.product([1, 2], repeat=length)]
    labels = np.array([(*text, 0, 0, 0, 0)[:4] for text in texts], "int32")
    lengths = np.array([len(text) for text in texts], "int32")
    frames = np.full(len(texts), 4, "int32")
    logits = np.tile(log_probs, (len(texts), 1, 1)) + 3.0  # not normalised
    losses, _ = ANY_SHAPE(logits, frames, labels, lengths, np.ones(len(texts), "float32"))
    possible = feasible(labels, lengths, frames).numpy()
    assert {text for text, yes in zip(texts, possible, strict=True) if yes} == expected.keys()
    for text, loss in zip(texts, losses.numpy(), strict=True):
        np.testing.assert_allclose(loss, -expected[text] if text in expected else 0.0, rtol=1e-5)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 14), st.integers(2, 6), st.integers(1, 6))
def test_equals_tensorflows(seed, rows, frames, size, longest):
    arguments = batch(seed, rows, frames, size, longest)
    losses, gradient = ANY_SHAPE(*arguments)
    logits, logit_lengths, labels, label_lengths, _ = arguments
    possible = feasible(labels, label_lengths, logit_lengths).numpy() & (logit_lengths > 0)
    assert not np.any(losses.numpy()[~possible]) and not np.any(gradient.numpy()[~possible])
    compared = possible & (label_lengths > 0)  # TensorFlow's refuses rows without symbols
    if compared.any():
        kept = [x[compared] for x in arguments]
        expected, expected_gradient = NATIVE(*kept)
        np.testing.assert_allclose(losses.numpy()[compared], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient.numpy()[compared], expected_gradient, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 100, 32, 20), (2, 7, 4, 3), (2, 5, 3, 0), (1, 1, 2, 1)])
def test_inside_xla_too(shape):
    arguments = batch(5, *shape)
    possible = feasible(arguments[2], arguments[3], arguments[1]).numpy() & (arguments[3] > 0)
    assert possible.any() or not shape[3]
    losses, gradient = ANY_SHAPE(*arguments)
    compiled, compiled_gradient = COMPILED(*arguments)
    np.testing.assert_allclose(compiled, losses, rtol=1e-5)
    np.testing.assert_allclose(compiled_gradient, gradient, atol=1e-4)
    if shape[3]:
        chosen = [x[possible] for x in arguments]
        expected, expected_gradient = NATIVE(*chosen)
        np.testing.assert_allclose(compiled.numpy()[possible], expected, rtol=1e-5)
        np.testing.assert_allclose(compiled_gradient.numpy()[possible], expected_gradient, atol=5e-4)


def test_only_blanks():
    logits, logit_lengths, labels, label_lengths, weights = batch(2, 4, 6, 3, 2)
    label_lengths[:] = 0
    losses, gradient = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, np.ones(4, "float32"))
    log_probs = tf.nn.log_softmax(logits).numpy()
    for row, length in enumerate(logit_lengths):
        np.testing.assert_allclose(losses[row], -log_probs[row, :length, 0].sum(), rtol=1e-5, atol=1e-6)
        expected = np.exp(log_probs[row, :length]) - [1, 0, 0]
        np.testing.assert_allclose(gradient[row, :length], expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(0, 5), st.sampled_from([np.nan, np.inf, -1e30, 7.0]))
def test_padding_changes_nothing(seed, more_frames, more_labels, junk):
    logits, logit_lengths, labels, label_lengths, weights = batch(seed, 3, 8, 5, 3)
    losses, gradient = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, weights)
    padded = np.pad(logits, [(0, 0), (0, more_frames), (0, 0)], constant_values=junk)
    padded[np.arange(8 + more_frames) >= logit_lengths[:, None]] = junk
    longer = np.pad(labels, [(0, 0), (0, more_labels)], constant_values=2)
    longer[np.arange(3 + more_labels) >= label_lengths[:, None]] = 2
    again, gradient_again = ANY_SHAPE(padded, logit_lengths, longer, label_lengths, weights)
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    np.testing.assert_allclose(gradient_again[:, :8], gradient, atol=1e-5)
    assert not np.any(gradient_again[:, 8:])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_raised(dtype, jit):
    logits, *rest, weights = batch(3, 4, 20, 6, 5)
    logits = tf.cast(logits, dtype)
    losses, gradient = tf.function(with_gradient, jit_compile=jit)(logits, *rest, weights)
    expected, expected_gradient = ANY_SHAPE(tf.cast(logits, tf.float32), *rest, weights)
    assert losses.dtype == tf.float32 and gradient.dtype == logits.dtype
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(tf.cast(gradient, tf.float32), expected_gradient, atol=2e-2)


@pytest.mark.parametrize("scale", [1e4, 1e30, np.inf])
def test_finite_where_the_frames_rule_the_labels_out(scale):
    logits, logit_lengths, labels, label_lengths, weights = batch(4, 4, 9, 4, 3)
    logits[:, 2:7, 1:] = -scale
    labels[:], logit_lengths[:] = 1, 9
    label_lengths[:] = [3, 2, 1, 0]
    losses, gradient = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, weights)
    assert np.isfinite(losses).all() and np.isfinite(gradient).all() and (np.abs(gradient) <= 2.001).all()
    logits[:, :, 1:] = -scale
    losses, gradient = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, weights)
    assert np.isfinite(losses).all() and np.isfinite(gradient).all()
    assert (losses[:3] >= 9000).numpy().all() and abs(losses[3]) < 1e-3
    # A symbol that is possible too late only, one that never is, and frames that allow nothing the row asks for.
    logits[:], labels[0] = 0.0, [1, 2, 1]
    logits[:, :-1, 1] = logits[:, :, 2] = logits[1:, 3, 0] = -scale
    losses, gradient = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, weights)
    assert np.isfinite(losses).all() and np.isfinite(gradient).all() and (losses >= 9000).numpy().all()
    assert (np.abs(gradient) <= 2.001).all()


@pytest.mark.parametrize("function", [ANY_SHAPE, COMPILED])
def test_finite_whatever_is_ruled_out(function):
    logits, logit_lengths, labels, label_lengths, weights = batch(9, 300, 10, 4, 4)
    holes = np.random.default_rng(10).random(logits.shape) < 0.6
    logits[holes & ~holes.all(-1, keepdims=True)] = -np.inf
    losses, gradient = function(logits, logit_lengths, labels, label_lengths, weights)
    assert np.isfinite(losses).all() and np.isfinite(gradient).all()
    assert (np.abs(gradient) <= 2.001).all() and 20 < (losses.numpy() > 1e20).sum() < 280
    # What cannot be said at all pulls no probability out of nothing: each frame's gradient still sums to zero.
    np.testing.assert_allclose(tf.reduce_sum(gradient, axis=-1), 0.0, atol=1e-5)


def test_a_bad_frame_is_not_hidden():
    logits, *rest = batch(6, 2, 6, 4, 2)
    logits[0, 1, 2] = np.nan
    losses, gradient = ANY_SHAPE(logits, *rest)
    assert np.isnan(losses[0]) and np.isnan(gradient[0]).any()
    assert np.isfinite(losses[1]) and np.isfinite(gradient[1]).all()


def test_frames_enough():
    labels = np.array([[1, 1, 2, 2], [1, 2, 1, 2], [1, 1, 1, 1], [1, 1, 1, 1]])
    label_lengths = np.array([4, 4, 2, 0])
    for logit_lengths, expected in (
        ([6, 4, 3, 0], [True] * 4),
        ([5, 3, 2, 0], [False, False, False, True]),
    ):
        np.testing.assert_array_equal(feasible(labels, label_lengths, np.array(logit_lengths)), expected)


def test_descending_the_gradient_teaches_the_labels():
    logits, logit_lengths, labels, label_lengths, weights = batch(7, 3, 12, 5, 4)
    logit_lengths[:] = 12
    first, _ = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, weights)
    for _ in range(100):
        losses, gradient = ANY_SHAPE(logits, logit_lengths, labels, label_lengths, weights)
        logits = logits - 2.0 * gradient
    assert (losses < 0.1).numpy().all() and (first > 1).numpy().all()


def test_second_derivatives_are_refused():
    logits, *rest = batch(8, 2, 4, 3, 1)

    @tf.function(autograph=False)
    def twice(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            _, gradient = with_gradient(logits, *rest[:3], rest[3])
        return tape.gradient(gradient, logits)

    with pytest.raises(LookupError, match="no second derivatives"):
        twice(tf.constant(logits))
