"""What is compared is the same network everywhere, and a run of the comparison says so."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.image.config import ModelConfig
from apps.image.model import ImageClassifier
from benchmarks.peers import espalier_nlp, espalier_speech, keras_image, keras_nlp, keras_speech
from benchmarks.peers.espalier_step import load


@pytest.fixture
def training_step(benchmark):
    return benchmark("training_step")


@pytest.mark.parametrize("name", ["resnet", "cnn", "mobile"])
def test_stock_keras_is_the_same_network(training_step, name):
    case = training_step.CASES[name]
    settings, weights = case.settings, case.make_weights(case.settings)
    ours = ImageClassifier.from_settings(ModelConfig(**settings["model"]), 28, 1, 10)
    stock = keras_image.build(settings)
    assert len(weights) == len(ours.trainable_variables) == len(stock.trainable_variables)
    load(ours, weights)
    keras_image.load(stock, weights)
    images = case.make_batches(settings, 2)["image"][1, :4]
    for training in (False, True):
        logits, expected = (np.asarray(model(images, training=training)) for model in (ours, stock))
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
        assert np.ptp(expected) > 0.1


def test_stock_keras_is_the_same_speech_model(training_step):
    case = training_step.CASES["speech"]
    settings, weights = case.settings, case.make_weights(case.settings)
    batch = {name: values[0, :4] for name, values in case.make_batches(settings, 1).items()}
    ours, stock = espalier_speech.build(settings), keras_speech.build(settings, batch["features"].shape[1])
    load(ours, weights)
    keras_speech.load(stock, weights)
    assert len(weights) == len(ours.trainable_variables) == len(stock.trainable_variables)
    found = ours({"audio": batch["features"], "audio_length": batch["frames"]})
    steps = np.asarray(keras_speech.steps_of(batch["frames"]))
    assert len(set(steps)) > 1  # rows differ in length, so padding is there to be passed over
    np.testing.assert_array_equal(found["lengths"], steps)
    expected = np.asarray(stock({"features": batch["features"], "frames": batch["frames"]}))
    for row, (logits, count) in enumerate(zip(np.asarray(found["logits"]), steps, strict=True)):
        np.testing.assert_allclose(logits[:count], expected[row, :count], rtol=1e-3, atol=1e-4)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("name", ["nlp", "language"])
def test_stock_keras_is_the_same_text_model(training_step, name):
    case = training_step.CASES[name]
    settings, weights = case.settings, case.make_weights(case.settings)
    tokens = case.make_batches(settings, 1)["tokens"][0, :4]
    ours, stock = espalier_nlp.build(settings), keras_nlp.build(settings, tokens.shape[1])
    load(ours, weights)
    keras_nlp.load(stock, weights)
    assert len(weights) == len(ours.trainable_variables) == len(stock.trainable_variables)
    found, expected = np.asarray(ours({"tokens": tokens})), np.asarray(stock(tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.ptp(expected) > 0.1


def test_clips_have_steps_enough_for_their_labels(training_step):
    case = training_step.CASES["speech"]
    batches = case.make_batches(case.settings, 3)
    repeats = ((batches["labels"][..., 1:] == batches["labels"][..., :-1]) & (batches["labels"][..., 1:] > 0)).sum(-1)
    assert (batches["label_length"] + repeats <= batches["frames"] // case.settings["model"]["subsampling"]).all()
    assert ((batches["labels"] > 0).sum(-1) == batches["label_length"]).all()


def test_a_case_is_calmed_and_given_to_its_systems(training_step):
    case = training_step.CASES["translate"]
    settings = case.calm_settings()
    assert (settings["model"]["dropout"], settings["optimizer"]["warmup_steps"]) == (0.0, 2)
    assert case.settings["model"]["dropout"] == 0.1  # a copy was changed
    names = [system.name for system in case.systems(Path("case"), None)]
    assert names[0] == case.ours and not any("PyTorch" in name for name in names)
    found = case.systems(Path("case"), Path("peer/python"))
    assert [system.command[0] for system in found if "PyTorch" in system.name] == [Path("peer/python")] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "parameters", "file"),
    [
        ("translate", "2,349,568", "training_step.json"),
        ("cnn", "421,642", "training_step_image.json"),
        ("speech", "686,875", "training_step_speech.json"),
        ("nlp", "119,212", "training_step_nlp.json"),
        ("language", "736,128", "training_step_nlp.json"),
    ],
)
def test_our_step_and_stock_keras_compute_the_same(run_benchmark, model, parameters, file, tmp_path):
    done = run_benchmark("training_step", "--rounds=1", "--steps=1", f"--model={model}", f"--output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"checked: {parameters} parameters in every system" in done.stdout
    assert len(json.loads((tmp_path / file).read_text())["rows"]) == 6
