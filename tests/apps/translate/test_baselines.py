"""The baselines: what they learn from small corpora, and how little that is on the sample."""

import numpy as np
import pytest
import sacrebleu

from apps.translate import sample
from apps.translate.baselines import DictionaryBaseline, NearestNeighbourBaseline

CORPUS = [
    ("the house", "das Haus"),
    ("the book", "das Buch"),
    ("a book", "ein Buch"),
    ("The book sleeps.", "Das Buch schläft."),
]


def test_model_1_aligns_the_textbook_example():
    baseline = DictionaryBaseline().fit(CORPUS)
    assert baseline.translate(["a house", "the book"]) == ["ein Haus", "das Buch"]


def test_expectation_maximisation_sharpens():
    """After one iteration "book" is still torn between words it occurs with; EM decides by the rest."""
    corpus = [("big book", "Buch groß"), ("big house", "Haus groß"), ("house", "Haus")]
    assert DictionaryBaseline(iterations=10).fit(corpus).translate(["big book"]) == ["groß Buch"]


def test_case_and_punctuation_follow_the_source():
    baseline = DictionaryBaseline().fit(CORPUS)
    assert baseline.translate(["The house, a book.", "the house?"]) == ["Das Haus, ein Buch.", "das Haus?"]


def test_unknown_words_are_copied():
    assert DictionaryBaseline().fit(CORPUS).translate(["the Zeppelin"]) == ["das Zeppelin"]


def test_empty_sentences():
    baseline = DictionaryBaseline().fit([*CORPUS, ("", ""), ("word", "")])
    assert baseline.translate([""]) == [""]
    assert baseline.translate([]) == []


@pytest.mark.parametrize("pairs", [[], [("", "")], [("...", "...")]])
def test_a_dictionary_needs_words(pairs):
    with pytest.raises(ValueError, match="words on both sides"):
        DictionaryBaseline().fit(pairs)


def test_iterations_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        DictionaryBaseline(iterations=0)


def test_nearest_neighbour_answers_its_own_training_sentences():
    baseline = NearestNeighbourBaseline(batch_size=2).fit(CORPUS)
    assert baseline.translate([source for source, _ in CORPUS[:3]]) == [target for _, target in CORPUS[:3]]


def test_nearest_neighbour_is_the_most_similar():
    baseline = NearestNeighbourBaseline().fit(CORPUS)
    assert baseline.translate(["the book sleeps long"]) == ["Das Buch schläft."]
    assert baseline.translate([]) == []


def test_the_sample_is_not_solved_by_baselines():
    splits = sample.splits()
    sources, references = zip(*splits["test"], strict=True)
    scores = []
    for baseline in (DictionaryBaseline(), NearestNeighbourBaseline()):
        translations = baseline.fit(splits["train"]).translate(sources)
        scores.append(sacrebleu.corpus_bleu(translations, [references]).score)
    assert all(5 < score <= 60 for score in scores), np.round(scores, 1)  # they do translate, but not well
