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
