"""Rows to answer, from the arguments, a file or standard input, and what becomes of those that cannot be answered."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.options import InputOptions


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows to answer.

    Args:
        texts: one a row; empty for one that could not be read.
        source: what to call them in errors.
        unreadable: numbers, from 1 on, of those that are not valid UTF-8.
    """

    texts: list[str]
    source: str
    unreadable: frozenset[int] = frozenset()

    def __len__(self):
        return len(self.texts)

    def open_folders(self) -> "Rows":
        """Of rows that are paths: each folder becomes the files in it, in the order of their names."""
        opened, unreadable = [], set()
        for number, text in enumerate(self.texts, 1):
            if text and Path(text).is_dir():  # an empty path would be the working directory
                files = sorted(file for file in Path(text).rglob("*") if file.is_file() and file.name[0] != ".")
                if not files:
                    raise UserError(f"{text}: an empty folder")
                opened.extend(map(str, files))
            else:
                opened.append(text)
                if number in self.unreadable:
                    unreadable.add(len(opened))
        return Rows(opened, self.source, frozenset(unreadable))

    def good(self, answers: Iterable[dict], options: InputOptions) -> Iterator[dict]:
        """The answers, up to the first error, or with the errors counted and named at the end.

        Args:
            answers: One a row; that of a bad one has its number as `row` and the reason as `error`. An answer to a row
                that could not be read becomes such an error.
            options: Say whether bad rows are skipped.

        Raises:
            UserError: A bad row that is not to be skipped.
        """
        skipped = []
        for number, answer in enumerate(answers, 1):
            if number in self.unreadable:
                answer = {"row": number, "error": "not valid UTF-8"}
            if "error" in answer:
                if options.on_bad_example == "fail":
                    raise UserError(f"{self.source}, row {answer['row']}: {answer['error']}")
                skipped.append(answer["row"])
            yield answer
        if skipped:
            shown = ", ".join(map(str, skipped[:5])) + (" ..." if len(skipped) > 5 else "")
            print(f"{self.source}: skipped {len(skipped)} of {len(self)} rows: {shown}", file=sys.stderr)


def read(options: InputOptions) -> Rows:
    """The rows to answer.

    Raises:
        UserError: There are no rows, or one is not valid UTF-8 and bad ones are not to be skipped.
    """
    if options.inputs and options.file:
        raise UserError("give inputs as arguments or with --file, not both")
    if options.inputs:
        lines, source = [os.fsencode(text) for text in options.inputs], "arguments"
    else:
        lines, source = _lines(options)
    texts, unreadable = [], set()
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.rstrip(b"\r").decode("utf-8"))
        except UnicodeDecodeError:
            if options.on_bad_example == "fail":
                raise UserError(
                    f"{source}, row {number}: not valid UTF-8; convert the file, or pass --on-bad-example skip"
                ) from None
            texts.append("")
            unreadable.add(number)
    return Rows(texts, source, frozenset(unreadable))


def _lines(options: InputOptions) -> tuple[list[bytes], str]:
    """The lines of the file or of standard input, and its name."""
    if options.file:
        try:
            data = options.file.read_bytes()
        except OSError as error:
            reason = error.strerror.lower()
            raise UserError(f"{options.file}: {reason}; --file takes a text file, a row a line") from None
        name = str(options.file)
    else:
        if sys.stdin.isatty():
            print("reading rows from the keyboard; end with Ctrl-D", file=sys.stderr)
        data, name = sys.stdin.buffer.read(), "standard input"
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{name}: empty; give a row a line")
    return lines, name


def answered(
    rows: Sequence[str],
    batch_size: int,
    read: Callable[[Sequence[str]], tuple[Iterable[Any], Iterable[str | None]]],
    answer: Callable[[list], Iterable[dict]],
) -> Iterator[dict]:
    """Answers to rows, a batch at a time, in which those that cannot be answered take nothing from the others.

    Args:
        rows: as they were given.
        batch_size: rows in a batch.
        read: what is to be answered of each row of a batch, and what is wrong with it, if anything.
        answer: the answers to what is to be answered of the good rows, in their order.

    Yields:
        One answer a row, with its number as `row`, what was given as `source`, and of a bad one the reason as `error`.
    """
    for begin in range(0, len(rows), batch_size):
        batch = rows[begin : begin + batch_size]
        items, errors = map(list, read(batch))
        good = [item for item, error in zip(items, errors, strict=True) if not error]
        answers = iter(answer(good) if good else ())
        for number, (row, error) in enumerate(zip(batch, errors, strict=True), begin + 1):
            yield {"row": number, "source": row} | ({"error": error} if error else next(answers))
