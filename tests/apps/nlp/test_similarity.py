"""Similarity: its commands from training to a served model, search, and a cosine that is the sum of its shares."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from apps.nlp.config import ModelConfig, NlpConfig, NlpPredictOptions
from apps.nlp.data import Examples
from apps.nlp.pictures import shares_picture
from apps.nlp.tasks.similarity import SimilarityTask
from pipelines.options import EvaluateOptions
from pipelines.runs import Run
from tests.apps.nlp import tiny
from tests.apps.nlp.tiny import TINY, command
from tests.replicas import check_replicas

COLUMNS = ("text_a", "text_b", "score")
WORDS = [*tiny.THINGS, *tiny.ADJECTIVES["negative"], *tiny.ADJECTIVES["positive"]]
TRAIN = ["--task=similarity", *TINY, "--epochs=3"]


def pair(rng):
    """Two texts of three words each, and how many of them they share."""
    first, second = (list(rng.choice(WORDS, 3, replace=False)) for _ in range(2))
    shared = int(rng.integers(4))
    second[:shared] = first[:shared]
    rng.shuffle(second)
    return " ".join(first), " ".join(second), len(set(first) & set(second))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.write_splits(tmp_path_factory.mktemp("pairs"), COLUMNS, pair)


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


def similarities(restored, rows, **options):
    task, model = restored
    return [row["similarity"] for row in task.predict(model, rows, NlpPredictOptions(**options))]


def test_training_measures_correlations(trained):
    directory, out = trained
    assert re.search(r"train.csv: 64 pairs; a vocabulary of \d+", out)
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    assert all(-1 <= row[name] <= 1 for row in rows if "val_loss" in row for name in ("val_pearson", "val_spearman"))
    assert json.loads((directory / "assets" / "scale.json").read_text()) == {"least": 0.0, "most": 3.0}


def test_evaluate_measures_what_predict_answers(trained, restored):
    directory, _ = trained
    code, out, err = command("evaluate", "--run-dir", directory)
    assert code == 0, err
    assert "TF-IDF cosine" in out and "13 pairs" in out
    metrics = json.loads((directory / "metrics.json").read_text())
    test = restored[0]._splits["test"]
    found = similarities(restored, list(map("\t".join, zip(test.texts, test.others, strict=True))))
    assert metrics["pearson"] == pytest.approx(stats.pearsonr(found, test.scores).statistic, abs=1e-3)
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(found, test.scores).statistic, abs=0.02)
    assert metrics["pearson"] > 0.6 and metrics["baseline_pearson"] > 0.8
    assert 0.6 < metrics["baseline_spearman"] <= 1


PAIRS = ["a fine film\ta fine book", "no tab", "dull song\tdull song", "two\ttabs\there", "film\t ", "song\tfine film"]


def test_predict_answers_in_order_and_names_bad_rows(trained):
    rows = "\n".join(PAIRS)
    code, out, err = command("predict", "--run-dir", trained[0], "--json", "--on-bad-example=skip", stdin=rows)
    assert code == 0 and "Traceback" not in err, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["source"] for answer in answers] == PAIRS
    assert ["similarity" in answer for answer in answers] == [True, False, True, False, False, True]
    assert "takes two texts with a tab between them" in answers[1]["error"]
    assert "skipped 3 of 6 rows: 2, 4, 5" in err
    assert answers[2]["similarity"] == pytest.approx(1) and answers[2]["text"] == "1.0000"
    assert answers[5]["similarity"] < answers[0]["similarity"] < 1


def test_batches_and_order_do_not_change_answers(restored):
    rows = ["\t".join(pair(np.random.default_rng(seed))[:2]) for seed in range(10)] + ["film\t" + "song " * 40]
    whole = similarities(restored, rows)
    for batch_size in (1, 3):
        np.testing.assert_allclose(similarities(restored, rows, batch_size=batch_size), whole, atol=2e-4)
    swapped = ["\t".join(row.split("\t")[::-1]) for row in rows]
    np.testing.assert_allclose(similarities(restored, swapped), whole, atol=2e-4)


def test_search_names_the_nearest_lines(trained, restored, tmp_path):
    corpus = tmp_path / "corpus.txt"
    lines = ["a dull song", "the film was fine", "", "a superb meal", "poor book, I say", "café"]
    corpus.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    search = ["--run-dir", trained[0], f"--search={corpus}"]
    code, out, err = command("predict", *search, "--nearest=3", "--json", "superb", "the film was fine")
    assert code == 0, err
    first, second = map(json.loads, out.splitlines())
    assert second["line"] == "the film was fine" and second["similarity"] == pytest.approx(1, abs=1e-5)
    assert first["source"] == "superb" and [len(answer["others"]) for answer in (first, second)] == [2, 2]
    lines = [line for line in lines if line]
    every = np.array(similarities(restored, [f"superb\t{line}" for line in lines]))
    nearest = np.argsort(-every, kind="stable")[:3]
    found = [first, *first["others"]]
    assert [answer["line"] for answer in found] == [lines[i] for i in nearest]
    np.testing.assert_allclose([answer["similarity"] for answer in found], every[nearest], atol=2e-4)
    code, out, err = command("predict", *search, "--nearest=9", "--on-bad-example=skip", stdin="a dull song\n\n")
    assert code == 0 and "skipped 1 of 2 rows: 2" in err, err
    assert out.splitlines()[0] == "1.0000  a dull song" and len(out.splitlines()) == 5 + 1


def test_explain_draws(trained, tmp_path):
    code, out, err = command(
        "explain", "--run-dir", trained[0], "--output", tmp_path, "fine film\tfine $5 book", "a\tb"
    )
    assert code == 0, err
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 2 and all(map(tiny.is_png, pictures)) and all(str(file) in out for file in pictures)


def test_a_picture_of_what_two_texts_share():
    shares = np.array([[0.5, -0.2, 0.0]])
    picture = shares_picture(shares, ["\u2581a"], ["\u2581a", "\n", "$x$"], "0.3")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert not np.array_equal(picture, shares_picture(-shares, ["\u2581a"], ["\u2581a", "\n", "$x$"], "0.3"))
    large = shares_picture(np.zeros((40, 30)), ["a"] * 40, ["b"] * 30)
    assert large.shape[0] > 4 * picture.shape[0]


def test_shares_add_up_to_the_cosine(restored):
    task, model = restored
    first, second = ["a fine film", "dull", ""], ["a superb book, I say", "dull", "song"]
    shares, tokens_a, tokens_b = task._attributed(model, tf.constant(first), tf.constant(second))
    cosines = model({"tokens": task.tokens(tf.constant(first)), "others": task.tokens(tf.constant(second))})
    np.testing.assert_allclose(tf.reduce_sum(shares, (1, 2)), cosines, atol=1e-5)
    padding = (tokens_a.numpy() == b"")[:, :, None] | (tokens_b.numpy() == b"")[:, None, :]
    assert padding.any() and not shares.numpy()[padding].any()


def test_the_export_answers_as_predict_does(trained, restored, tmp_path):
    code, out, err = command("export", "--run-dir", trained[0], "--output", tmp_path)
    assert code == 0, err
    assert "answers as recorded" in out
    first, second = ["a fine film", "dull song", "superb " * 40], ["a fine book", "dull song", "né ☃"]
    expected = similarities(restored, list(map("\t".join, zip(first, second, strict=True))))
    with tiny.served(tmp_path) as ask:
        found = ask("serving_default", text_a=first, text_b=second)["similarity"]
        np.testing.assert_allclose(found, expected, atol=2e-4)
        one, other = (ask("embed", text=side)["vector"] for side in (first, second))
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(np.sum(one * other, axis=1), expected, atol=2e-4)
        explained = ask("explain", text_a=first, text_b=second)
        np.testing.assert_allclose(np.sum(explained["shares"], axis=(1, 2)), expected, atol=2e-4)
        assert explained["shares"].shape == (3, *(explained[f"tokens_{side}"].shape[1] for side in "ab"))
        assert b"".join(explained["tokens_a"][1]).decode() == "\u2581dull\u2581song</s>"
        for signature in ("serving_default", "explain"):
            assert {len(value) for value in ask(signature, text_a=[], text_b=[]).values()} == {0}
        assert ask("embed", text=[])["vector"].shape == (0, 512)


def prepared(files, directory, **options):
    """A task that was not trained."""
    paths = {name: (Path(path),) for name, path in (flag[2:].split("=") for flag in files)}
    task = SimilarityTask(NlpConfig(task="similarity", batch_size=8, max_length=32, **paths, **options), Run(directory))
    task.config = task.prepare()
    task.load()
    return task


def test_it_begins_with_tf_idf(files, tmp_path):
    task = prepared(files, tmp_path, model=ModelConfig(width=512, layers=1, heads=2, feedforward=32))
    model = task.build_model()
    split = task._splits["validation"]
    weights = np.load(tmp_path / "assets" / "rarity.npy")
    ids = [task._ids(texts) for texts in (split.texts, split.others)]
    bags = np.zeros((2, len(split), len(weights)))
    for side, rows in enumerate(ids):
        for row, tokens in enumerate(rows):
            np.add.at(bags[side, row], tokens, weights[tokens])
    bags /= np.linalg.norm(bags, axis=-1, keepdims=True)
    expected = np.sum(bags[0] * bags[1], axis=-1)
    found = [
        row["similarity"]
        for row in task.predict(
            model, list(map("\t".join, zip(split.texts, split.others, strict=True))), NlpPredictOptions()
        )
    ]
    np.testing.assert_allclose(found, expected, atol=0.2)  # 512 random directions
    assert stats.pearsonr(found, expected).statistic > 0.95
    train = task._splits["train"]
    every = [*train.texts, *train.others]
    token = next(iter(task._ids(["film"])[0]))
    count = sum(token in row for row in task._ids(every))
    assert weights[token] == pytest.approx(np.log((1 + len(every)) / (1 + count))) and weights[3] == 0


def test_batches_have_each_pair_once_with_its_score(files, tmp_path):
    task = prepared(files, tmp_path, units="characters")
    train = task._splits["train"]
    found = []
    for batch in task.train_batches(0):
        one, other = (task.tokenizer.detokenize(batch[name]).numpy() for name in ("tokens", "others"))
        for *texts, score, weight in zip(one, other, batch["score"].numpy(), batch["weight"].numpy(), strict=True):
            found += [(*(text.decode() for text in texts), round(3 * float(score), 4))] * int(weight)
    expected = zip(train.texts, train.others, map(float, train.scores), strict=True)
    assert sorted(found) == sorted(expected)


def test_a_single_pair_has_no_correlation(restored):
    task, model = restored
    task._splits["lonely"] = Examples(("film",), ("book",), scores=np.ones(1, np.float32), source="lonely")
    try:
        found = task.evaluate(model, EvaluateOptions(split="lonely"))["lonely"]
    finally:
        del task._splits["lonely"]
    assert all(np.isnan(value) for value in found.values())


@pytest.mark.slow
def test_replicas_train_alike(files, tmp_path):
    check_replicas("nlp", ["--task=similarity", *files, *TINY, "--model.dropout=0"], tmp_path)
