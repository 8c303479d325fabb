"""Classification: its commands from training to a served model, its loss, and what its answers rest on."""

import json
import os
import re
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import f1_score

from apps.nlp.config import NlpConfig, NlpPredictOptions
from apps.nlp.tasks.classify import ClassifyTask
from pipelines.errors import UserError
from pipelines.runs import Run
from tests.apps import command_line
from tests.apps.nlp import tiny
from tests.apps.nlp.tiny import NETWORK, TINY, command, write_table
from tests.replicas import check_replicas

COLUMNS = ("text", "label")
TRAIN = [*TINY, "--epochs=5", "--validate-every=16", "--checkpoint-every=5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.write_splits(tmp_path_factory.mktemp("reviews"), COLUMNS, tiny.review)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """A run that was trained by the command line, and what it printed."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    code, out, err = command("train", "--run-dir", directory, *files, *TRAIN)
    assert code == 0, err
    return directory, out


@pytest.fixture(scope="module")
def restored(trained):
    return tiny.restored(trained[0])


def steps(directory):
    """The rows of the steps by number, the last where one was done again."""
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in rows if "loss" in row}


def test_training_says_what_it_read_and_learns(trained):
    directory, out = trained
    assert re.search(r"train.csv: 64 texts of 2 classes; a vocabulary of \d+", out) and "--max-length" not in out
    losses = [row["loss"] for row in steps(directory).values()]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert json.loads((directory / "assets" / "classes.json").read_text())["classes"] == ["negative", "positive"]


def test_evaluate_measures_what_predict_answers(trained, restored):
    directory, _ = trained
    code, out, err = command("evaluate", "--run-dir", directory)
    assert code == 0, err
    assert "TF-IDF baseline" in out and "positive" in out
    metrics = json.loads((directory / "metrics.json").read_text())
    task, model = restored
    test = task._splits["test"]
    found = [row["classes"][0] for row in task.predict(model, test.texts, NlpPredictOptions())]
    assert metrics["split"] == "test" and metrics["accuracy"] == np.mean(np.array(found) == test.labels) > 0.6
    assert metrics["macro_f1"] == pytest.approx(f1_score(test.labels, found, average="macro"))
    assert 0 < metrics["calibration_error"] < 0.6
    assert metrics["baseline_accuracy"] == metrics["baseline_macro_f1"] == 1.0  # a word tells all
    assert tiny.is_png(directory / "explain" / "test-confusion.png")


ROWS = ["the film was fine, I say", " ", "the meal was awful, I say", b"\xff\xfe", "", "a song, superb!"]


def test_predict_answers_in_order_and_names_bad_rows(trained):
    directory, _ = trained
    rows = b"\n".join(row if isinstance(row, bytes) else row.encode() for row in ROWS)
    code, out, err = command("predict", "--run-dir", directory, "--json", "--on-bad-example=skip", stdin=rows)
    assert code == 0 and "Traceback" not in err, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["row"] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert ["error" in answer for answer in answers] == [False, True, False, True, True, False]
    assert "skipped 3 of 6 rows: 2, 4, 5" in err
    assert [answers[i]["source"] for i in (0, 2, 5)] == [ROWS[i] for i in (0, 2, 5)]
    first = answers[0]
    assert sorted(first["classes"]) == ["negative", "positive"] and sum(first["probabilities"]) == pytest.approx(1)
    assert first["probabilities"] == sorted(first["probabilities"], reverse=True)
    assert re.fullmatch(rf"{first['classes'][0]} \d+\.\d%", first["text"])
    code, out, err = command("predict", "--run-dir", directory, ROWS[0], ROWS[2])
    assert code == 0 and out.splitlines() == [answers[0]["text"], answers[2]["text"]], err


def test_batches_do_not_change_answers(restored):
    task, model = restored
    texts = [*task._splits["test"].texts, "fine", "dull " * 40]  # of several lengths, one beyond the limit
    whole = [row["probabilities"] for row in task.predict(model, texts, NlpPredictOptions())]
    for batch_size in (1, 4):
        rows = list(task.predict(model, texts, NlpPredictOptions(batch_size=batch_size)))
        assert [row["row"] for row in rows] == list(range(1, len(texts) + 1))
        np.testing.assert_allclose([row["probabilities"] for row in rows], whole, atol=2e-4)


def test_explain_draws(trained, tmp_path):
    code, out, err = command("explain", "--run-dir", trained[0], "--output", tmp_path, "a lovely $5 film", "dull")
    assert code == 0, err
    pictures = sorted(tmp_path.glob("*.png"))
    assert [file.name for file in pictures] == ["0001-a-lovely-5-film.png", "0002-dull.png"]
    assert all(map(tiny.is_png, pictures)) and all(str(file) in out for file in pictures)
    pages = [file.with_suffix(".html") for file in pictures]
    assert all("<span" in page.read_text() and str(page) in out for page in pages)


def test_attributions_add_up_to_what_the_text_changes(restored):
    task, model = restored
    texts = tf.constant(["the film was lovely, I say", "a dull song"])
    found = task._attributed(model, texts)
    ids = task.tokens(texts)
    nothing = model.classify(model.encoder.embedding(tf.ones_like(ids)), ids != 0)  # unknown tokens
    changed = model({"tokens": ids}, training=False).numpy() - nothing.numpy()
    whole = changed[np.arange(2), np.argmax(found["probabilities"], axis=1)]
    np.testing.assert_allclose(np.sum(found["attribution"], axis=1), whole, atol=0.02, rtol=0.02)
    assert np.max(np.abs(found["attribution"])) > 0.1
    padding = ids.numpy() == 0
    assert padding.any() and not found["attribution"].numpy()[padding].any()
    assert not any(found["tokens"].numpy()[padding])


def test_the_export_answers_as_predict_does(trained, restored, tmp_path):
    code, out, err = command("export", "--run-dir", trained[0], "--output", tmp_path)
    assert code == 0, err
    assert "answers as recorded" in out
    task, model = restored
    texts = ["the film was lovely, I say", "a dull song", "superb " * 40, "né ☃"]
    answers = list(task.predict(model, texts, NlpPredictOptions()))
    expected = {name: value.numpy() for name, value in task._attributed(model, tf.constant(texts[:2])).items()}
    with tiny.served(tmp_path) as ask:
        found = ask("serving_default", text=texts)
        for row, answer in enumerate(answers):
            assert [name.decode() for name in found["classes"][row]] == answer["classes"]
            np.testing.assert_allclose(found["probabilities"][row], answer["probabilities"], atol=2e-4)
        explained = ask("explain", text=texts[:2])
        np.testing.assert_array_equal(explained["tokens"], expected["tokens"])
        np.testing.assert_allclose(explained["attribution"], expected["attribution"], atol=1e-3)
        np.testing.assert_allclose(explained["probabilities"], found["probabilities"][:2], atol=1e-4)
        for signature in ("serving_default", "explain"):
            assert {len(value) for value in ask(signature, text=[]).values()} == {0}
            assert {len(value) for value in ask(signature, text=[""]).values()} == {1}


def test_resume_after_kill_repeats_the_uninterrupted_run(trained, files, tmp_path):
    run = tmp_path / "killed"
    process = command_line.start("nlp", "train", "--run-dir", run, *files, *TRAIN)
    deadline = time.time() + 300
    while time.time() < deadline:  # until it is past step 5's checkpoint, in the middle of an epoch
        if (run / "history.jsonl").exists() and (run / "history.jsonl").read_text().count("\n") >= 7:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    code, out, err = command("train", "--run-dir", run, *files, *TRAIN)
    assert code == 0, err
    assert int(re.search(r"resumed from step (\d+)", out)[1]) >= 5
    expected, found = steps(trained[0]), steps(run)
    assert list(found) == list(expected)
    np.testing.assert_allclose(
        [row["loss"] for row in found.values()], [row["loss"] for row in expected.values()], rtol=1e-4
    )


@pytest.mark.parametrize("encoder", ["cnn", "rnn"])
def test_other_encoders_train_and_answer(files, tmp_path, encoder):
    run = tmp_path / encoder
    code, _, err = command("train", "--run-dir", run, *files, *TINY, f"--model.encoder={encoder}", "--max-steps=3")
    assert code == 0, err
    assert all(np.isfinite(row["loss"]) for row in steps(run).values())
    task, model = tiny.restored(run)
    assert model.encoder.settings["kind"] == encoder
    (together, _), (alone,) = (
        list(task.predict(model, rows, NlpPredictOptions())) for rows in (["fine", "a lovely film, I say"], ["fine"])
    )
    np.testing.assert_allclose(together["probabilities"], alone["probabilities"], atol=2e-4)


def topics(rng):
    """A text about some things, or none, and which."""
    about = [thing for thing in tiny.THINGS[:3] if rng.random() < 0.5]
    return "I say " + " and ".join(about), "|".join(about)


def test_texts_with_several_labels(tmp_path):
    files = tiny.write_splits(tmp_path, COLUMNS, topics)
    run = tmp_path / "run"
    code, out, err = command("train", "--run-dir", run, *files, *TRAIN, "--multi-label", "--epochs=8")
    assert code == 0 and "64 texts of 3 classes" in out, err
    code, out, err = command("evaluate", "--run-dir", run)
    assert code == 0, err
    metrics = json.loads((run / "metrics.json").read_text())
    task, model = tiny.restored(run)
    test = task._splits["test"]
    answers = list(task.predict(model, test.texts, NlpPredictOptions()))
    found = [{c for c, p in zip(a["classes"], a["probabilities"], strict=True) if p > 0.5} for a in answers]
    right = [chosen == set(filter(None, label.split("|"))) for chosen, label in zip(found, test.labels, strict=True)]
    assert metrics["accuracy"] == np.mean(right) and metrics["micro_f1"] > 0.6
    assert "baseline_accuracy" in metrics
    assert [answer["text"] == "none" for answer in answers] == [not chosen for chosen in found]
    assert any(len(chosen) > 1 for chosen in found)


def prepared(directory, rows, **options):
    """A task whose training texts are some rows."""
    train = write_table(directory / "train.csv", COLUMNS, *rows)
    task = ClassifyTask(
        NlpConfig(
            train=(train,),
            validation=(train,),
            model=NETWORK,
            batch_size=4,
            max_length=16,
            units="characters",
            **options,
        ),
        Run(directory / "run"),
    )
    task.config = task.prepare()
    task.load()
    return task


UNEVEN = [("one", "a")] * 6 + [("two of them", "b")] * 2 + [("three", "c")]
LOGITS = np.array([[2, 0, -1], [0, 0.5, 0], [1, 1, 1], [0, 3, 0]], np.float32)


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def test_other_classes_than_those_of_the_run_are_refused(tmp_path):
    rows = [(f"a {word} text", word) for word in ("good", "bad") for _ in range(4)]
    train, validation = (write_table(tmp_path / f"{name}.csv", COLUMNS, *rows) for name in ("train", "validation"))
    task = ClassifyTask(NlpConfig(train=(train,), validation=(validation,), model=NETWORK), Run(tmp_path / "run"))
    task.config = task.prepare()
    write_table(train, COLUMNS, *rows, ("a new text", "new"))
    later = ClassifyTask(task.config, task.run)
    later.load()
    said = r"bad, good, new are not the classes this run was trained on \(bad, good\); restore them"
    with pytest.raises(UserError, match=said):
        later.validation_batches()


def test_balanced_weights_are_inverse_frequencies_and_the_loss_uses_them(tmp_path):
    task = prepared(tmp_path, UNEVEN, class_weights="balanced")
    weights = 9 / (3 * np.array([6, 2, 1]))
    np.testing.assert_allclose(task.class_weights, weights)
    classes = np.array([0, 1, 2, 0])
    batch = {"target": tf.one_hot(classes, 3), "weight": tf.constant([1.0, 1, 1, 0])}  # the last row fills up
    sums = task.sums(tf.constant(LOGITS), batch)
    rows = weights[classes[:3]]
    losses = -log_softmax(LOGITS)[np.arange(3), classes[:3]]
    np.testing.assert_allclose(sums["loss"], (np.sum(rows * losses), np.sum(rows)), rtol=1e-5)
    assert [float(x) for x in sums["accuracy"]] == [2.0, 3.0]
    # Over the training set each class weighs the same.
    totals = sum(np.sum(b["target"] * b["weight"][:, None] * task.class_weights, 0) for b in task.train_batches(0))
    np.testing.assert_allclose(totals, 3)


@pytest.mark.parametrize("multi_label", [False, True])
def test_label_smoothing_spreads_the_target(tmp_path, multi_label):
    task = prepared(tmp_path, UNEVEN, label_smoothing=0.3, multi_label=multi_label)
    target = np.eye(3)[[0, 1, 2, 0]]
    sums = task.sums(tf.constant(LOGITS), {"target": tf.constant(target, tf.float32), "weight": tf.ones(4)})
    if multi_label:
        smoothed = 0.7 * target + 0.15
        yes = 1 / (1 + np.exp(-LOGITS))
        expected = -np.sum(smoothed * np.log(yes) + (1 - smoothed) * np.log(1 - yes))
    else:
        expected = -np.sum((0.7 * target + 0.1) * log_softmax(LOGITS))
    np.testing.assert_allclose(sums["loss"], (expected, 4), rtol=1e-5)


def test_an_epoch_has_each_row_once(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"{'x' * rng.integers(1, 12)} {number}", str(number % 2)) for number in range(23)]
    task = prepared(tmp_path, rows)

    def seen(batches):
        found = []
        for batch in batches:
            texts = task.tokenizer.detokenize(batch["tokens"]).numpy()
            for text, target, weight in zip(texts, batch["target"].numpy(), batch["weight"].numpy(), strict=True):
                found += [(text.decode(), task.classes[target.argmax()])] * int(weight)
        return found

    first, second = seen(task.train_batches(0)), seen(task.train_batches(1))
    assert sorted(first) == sorted(second) == sorted(seen(task.validation_batches())) == sorted(rows)
    assert first != second and first == seen(task.train_batches(0))
    assert len(list(task.train_batches(0))) == task.steps_per_epoch()


@pytest.mark.slow
def test_replicas_train_alike(files, tmp_path):
    check_replicas("nlp", [*files, *TINY, "--model.dropout=0", "--class-weights=balanced"], tmp_path)
