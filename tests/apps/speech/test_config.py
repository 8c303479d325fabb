"""Settings that do not go together are refused before any work begins, in a line that names the flag."""

import pytest

from apps.speech.config import ModelConfig, SearchConfig, SpeechConfig
from pipelines.errors import UserError


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"model": ModelConfig(encoder="conformer", width=128, heads=3)}, "--model.heads 3"),
        ({"model": ModelConfig(encoder="conformer", kernel_size=4)}, "--model.kernel-size 4"),
        ({"model": ModelConfig(hop_ms=30)}, "--model.hop-ms"),
        ({"model": ModelConfig(dropout=1)}, "--model.dropout 1"),
        ({"model": ModelConfig(layers=0)}, "--model.layers"),
        ({"most_seconds": 0}, "--most-seconds"),
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
