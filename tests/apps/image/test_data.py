"""Folders and CSV files of pictures, and the public sets where they are present."""

import os

import numpy as np
import pytest

from apps.image import data
from apps.image.config import ImageConfig
from pipelines.errors import UserError
from tests.apps.image.conftest import CLASSES, fill


def own(**paths):
    return data.splits(ImageConfig(**{name: (path,) for name, path in paths.items()}))


def test_folders(shapes):
    found = own(train=shapes / "train", validation=shapes / "validation", test=shapes / "test")
    assert list(found) == ["train", "validation", "test"]
    assert found["train"].classes == CLASSES and len(found["train"]) == 120 and len(found["test"]) == 24
    for split in found.values():
        assert [split.files[i].split("/")[-2] for i in range(len(split))] == [CLASSES[i] for i in split.labels]


def test_validation_is_held_out_evenly_and_never_seen_in_training(shapes):
    found = own(train=shapes / "train")
    assert np.bincount(found["validation"].labels).tolist() == [4, 4, 4]
    assert set(found["train"].files).isdisjoint(found["validation"].files) and len(found["train"]) == 108


def test_csv(shapes, tmp_path):
    rows = [f"{shapes}/train/{kind}/{n}.png,{kind}" for kind in CLASSES for n in range(20)]
    (tmp_path / "train.csv").write_text("\n".join(["path,label", *rows]))
    found = own(train=tmp_path / "train.csv")
    assert found["train"].classes == CLASSES and len(found["train"]) + len(found["validation"]) == 60
    # Paths start where the file lies.
    (shapes / "some.csv").write_text("\ufeffpath,label\ntrain/cross/1.png,cross\ntrain/circle/1.png,circle\n")
    assert (
        data._csv(shapes / "some.csv", None, "fail").encoded(0) == (shapes / "train" / "cross" / "1.png").read_bytes()
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("path,label\n", "no rows"),
        ("file,label\na.png,cat\n", "no column 'path'"),
        ("path,class\na.png,cat\n", "no column 'label'"),
        ("path,label\na.png,cat\n\nb.png,\n", "train.csv, line 4: 'label' is empty; .*--on-bad-example skip"),
        ("path,label\na.png,cat\nb.png,dog,3\n", "line 3: 3 fields, not 2"),
        ("path,label\na.png,cat\nb.png,cat\n", "of one class, cat, only"),
    ],
)
def test_wrong_csv(tmp_path, text, complaint):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=complaint):
        own(train=tmp_path / "train.csv")


def test_bad_rows_of_a_csv_can_be_skipped(shapes, capsys):
    rows = [f"train/{kind}/{n}.png,{kind}" for kind in CLASSES for n in range(3)]
    (shapes / "train.csv").write_text("\n".join(["path,label", *rows, "train/cross/1.png,"]))
    (shapes / "validation.csv").write_text("path,label\ntrain/cross/9.png,cross\ntrain/cross/8.png,corss\n")
    paths = {name: (shapes / f"{name}.csv",) for name in ("train", "validation")}
    found = data.splits(ImageConfig(**paths, on_bad_example="skip"))
    assert len(found["train"]) == 9 and found["train"].classes == CLASSES
    assert [file.split("/")[-1] for file in found["validation"].files] == ["9.png"]
    out = capsys.readouterr().out
    assert "skipped 1 of 10 rows" in out and "line 11: 'label' is empty" in out
    assert "line 3: label 'corss' is no class of the training pictures (did you mean cross?)" in out
    with pytest.raises(UserError, match="line 11"):
        data.splits(ImageConfig(**paths))


def test_a_provided_archive_is_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path))
    (tmp_path / data.CIFAR10_JPEGS).parent.mkdir()
    (tmp_path / data.CIFAR10_JPEGS).write_bytes(b"another one")
    with pytest.raises(UserError, match="cifar10-jpg.tar.gz: not the expected file"):
        data.splits(ImageConfig(dataset="cifar10"))


def test_wrong_folders(shapes, tmp_path, capsys):
    with pytest.raises(UserError, match="no such file or folder"):
        own(train=tmp_path / "none")
    with pytest.raises(UserError, match="no folder in it"):
        own(train=tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="cat: no pictures"):
        own(train=tmp_path)
    fill(tmp_path / "one", 3, 0, classes=["cat"])
    with pytest.raises(UserError, match="one class, cat, only"):
        own(train=tmp_path / "one")
    with pytest.raises(UserError, match=r"cross: no class of the training pictures|no class of the training"):
        own(train=fill(tmp_path / "two", 3, 0, classes=["circle", "square"]), validation=shapes / "validation")
    own(train=shapes / "train", validation=fill(tmp_path / "few", 3, 0, classes=["circle"]))
    assert "no pictures of cross, square" in capsys.readouterr().out


def test_the_sample_is_real_and_its_splits_are_apart():
    found = data.splits(ImageConfig())
    assert {name: len(split) for name, split in found.items()} == {"train": 1258, "validation": 180, "test": 359}
    rows = np.concatenate([split.rows for split in found.values()])
    assert sorted(rows) == list(range(1, 1798))
    assert found["train"].pixels.shape == (1258, 8, 8, 1) and found["train"].pixels.max() == 255


@pytest.mark.skipif("ESPALIER_DATA" not in os.environ, reason="needs the public data sets")
@pytest.mark.parametrize(
    ("name", "shape", "count"), [("fashion_mnist", (28, 28, 1), 60_000), ("cifar10", (32, 32, 3), 50_000)]
)
def test_public_sets(name, shape, count):
    found = data.splits(ImageConfig(dataset=name))
    assert len(found["train"]) + len(found["validation"]) == count and len(found["test"]) == 10_000
    assert np.bincount(found["test"].labels).tolist() == [1000] * 10
    assert np.bincount(found["validation"].labels).tolist() == [200] * 10
    if found["test"].pixels is not None:
        assert found["test"].pixels.shape[1:] == shape
    else:
        assert found["test"].contents[0][:2] == b"\xff\xd8"


def test_an_unknown_set():
    with pytest.raises(UserError, match="did you mean fashion_mnist"):
        data.splits(ImageConfig(dataset="fashion-mnist"))
