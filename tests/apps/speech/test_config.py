"""Settings that do not go together are refused before any work begins, in a line that names the flag."""

import pytest

from apps.speech.config import ModelConfig, SearchConfig, SpecAugmentConfig, SpeechConfig
from pipelines.errors import UserError


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"model": ModelConfig(encoder="conformer", width=128, heads=3)}, "--model.heads 3"),
        ({"model": ModelConfig(encoder="conformer", kernel_size=4)}, "--model.kernel-size 4"),
        ({"model": ModelConfig(hop_ms=30)}, "--model.hop-ms"),
        ({"model": ModelConfig(frame_ms=0.025, hop_ms=0.01)}, "--model.frame-ms 0.025: takes milliseconds"),
        ({"model": ModelConfig(hop_ms=0.01)}, "--model.hop-ms 0.01: takes milliseconds"),
        ({"sample_rate": 16}, "--sample-rate 16: takes 1000 or more"),
        ({"model": ModelConfig(bands=10)}, "--spec-augment.frequency-width 12"),
        ({"spec_augment": SpecAugmentConfig(frequency_masks=-1)}, "--spec-augment.frequency-masks -1"),
        ({"spec_augment": SpecAugmentConfig(time_width=-1)}, "--spec-augment.time-width -1"),
        ({"model": ModelConfig(dropout=1)}, "--model.dropout 1"),
        ({"model": ModelConfig(layers=0)}, "--model.layers"),
        ({"most_seconds": 0}, "--most-seconds"),
        ({"buckets": (20000, 10000)}, "--buckets 20000 10000: takes ascending"),
        ({"vocabulary_size": 100}, "--units pieces"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, flag):
    SpeechConfig().check()
    with pytest.raises(UserError, match=flag):
        SpeechConfig(**settings).check()


@pytest.mark.parametrize("settings", [{"words": "known.txt"}, {"language_model": 0.5}])
def test_greedy_search_leans_on_nothing(settings):
    with pytest.raises(UserError, match="--search.beams 16"):
        SearchConfig(beams=1, **settings).check()


def test_a_bonus_makes_up_for_a_language_model_only():
    SearchConfig(symbol_bonus=1.0, language_model=0.5).check()
    with pytest.raises(UserError, match="--search.symbol-bonus goes with --search.language-model"):
        SearchConfig(symbol_bonus=1.0).check()
