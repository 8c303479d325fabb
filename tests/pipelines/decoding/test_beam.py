"""Beam search against exhaustive search, greedy decoding, and itself in other batches."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.decoding import beam_search, greedy
from pipelines.decoding.beam import length_normaliser
from pipelines.decoding.step import likeliest
from tests.pipelines.decoding.languages import END, START, Language, decoder, said


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_sentences_of_all(length_penalty):
    language, limit, n_best = Language(1, size=4), 4, 5
    # All 27 unfinished hypotheses of three words fit, so nothing is ever lost.
    search = decoder(beam_search, 27, language=language, beams=27, n_best=n_best, length_penalty=length_penalty)
    rows = np.arange(30)
    ids, scores = search(rows, np.full(30, limit))
    for row in rows:
        ranked = sorted(
            (
                language.score(row, sentence) / float(length_normaliser(len(sentence), length_penalty)),
                sentence,
            )
            for sentence in language.sentences(limit)
        )[::-1][:n_best]
        np.testing.assert_allclose(scores[row], [score for score, _ in ranked], rtol=1e-4)
        assert [said(answer) for answer in ids[row]] == [sentence for _, sentence in ranked]


def test_one_beam_is_greedy():
    language = Language(2, size=70)
    rows, limits = np.arange(30), np.tile([2, 10, 20], 10)
    expected = decoder(greedy, language=language)(rows, limits)
    found = decoder(beam_search, 1, language=language, beams=1)(rows, limits)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    assert {END in answer for answer in expected.ids} == {True, False}


def test_more_beams_find_more():
    language = Language(3, size=30)
    rows, limits = np.arange(60), np.full(60, 12)
    means = [
        decoder(beam_search, beams, language=language, beams=beams, length_penalty=1.0)(rows, limits).scores.mean()
        for beams in (1, 4, 16)
    ]
    assert means[0] < means[1] < means[2]


def test_scores_are_those_of_the_answers():
    language = Language(4)
    ids, scores = decoder(beam_search, 4, language=language, beams=4, n_best=4, length_penalty=0.7)(
        np.arange(40), np.full(40, 9)
    )
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    for row, (answers, found) in enumerate(zip(ids, scores, strict=True)):
        sentences = [said(answer) for answer in answers]
        assert len(set(sentences)) == 4
        for sentence, score in zip(sentences, found, strict=True):
            expected = language.score(row, sentence) / float(length_normaliser(len(sentence), 0.7))
            assert abs(score - expected) < 1e-4


def test_what_the_limit_cuts_comes_after_what_ended():
    language = Language(5, spread=0.3)
    ids, scores = decoder(beam_search, 4, language=language, beams=4, n_best=4)(np.arange(60), np.full(60, 3))
    ended = (ids == END).any(-1)
    assert ended.any() and not ended.all()
    assert (np.diff(ended.astype(int), axis=1) <= 0).all()
    assert np.isfinite(scores).all()


def test_ends_as_soon_as_nothing_better_can_come():
    steps = tf.Variable(0)

    def step(frontier, state):
        steps.assign_add(1)
        # From the second token on, the end is nearly certain.
        logits = tf.one_hot(tf.where(frontier.tokens == START, 5, END), 10) * 20.0
        return logits, state

    ids, _ = beam_search(step, tf.constant(0), tf.constant([40, 0]), START, END, beams=3)
    np.testing.assert_array_equal(ids[0, 0, :3], [5, END, 0])
    assert int(steps) == 2


ROWS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 9)), min_size=1, max_size=5)
LANGUAGE = Language(6, size=70)
SEARCH = decoder(beam_search, 3, language=LANGUAGE, beams=3, n_best=2, length_penalty=0.6)


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_no_answer_depends_on_its_batch(some, others):
    alone = SEARCH(*zip(*some, strict=True))
    together = SEARCH(*zip(*(others + some), strict=True))
    length = alone.ids.shape[-1]
    np.testing.assert_array_equal(together.ids[len(others) :, :, :length], alone.ids)
    np.testing.assert_allclose(together.scores[len(others) :], alone.scores, atol=1e-5)


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**31))
def test_likeliest_is_the_top_of_the_log_softmax(size, count, seed):
    count = min(count, size)
    logits = tf.constant(np.random.default_rng(seed).normal(0, 5, (4, size)).astype("float32"))
    expected = tf.math.top_k(tf.nn.log_softmax(logits), count)
    values, ids = likeliest(logits, count)
    np.testing.assert_allclose(values, expected.values, atol=1e-4)
    np.testing.assert_array_equal(ids, expected.indices)


def test_equally_likely_tokens_come_in_their_own_order():
    values, ids = likeliest(tf.zeros([1, 200]), 5)
    np.testing.assert_array_equal(ids, [[0, 1, 2, 3, 4]])
    np.testing.assert_allclose(values, -np.log(200), rtol=1e-5)


def test_an_id_outside_the_vocabulary_is_never_the_likeliest():
    values, ids = likeliest(tf.constant([[-float("inf"), 1.0, -float("inf")]]), 3)
    assert sorted(ids[0].numpy()) == [0, 1, 2] and values[0, 0] == 0


@pytest.mark.parametrize("size", [4, 5])
def test_more_beams_than_tokens(size):
    language = Language(7, size=size)
    search = decoder(beam_search, 9, language=language, beams=9, n_best=9)
    ids, scores = search(np.arange(10), np.full(10, 3))
    for row, (answers, found) in enumerate(zip(ids, scores, strict=True)):
        best = max(language.score(row, sentence) for sentence in language.sentences(3))
        assert abs(found[0] - best) < 1e-4 and abs(language.score(row, said(answers[0])) - best) < 1e-4
    assert search([], []).ids.shape[:2] == (0, 9)


@pytest.mark.parametrize("wrong", [{"n_best": 3}, {"n_best": 0}, {"length_penalty": -1.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="Received"):
        beam_search(LANGUAGE.step, tf.zeros([1, 2], tf.int32), tf.constant([3]), START, END, beams=2, **wrong)
