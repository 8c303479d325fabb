"""Where texts come from: the embedded sample, public data sets, or the user's tables and text files.

Texts to classify or to compare are rows. Running text is documents, each a text with all its newlines, for a language
model; or the passages of documents, and texts of the other sets, for pretraining an encoder.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.nlp import public
from apps.nlp.config import NlpConfig
from pipelines.config import nearest
from pipelines.errors import UserError
from pipelines.examples import report
from pipelines.text.tables import SUFFIXES, decode, not_text, read_table

HELD_OUT = 500  # rows of training at most that validate it, where there is no split for that
LARGEST_SCORE = float(np.finfo(np.float32).max)
FEW_DOCUMENTS = 10  # fewer are not held out whole: the end of each is


@dataclasses.dataclass(frozen=True)
class Examples:
    """Texts, and what is to be learnt about them.

    Attributes:
        texts: N texts.
        others: N texts, each the second of a pair with the one in `texts`; None where there are no pairs.
        labels: N class names, or several names each with | between them; None where there are no classes.
        scores: (N,) float32, how alike the texts of each pair are; None where there are no pairs.
        source: file or set that they are from, for messages.
        rows: N names such as "reviews.csv, line 17"; None: as they come.
    """

    texts: tuple[str, ...]
    others: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    scores: np.ndarray | None = None
    source: str = ""
    rows: tuple[str, ...] | None = None

    def __len__(self):
        return len(self.texts)

    def name(self, index: int) -> str:
        """What to call an example in messages and titles."""
        return f"{self.source}, row {index + 1}" if self.rows is None else self.rows[index]

    def take(self, indices: np.ndarray) -> "Examples":
        """Some of the examples, in the order of `indices`."""

        def chosen(items):
            return None if items is None else tuple(items[i] for i in indices)

        return dataclasses.replace(
            self,
            texts=chosen(self.texts),
            others=chosen(self.others),
            labels=chosen(self.labels),
            scores=None if self.scores is None else self.scores[indices],
            rows=tuple(map(self.name, indices)),
        )


def splits(config: NlpConfig) -> dict[str, Examples]:
    """The splits of the configured data: `train`, `validation`, and tests, the main one first.

    For generate, an example is a document; for pretrain, a passage or a text of another task's set.

    Raises:
        UserError: a data set that is unknown or of another task, a missing file or column, one class only, a bad row
            that is not to be skipped: see `read_table`, or a label that training does not know, or a score that is no
            number.
    """
    if config.train:
        return _own_text(config) if config.task in ("generate", "pretrain") else _own_rows(config)
    for name in config.dataset.split("+") if config.task == "pretrain" else [config.dataset]:
        _require(name, config.task)
    if config.task == "pretrain":
        return _pretraining(config.dataset)
    return _public(config.dataset, config.task)


def classes_of(label: str, multi_label: bool) -> list[str]:
    """The classes that a label names: one, or with `multi_label` any number."""
    return [name for name in label.split("|") if name] if multi_label else [label]


def class_names(examples: Examples, multi_label: bool = False) -> tuple[str, ...]:
    """All classes of some examples in order: of numbers where all are, of the alphabet else."""
    found = {name for label in examples.labels for name in classes_of(label, multi_label)}
    try:
        return tuple(sorted(found, key=lambda name: (_number(name), name)))
    except ValueError:
        return tuple(sorted(found))


def datasets(task: str) -> tuple[str, ...]:
    """The names of the data sets that go with a task."""
    return tuple(dict.fromkeys(name for kind, name in public.SETS if task in (kind, "pretrain")))


def _require(name: str, task: str) -> None:
    if name in datasets(task):
        return
    known = ", ".join(datasets(task))
    tasks = [kind for kind, other in public.SETS if other == name]
    if tasks:
        raise UserError(f"--dataset {name}: is for --task {tasks[0]}; for --task {task} there is {known}")
    raise UserError(
        f"--dataset {name}: unknown{nearest(name, datasets(task))}; for --task {task} there is {known}, "
        "and for your own files --train"
    )


# Public sets


def _public(name: str, task: str) -> dict[str, Examples]:
    found = {}
    for split, columns in public.SETS[task, name]().items():
        if "scores" in columns:
            columns = columns | {"scores": np.array(columns["scores"], np.float32)}
        found[split] = Examples(**columns, source=f"{name} {split}")
    if "validation" not in found:
        # The same rows whatever the seed, so that runs can be compared.
        train, validation = _held_out(found["train"], seed=0, share=0.05, most=math.inf)
        found = {"train": train, "validation": validation} | {k: v for k, v in found.items() if k != "train"}
    return found


def _pretraining(dataset: str) -> dict[str, Examples]:
    """The texts of one data set or of several joined with +, each once.

    Of sets for other tasks than generate only those of training and validation, so that no test of theirs is seen.
    """
    found: dict[str, dict[str, None]] = {"train": {}, "validation": {}, "test": {}}  # sets in order
    for name in dataset.split("+"):
        # `sample` has texts for every task: pretraining takes the running one.
        task = "generate" if ("generate", name) in public.SETS else next(t for t, n in public.SETS if n == name)
        for split, examples in _public(name, task).items():
            if task == "generate":
                texts = [text for document in examples.texts for text in passages(document, public.BREAKS.get(name))]
            elif split in ("train", "validation"):
                texts = (*examples.texts, *(examples.others or ()))
            else:
                continue
            found[split] |= dict.fromkeys(texts)
    seen = found["train"]
    return {
        split: Examples(
            tuple(text for text in texts if split == "train" or text not in seen), source=f"{dataset} {split}"
        )
        for split, texts in found.items()
        if texts
    }


def passages(document: str, separator: str | None = None) -> list[str]:
    """The parts of a document, by default its lines, each on one line and without those that are empty."""
    parts = (" ".join(part.split()) for part in document.split(separator or "\n"))
    return [part for part in parts if part]


# The user's files


def _own_text(config: NlpConfig) -> dict[str, Examples]:
    """Text files, of a document each, or tables of documents."""
    found = {}
    for name, paths in config.own_files().items():
        documents = [document for path in paths for document in _documents(path, config)]
        texts = documents if config.task == "generate" else [part for text in documents for part in passages(text)]
        found[name] = Examples(tuple(texts), source=" and ".join(map(str, paths)))
    if "validation" in found:
        return found
    train = found["train"]
    if config.task == "pretrain" or len(train) >= FEW_DOCUMENTS:
        train, validation = _held_out(train, config.seed)
    else:
        ends = [len(text) - len(text) // 10 for text in train.texts]
        starts = tuple(text[:end] for text, end in zip(train.texts, ends, strict=True))
        rests = (text[end:] for text, end in zip(train.texts, ends, strict=True))
        validation = dataclasses.replace(train, texts=tuple(filter(None, rests)))
        if not len(validation):
            raise UserError(f"{train.source}: too short to hold some of it out; give more, or --validation")
        train = dataclasses.replace(train, texts=starts)
    return {"train": train, "validation": validation} | {k: v for k, v in found.items() if k != "train"}


def _documents(path: Path, config: NlpConfig) -> Sequence[str]:
    """The text of a file exactly as it is, but for a byte order mark; or the texts of a table."""
    if path.suffix in SUFFIXES:
        table = read_table([path], _columns(config, "text_column"), config.on_bad_example)
        return table.columns[config.text_column]
    text = decode(path)
    if not not_text(text):
        return [text]
    lines = text.split("\n")
    bad = {number: wrong for number, line in enumerate(lines, 1) if (wrong := not_text(line))}
    named = {f"{path}, line {number}": wrong for number, wrong in bad.items()}
    report(str(path), named, len(lines), config.on_bad_example)
    return ["\n".join(line for number, line in enumerate(lines, 1) if number not in bad)]


def _own_rows(config: NlpConfig) -> dict[str, Examples]:
    """Tables of texts and classes, or of pairs and scores."""
    read = _labelled if config.task == "classify" else _scored
    found = {name: read(paths, config) for name, paths in config.own_files().items()}
    train = found["train"]
    if config.task == "classify":
        names = class_names(train, config.multi_label)
        if not names:
            raise UserError(f"{train.source}: no row has a label; there is nothing to learn")
        if len(names) == 1 and not config.multi_label:
            raise UserError(f"{train.source}: one class only, {names[0]}; there is nothing to tell")
        for name in ("validation", "test"):
            if name in found:
                found[name] = _of_known_classes(found[name], names, config)
    if "validation" not in found:
        train, validation = _held_out(train, config.seed, multi_label=config.multi_label)
        found = {"train": train, "validation": validation} | {k: v for k, v in found.items() if k != "train"}
    return found


def _columns(config: NlpConfig, *fields: str) -> dict[str, str]:
    """The configured names of columns, each with its flag."""
    found = {getattr(config, field): f"--{field}".replace("_", "-") for field in fields}
    if len(found) < len(fields):
        flags = " and ".join(f"--{field}".replace("_", "-") for field in fields)
        raise UserError(f"{flags}: take different columns, received {', '.join(getattr(config, f) for f in fields)}")
    return found


def _labelled(paths: Sequence[Path], config: NlpConfig) -> Examples:
    may_be_empty = (config.label_column,) if config.multi_label else ()
    table = read_table(paths, _columns(config, "text_column", "label_column"), config.on_bad_example, may_be_empty)
    labels = [label.strip() for label in table.columns[config.label_column]]
    if config.multi_label:
        labels = ["|".join(dict.fromkeys(filter(None, map(str.strip, label.split("|"))))) for label in labels]
    return Examples(
        tuple(text.strip() for text in table.columns[config.text_column]),
        labels=tuple(labels),
        source=table.source,
        rows=table.rows,
    )


def _scored(paths: Sequence[Path], config: NlpConfig) -> Examples:
    columns = _columns(config, "first_column", "second_column", "score_column")
    table = read_table(paths, columns, config.on_bad_example)
    firsts, seconds, given = (table.columns[name] for name in columns)
    scores, bad = np.zeros(len(table), np.float32), {}
    for index, value in enumerate(given):
        try:
            scores[index] = _number(value)
        except ValueError:
            bad[index] = f"score '{value}' is no finite number"
    examples = Examples(
        tuple(map(str.strip, firsts)), tuple(map(str.strip, seconds)), None, scores, table.source, table.rows
    )
    return _without(examples, bad, config.on_bad_example)


def _number(value: str) -> float:
    number = float(value)
    if not abs(number) <= LARGEST_SCORE:
        raise ValueError(f"no finite number: {value}")
    return number


def _of_known_classes(examples: Examples, names: Sequence[str], config: NlpConfig) -> Examples:
    """The examples of classes that training has."""
    bad = {}
    for index, label in enumerate(examples.labels):
        if strange := [name for name in classes_of(label, config.multi_label) if name not in names]:
            bad[index] = f"label '{strange[0]}' is none that training has{nearest(strange[0], names)}"
    return _without(examples, bad, config.on_bad_example)


def _without(examples: Examples, bad: dict[int, str], on_bad_example: str) -> Examples:
    report(examples.source, {examples.name(i): what for i, what in bad.items()}, len(examples), on_bad_example)
    return examples.take(np.setdiff1d(np.arange(len(examples)), list(bad))) if bad else examples


def _held_out(
    examples: Examples, seed: int, share: float = 0.1, most: float = HELD_OUT, multi_label: bool = False
) -> tuple[Examples, Examples]:
    """The examples without some, and those; both in their order. Of each class some are left to learn from."""
    count = int(min(most, max(1, round(share * len(examples)))))
    # Rows without labels are of one class, "".
    names = [classes_of(label, multi_label) for label in examples.labels or [""] * len(examples)]
    left = Counter(name for found in names for name in found)
    chosen: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(examples)):
        if len(chosen) < count and all(left[name] > 1 for name in names[index]):
            chosen.append(index)
            left.subtract(names[index])
    if not chosen or len(chosen) == len(examples):
        raise UserError(f"{examples.source}: too few rows to hold some out; give more, or --validation")
    return examples.take(np.setdiff1d(np.arange(len(examples)), chosen)), examples.take(np.sort(chosen))
