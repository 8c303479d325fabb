"""Where pictures come from: the embedded sample, public data sets, a folder a class, or a CSV of path,label."""

import gzip
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.image.config import ImageConfig
from pipelines.config import nearest
from pipelines.downloads import fetch, provided
from pipelines.errors import UserError
from pipelines.examples import report
from pipelines.image.pictures import Pictures
from pipelines.text.tables import read_table

DATASETS = ("sample", "fashion_mnist", "cifar10")
FASHION_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR10_JPEGS = "cifar10-jpg/cifar10-jpg.tar.gz"
CIFAR10_JPEGS_SHA256 = "caee4964ee157074cd166f19fc57801edbb2493096149057c636738291eee788"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}
HELD_OUT = 2000  # pictures of a training split at most that validate it, where there is no split for that


def splits(config: ImageConfig) -> dict[str, Pictures]:
    """The splits of the configured data: `train`, `validation`, and tests, the main one first.

    Raises:
        UserError: an unknown data set, a missing file, one class only, a label that training does not know.
    """
    if config.train:
        return _own(config)
    if config.dataset == "sample":
        return _digits()
    if config.dataset == "fashion_mnist":
        return _with_validation(
            {name: _fashion(prefix) for name, prefix in (("train", "train"), ("test", "t10k"))}, config.seed
        )
    if config.dataset == "cifar10":
        return _with_validation(_cifar10(), config.seed)
    raise config.unknown_dataset(DATASETS)


def _digits() -> dict[str, Pictures]:
    """1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: 70 % to train on, 10 %, 20 %."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    digits = Pictures(tuple("0123456789"), found.target.astype(np.int32), pixels, source="digits")
    order = np.random.default_rng(0).permutation(len(digits))
    ends = {"train": (0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1.0)}
    return {name: digits.take(order[round(a * len(order)) : round(b * len(order))]) for name, (a, b) in ends.items()}


def _fashion(prefix: str) -> Pictures:
    """Zalando's pictures of clothes (Xiao et al. 2017), 28 x 28, grey."""

    def read(name: str, header: int) -> np.ndarray:
        file = fetch(f"fashion-mnist/{name}", FASHION_URL + name, FASHION_SHA256[name])
        return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)

    labels = read(f"{prefix}-labels-idx1-ubyte.gz", 8).astype(np.int32)
    pixels = read(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    return Pictures(FASHION_CLASSES, labels, pixels, source=f"fashion_mnist {prefix}")


def _cifar10() -> dict[str, Pictures]:
    """Tiny colour pictures of ten classes (Krizhevsky 2009), 32 x 32: as JPEG folders where they are provided."""
    if provided(CIFAR10_JPEGS):
        return _cifar10_jpegs(fetch(CIFAR10_JPEGS, CIFAR10_URL, CIFAR10_JPEGS_SHA256))
    archive = fetch("cifar10/cifar-10-python.tar.gz", CIFAR10_URL, CIFAR10_SHA256)
    batches = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
    with tarfile.open(archive) as tar:

        def read(name: str) -> tuple[np.ndarray, list[int]]:
            found = pickle.load(tar.extractfile(f"cifar-10-batches-py/{name}"), encoding="bytes")  # verified above
            return found[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), found[b"labels"]

        parts = {split: [read(name) for name in names] for split, names in batches.items()}
    return {
        split: Pictures(
            CIFAR10_CLASSES,
            np.concatenate([labels for _, labels in found]).astype(np.int32),
            np.ascontiguousarray(np.concatenate([pixels for pixels, _ in found])),
            source=f"cifar10 {split}",
        )
        for split, found in parts.items()
    }


def _cifar10_jpegs(archive: Path) -> dict[str, Pictures]:
    contents = {"train": [], "test": []}
    labels = {"train": [], "test": []}
    with tarfile.open(archive) as tar:
        for member in tar:
            split, _, rest = member.name.partition("/")
            if member.isfile() and split in contents:
                labels[split].append(CIFAR10_CLASSES.index(rest.split("/")[0]))
                contents[split].append(tar.extractfile(member).read())
    return {
        split: Pictures(
            CIFAR10_CLASSES, np.array(labels[split], np.int32), contents=found, source=f"{archive.name} {split}"
        )
        for split, found in contents.items()
    }


def _with_validation(found: dict[str, Pictures], seed: int) -> dict[str, Pictures]:
    """Holds some of the training pictures out where there is no validation split, as many of each class."""
    if "validation" in found:
        return found
    train = found["train"]
    most = min(HELD_OUT, max(len(train.classes), len(train) // 10))
    held_out = _evenly_drawn(train.labels, most, seed)
    rest = np.setdiff1d(np.arange(len(train)), held_out)
    if not len(held_out):
        raise UserError(f"{train.source}: too few pictures to hold some out; give more, or --validation")
    return {"train": train.take(rest), "validation": train.take(held_out)} | {
        name: pictures for name, pictures in found.items() if name != "train"
    }


def _evenly_drawn(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of at most so many examples, equally many of each class, and never all of one."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    drawn = []
    for label in classes:
        mine = rng.permutation(np.flatnonzero(labels == label))
        drawn.extend(mine[: min(max(1, most // len(classes)), len(mine) - 1)])
    return np.sort(np.array(drawn, np.int64))


def _own(config: ImageConfig) -> dict[str, Pictures]:
    """The user's folders or CSV files."""
    train = _read(_only("--train", config.train), None, config.on_bad_example)
    if len(train.classes) < 2:
        raise UserError(
            f"{train.source}: holds pictures of one class, {train.classes[0]}, only; there is nothing to tell"
        )
    found = {"train": train}
    for name, paths in config.own_files().items():
        if name != "train":
            found[name] = _read(_only(f"--{name}", paths), train.classes, config.on_bad_example)
    return _with_validation(found, config.seed)


def _only(flag: str, paths: Sequence[Path]) -> Path:
    if len(paths) != 1:
        raise UserError(f"{flag}: takes one folder, with a folder a class in it, or one CSV file of path,label")
    return paths[0]


def _read(path: Path, classes: tuple[str, ...] | None, on_bad_example: str) -> Pictures:
    """Pictures of a folder or CSV file; `classes` are those of training, None where this is it."""
    if path.is_dir():
        return _folder(path, classes)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    return _csv(path, classes, on_bad_example)


def _folder(path: Path, classes: tuple[str, ...] | None) -> Pictures:
    folders = sorted(found for found in path.iterdir() if found.is_dir() and not found.name.startswith("."))
    files = {folder.name: sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES) for folder in folders}
    if empty := [name for name, found in files.items() if not found]:
        raise UserError(f"{path / empty[0]}: no pictures ({' '.join(sorted(SUFFIXES))}); fill or remove the folder")
    if not files:
        raise UserError(f"{path}: no folder in it; pictures belong in a folder a class, such as {path}/cat/1.jpg")
    known = classes or tuple(files)
    if strange := [name for name in files if name not in known]:
        raise UserError(f"{path / strange[0]}: no class of the training pictures{nearest(strange[0], known)}")
    if missing := [name for name in known if name not in files]:
        print(f"{path}: no pictures of {', '.join(missing)}")
    labels = np.array([known.index(name) for name, found in files.items() for _ in found], np.int32)
    return Pictures(known, labels, files=[str(f) for found in files.values() for f in found], source=str(path))


def _csv(path: Path, classes: tuple[str, ...] | None, on_bad_example: str) -> Pictures:
    expected = "a first line path,label"
    table = read_table([path], {"path": expected, "label": expected}, on_bad_example)
    files, labels = table.columns["path"], table.columns["label"]
    known = classes or tuple(sorted(set(labels)))
    bad = {
        row: f"label '{label}' is no class of the training pictures{nearest(label, known)}"
        for row, label in zip(table.rows, labels, strict=True)
        if label not in known
    }
    report(str(path), bad, len(table), on_bad_example)
    # Relative paths start where the file lies.
    good = [
        (str(path.parent / file), known.index(label))
        for file, label in zip(files, labels, strict=True)
        if label in known
    ]
    if missing := [name for name in known if name not in labels]:
        print(f"{path}: no pictures of {', '.join(missing)}")
    return Pictures(
        known, np.array([label for _, label in good], np.int32), files=[file for file, _ in good], source=str(path)
    )
