"""Runs with a pretrained encoder, from the command line: tuned whole or by adapters, exported, and refused."""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from keras_hub import models

from tests.apps import command_line
from tests.apps.nlp import tiny

command = functools.partial(command_line.run, "nlp")

TUNED = ["--epochs=2", "--batch-size=8", "--max-length=16", "--jit=off", "--optimizer.learning-rate=1e-2"]
TUNED += ["--optimizer.schedule=inverse_sqrt"]  # can be gone on with for further epochs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.write_splits(tmp_path_factory.mktemp("reviews"), ("text", "label"), tiny.review)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A small network of random weights, as KerasHub's save_to_preset writes it."""
    directory = tmp_path_factory.mktemp("preset") / "bert"
    adjectives = [word for words in tiny.ADJECTIVES.values() for word in words]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "was", "say", "i", ",", *tiny.THINGS, *adjectives]
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 16}
    models.BertBackbone(len(words), **sizes).save_to_preset(str(directory))
    models.BertTokenizer(words, lowercase=True).save_to_preset(str(directory))
    return directory


@pytest.mark.parametrize(
    "adapters", [pytest.param([], marks=pytest.mark.slow, id="whole"), pytest.param(["--lora=2"], id="adapters")]
)
def test_a_pretrained_encoder_is_tuned_and_exported(adapters, preset, files, tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(preset, source)
    code, out, err = command("train", "--run-dir", run, *files, *TUNED, f"--model.backbone={source}", *adapters)
    assert code == 0, err
    assert ("of them trained" in out) == bool(adapters)
    assert not np.load(run / "assets" / "evidence.npy").any()
    shutil.rmtree(source)  # a run needs what it came from no longer
    code, _, err = command("train", "--run-dir", run, "--epochs=3")
    assert code == 0, err
    text = "The film was lovely, I say"
    code, out, err = command("predict", "--run-dir", run, "--json", text)
    assert code == 0, err
    expected = json.loads(out)
    code, out, err = command("export", "--run-dir", run, "--output", tmp_path)
    assert code == 0 and "answers as recorded" in out, err
    found = tf.saved_model.load(str(tmp_path / "nlp" / "1")).signatures["serving_default"](text=tf.constant([text]))
    assert [name.decode() for name in found["classes"].numpy()[0]] == expected["classes"]
    assert found["probabilities"].numpy()[0] == pytest.approx(expected["probabilities"], abs=1e-3)
    assert command("explain", "--run-dir", run, text)[0] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model.backbone=bert_tiny_en_uncasd"], "did you mean bert_tiny_en_uncased?"),
        (["--model.backbone=FILES"], "no config.json in it"),
        (["--model.backbone=PRESET", "--max-length=64"], "reads 16 symbols at most; set --max-length 16"),
        (["--model.backbone=PRESET", "--task=generate"], "goes with --task classify and similarity"),
        (["--model.backbone=PRESET", "--init-from=runs/nlp/x"], "an encoder begins with one of the two"),
    ],
)
def test_what_cannot_be_used_is_refused(flags, said, preset, files):
    flags = [flag.replace("PRESET", str(preset)).replace("FILES", str(preset.parent)) for flag in flags]
    code, _, err = command("train", *files, *flags)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and said in err
