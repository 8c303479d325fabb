"""Rows with named columns, read from files of tab-separated values, of CSV, or of a JSON object a line.

Each record is checked on its own: a bad one is named by file and line, and those beside it are kept. What it holds is
given as it stands in the file, white space and newlines included.
"""

import codecs
import csv
import dataclasses
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.errors import UserError
from pipelines.examples import report

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json")


@dataclasses.dataclass(frozen=True)
class Table:
    """The good records of one file or of several, one after the other.

    Attributes:
        columns: N values for each name that was asked for.
        source: the files, for messages.
        rows: N names such as "reviews.csv, line 17": the file, and the line on which the record begins.
    """

    columns: dict[str, tuple[str, ...]]
    source: str
    rows: tuple[str, ...]

    def __len__(self):
        return len(self.rows)


def read_table(
    paths: Sequence[Path], columns: Mapping[str, str], on_bad_example: str = "fail", may_be_empty: Collection[str] = ()
) -> Table:
    """Reads some columns of tables; others are left alone.

    What a file holds is known by its suffix: `.tsv` tabs between fields, no quotes, so no newline in a field either;
    `.csv` what Python's csv module writes, quotes, commas and newlines in fields included; `.jsonl` or `.json` an
    object a line. The first line of the former two names the columns. Files are UTF-8, with or without a byte order
    mark. In JSON a number stands for its digits, null for an empty text, and a list for its items with | between.

    Args:
        paths: the files, at least one.
        columns: names of the columns, each with the flag that chose it, which is shown where there is none.
        on_bad_example: fail at the first bad record, or skip all and say how many there were.
        may_be_empty: columns whose values may be empty.

    Raises:
        UserError: a file that cannot be read, is empty or lacks a column; a bad record that is not to be skipped: too
            few fields or too many, an open quote, no JSON object, a missing or empty value, bytes that are no UTF-8,
            a NUL; no good record at all.
    """
    source = " and ".join(map(str, paths))
    rows: list[str] = []
    values: dict[str, list[str]] = {name: [] for name in columns}
    bad: dict[str, str] = {}
    for path in map(Path, paths):
        for record in _records(path, columns):
            row = f"{path}, line {record.line}"
            complaint = record.complaint or _complaint(record.fields, columns, may_be_empty)
            if complaint:
                bad[row] = complaint
                continue
            rows.append(row)
            for name, found in values.items():
                found.append(record.fields[name])
    report(source, bad, len(rows) + len(bad), on_bad_example)
    return Table({name: tuple(found) for name, found in values.items()}, source, tuple(rows))


def decode(path: Path) -> str:
    """The text of a file without its byte order mark; bytes that are no UTF-8 are kept as lone surrogates.

    So one bad byte spoils the record it is in and no other: `not_text` tells.

    Raises:
        UserError: the file cannot be read, is empty, or is UTF-16 throughout.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}: is UTF-16; save it as UTF-8")
    text = content.decode("utf-8-sig", "surrogateescape")
    if not text.strip():
        raise UserError(f"{path}: is empty")
    return text


def not_text(value: str) -> str:
    """What makes a value unfit to be text, as `decode` gives it; empty where nothing does."""
    if "\0" in value:
        return "a NUL byte"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        # surrogateescape puts the byte b, from 0x80 on, at U+DC00 + b; other surrogates were escaped in JSON.
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
        return f"not UTF-8 ({what})"
    return ""


class _Record(NamedTuple):
    line: int  # on which it begins, from 1 on
    fields: Mapping[str, str | None] = {}
    complaint: str = ""  # what is wrong with it as a whole, if anything


def _complaint(fields: Mapping[str, str | None], columns: Collection[str], may_be_empty: Collection[str]) -> str:
    """What is wrong with the values of a record, if anything."""
    for name in columns:
        value = fields.get(name)
        if value is None:
            return f"no text under '{name}'"
        if wrong := not_text(value):
            return f"'{name}' is {wrong}" if wrong.startswith("not") else f"{wrong} in '{name}'"
        if name not in may_be_empty and not value.strip():
            return f"'{name}' is empty"
    return ""


def _records(path: Path, columns: Mapping[str, str]) -> Iterator[_Record]:
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: takes a table named {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if path.suffix in (".jsonl", ".json"):
        yield from _objects(path, columns)
        return
    found = (_csv if path.suffix == ".csv" else _tsv)(decode(path))
    _, names, complaint = next(found, (1, [], "it is empty"))
    if complaint:
        raise UserError(f"{path}: its first line does not name columns: {complaint}")
    names = [name.strip() for name in names]
    _require(path, columns, names)
    empty = True
    for line, fields, complaint in found:
        empty = False
        if not complaint and len(fields) != len(names):
            complaint = f"{len(fields)} {'field' if len(fields) == 1 else 'fields'}, not {len(names)}"
        yield _Record(line, dict(zip(names, fields, strict=False)), complaint)
    if empty:
        raise UserError(f"{path}: no rows below the first line, which names columns")


def _require(path: Path, columns: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises UserError unless each of the columns is there once."""
    for name, flag in columns.items():
        if names.count(name) != 1:
            problem = f"no column '{name}'" if name not in names else f"several columns '{name}'"
            shown = ", ".join(found if not not_text(found) else ascii(found) for found in names)
            raise UserError(f"{path}: {problem} (there is {shown}); name yours with {flag}")


def _tsv(text: str) -> Iterator[tuple[int, list[str], str]]:
    """The line, the fields and the complaint of each line that is not empty."""
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.removesuffix("\r"):
            yield number, line.split("\t"), ""


def _csv(text: str) -> Iterator[tuple[int, list[str], str]]:
    """Likewise of each record of CSV.

    A quote that is not closed would swallow the records below it. Reading strictly, csv complains when it meets the
    next quote, or the end; then the line that the record began on is bad, and reading goes on below it.
    """
    lines = list(io.StringIO(text, newline=""))  # ends of lines stay as they are, since they may lie within quotes
    start = 0
    while start < len(lines):
        first = start
        reader = csv.reader((lines[index] for index in range(first, len(lines))), strict=True)
        try:
            for fields in reader:
                if fields:
                    yield start + 1, fields, ""
                start = first + reader.line_num
        except csv.Error as error:
            yield start + 1, [], f"no CSV ({error}); is a quote open, or not doubled?"
            start += 1


def _objects(path: Path, columns: Mapping[str, str]) -> Iterator[_Record]:
    """The records of a file of JSON objects. A column is missing where no object has it."""
    records = []
    names: dict[str, None] = {}  # a set in order
    example = json.dumps(dict.fromkeys(columns, "..."))
    for number, line in enumerate(decode(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            records.append(_Record(number, complaint=f"no JSON ({error}); a line is such as {example}"))
            continue
        if isinstance(found, dict):
            names |= dict.fromkeys(found)
            records.append(_Record(number, {name: _plain(found[name]) for name in columns if name in found}))
        else:
            records.append(_Record(number, complaint=f"no JSON object; a line is such as {example}"))
    if names:
        _require(path, columns, list(names))
    yield from records


def _plain(value: Any) -> str | None:
    """A value of JSON as it would stand in CSV; None for one that cannot."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        return None if None in items else "|".join(items)
    return json.dumps(value) if isinstance(value, bool | int | float) else None
