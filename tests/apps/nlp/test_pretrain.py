"""Pretraining: which tokens are hidden, and its commands from training to a served model that fills in."""

import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from apps.nlp.config import NlpConfig, NlpPredictOptions
from apps.nlp.tasks.pretrain import PretrainTask
from pipelines.batching import WHOLE, Shard
from pipelines.runs import Run
from tests.apps.nlp import tiny
from tests.apps.nlp.tiny import NETWORK, TINY, command
from tests.replicas import check_replicas

TRAIN = ["--task=pretrain", *TINY, "--epochs=4", "--validate-every=16"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text")
    for seed, (name, count) in enumerate(tiny.SIZES.items()):
        rng = np.random.default_rng(seed)
        (directory / f"{name}.txt").write_text("".join(tiny.review(rng)[0] + ".\n" for _ in range(count)))
    return [f"--{name}={directory / name}.txt" for name in tiny.SIZES]


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


def rows_of(directory):
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def test_training_measures_what_it_says(trained):
    directory, out = trained
    assert re.search(r"train.txt: 64 texts; a vocabulary of \d+", out)
    rows = rows_of(directory)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-8:]) < 0.93 * np.mean(losses[:4])
    validations = [row for row in rows if "val_loss" in row]
    assert all(row["val_perplexity"] == pytest.approx(math.exp(row["val_loss"])) for row in validations)
    assert all(0 <= row["val_accuracy"] <= 1 for row in validations)


def test_evaluate_measures_the_guesses(trained, restored):
    directory, _ = trained
    code, out, err = command("evaluate", "--run-dir", directory, "--batch-size=4")
    assert code == 0, err
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["split"] == "test" and metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    task, model = restored
    losses, hits = [], []
    for batch in task._hidden(task._batches("test", 4), 0, 4):
        logits = model({"tokens": batch["tokens"]}, training=False).numpy()
        for place in np.argwhere(batch["targets"].numpy()):
            row, target = logits[tuple(place)], batch["targets"].numpy()[tuple(place)]
            losses.append(np.log(np.sum(np.exp(row))) - row[target])
            hits.append(row.argmax() == target)
    assert f"{len(losses)} hidden tokens" in out
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["accuracy"] == pytest.approx(np.mean(hits))


def prepared(directory, shard=WHOLE, **options):
    """A task of many texts of several lengths, of characters."""
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 40))) for _ in range(301)]
    (directory / "train.txt").write_text("\n".join(lines))
    config = NlpConfig(
        task="pretrain", train=(directory / "train.txt",), units="characters", batch_size=16, max_length=32,
        model=NETWORK, **options,
    )  # fmt: skip
    task = PretrainTask(config, Run(directory / "run"), shard)
    task.config = task.prepare()
    task.load()
    return task


def flat(batches, name):
    return np.concatenate([batch[name].numpy().ravel() for batch in batches])


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_so_many_tokens_are_hidden_and_never_a_mark(tmp_path, share):
    task = prepared(tmp_path, mask_share=share)
    hidden = list(task.train_batches(0))
    plain = list(task._batches("train", 16, order=np.random.default_rng(0).permutation(len(task._splits["train"]))))
    tokens, targets = (flat(hidden, name) for name in ("tokens", "targets"))
    real = sum(np.sum(batch["tokens"].numpy() > task.tokenizer.end_id) for batch in plain)
    assert np.sum(targets > 0) / real == pytest.approx(share, abs=0.02)
    for batch in hidden:  # all of them are where the model is asked
        there = np.take_along_axis(batch["targets"].numpy(), batch["places"].numpy(), axis=1)
        assert np.sum(there > 0) == np.sum(batch["targets"].numpy() > 0)
        assert there.shape[1] == math.ceil(share * batch["tokens"].shape[1])
    assert targets[targets > 0].min() > task.tokenizer.end_id
    # What was not chosen stands as it was: padding and end marks among it.
    assert not np.any((tokens == task._hidden_id) & (targets == 0))
    chosen, was = tokens[targets > 0], targets[targets > 0]
    assert np.mean(chosen == task._hidden_id) == pytest.approx(0.8, abs=0.06)
    assert np.mean(chosen == was) == pytest.approx(0.1 + 0.1 / 8, abs=0.05)
    assert np.all(chosen[chosen != task._hidden_id] > task.tokenizer.end_id)


def test_targets_are_what_was_hidden(tmp_path):
    task = prepared(tmp_path)
    plain = task._batches("validation", task.config.batch_size)
    for hidden, whole in zip(task.validation_batches(), plain, strict=True):
        restored = np.where(hidden["targets"] > 0, hidden["targets"], hidden["tokens"])
        np.testing.assert_array_equal(restored, whole["tokens"])


def test_each_epoch_hides_others_and_validation_the_same(tmp_path):
    task = prepared(tmp_path, seed=3_000_000)

    def targets(batches):
        return flat(batches, "targets").tolist()

    assert targets(task.train_batches(1)) == targets(task.train_batches(1)) != targets(task.train_batches(0))
    assert targets(task.validation_batches()) == targets(task.validation_batches())


def test_shards_hide_what_the_whole_does(tmp_path):
    task = prepared(tmp_path)
    whole = list(task.train_batches(2))
    parts = []
    for index in range(2):
        task.shard = Shard(index, 2)
        parts.append(list(task.train_batches(2)))
    assert len(whole) == len(parts[0]) == len(parts[1]) == task.steps_per_epoch()
    for together, *apart in zip(whole, *parts, strict=True):
        for name, value in together.items():
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in apart]))


def test_a_stopped_run_goes_on_as_if_it_had_not(trained, files, tmp_path):
    run = tmp_path / "run"
    for steps in (11, 0):  # in the middle of the second epoch
        code, out, err = command("train", "--run-dir", run, *files, *TRAIN, f"--max-steps={steps}")
        assert code == 0, err
    assert "resumed from step 11" in out
    expected, found = ([row["loss"] for row in rows_of(d) if "loss" in row] for d in (trained[0], run))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


TEXTS = ["the ___ was dull, I say.", "no gap", "___ film was ___, I ___.", "the film was fine, " * 4 + "___", ""]


def test_predict_fills_in_and_names_bad_rows(trained, restored):
    rows = "\n".join(TEXTS) + "\n"
    code, out, err = command("predict", "--run-dir", trained[0], "--json", "--on-bad-example=skip", stdin=rows)
    assert code == 0 and "Traceback" not in err, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["source"] for answer in answers] == TEXTS
    assert ["error" in answer for answer in answers] == [False, True, False, True, True]
    assert "put ___ where" in answers[1]["error"] and "--max-length" in answers[3]["error"]
    assert "skipped 3 of 5 rows: 2, 4, 5" in err
    first = answers[0]
    assert re.fullmatch(r"the ?\S* was dull, i say\.", first["text"]) and 0 < first["probability"] <= 1
    task, model = restored
    for batch_size in (1, 2):
        again = list(task.predict(model, TEXTS, NlpPredictOptions(batch_size=batch_size)))
        assert [row.get("text") for row in again] == [row.get("text") for row in answers]
    code, out, err = command("predict", "--run-dir", trained[0], TEXTS[0])
    assert code == 0 and out == first["text"] + "\n", err


def test_a_guess_is_the_likeliest_token(restored):
    task, model = restored
    (answer,) = task.predict(model, ["the film was ___"], NlpPredictOptions())
    ids = task._ids(["the film was"])[0]
    asked = np.concatenate([ids[:-1], [task._hidden_id, task.tokenizer.end_id]])
    logits = model({"tokens": asked[None]}, training=False).numpy()[0, len(ids) - 1]
    best = task.tokenizer.end_id + 1 + int(np.argmax(logits[task.tokenizer.end_id + 1 :]))
    whole = tf.constant([[*ids[:-1], best]])
    assert answer["text"] == task.tokenizer.detokenize(whole).numpy()[0].decode()
    assert answer["probability"] == pytest.approx(np.exp(logits[best]) / np.sum(np.exp(logits)), abs=1e-3)


def test_explain_draws(trained, tmp_path):
    code, out, err = command("explain", "--run-dir", trained[0], "--output", tmp_path, "the film was $5", "dull")
    assert code == 0 and "bits a token" in out, err
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 2 and all(map(tiny.is_png, pictures))


@pytest.mark.parametrize("text", ["the film was lovely", "a dull meal, and a fine book, and a superb song, I say."])
def test_surprise_hides_each_token_in_its_turn(restored, text):
    task, model = restored
    tokens, found = task._surprise(model, text)
    ids = task._ids([text])[0]
    real = [place for place in range(len(ids)) if ids[place] != task.tokenizer.end_id]
    assert [token.decode() for token in tokens] == [
        piece.decode() for piece in task.tokenizer.to_pieces(tf.constant(ids)).numpy()[real]
    ]
    for place in real[:: max(1, len(real) // 4)]:
        asked = ids.copy()
        asked[place] = task._hidden_id
        expected = tf.nn.log_softmax(model({"tokens": asked[None]}, training=False))[0, place, ids[place]]
        assert found[place] == pytest.approx(float(expected), abs=1e-4)


def test_what_has_nothing_to_read_is_refused(restored):
    task, model = restored
    (blank,), (invisible,) = (list(task.explain(model, [text], None)) for text in (" ", "\u200b"))
    assert "empty text" in blank["error"] and "nothing in it" in invisible["error"]


def test_the_export_answers_as_predict_does(trained, restored, tmp_path):
    code, out, err = command("export", "--run-dir", trained[0], "--output", tmp_path)
    assert code == 0, err
    assert "answers as recorded" in out
    task, model = restored
    texts = ["the ___ was dull, I say.", "___", "______", "a ___ film ___"]
    answers = list(task.predict(model, texts, NlpPredictOptions()))
    with tiny.served(tmp_path) as ask:
        found = ask("serving_default", text=texts)
        for row, answer in enumerate(answers):
            assert found["text"][row].decode() == answer["text"]
            assert found["probability"][row] == pytest.approx(answer["probability"], abs=1e-3)
        assert ask("serving_default", text=["dull film", ""])["text"].tolist() == [b"dull film", b""]
        assert {len(value) for value in ask("serving_default", text=[]).values()} == {0}


@pytest.mark.slow
def test_replicas_train_alike(files, tmp_path):
    check_replicas("nlp", ["--task=pretrain", *files, *TINY, "--model.dropout=0"], tmp_path)
