"""Sentence pairs in files: what is in them, which rows are bad, and how to read the good ones.

A corpus is one TSV file (source TAB target; further columns, such as the attribution in Tatoeba's exports,
are ignored) or two line-aligned files, plain or gzipped by suffix. `inspect` reads it once, before training,
so that a malformed row is named in seconds and not met hours later; `read_pairs` (Python) and `dataset`
(tf.data) then give exactly the same good pairs in the same order.

What a line is follows tf.data.TextLineDataset: lines end at a line feed only, carriage returns are dropped,
and an empty remainder after the last line feed is no line. A UTF-8 byte order mark at the start of a file is
dropped, and so is ASCII white space around a sentence.
"""

import array
import collections
import contextlib
import dataclasses
import functools
import gzip
import io
import itertools
import math
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipelines.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ASCII_WHITESPACE = b" \t\n\v\f\r"  # what tf.strings.strip removes
LONGEST_LINE = 1 << 20  # bytes; a longer one is no sentence, and would be held in memory whole
PROGRESS_FROM = 8 << 20  # bytes on disk from which a progress bar is worth its space
PROGRESS_EVERY = 10_000  # rows
BUFFER = 1 << 18  # bytes read at once

SIDES = ("source", "target")


@dataclasses.dataclass(frozen=True)
class ParallelText:
    """Where sentence pairs are: two line-aligned files, or (target None) one TSV file."""

    source: Path
    target: Path | None = None

    @classmethod
    def from_arguments(cls, paths: Sequence[str]) -> "ParallelText":
        """Makes one from command-line arguments: one path is a TSV file, two are line-aligned files.

        Raises:
            UserError: another number of paths, or a path that is not a file.
        """
        if len(paths) not in (1, 2):
            raise UserError(
                "sentence pairs are one TSV file (source TAB target) or two line-aligned files; "
                f"received {len(paths)} paths{': ' if paths else ''}{' '.join(map(str, paths))}"
            )
        for path in paths:
            if not Path(path).is_file():
                raise UserError(f"{path}: there is no such file; check the path")
        return cls(*map(Path, paths))

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.source,) if self.target is None else (self.source, self.target)

    def __str__(self) -> str:
        return " and ".join(map(str, self.files))


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What one pass over a corpus found.

    Attributes:
        name: the corpus' files, for messages.
        rows: rows in all.
        good: rows that hold a usable pair.
        bad_rows: 1-based numbers of the other rows, ascending, int64.
        reasons: how many rows are bad for which reason.
        sample: a uniform sample of the good pairs (all of them when they are few), in the corpus' order.
    """

    name: str
    rows: int
    good: int
    bad_rows: np.ndarray
    reasons: dict[str, int]
    sample: list[tuple[str, str]]

    def summary(self) -> str:
        """One line: "train.tsv: skipped 3 of 29000 rows (2 without a tab, 1 empty), at rows 17, 204, 310"."""
        if not self.bad_rows.size:
            return f"{self.name}: {self.rows} rows, all good"
        counts = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        first = ", ".join(map(str, self.bad_rows[:3]))
        where = f"at rows {first}" if self.bad_rows.size <= 3 else f"first at rows {first}"
        return f"{self.name}: skipped {self.bad_rows.size} of {self.rows} rows ({counts}), {where}"


def inspect(
    text: ParallelText,
    *,
    on_bad_example: str = "fail",
    sample_size: int = 100_000,
    seed: int = 0,
    show_progress: bool = False,
) -> Inspection:
    """Reads a corpus once, in bounded memory: counts and checks its rows, and samples its good pairs.

    A row is bad when it has no tab (TSV), when its source or target is empty, or when it is not UTF-8.

    Args:
        text: the corpus.
        on_bad_example: "fail" to stop at the first bad row, "skip" to note it and go on.
        sample_size: pairs in the sample, at most.
        seed: of the sample; the same file and seed give the same sample.
        show_progress: draw a progress bar on standard error when the files are large.

    Raises:
        UserError: the first bad row ("fail"); whatever is asked, files of unequal length, no good pair at
            all, a damaged gzip file, a line of more than a mebibyte, an unreadable file.
    """
    if on_bad_example not in ("fail", "skip"):
        raise UserError(f'on_bad_example is "fail" or "skip", received {on_bad_example!r}')
    bad_rows = array.array("q")
    reasons: collections.Counter[str] = collections.Counter()
    reservoir = _Reservoir(sample_size, seed)
    rows = good = 0
    with _Reader(text) as reader, _progress(text, reader, show_progress) as report:
        for rows, lines in enumerate(reader, start=1):
            try:
                pair = _parse(lines)
            except _BadRow as bad:
                if on_bad_example == "fail":
                    raise UserError(
                        f"{text.files[bad.column]}, row {rows}: {bad.problem}; {bad.remedy}, "
                        "or pass --on-bad-example skip"
                    ) from None
                bad_rows.append(rows)
                reasons[bad.reason] += 1
            else:
                reservoir.offer(pair)
                good += 1
            if rows % PROGRESS_EVERY == 0:
                report()
    if not good:
        what = f"none of its {rows} rows holds one" if rows else "the file is empty"
        raise UserError(f"{text}: no sentence pair ({what}); give one pair a row, source and target")
    return Inspection(str(text), rows, good, np.array(bad_rows, np.int64), dict(reasons), reservoir.items())


def read_pairs(text: ParallelText, inspection: Inspection) -> Iterator[tuple[str, str]]:
    """Yields the good (source, target) pairs of an inspected corpus, in order."""
    bad_rows = iter(inspection.bad_rows.tolist())
    next_bad = next(bad_rows, None)
    with _Reader(text) as reader:
        for row, lines in enumerate(reader, start=1):
            if row == next_bad:
                next_bad = next(bad_rows, None)
            else:
                yield _parse(lines)


def dataset(text: ParallelText, inspection: Inspection, rows_at_once: int = 1024) -> "tf.data.Dataset":
    """The good pairs of an inspected corpus, in order, as two scalar string tensors (source, target).

    Rows are read and split `rows_at_once` at a time, which is several times faster than one by one.
    """
    import tensorflow as tf

    bad_rows = tf.constant(inspection.bad_rows, tf.int64)

    def lines_of(file: Path) -> tf.data.Dataset:
        return tf.data.TextLineDataset(str(file), compression_type="GZIP" if _is_gzip(file) else None)

    def without_mark(block, lines):  # (R,) -> (R,): the byte order mark can stand in a file's first line only
        first = lines[:1]
        first = tf.where(block == 0, tf.strings.regex_replace(first, r"\A\x{FEFF}", ""), first)
        return tf.concat([first, lines[1:]], axis=0)

    def parse(block, columns):  # block: scalar int64; columns: (R,) raw lines of each file
        columns = [without_mark(block, lines) for lines in columns]
        if inspection.bad_rows.size:
            rows = block * rows_at_once + tf.range(1, tf.size(columns[0], tf.int64) + 1)  # (R,), 1-based
            is_good = tf.searchsorted(bad_rows, rows, "left") == tf.searchsorted(bad_rows, rows, "right")
            columns = [tf.boolean_mask(lines, is_good) for lines in columns]
        if text.target is None:  # a good row has a tab; what follows a second one is cut off
            columns = tf.unstack(tf.strings.split(columns[0], "\t").to_tensor(shape=(None, 2)), axis=1)
        return tuple(tf.strings.strip(lines) for lines in columns)

    blocks = tf.data.Dataset.zip(tuple(lines_of(file).batch(rows_at_once) for file in text.files))
    return blocks.enumerate().map(parse).unbatch()


class _BadRow(Exception):
    """Why a row holds no pair: `column` (0 source, 1 target) tells in which file."""

    def __init__(self, reason: str, problem: str, remedy: str, column: int = 0):
        super().__init__(problem)
        self.reason, self.problem, self.remedy, self.column = reason, problem, remedy, column


def _parse(lines: Sequence[bytes]) -> tuple[str, str]:
    """Makes a pair of one TSV line or of two aligned ones. Raises _BadRow."""
    if len(lines) == 1:
        columns = lines[0].split(b"\t", 2)[:2]
        if len(columns) == 1:
            if not columns[0].strip(ASCII_WHITESPACE):
                raise _BadRow("empty", "an empty row", "delete it")
            raise _BadRow("without a tab", "no tab between source and target", "put one")
    else:
        columns = lines
    sentences = []
    for column, raw in enumerate(columns):
        try:
            sentence = raw.strip(ASCII_WHITESPACE).decode()
        except UnicodeDecodeError:
            problem = f"the {SIDES[column]} is not valid UTF-8"
            raise _BadRow("not UTF-8", problem, "save the file as UTF-8", min(column, len(lines) - 1)) from None
        if not sentence or sentence.isspace():
            problem = f"the {SIDES[column]} is empty"
            raise _BadRow("empty", problem, "fill it in or delete the pair", min(column, len(lines) - 1))
        sentences.append(sentence)
    return sentences[0], sentences[1]


class _Reader:
    """Streams a corpus as tuples of raw lines, one from each file; leaving its context closes them."""

    def __init__(self, text: ParallelText):
        self._files = text.files
        self._stack = contextlib.ExitStack()
        self._raw: list[BinaryIO] = []

    def __enter__(self) -> "_Reader":
        try:
            for file in self._files:
                self._raw.append(self._stack.enter_context(open(file, "rb", buffering=0)))
        except OSError as error:
            self._stack.close()
            raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check the path") from error
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def bytes_read(self) -> int:
        return sum(raw.tell() for raw in self._raw)

    def __iter__(self) -> Iterator[tuple[bytes, ...]]:
        columns = [_lines(file, raw) for file, raw in zip(self._files, self._raw, strict=True)]
        for row, lines in enumerate(itertools.zip_longest(*columns)):
            if None in lines:
                rest = [sum(1 for _ in column) for column in columns]
                counts = [row + (line is not None) + more for line, more in zip(lines, rest, strict=True)]
                raise UserError(
                    f"{self._files[0]} has {counts[0]} lines and {self._files[1]} has {counts[1]}: "
                    "line-aligned files need as many; restore the missing ones"
                )
            yield lines


def _lines(file: Path, raw: BinaryIO) -> Iterator[bytes]:
    """Splits a file as tf.data.TextLineDataset does, and drops the byte order mark."""
    # BufferedReader's readline is compiled, GzipFile's is not.
    stream = io.BufferedReader(gzip.GzipFile(fileobj=raw) if _is_gzip(file) else raw, BUFFER)
    try:
        for row, line in enumerate(iter(functools.partial(stream.readline, LONGEST_LINE + 1), b""), start=1):
            if len(line) > LONGEST_LINE:
                raise UserError(f"{file}, row {row}: over {LONGEST_LINE} bytes; is this a file of sentences?")
            ended = line.endswith(b"\n")
            line = line.rstrip(b"\n").replace(b"\r", b"")
            if not line and not ended:
                return  # nothing but carriage returns behind the last line feed
            if row == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{file}: damaged or truncated gzip file ({error}); obtain it again") from error


def _is_gzip(file: Path) -> bool:
    return file.suffix == ".gz"


@contextlib.contextmanager
def _progress(text: ParallelText, reader: _Reader, wanted: bool) -> Iterator[Callable[[], None]]:
    """Gives a function that moves the progress bar to where the reader is."""
    total = sum(file.stat().st_size for file in text.files)
    if not wanted or total < PROGRESS_FROM:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"Checking {text}", total=total)
        yield lambda: progress.update(task, completed=reader.bytes_read())


class _Reservoir:
    """A uniform sample of a stream of unknown length, in the stream's order (algorithm L; Li 1994).

    It draws random numbers only for the items it takes, not for every item it is offered.
    """

    def __init__(self, size: int, seed: int):
        self._size = size
        self._random = random.Random(seed)
        self._kept: list[tuple[int, tuple[str, str]]] = []
        self._offered = 0
        self._weight = 1.0
        self._next = size - 1  # index of the next item taken, once the reservoir is full
        if size:
            self._choose_next()

    def offer(self, item: tuple[str, str]) -> None:
        if len(self._kept) < self._size:
            self._kept.append((self._offered, item))
        elif self._offered == self._next:
            self._kept[self._random.randrange(self._size)] = (self._offered, item)
            self._choose_next()
        self._offered += 1

    def items(self) -> list[tuple[str, str]]:
        return [item for _, item in sorted(self._kept)]

    def _choose_next(self) -> None:
        self._weight *= math.exp(math.log(self._uniform()) / self._size)
        self._next += int(math.log(self._uniform()) / math.log1p(-self._weight)) + 1

    def _uniform(self) -> float:
        return self._random.uniform(1e-12, 1 - 1e-12)  # neither 0 nor 1, of which logarithms are infinite
