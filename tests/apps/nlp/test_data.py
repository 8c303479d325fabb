"""Where texts come from: named sets, tables and text files, what is held out, and what is wrong with them."""

import csv
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from apps.nlp import data, public, sample
from apps.nlp.config import NlpConfig
from apps.nlp.data import Examples
from pipelines.errors import UserError

DATA = os.environ.get("ESPALIER_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="needs ESPALIER_DATA")


def write(path: Path, content) -> Path:
    if isinstance(content, list):
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def own(task="classify", **options):
    files = {name: (value,) if isinstance(value, Path) else value for name, value in options.items()}
    return data.splits(NlpConfig(task=task, **files))


def reviews(path: Path, labels, start=0) -> Path:
    return write(path, [("text", "label"), *((f"text, {n}", label) for n, label in enumerate(labels, start))])


# Examples


def test_some_examples_keep_their_names():
    found = Examples(("a", "b", "c"), ("x", "y", "z"), scores=np.array([1, 2, 3], np.float32), source="set")
    some = found.take(np.array([2, 0])).take(np.array([1, 0]))
    assert some.texts == ("a", "c") and some.others == ("x", "z") and some.scores.tolist() == [1, 3]
    assert [some.name(0), some.name(1)] == ["set, row 1", "set, row 3"] and some.labels is None and len(some) == 2


def test_class_names_are_in_order():
    assert data.class_names(Examples(("",) * 4, labels=("10", "9", "1.5", "9"))) == ("1.5", "9", "10")
    assert data.class_names(Examples(("",) * 3, labels=("b", "10", "a"))) == ("10", "a", "b")
    assert data.class_names(Examples(("",) * 3, labels=("b|a", "", "c")), multi_label=True) == ("a", "b", "c")


# The sample


@pytest.mark.parametrize("task", ["classify", "similarity"])
def test_the_sample_of_rows(task):
    found = own(task)
    assert {name: len(examples) for name, examples in found.items()} == sample.COUNTS
    train = found["train"]
    if task == "classify":
        assert data.class_names(train) == ("negative", "positive") and train.others is None and train.scores is None
    else:
        assert train.scores.dtype == np.float32 and set(train.scores) == set(range(6)) and train.labels is None


def test_the_sample_of_running_text():
    documents, passages = own("generate"), own("pretrain")
    assert list(documents) == list(passages) == ["train", "validation", "test"]
    for name in documents:
        (text,) = documents[name].texts
        assert text == "\n".join(passages[name].texts) + "\n"


# The user's rows


def test_splits_of_ones_own(tmp_path):
    train = write(tmp_path / "train.csv", [("Stars", "Review", "id"), ("1", ' "bad",\nreally ', 7), ("5", "good", 8)])
    test = write(tmp_path / "test.jsonl", json.dumps({"Review": "fine", "Stars": 5}))
    found = own(train=train, validation=train, test=test, text_column="Review", label_column="Stars")
    assert list(found) == ["train", "validation", "test"]
    assert found["train"].texts == ('"bad",\nreally', "good") and found["train"].labels == ("1", "5")
    assert found["train"].name(1) == f"{train}, line 4"
    assert found["test"].texts == ("fine",) and found["test"].labels == ("5",)


@pytest.mark.parametrize("rows", [20, 6000])
def test_a_tenth_is_held_out_and_500_at_most(tmp_path, rows):
    train = reviews(tmp_path / "a.csv", [str(n % 3) for n in range(rows)])
    found, again, other = (own(train=train, seed=seed) for seed in (1, 1, 2))
    assert len(found["validation"]) == min(rows // 10, 500)
    assert len(set(found["train"].texts) | set(found["validation"].texts)) == rows == sum(map(len, found.values()))
    assert found["validation"].texts == again["validation"].texts != other["validation"].texts
    line = int(found["validation"].name(0).rsplit(" ", 1)[1])
    assert found["validation"].texts[0] == f"text, {line - 2}"


def test_no_class_is_held_out_whole(tmp_path):
    train = reviews(tmp_path / "a.csv", [f"rare {n}" for n in range(30)] + ["common"] * 10)
    for seed in range(5):
        found = own(train=train, seed=seed)
        assert set(found["validation"].labels) == {"common"}
        assert len(data.class_names(found["train"])) == 31


def test_several_labels(tmp_path):
    train = write(tmp_path / "a.csv", [("text", "label"), ("one", " a |b|a"), ("two", ""), ("three", "b")])
    found = own(train=train, validation=train, multi_label=True)
    assert found["train"].labels == ("a|b", "", "b") and data.class_names(found["train"], True) == ("a", "b")
    with pytest.raises(UserError, match="line 3: 'label' is empty"):
        own(train=train, validation=train)
    assert own(train=train, validation=train, on_bad_example="skip")["train"].labels == ("a |b|a", "b")
    nothing = write(tmp_path / "b.csv", [("text", "label"), ("one", ""), ("two", "|")])
    with pytest.raises(UserError, match="no row has a label"):
        own(train=nothing, multi_label=True)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv: one class only, good; there is nothing to tell"):
        own(train=reviews(tmp_path / "a.csv", ["good"] * 9))


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_label_that_training_does_not_know(tmp_path, capsys, split, multi_label):
    train = reviews(tmp_path / "a.csv", ["good", "bad"])
    held_out = reviews(tmp_path / "b.csv", ["good", "godo", "bad"])
    options = {"train": train, "validation": train, split: held_out, "multi_label": multi_label}
    with pytest.raises(UserError) as raised:
        own(**options)
    said = f"{held_out}, line 3: label 'godo' is none that training has (did you mean good?)"
    assert str(raised.value) == f"{said}; mend or remove it, or pass --on-bad-example skip"
    assert own(**options, on_bad_example="skip")[split].labels == ("good", "bad")
    assert f"{held_out}: skipped 1 of 3 rows; {said}" in capsys.readouterr().out


def test_pairs(tmp_path):
    rows = [("text_a", "text_b", "score"), *((f"one {n}", f"two {n}", f" {n}.5") for n in range(11))]
    found = own("similarity", train=write(tmp_path / "a.csv", rows))
    assert len(found["train"]) == 10 and found["train"].scores.dtype == np.float32
    index = int(found["validation"].texts[0].split()[1])
    assert found["validation"].others == (f"two {index}",) and found["validation"].scores.tolist() == [index + 0.5]


@pytest.mark.parametrize("score", ["high", "nan", "inf", "1e39", "1,5"])
def test_a_score_that_is_no_number(tmp_path, score):
    path = write(tmp_path / "a.csv", [("text_a", "text_b", "score"), ("a", "b", 1), ("c", "d", score), ("e", "f", -2)])
    with pytest.raises(UserError, match=rf"a\.csv, line 3: score '{score}' is no finite number; mend"):
        own("similarity", train=path, validation=path)
    found = own("similarity", train=path, validation=path, on_bad_example="skip")
    assert found["train"].scores.tolist() == [1, -2] and found["train"].name(1) == f"{path}, line 4"


def test_columns_are_asked_for_by_their_flags(tmp_path):
    path = reviews(tmp_path / "a.csv", ["good", "bad"])
    with pytest.raises(UserError, match=r"no column 'review' \(there is text, label\); name yours with --text-column"):
        own(train=path, text_column="review")
    with pytest.raises(UserError, match=r"no column 'text_a' .*; name yours with --first-column"):
        own("similarity", train=path)
    with pytest.raises(UserError, match="--text-column and --label-column: take different columns, received x, x"):
        own(train=path, text_column="x", label_column="x")
    with pytest.raises(UserError, match=r"a\.txt: takes a table named"):
        own(train=write(tmp_path / "a.txt", "x"))
    with pytest.raises(UserError, match="too few rows to hold some out; give more, or --validation"):
        own("similarity", train=write(tmp_path / "b.csv", [("text_a", "text_b", "score"), ("a", "b", 1)]))


# The user's running text


def test_documents_are_kept_exactly(tmp_path):
    texts = "\ufeff  Ünder\r\n\n\ta\u2028b\x0c\n ", "second\n"
    files = tuple(write(tmp_path / f"{n}.txt", text) for n, text in enumerate(texts))
    found = own("generate", train=files, validation=files[:1], test=files[1:])
    assert found["train"].texts == (texts[0][1:], texts[1]) and found["test"].texts == texts[1:]
    found = own("pretrain", train=files, validation=files[1:])
    assert found["train"].texts == ("Ünder", "a b", "second")


def test_the_end_of_few_documents_is_held_out(tmp_path):
    files = tuple(write(tmp_path / f"{n}.md", "".join(map(str, range(n * 100)))) for n in (1, 2, 3))
    found = own("generate", train=files)
    wholes = [file.read_text() for file in files]
    assert [a + b for a, b in zip(found["train"].texts, found["validation"].texts, strict=True)] == wholes
    assert [len(text) for text in found["validation"].texts] == [len(text) // 10 for text in wholes]
    with pytest.raises(UserError, match="too short to hold some of it out"):
        own("generate", train=write(tmp_path / "short", "a"))


def test_of_many_documents_some_are_held_out(tmp_path):
    rows = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": f"story\n{n} "}) + "\n" for n in range(40)))
    found = own("generate", train=rows)
    assert (len(found["train"]), len(found["validation"])) == (36, 4)
    assert all(text.startswith("story\n") and text.endswith(" ") for text in found["validation"].texts)
    lines = write(tmp_path / "a.txt", "".join(f"line {n}\n" for n in range(40)))
    found = own("pretrain", train=lines)
    assert (len(found["train"]), len(found["validation"])) == (36, 4)


@pytest.mark.parametrize(("line", "complaint"), [(b"caf\xe9", "not UTF-8 (byte 0xe9)"), (b"a\0b", "a NUL byte")])
def test_a_line_of_another_encoding(tmp_path, capsys, line, complaint):
    path = write(tmp_path / "a.txt", "café\n".encode() + line + b"\nlast")
    with pytest.raises(UserError) as raised:
        own("generate", train=path, validation=path)
    assert str(raised.value).startswith(f"{path}, line 2: {complaint}; mend or remove it")
    assert own("generate", train=path, validation=path, on_bad_example="skip")["train"].texts == ("café\nlast",)
    assert "skipped 1 of 3 rows" in capsys.readouterr().out


def test_bad_text_files(tmp_path):
    for name, content, message in [("a.txt", b" \n", "is empty"), ("b.txt", "x".encode("utf-16"), "is UTF-16")]:
        with pytest.raises(UserError, match=message):
            own("generate", train=write(tmp_path / name, content))
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        own("pretrain", train=tmp_path / "none.txt")


# Named sets


@pytest.mark.parametrize(
    ("task", "dataset", "message"),
    [
        ("classify", "stsb", "is for --task similarity; for --task classify there is sample, sst2, sst2_phrases, ag_n"),
        ("similarity", "sst2", "is for --task classify; for --task similarity there is sample, stsb"),
        ("generate", "ag_news", "is for --task classify; for --task generate there is sample, tinyshakespeare, wiki"),
        ("classify", "tinyshakespeare", "is for --task generate"),
        ("classify", "sst", r"unknown \(did you mean sst2\?\); for --task classify there is sample, sst2"),
        ("pretrain", "sst2+imdb", r"unknown \(known: .*\); for --task pretrain there is sample, sst2"),
        ("classify", "sst2+ag_news", "unknown"),
    ],
)
def test_a_data_set_that_does_not_go_with_the_task(task, dataset, message):
    with pytest.raises(UserError, match=rf"--dataset \S+: {message}"):
        own(task, dataset=dataset)


def test_wikitext_needs_its_training_text(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"put https://\S+/train\.txt at wikitext-2/train\.txt under a directory named"):
        own("generate", dataset="wikitext2")
    (tmp_path / "wikitext-2").mkdir()
    write(tmp_path / "wikitext-2" / "train.txt", " = Title = \n a b \n")
    with pytest.raises(UserError, match=r"train\.txt: not the expected file \(7 tokens, expected 2088628\)"):
        own("generate", dataset="wikitext2")


def test_wikitext_where_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path))
    texts = {"train": " = A = \n a b \n", "valid": " c\n", "test": " d \n"}
    (tmp_path / "wikitext-2").mkdir()
    for name, text in texts.items():
        write(tmp_path / "wikitext-2" / f"{name}.txt", text)
    monkeypatch.setattr(public, "WIKITEXT_TOKENS", 7)
    digests = {f"{name}.txt": hashlib.sha256(texts[name].encode()).hexdigest() for name in ("valid", "test")}
    monkeypatch.setattr(public, "WIKITEXT_SHA256", digests)
    found = own("generate", dataset="wikitext2")
    assert {name: examples.texts for name, examples in found.items()} == {
        "train": (texts["train"],), "validation": (" c\n",), "test": (" d \n",),
    }  # fmt: skip
    assert own("pretrain", dataset="wikitext2")["train"].texts == ("= A =", "a b")


@needs_data
@pytest.mark.parametrize(
    ("task", "dataset", "sizes"),
    [
        ("classify", "sst2", (6920, 872, 1821)),
        ("classify", "sst2_phrases", (67349, 872, 1821)),
        ("similarity", "stsb", (5749, 1500, 1379)),
        ("generate", "tinyshakespeare", (1, 1)),
    ],
)
def test_public_sets(task, dataset, sizes):
    found = own(task, dataset=dataset)
    assert list(found) == ["train", "validation", "test"][: len(sizes)]
    assert tuple(map(len, found.values())) == sizes
    train = found["train"]
    if task == "classify":
        assert data.class_names(train) == ("negative", "positive")
        liked = dict(zip(train.texts, train.labels, strict=True))
        gist = "contains no wit , only labored gags" if dataset == "sst2_phrases" else train.texts[1]
        assert liked[gist] == "negative" and all(text == text.strip() != "" for text in train.texts)
    elif task == "similarity":
        assert (train.texts[0], train.others[0]) == ("A plane is taking off.", "An air plane is taking off.")
        assert train.scores[:2].tolist() == [5, pytest.approx(3.8)]
        assert all(0 <= examples.scores.min() and examples.scores.max() <= 5 for examples in found.values())
    else:
        assert [len(examples.texts[0]) for examples in found.values()] == [1_003_854, 111_540]
        whole = Path(DATA, "tinyshakespeare", "input.txt").read_bytes().decode()
        assert train.texts[0] + found["validation"].texts[0] == whole


@needs_data
def test_news():
    found = own(dataset="ag_news")
    sizes = {name: len(examples) for name, examples in found.items()}
    assert sizes["test"] == 7600 and sizes["validation"] * 19 == sizes["train"]
    names = Path(DATA, "ag_news", "classes.txt").read_text().split()
    assert list(public.AG_NEWS_CLASSES) == names and data.class_names(found["train"]) == tuple(sorted(names))
    assert not set(found["train"].rows) & set(found["validation"].rows)
    assert found["validation"].texts == own(dataset="ag_news", seed=5)["validation"].texts
    assert found["test"].texts[0].startswith("Fears for T N pension after talks Unions representing")
    assert found["test"].labels[0] == "Business"


@needs_data
def test_pretraining_takes_training_texts_of_several_sets():
    found = own("pretrain", dataset="stsb+sst2+tinyshakespeare")
    assert list(found) == ["train", "validation"]
    texts = set(found["train"].texts)
    assert len(texts) == len(found["train"]) and not texts & set(found["validation"].texts)
    pairs = own("similarity", dataset="stsb")
    assert texts.issuperset(pairs["train"].texts) and texts.issuperset(pairs["train"].others)
    assert texts.issuperset(own(dataset="sst2")["train"].texts)
    assert found["train"].source == "stsb+sst2+tinyshakespeare train"
    assert "First Citizen: Before we proceed any further, hear me speak." in texts
    tests = set(pairs["test"].texts) - set(pairs["train"].texts) - set(pairs["train"].others)
    assert len(tests & texts) < 0.01 * len(tests)


def test_examples_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        own().popitem()[1].texts = ()
