"""The app from the command line: train, evaluate, predict, explain, export, as a user would give them."""

import json

import numpy as np
import tensorflow as tf

from tests.apps.image.conftest import CLASSES


def test_training_leaves_a_run(trained):
    directory, out = trained
    assert "120 pictures of 3 classes, 16 x 16 x 3 pixels" in out and "validation at step" in out
    about = json.loads((directory / "assets" / "classes.json").read_text())
    assert about["classes"] == list(CLASSES) and len(about["mean"]) == 3


def test_evaluate_draws_and_writes_metrics(trained, command):
    directory, _ = trained
    code, out, err = command("evaluate", "--run-dir", directory, "--top-k=2")
    assert code == 0, err
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.5 and metrics["accuracy"] <= metrics["top_2_accuracy"] <= 1
    assert "precision" in out and "recall" in out and "square" in out
    picture = tf.io.decode_png((directory / "explain" / "test-confusion.png").read_bytes())
    assert picture.shape[0] > 200


def test_predict_takes_files_and_folders(trained, shapes, command):
    directory, _ = trained
    folder = shapes / "test" / "circle"
    code, out, err = command("predict", "--run-dir", directory, "--json", folder / "1.png", folder)
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == 9 and answers[0]["source"].endswith("1.png")
    for answer in answers:
        assert set(answer["classes"]) == set(CLASSES) and abs(sum(answer["probabilities"]) - 1) < 1e-3
    # The same picture by its own name and in its folder.
    assert answers[0]["probabilities"] == answers[2]["probabilities"]


def test_explain_draws(trained, shapes, command, tmp_path):
    directory, _ = trained
    picture = shapes / "test" / "square" / "0.png"
    code, out, err = command("explain", "--run-dir", directory, "--output", tmp_path, picture)
    assert code == 0, err
    (file,) = tmp_path.glob("*.png")
    assert file.name in out and tf.io.decode_png(file.read_bytes()).shape[2] == 3


def test_the_export_sees_what_training_saw(trained, shapes, command, tmp_path):
    directory, _ = trained
    code, out, err = command("export", "--run-dir", directory, "--output", tmp_path)
    assert code == 0, err
    assert "answers as recorded: explain 1 times, serving_default 2 times" in out
    served = tf.saved_model.load(str(tmp_path / "image" / "1")).signatures
    files = sorted((shapes / "test" / "cross").glob("*.png"))
    code, out, _ = command("predict", "--run-dir", directory, "--json", *files)
    predicted = [json.loads(line) for line in out.splitlines()]
    found = served["serving_default"](image_bytes=tf.constant([file.read_bytes() for file in files]))
    for row, answer in enumerate(predicted):
        assert [name.decode() for name in found["classes"].numpy()[row]] == answer["classes"]
        np.testing.assert_allclose(found["probabilities"].numpy()[row], answer["probabilities"], atol=1e-4)
    nothing = served["serving_default"](image_bytes=tf.zeros((0,), tf.string))
    assert nothing["classes"].shape == (0, 3) and nothing["probabilities"].shape == (0, 3)
    explained = served["explain"](image_bytes=tf.constant([files[0].read_bytes()]))
    assert explained["integrated_gradients"].shape == (1, 16, 16, 3) and explained["grad_cam"].numpy().max() <= 1


def test_an_export_with_int8_weights_answers_as_predict_does_with_them(trained, shapes, command, tmp_path):
    directory, _ = trained
    code, _, err = command("export", "--run-dir", directory, "--output", tmp_path, "--quantize=int8")
    assert code == 0, err
    path = tmp_path / "image" / "1"
    stored = tf.train.load_checkpoint(str(path / "variables" / "variables")).get_variable_to_dtype_map()
    assert tf.int8 in stored.values()
    files = sorted((shapes / "test" / "cross").glob("*.png"))
    _, out, _ = command("predict", "--run-dir", directory, "--quantize=int8", "--json", *files)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = served(image_bytes=tf.constant([file.read_bytes() for file in files]))
    for row, answer in enumerate(map(json.loads, out.splitlines())):
        np.testing.assert_allclose(found["probabilities"].numpy()[row], answer["probabilities"], atol=1e-4)
