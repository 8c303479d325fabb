"""Greedy decoding and sampling on languages whose answers are known."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.decoding import greedy, sample, sample_one_by_one
from pipelines.decoding.single import _cut
from tests.pipelines.decoding.languages import END, START, Language, decoder, said

LANGUAGE = Language(0)
GREEDY = decoder(greedy, language=LANGUAGE)
DRAWN = decoder(sample, language=LANGUAGE, temperature=0.9, top_k=5, top_p=0.9)


def likeliest_by_hand(row, limit):
    sentence = []
    while len(sentence) < limit and END not in sentence:
        scores = [LANGUAGE.score(row, [*sentence, token]) for token in range(LANGUAGE.size)]
        sentence.append(int(np.argmax(scores)))
    return tuple(sentence)


def test_greedy_takes_the_likeliest_and_stops_at_the_end_or_the_limit():
    rows, limits = np.arange(40), np.tile([1, 3, 8, 12], 10)
    ids, scores = GREEDY(rows, limits)
    expected = [likeliest_by_hand(row, limit) for row, limit in zip(rows, limits, strict=True)]
    assert [said(answer[:limit]) for answer, limit in zip(ids[:, 0], limits, strict=True)] == expected
    assert {END in sentence for sentence in expected} == {True, False}
    np.testing.assert_allclose(scores[:, 0], [LANGUAGE.score(r, s) for r, s in zip(rows, expected, strict=True)], 1e-4)
    for answer, sentence in zip(ids[:, 0], expected, strict=True):
        assert not answer[len(sentence) :].any()


def test_ends_with_the_last_row():
    steps = tf.Variable(0)

    def step(frontier, state):
        steps.assign_add(1)
        # Row 0 ends at once, row 1 after two tokens, row 2 wants nothing.
        best = tf.stack([END, tf.where(frontier.position < 2, 8, END), 8])
        return tf.one_hot(best, 10)[:, None], state

    ids, scores = greedy(step, tf.constant(0), tf.constant([50, 50, 0]), START, END)
    np.testing.assert_array_equal(ids[:, 0, :4], [[END, 0, 0, 0], [8, 8, END, 0], [0, 0, 0, 0]])
    assert int(steps) == 3
    assert scores[2, 0] == 0


def test_a_batch_of_no_rows():
    for ids, scores in (GREEDY([], []), DRAWN([], [], seeds=tf.zeros([0], tf.int64))):
        assert ids.shape[:2] == (0, 1) and scores.shape == (0, 1)


ROWS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 9)), min_size=1, max_size=5)


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_no_answer_depends_on_its_batch(some, others):
    for call in (GREEDY, lambda r, n: DRAWN(r, n, seeds=tf.constant(r, tf.int64))):
        alone = call(*zip(*some, strict=True))
        together = call(*zip(*(others + some), strict=True))
        length = alone.ids.shape[-1]
        np.testing.assert_array_equal(together.ids[len(others) :, :, :length], alone.ids)
        np.testing.assert_allclose(together.scores[len(others) :], alone.scores, atol=1e-5)


def test_samples_follow_the_distribution():
    draw = decoder(sample, language=LANGUAGE)
    count = 4000
    ids, scores = draw(np.full(count, 7), np.full(count, 1), seeds=tf.range(count, dtype=tf.int64))
    shares = np.bincount(ids[:, 0, 0], minlength=LANGUAGE.size) / count
    expected = np.exp([LANGUAGE.score(7, [token]) for token in range(LANGUAGE.size)])
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / count))
    np.testing.assert_allclose(scores[:, 0], np.log(expected)[ids[:, 0, 0]], rtol=1e-4)


@pytest.mark.parametrize(("cut", "kept"), [({"top_k": 2}, 2), ({"top_p": 0.5}, None), ({"top_k": 1}, 1)])
def test_what_is_cut_off_is_never_drawn(cut, kept):
    count = 1500
    ids, _ = decoder(sample, language=LANGUAGE, **cut)(
        np.full(count, 7), np.full(count, 1), seeds=tf.range(count, dtype=tf.int64)
    )
    probabilities = np.exp([LANGUAGE.score(7, [token]) for token in range(LANGUAGE.size)])
    order = np.argsort(-probabilities)
    if kept is None:
        kept = int(np.searchsorted(np.cumsum(probabilities[order]), 0.5)) + 1
        assert 1 < kept < LANGUAGE.size
    assert set(ids[:, 0, 0]) == set(order[:kept])


def test_temperature_sharpens_row_by_row_and_zero_is_greedy():
    rows = np.repeat(11, 900)
    temperature = tf.repeat([0.0, 0.3, 1.0], 300)
    ids, _ = decoder(sample, language=LANGUAGE)(
        rows, np.ones_like(rows), seeds=tf.range(900, dtype=tf.int64), temperature=temperature
    )
    best = likeliest_by_hand(11, 1)[0]
    shares = (ids[:, 0, 0] == best).reshape(3, 300).mean(1)
    scores = np.array([LANGUAGE.score(11, [token]) for token in range(LANGUAGE.size)])
    expected = [1.0, *(np.exp(scores[best] / t) / np.exp(scores / t).sum() for t in (0.3, 1.0))]
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / 300))
    assert expected[1] > expected[2] + 0.1


def test_a_temperature_near_zero_is_greedy():
    draw = decoder(sample, language=LANGUAGE, temperature=1e-30)
    rows, limits = np.arange(20), np.full(20, 6)
    np.testing.assert_array_equal(draw(rows, limits, seeds=tf.range(20)).ids, GREEDY(rows, limits).ids)


def test_tokens_one_by_one_are_those_that_are_drawn_together():
    rows, cuts = [5, 6, 7], {"temperature": 0.9, "top_k": 5, "top_p": 0.9}
    ids, _ = DRAWN(rows, [9] * 3, seeds=tf.constant(rows, tf.int64))
    for row, together in zip(rows, ids[:, 0], strict=True):
        found = sample_one_by_one(LANGUAGE.step, tf.constant([[row]]), 9, START, END, row, **cuts)
        assert tuple(found) == said(together)
    assert {END in answer for answer in ids[:, 0]} == {True, False}


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="Received"):
        sample(LANGUAGE.step, tf.zeros([1, 1], tf.int32), tf.constant([3]), START, END, tf.constant([1]), **wrong)


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(0, 30), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_cut_keeps_the_likeliest_and_never_all_away(size, top_k, top_p, seed):
    logits = np.random.default_rng(seed).normal(0, 2, (3, size)).astype("float32")
    kept = np.isfinite(_cut(tf.constant(logits), top_k, top_p).numpy())
    for row, mask in zip(logits, kept, strict=True):
        assert mask[row.argmax()]
        assert not top_k or mask.sum() <= top_k
        assert mask.all() or row[mask].min() > row[~mask].max()
        if not top_k and size > 1:
            shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert shares[mask].sum() >= top_p - 1e-4
