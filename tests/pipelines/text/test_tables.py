"""Reading tables: what was written comes back, bad records are named, and those beside them are kept."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.text.tables import decode, read_table

COLUMNS = {"text": "--text-column", "label": "--label-column"}
# Whatever can stand in a text: newlines of all kinds, quotes, commas, tabs, byte order marks, other scripts.
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.text(
    ',"\r\n\t\ufeff é', max_size=9
)
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1)


def write(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(*paths, on_bad_example="fail", **options):
    return read_table(paths, COLUMNS, on_bad_example, **options)


def pairs(table):
    return list(zip(table.columns["text"], table.columns["label"], strict=True))


def as_csv(rows, **options) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, **options).writerows([("text", "other", "label"), *rows])
    return stream.getvalue()


# What was written comes back


# A carriage return goes unquoted where lines end in \n alone; csv itself cannot read that back.
@given(ROWS, st.sampled_from([{}, {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}]), st.booleans())
def test_csv_comes_back(tmp_path_factory, rows, options, mark):
    content = as_csv(rows, **options)
    path = write(tmp_path_factory.getbasetemp() / "a.csv", content.encode("utf-8-sig" if mark else "utf-8"))
    table = read(path, may_be_empty=COLUMNS)
    assert pairs(table) == [(text, label) for text, _, label in rows]
    lines = list(io.StringIO(content, newline=""))
    for row, (text, other, label) in zip(table.rows, rows, strict=True):
        rest = "".join(lines[int(row.rsplit(" ", 1)[1]) - 1 :])  # the record begins where its name says
        assert next(csv.reader(io.StringIO(rest, newline=""))) == [text, other, label]


@given(ROWS, st.booleans())
def test_json_comes_back(tmp_path_factory, rows, escaped):
    lines = (json.dumps({"label": label, "other": other, "text": text}, ensure_ascii=escaped)
             for text, other, label in rows)  # fmt: skip
    path = write(tmp_path_factory.getbasetemp() / "a.jsonl", "".join(f"{line}\n" for line in lines))
    table = read(path, may_be_empty=COLUMNS)
    assert pairs(table) == [(text, label) for text, _, label in rows]
    assert table.rows == tuple(f"{path}, line {number}" for number in range(1, len(rows) + 1))


@given(
    st.lists(st.tuples(*[VALUES.map(lambda value: "x" + value.translate(dict.fromkeys(b"\r\n\t")))] * 3), min_size=1)
)
def test_tsv_comes_back(tmp_path_factory, rows):
    content = "".join("\t".join(row) + "\n" for row in [("text", "other", "label"), *rows])
    table = read(write(tmp_path_factory.getbasetemp() / "a.tsv", content))
    assert pairs(table) == [(text, label) for text, _, label in rows]


def test_several_files_one_after_the_other(tmp_path):
    first = write(tmp_path / "a.tsv", 'label\ttext\r\n1\tone "quoted\r\n\r\n2\ttwo\r\n')
    second = write(tmp_path / "b.csv", '\ufefftext , label,\n"three, in\ntwo lines",3,\nfour,4,')
    third = write(
        tmp_path / "c.json", '{"text": "five", "label": 5.5}\n\n{"text": "six", "label": ["a", "b", 1, true]}'
    )
    table = read(first, second, third)
    assert pairs(table) == [
        ('one "quoted', "1"), ("two", "2"), ("three, in\ntwo lines", "3"), ("four", "4"), ("five", "5.5"),
        ("six", "a|b|1|true"),
    ]  # fmt: skip
    assert [row.replace(f"{tmp_path}/", "") for row in table.rows] == [
        "a.tsv, line 2", "a.tsv, line 4", "b.csv, line 2", "b.csv, line 4", "c.json, line 1", "c.json, line 3",
    ]  # fmt: skip
    assert table.source == f"{first} and {second} and {third}" and len(table) == 6


# Bad records


@pytest.mark.parametrize(
    ("name", "bad", "complaint"),
    [
        ("a.tsv", b"bad\n", "1 field, not 2"),
        ("a.tsv", b"bad\t1\t2\n", "3 fields, not 2"),
        ("a.tsv", b" \t1\n", "'text' is empty"),
        ("a.tsv", b"b\xe4d\t1\n", r"'text' is not UTF-8 (byte 0xe4)"),
        ("a.tsv", b"b\0d\t1\n", "a NUL byte in 'text'"),
        ("a.csv", b"bad\n", "1 field, not 2"),
        ("a.csv", b"bad,1,2\n", "3 fields, not 2"),
        ("a.csv", b'"",1\n', "'text' is empty"),
        ("a.csv", b"bad,\xff\n", "'label' is not UTF-8 (byte 0xff)"),
        ("a.csv", b"b\0d,1\n", "a NUL byte in 'text'"),
        ("a.csv", b'"bad"ly,1\n', "no CSV (',' expected after '\"'); is a quote open, or not doubled?"),
        ("a.csv", b'"bad,1\n', "no CSV"),
        ("a.jsonl", b"{bad\n", "no JSON (Expecting property name"),
        ("a.jsonl", b'["bad", 1]\n', 'no JSON object; a line is such as {"text": "...", "label": "..."}'),
        ("a.jsonl", b'{"text": "bad"}\n', "no text under 'label'"),
        ("a.jsonl", b'{"text": "bad", "label": {}}\n', "no text under 'label'"),
        ("a.jsonl", b'{"text": null, "label": 1}\n', "'text' is empty"),
        ("a.jsonl", b'{"text": "b\xe4d", "label": 1}\n', "'text' is not UTF-8 (byte 0xe4)"),
        ("a.jsonl", b'{"text": "b\\ud800d", "label": 1}\n', "'text' is not UTF-8 (\\ud800)"),
        ("a.jsonl", b'{"text": "b\\u0000d", "label": 1}\n', "a NUL byte in 'text'"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "no JSON"),
    ],
)
def test_a_bad_record_is_named_and_those_beside_it_are_kept(tmp_path, capsys, name, bad, complaint):
    header, good = {
        ".tsv": (b"text\tlabel\n", "größe\t%d\n"),
        ".csv": (b"text,label\n", '"größe\n, or ""size""",%d\n'),
        ".jsonl": (b"", '{"text": "größe", "label": %d}\n'),
    }[name.removeprefix("a")]
    before = header + (good % 1).encode()
    path = write(tmp_path / name, before + bad + (good % 2).encode() + (good % 3).encode())
    with pytest.raises(UserError) as raised:
        read(path)
    line = before.count(b"\n") + 1
    assert str(raised.value).startswith(f"{path}, line {line}: {complaint}")
    assert str(raised.value).endswith("; mend or remove it, or pass --on-bad-example skip")
    assert read(path, on_bad_example="skip").columns["label"] == ("1", "2", "3")
    assert f"{path}: skipped 1 of 4 rows; {path}, line {line}: {complaint}" in capsys.readouterr().out


def test_a_quote_left_open_spoils_no_other_record(tmp_path, capsys):
    rows = "".join(f'"text {number}",{number}\n' for number in range(1000))
    path = write(tmp_path / "a.csv", "text,label\n" + '"open,1\n' + rows + '"at the end,1\n')
    assert read(path, on_bad_example="skip").columns["label"] == tuple(map(str, range(1000)))
    assert "skipped 2 of 1002 rows" in capsys.readouterr().out


def test_columns_that_are_not_asked_for_may_be_anything(tmp_path):
    path = write(tmp_path / "a.csv", b"text,other,label\nfine,\xff\0,yes\n")
    assert pairs(read(path)) == [("fine", "yes")]


def test_only_named_columns_may_be_empty(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": null}\n{"text": "b", "label": []}\n')
    assert pairs(read(path, may_be_empty=("label",))) == [("a", ""), ("b", "")]
    with pytest.raises(UserError, match="line 1: 'label' is empty"):
        read(path)


# Bad files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "takes a table named .tsv, .csv, .jsonl or .json"),
        ("a.csv", "", "is empty"),
        ("a.tsv", "\ufeff\n \n", "is empty"),
        ("a.jsonl", "\n", "is empty"),
        ("a.csv", "text,label\n", "no rows below the first line, which names columns"),
        ("a.csv", '"text,label\n', "its first line does not name columns: no CSV"),
        ("a.csv", "text,label".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.csv", "review,stars\nx,1\n", "no column 'text' (there is review, stars); name yours with --text-column"),
        ("a.tsv", "text,label\nx,1\n", "no column 'text' (there is text,label); name yours with --text-column"),
        ("a.csv", "text,x,x\na,b,c\n", "no column 'label' (there is text, x, x); name yours with --label-column"),
        ("a.csv", "text,label,label\na,b,c\n", "several columns 'label' (there is text, label, label)"),
        ("a.csv", b"t\xe4xt,label\na,b\n", "no column 'text' (there is 't\\udce4xt', label)"),
        ("a.json", '{"text": "a"}\n{"text": "b", "x": 1}\n', "no column 'label' (there is text, x); name yours"),
        ("a.csv", "text,label\nbad\nworse\n", "no good row among 2; "),
    ],
)
@pytest.mark.parametrize("on_bad_example", ["fail", "skip"])
def test_bad_files(tmp_path, name, content, message, on_bad_example):
    path = write(tmp_path / name, content)
    if "no good row" in message and on_bad_example == "fail":
        message = "line 2: 1 field, not 2"
    with pytest.raises(UserError) as raised:
        read(path, on_bad_example=on_bad_example)
    assert str(raised.value).startswith(str(path)) and message in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: no such file or directory"):
        read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a directory"):
        decode(tmp_path)
