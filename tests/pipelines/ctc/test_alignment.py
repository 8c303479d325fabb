"""Forced alignment against every path."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ctc import align, feasible
from tests.pipelines.ctc.reference import collapsed, paths, random_log_probs

ALIGN = tf.function(
    align,
    input_signature=[
        tf.TensorSpec([None, None, None], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.int32),
    ],
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 4))
def test_the_likeliest_path_of_the_labels(seed, frames, longest):
    rng = np.random.default_rng(seed)
    log_probs = random_log_probs(seed, 3, frames, 3)
    lengths, label_lengths = rng.integers(0, frames + 1, 3), rng.integers(0, longest + 1, 3)
    labels = rng.integers(1, 3, (3, longest))
    found = ALIGN(log_probs, lengths, labels, label_lengths).numpy()
    possible = feasible(labels, label_lengths, lengths).numpy()
    for row, positions in enumerate(found):
        text, inside = labels[row, : label_lengths[row]], log_probs[row, : lengths[row]]
        assert (positions[lengths[row] :] == -1).all()
        if not possible[row]:
            assert (positions == -1).all()
            continue
        path = [text[position] if position >= 0 else 0 for position in positions[: lengths[row]]]
        assert collapsed(path) == tuple(text)
        # Every symbol has its frames, in order.
        assert list(dict.fromkeys(positions[positions >= 0])) == list(range(len(text)))
        score = sum(float(frame[symbol]) for frame, symbol in zip(inside, path, strict=True))
        best = max(score for other, score in paths(inside) if collapsed(other) == tuple(text))
        assert abs(score - best) < 1e-4


def test_padding_changes_nothing():
    log_probs = random_log_probs(1, 1, 9, 4)
    labels, lengths, label_lengths = np.array([[2, 2, 3]]), np.array([9]), np.array([3])
    expected = ALIGN(log_probs, lengths, labels, label_lengths)
    padded = np.pad(log_probs, [(0, 0), (0, 4), (0, 0)], constant_values=np.nan)
    found = ALIGN(padded, lengths, np.pad(labels, [(0, 0), (0, 2)], constant_values=1), label_lengths)
    np.testing.assert_array_equal(found[:, :9], expected)
    assert (found[:, 9:] == -1).numpy().all()


def test_frames_too_few_have_no_alignment_even_without_blanks():
    log_probs = random_log_probs(2, 1, 3, 3)
    log_probs[..., 0] = -np.inf
    assert (ALIGN(log_probs, [3], [[1, 1, 1]], [3]) == -1).numpy().all()
    np.testing.assert_array_equal(ALIGN(log_probs, [3], [[1, 2, 1]], [3]), [[0, 1, 2]])


def test_sharp_frames_are_read_off():
    said = [0, 1, 1, 0, 1, 2, 2, 0]
    log_probs = np.log(np.eye(3, dtype="float32")[said] * 0.97 + 0.01)
    found = ALIGN(log_probs[None], [8], [[1, 1, 2]], [3])
    np.testing.assert_array_equal(found, [[-1, 0, 0, -1, 1, 2, 2, -1]])
