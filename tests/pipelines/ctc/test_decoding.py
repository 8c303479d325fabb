"""Greedy decoding and prefix beam search against every path, against dictionaries, and against TensorFlow's own."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ctc import Automaton, greedy, prefix_beam_search
from tests.pipelines.ctc.reference import (
    collapsed,
    labellings,
    log_softmax,
    prefix_search,
    random_automaton,
    random_log_probs,
)

SIZE = 5
GREEDY = tf.function(
    greedy, input_signature=[tf.TensorSpec([None, None, None], tf.float32), tf.TensorSpec([None], tf.int32)]
)


@functools.cache
def searcher(beams, top, size=SIZE, automata=()):
    """A search for any number of rows and frames; automata are given as seeds."""
    biases = [random_automaton(seed, size) for seed in automata]
    search = functools.partial(prefix_beam_search, beams=beams, top=top, biases=biases)
    signature = [tf.TensorSpec([None, None, size], tf.float32), tf.TensorSpec([None], tf.int32)]
    return tf.function(search, input_signature=signature)


def said(answers, row, place=0):
    return tuple(answers.ids[row, place, : answers.lengths[row, place]].numpy())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 7))
def test_greedy_takes_the_likeliest_of_each_frame(seed, rows, frames):
    log_probs = random_log_probs(seed, rows, frames, 3)
    lengths = np.random.default_rng(seed).integers(0, frames + 1, rows)
    answers = GREEDY(log_probs, lengths)
    for row, length in enumerate(lengths):
        inside = log_probs[row, :length]
        text = collapsed(inside.argmax(-1))
        assert said(answers, row) == text and not answers.ids[row, 0, len(text) :].numpy().any()
        expected = labellings(inside)[text]
        np.testing.assert_allclose(answers.log_probabilities[row, 0], expected, rtol=1e-4, atol=1e-5)
        confidence = np.exp(expected / max(1, len(text)))
        np.testing.assert_allclose(answers.confidences[row, 0], confidence, rtol=1e-4)
    assert answers.ids.shape[2] == answers.lengths.numpy().max()


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_a_wide_beam_finds_the_best_labellings_of_all(spread):
    # 63 labellings of two symbols have at most five: nothing is ever lost.
    log_probs = random_log_probs(1, 20, 5, 3, spread=spread)
    answers = searcher(64, 6, size=3)(log_probs, np.full(20, 5))
    for row, frames in enumerate(log_probs):
        ranked = sorted(labellings(frames).items(), key=lambda item: -item[1])[:6]
        assert [said(answers, row, place) for place in range(6)] == [text for text, _ in ranked]
        np.testing.assert_allclose(answers.log_probabilities[row], [score for _, score in ranked], rtol=1e-4)
        confidences = [np.exp(score / max(1, len(text))) for text, score in ranked]
        np.testing.assert_allclose(answers.confidences[row], confidences, rtol=1e-4)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 30),
    st.sampled_from([1, 3, 6]),
    st.sampled_from([(), (2, 3)]),
    st.sampled_from([0.5, 2.0, 4.0]),
)
def test_equals_the_search_over_dictionaries(seed, frames, beams, automata, spread):
    log_probs = random_log_probs(seed, 1, frames, SIZE, spread=spread)
    top = min(beams, 3)
    expected = prefix_search(log_probs[0], beams, [random_automaton(seed, SIZE) for seed in automata])[:top]
    answers = searcher(beams, top, automata=automata)(log_probs, [frames])
    found = [said(answers, 0, place) for place in range(top)]
    assert found[: len(expected)] == [text for text, _ in expected]
    scores = answers.log_probabilities[0].numpy()
    np.testing.assert_allclose(scores[: len(expected)], [score for _, score in expected], rtol=1e-4, atol=1e-4)
    assert (scores[len(expected) :] == -np.inf).all()


@pytest.mark.parametrize(("size", "beams", "holes"), [(SIZE, 6, 0.0), (SIZE, 6, 0.3), (3, 16, 0.4)])
def test_long_rows(size, beams, holes):
    """Prefixes fall out of the beam and come back while what grew from them stays; impossible frames empty slots."""
    automata, rows = (2, 3), 100
    biases = [random_automaton(seed, size) for seed in automata]
    log_probs = random_log_probs(7, rows, 20, size, spread=1.0)
    log_probs[np.random.default_rng(8).random(log_probs.shape) < holes] = -np.inf
    answers = searcher(beams, beams, size, automata)(log_probs, np.full(rows, 20))
    for row, frames in enumerate(log_probs):
        expected = prefix_search(frames, beams, biases)
        texts = [said(answers, row, place) for place in range(beams)][: len(expected)]
        assert texts == [text for text, _ in expected]
        scores = answers.log_probabilities[row].numpy()
        np.testing.assert_allclose(scores[: len(expected)], [score for _, score in expected], rtol=1e-4)
        assert (scores[len(expected) :] == -np.inf).all()


def test_equals_tensorflows_beam_search():
    log_probs = random_log_probs(3, 30, 7, 3, spread=1.5)
    answers = searcher(256, 3, size=3)(log_probs, np.full(30, 7))
    moved = np.roll(log_probs, -1, axis=-1).transpose(1, 0, 2)  # its blank is the last id
    found, scores = tf.nn.ctc_beam_search_decoder(moved, np.full(30, 7), beam_width=256, top_paths=3)
    np.testing.assert_allclose(answers.log_probabilities, scores, rtol=1e-3, atol=1e-3)
    for place in range(3):
        dense = tf.sparse.to_dense(found[place], default_value=-1).numpy() + 1
        for row in range(30):
            assert said(answers, row, place) == tuple(dense[row][dense[row] > 0])


def test_more_beams_find_more():
    log_probs = random_log_probs(4, 40, 40, SIZE, spread=1.0)
    means = [
        float(tf.reduce_mean(searcher(beams, 1)(log_probs, np.full(40, 40)).log_probabilities)) for beams in (1, 4, 16)
    ]
    assert means[0] < means[1] < means[2]


ROWS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 12)), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS, st.integers(0, 4), st.sampled_from([np.nan, np.inf, 3.0]))
def test_no_answer_depends_on_its_batch_or_padding(some, others, more, junk):
    def batch(rows, frames):
        log_probs = np.full((len(rows), frames, SIZE), junk, "float32")
        for row, (seed, length) in enumerate(rows):
            log_probs[row, :length] = random_log_probs(seed, length, SIZE)
        return log_probs, np.array([length for _, length in rows])

    for decode in (GREEDY, searcher(3, 2, automata=(1,))):
        alone = decode(*batch(some, 12))
        together = decode(*batch(others + some, 12 + more))
        length = alone.ids.shape[2]
        np.testing.assert_array_equal(together.ids[len(others) :, :, :length], alone.ids)
        np.testing.assert_array_equal(together.lengths[len(others) :], alone.lengths)
        np.testing.assert_allclose(together.log_probabilities[len(others) :], alone.log_probabilities, atol=1e-4)
        again = decode(*batch(some, 12))
        assert all(np.array_equal(x, y) for x, y in zip(again, alone, strict=True))


def test_fewer_labellings_than_asked_for():
    log_probs = random_log_probs(5, 1, 1, 2)
    answers = searcher(4, 4, size=2)(log_probs, [1])
    real = np.isfinite(answers.log_probabilities[0])
    np.testing.assert_array_equal(real, [True, True, False, False])
    assert {said(answers, 0, 0), said(answers, 0, 1)} == {(), (1,)}
    assert not answers.lengths[0, 2:].numpy().any() and not answers.confidences[0, 2:].numpy().any()


@pytest.mark.parametrize("decode", [GREEDY, searcher(3, 2)])
def test_nothing_to_decode(decode):
    for rows, frames in ((2, 0), (0, 4), (2, 4)):
        answers = decode(np.zeros([rows, frames, SIZE], "float32"), np.zeros(rows))
        assert answers.ids.shape[0] == rows and answers.ids.shape[2] == 0
        assert (answers.log_probabilities[:, 0] == 0).numpy().all()
        assert (answers.confidences[:, 0] == 1).numpy().all()


def test_certain_frames_stay_finite():
    log_probs = np.full([1, 6, SIZE], -np.inf, "float32")
    log_probs[0, np.arange(6), [1, 1, 0, 1, 2, 0]] = 0.0
    for decode in (GREEDY, searcher(3, 2)):
        answers = decode(log_probs, [6])
        assert said(answers, 0) == (1, 1, 2)
        np.testing.assert_allclose(answers.log_probabilities[0, 0], 0.0, atol=1e-5)
        np.testing.assert_allclose(answers.confidences[0, 0], 1.0, atol=1e-5)


def test_half_precision_is_raised():
    log_probs = tf.cast(random_log_probs(6, 3, 20, SIZE), tf.bfloat16)
    expected = searcher(4, 2)(tf.cast(log_probs, tf.float32), [20, 11, 3])
    found = tf.function(lambda x: prefix_beam_search(x, [20, 11, 3], beams=4, top=2))(log_probs)
    assert found.log_probabilities.dtype == tf.float32
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_a_bias_decides_between_what_sounds_alike():
    # The second symbol may be 2 or 3; the bias knows that 3 follows 1.
    frames = log_softmax([[0, 9, 0, 0], [9, 0, 0, 0], [0, 0, 5, 4.9]]).astype("float32")[None]
    scores = np.zeros([2, 4], "float32")
    scores[1] = [0, 0, -2, 0]
    following = np.array([[0, 1, 0, 0], [0, 1, 0, 0]], "int32")
    assert said(prefix_beam_search(frames, [3]), 0) == (1, 2)
    answers = prefix_beam_search(frames, [3], biases=[Automaton(scores, following)])
    assert said(answers, 0) == (1, 3)
    np.testing.assert_allclose(answers.log_probabilities[0, 0], labellings(frames[0])[1, 3], atol=1e-4)


@pytest.mark.parametrize("top", [0, 5])
def test_wrong_settings_are_refused(top):
    with pytest.raises(ValueError, match="Received: top="):
        prefix_beam_search(tf.zeros([1, 2, 3]), [2], beams=4, top=top)
