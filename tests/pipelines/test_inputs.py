"""Rows to answer: how they are read, and what is said of those that cannot be answered."""

import pytest

from pipelines import inputs
from pipelines.errors import UserError
from pipelines.inputs import Rows
from pipelines.options import InputOptions

SKIP = InputOptions(on_bad_example="skip")


def read(tmp_path, content, on_bad_example="skip"):
    file = tmp_path / "rows.txt"
    file.write_bytes(content)
    return inputs.read(InputOptions(file=file, on_bad_example=on_bad_example))


def test_a_row_that_is_no_text_is_not_answered(tmp_path, capsys):
    rows = read(tmp_path, b"one\n\xff\xfe\n\nfour\n")
    assert rows.texts == ["one", "", "", "four"]
    answers = list(rows.good(({"text": f"<{text}>"} for text in rows.texts), SKIP))
    assert answers == [
        {"text": "<one>"}, {"row": 2, "error": "not valid UTF-8"}, {"text": "<>"}, {"text": "<four>"},
    ]  # fmt: skip
    assert "rows.txt: skipped 1 of 4 rows: 2\n" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"rows.txt, row 2: not valid UTF-8"):
        read(tmp_path, b"one\n\xff\n", "fail")


def test_folders_become_their_files_and_an_empty_row_does_not(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.png", "a.png", ".hidden"):
        (folder / name).touch()
    monkeypatch.chdir(tmp_path)
    rows = Rows(["", "pictures", "c.png", ""], "arguments", frozenset([4])).open_folders()
    assert rows.texts == ["", "pictures/a.png", "pictures/b.png", "c.png", ""]
    assert rows.unreadable == {5}  # the same row, whose number has changed
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: an empty folder"):
        Rows(["none"], "arguments").open_folders()


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_bad_rows_take_nothing_from_those_beside_them(batch_size):
    asked = []

    def read(rows):
        return map(str.strip, rows), [None if row.strip() else "empty" for row in rows]

    def answer(items):
        asked.append(items)
        return ({"text": item.upper()} for item in items)

    found = list(inputs.answered([" a", "", " ", "b", "c"], batch_size, read, answer))
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5] and found[0]["source"] == " a"
    assert [row.get("text") for row in found] == ["A", None, None, "B", "C"]
    assert [row.get("error") for row in found] == [None, "empty", "empty", None, None]
    assert all(items and len(items) <= batch_size for items in asked) and sum(asked, []) == ["a", "b", "c"]
