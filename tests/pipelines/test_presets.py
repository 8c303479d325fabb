"""Presets of KerasHub: whatever it raises becomes one line that names what was asked for."""

import keras_hub
import pytest
import tensorflow as tf

from pipelines import presets
from pipelines.errors import UserError


@pytest.mark.parametrize("error", [RuntimeError("no such\nlayer"), tf.errors.DataLossError(None, None, "no such")])
def test_what_cannot_be_read_or_had_is_named(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", fail)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a preset that KerasHub can read \(no such\)$"):
        presets.backbone(str(tmp_path))
    both = r"downloaded \(no such\); .*models.Backbone.*\('some'\).* and .*tokenizers.Tokenizer.*\('some'\)"
    with pytest.raises(UserError, match=both):
        presets.backbone("some", ("models.Backbone", "tokenizers.Tokenizer"))


def test_other_networks_may_have_been_meant():
    with pytest.raises(UserError, match=r"no such directory or preset of KerasHub \(did you mean bert_base_en\?\)"):
        presets.backbone("bert_bass_en")
    with pytest.raises(UserError, match=r"preset of KerasHub or network of mine \(did you mean Mine7\?\)"):
        presets.backbone("Mine8", others=["Mine7"], other_kind="network of mine")


def test_a_directory_needs_a_model(tmp_path):
    assert presets.source("bert_base_en") == "bert_base_en"
    with pytest.raises(UserError, match="no config.json in it; takes .*save_to_preset.* the format of Hugging Face"):
        presets.source(str(tmp_path))
