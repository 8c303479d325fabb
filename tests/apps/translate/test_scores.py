"""Scores of known translations, their signatures, and that nothing scored is kept."""

import gc
import tracemalloc

import pytest

from apps.translate.scores import scores, signatures


def test_a_perfect_translation_and_one_of_nothing():
    texts = ["Der Hund läuft durch den Schnee.", "Eine Frau liest ein Buch."]
    assert scores(texts, texts) == pytest.approx({"bleu": 100, "chrf": 100, "bleu_lowercase": 100})
    assert set(scores(["", ""], texts).values()) == {0}
    lower = scores([text.lower() for text in texts], texts)
    assert lower["bleu"] < 90 and lower["bleu_lowercase"] == pytest.approx(100)


def test_signatures_name_what_makes_scores_comparable():
    assert "case:mixed" in signatures()["bleu"] and "case:lc" in signatures()["bleu_lowercase"]


def test_a_long_training_keeps_no_sentence_that_was_scored():
    def kept_after(turn):
        scores([f"a sentence of number {500 * turn + i}" for i in range(500)], ["a sentence of number 1"] * 500)
        gc.collect()
        # What other threads of this process allocate meanwhile is not sacrebleu's.
        own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/sacrebleu/*")])
        return sum(trace.size for trace in own.traces)

    tracemalloc.start()
    try:
        kept = [kept_after(turn) for turn in range(4)]
    finally:
        tracemalloc.stop()
    assert kept[-1] - kept[0] < 10_000  # bytes; sacrebleu by itself keeps some 600,000 more each time
