"""Language models and word lists: what they score, and what they make a beam search answer."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ctc import Automaton, ngram, prefix_beam_search, word_list
from tests.pipelines.ctc.reference import log_softmax, random_automaton, random_log_probs

SIZE = 5
TEXTS = st.lists(st.lists(st.integers(1, SIZE - 1), max_size=7), max_size=6)


def witten_bell(texts, history, symbol):
    """p(symbol | history) as the definition has it; 0 is what stands before the first symbol and after the last."""
    if history is None:
        return 1 / SIZE
    count = Counter()
    for text in texts:
        padded = (0, *text, 0)
        for place in range(1, len(padded)):
            if len(history) <= place and padded[place - len(history) : place] == history:
                count[padded[place]] += 1
    shorter = witten_bell(texts, history[1:] if history else None, symbol)
    if not count:
        return shorter
    return (count[symbol] + len(count) * shorter) / (count.total() + len(count))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(st.integers(1, SIZE - 1), max_size=6), st.integers(1, 4))
def test_ngram_is_witten_bell(texts, text, order):
    model = ngram(texts, SIZE, order)
    np.testing.assert_allclose(np.exp(model.scores).sum(-1), 1, rtol=1e-5)
    padded = (0, *text, 0)
    expected = 0.0
    for place in range(1, len(padded)):
        history = padded[max(0, place - order + 1) : place] if order > 1 else ()
        expected += math.log(witten_bell(texts, history, padded[place]))
    assert abs(model.score(text) - expected) < 1e-4


def test_ngram_knows_its_texts_better_than_others():
    texts = [[1, 2, 3, 1, 2, 3], [1, 2, 3]] * 5
    scores = [ngram(texts, SIZE, order).score([1, 2, 3, 1, 2, 3]) for order in (1, 2, 3, 4)]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    model = ngram(texts, SIZE, 3)
    assert model.score([1, 2, 3]) > model.score([3, 2, 1]) > -math.inf
    # Histories that were seen are states: the start, (), 1, 2, 3, and (start, 1), (1, 2), (2, 3), (3, 1).
    assert len(model.scores) == 9


@pytest.mark.parametrize(("texts", "order"), [([[1, 5]], 2), ([[0]], 2), ([[-1]], 2), ([[1]], 0)])
def test_wrong_texts_are_refused(texts, order):
    with pytest.raises(ValueError, match="Received"):
        ngram(texts, SIZE, order)


def test_saved_and_loaded(tmp_path):
    model = ngram([[1, 2, 3], [3, 1]], SIZE, 3)
    for name in ("model.npz", "model"):
        model.save(tmp_path / name)
        loaded = Automaton.load(tmp_path / name)
        for x, y in zip(loaded, model, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


def test_weight_and_bonus():
    model = random_automaton(1, SIZE)
    before = model.scores.copy()
    text = [1, 4, 2]
    assert abs(model.weighted(0.5, 2.0).score(text) - (0.5 * model.score(text) + 6)) < 1e-5
    np.testing.assert_array_equal(model.scores, before)


SPACE = 4
WORDS = [(1, 2), (1,), (2, 2, 3)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, SIZE - 1), max_size=10))
def test_every_unknown_word_costs_once(text):
    automaton = word_list(WORDS, SIZE, SPACE, penalty=5.0)
    groups = itertools.groupby(text, lambda symbol: symbol == SPACE)
    words = [tuple(group) for is_space, group in groups if not is_space]
    expected = sum(-5.0 for word in words if word not in WORDS)
    assert abs(automaton.score(text) - expected) < 1e-5


@pytest.mark.parametrize("word", [(), (1, SPACE), (0,), (5,)])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(ValueError, match="Received"):
        word_list([word], SIZE, SPACE, penalty=1.0)


def test_a_search_that_knows_all_words_says_no_other():
    log_probs = random_log_probs(3, 20, 12, SIZE, spread=1.0)
    lengths = np.full(20, 12)
    automaton = word_list(WORDS, SIZE, SPACE, penalty=1e4)

    def words(biases):
        answers = prefix_beam_search(log_probs, lengths, beams=32, biases=biases)
        assert np.isfinite(answers.log_probabilities).all()
        texts = [row[:length] for row, length in zip(answers.ids[:, 0].numpy(), answers.lengths[:, 0], strict=True)]
        return [[tuple(w) for key, w in itertools.groupby(t, lambda s: s == SPACE) if not key] for t in texts]

    assert all(word in WORDS for text in words([automaton]) for word in text)
    assert not all(word in WORDS for text in words([]) for word in text)
    # An automaton beside it that says nothing changes nothing.
    silent = Automaton(np.zeros([1, SIZE], "float32"), np.zeros([1, SIZE], "int32"))
    assert words([silent, automaton]) == words([automaton])


def test_a_language_model_corrects_what_was_misheard():
    texts = [[1, 2, 3, 1, 2, 3]] * 20
    heard = np.zeros([13, SIZE])
    heard[np.arange(13), [0, 1, 0, 2, 0, 3, 0, 1, 0, 3, 0, 3, 0]] = 5.0
    heard[9, 2] = 4.5  # a 2 that sounds like a 3
    log_probs = log_softmax(heard).astype("float32")[None]
    model = ngram(texts, SIZE, 3)
    for biases, expected in (([], [1, 2, 3, 1, 3, 3]), ([model.weighted(0.5)], [1, 2, 3, 1, 2, 3])):
        answers = prefix_beam_search(log_probs, [13], beams=8, biases=biases)
        np.testing.assert_array_equal(answers.ids[0, 0], expected)
