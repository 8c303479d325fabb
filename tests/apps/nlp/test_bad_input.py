"""Every mistake a user can make with texts: one clear line on standard error, exit code 2, no traceback."""

import json

import pytest

from tests.apps.command_line import refused
from tests.apps.nlp.tiny import TINY, command, write_table

LABELLED, PAIRED = ("text", "label"), ("text_a", "text_b", "score")
REVIEWS = [(f"a {word} film {number}", word) for number in range(6) for word in ("good", "bad")]
PAIRS = [(f"film {number}", f"book {number}", str(number)) for number in range(12)]


def train(directory, task="classify", *flags):
    return command("train", f"--task={task}", "--run-dir", directory / "run", "--max-steps=1", *TINY, *flags)


def table(directory, task, *rows, name="train.csv"):
    """The flag of a table with good rows for a task and then the given ones."""
    columns, good = (LABELLED, REVIEWS) if task == "classify" else (PAIRED, PAIRS)
    return f"--{name.split('.')[0]}={write_table(directory / name, columns, *good, *rows)}"


BAD_ROWS = {
    "an empty text": ("classify", ("", "good"), ["train.csv, line 14", "'text' is empty", "--on-bad-example skip"]),
    "too many fields": ("classify", ("a", "good", "c"), ["train.csv, line 14", "3 fields, not 2"]),
    "a score that is no number": (
        "similarity",
        ("a", "b", "high"),
        ["train.csv, line 14", "score 'high' is no finite"],
    ),
    "an empty second text": ("similarity", ("a", " ", "1"), ["train.csv, line 14", "'text_b' is empty"]),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, case):
    task, row, said = BAD_ROWS[case]
    refused(train(tmp_path, task, table(tmp_path, task, row)), *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["validation", pytest.param("test", marks=pytest.mark.slow)])
def test_a_label_that_training_has_not(tmp_path, split):
    files = [table(tmp_path, "classify"), table(tmp_path, "classify", name="validation.csv")]
    files.append(table(tmp_path, "classify", ("a film", "godo"), name=f"{split}.csv"))
    said = [f"{split}.csv, line 14", "label 'godo'", "did you mean good?", "--on-bad-example skip"]
    refused(train(tmp_path, "classify", *files), *said)
    code, out, err = train(tmp_path, "classify", *files, "--on-bad-example=skip")
    assert code == 0, err
    assert f"{split}.csv: skipped 1 of 13 rows" in out
    evaluate = ["evaluate", "--run-dir", tmp_path / "run", "--split=validation"]
    assert command(*evaluate)[0] == 0  # as training did
    refused(command(*evaluate, "--on-bad-example=fail"), *said)


def test_files_that_say_nothing(tmp_path):
    one_class = write_table(tmp_path / "one.csv", LABELLED, *[("a film", "good")] * 9)
    refused(train(tmp_path, "classify", f"--train={one_class}"), "one.csv", "one class only, good")
    alike = write_table(tmp_path / "alike.csv", PAIRED, *[("a", "b", "3")] * 9)
    refused(train(tmp_path, "similarity", f"--train={alike}"), "alike.csv", "all pairs have the score 3")
    (tmp_path / "empty.csv").write_bytes(b"")
    for task in ("classify", "similarity", "pretrain"):
        refused(train(tmp_path, task, f"--train={tmp_path / 'empty.csv'}"), "empty.csv", "is empty")
    header = write_table(tmp_path / "header.csv", LABELLED)
    refused(train(tmp_path, "classify", f"--train={header}"), "header.csv", "no rows")
    refused(train(tmp_path, "pretrain", f"--train={tmp_path / 'none.txt'}"), "none.txt", "no such file")


def test_a_missing_column_and_those_there_are(tmp_path):
    files = table(tmp_path, "classify")
    refused(train(tmp_path, "classify", files, "--label-column=stars"), "'stars'", "text, label", "--label-column")
    refused(train(tmp_path, "similarity", files), "'text_a'", "text, label", "--first-column")


@pytest.mark.parametrize("task", ["classify", pytest.param("pretrain", marks=pytest.mark.slow)])
def test_another_encoding_is_named_by_its_row_and_can_be_skipped(tmp_path, task):
    name, header = ("train.csv", b"text,label\n") if task == "classify" else ("train.txt", b"")
    good = b"".join(f"a {word} film,{word}\n".encode() for _, word in REVIEWS)
    (tmp_path / name).write_bytes(header + good + "café,good\n".encode("latin-1"))
    flag = f"--train={tmp_path / name}"
    line = 14 if header else 13
    refused(train(tmp_path, task, flag), f"{name}, line {line}", "not UTF-8 (byte 0xe9)", "--on-bad-example skip")
    code, out, err = train(tmp_path, task, flag, "--on-bad-example=skip")
    assert code == 0 and "skipped 1 of" in out and f"line {line}" in out, err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of one step for each task, by its name; texts have quotes and newlines, and one is very long."""
    directory = tmp_path_factory.mktemp("runs")
    reviews = [('a "good",\nlong film', "good"), ("good " * 5000, "good"), *REVIEWS]
    tables = {
        "classify": write_table(directory / "reviews.csv", LABELLED, *reviews),
        "similarity": write_table(directory / "pairs.csv", PAIRED, ('a "film"\n', "a,\nb", "2"), *PAIRS),
        "pretrain": directory / "text.txt",
    }
    tables["pretrain"].write_text("".join(f"{text}\n" for text, _ in REVIEWS))
    found = {}
    for task, file in tables.items():
        code, out, err = train(directory / task, task, f"--train={file}", f"--validation={file}")
        assert code == 0, err
        found[task] = directory / task / "run", out
    return found


def test_quotes_newlines_and_long_texts_are_learnt_from(runs, tmp_path):
    out = runs["classify"][1]
    assert "reviews.csv: 14 texts of 2 classes" in out
    assert "texts reach --max-length 32: what is beyond that is not read" in out
    assert "pairs.csv: 13 pairs" in runs["similarity"][1]
    broken = [('a "good",\nlong film', "good"), *REVIEWS, ("", "bad")]
    flag = f"--train={write_table(tmp_path / 'rows.csv', LABELLED, *broken)}"
    refused(train(tmp_path, "classify", flag), "rows.csv, line 16")  # the first row takes two lines


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("classify", " ", "empty text"),
        ("similarity", "no tab", "two texts with a tab between them"),
        ("similarity", "one\ttwo\tthree", "two texts with a tab between them"),
        ("pretrain", "nothing hidden", "put ___ where a word is to be guessed"),
        ("pretrain", "good " * 50 + "___", "--max-length"),
    ],
)
def test_an_input_that_cannot_be_answered(runs, task, row, said):
    refused(command("predict", "--run-dir", runs[task][0], row), "arguments, row 1", said)


@pytest.mark.parametrize("task", ["classify", "similarity", "pretrain"])
def test_inputs_that_are_no_text(runs, task):
    refused(command("predict", "--run-dir", runs[task][0], stdin=b"\xe9\n"), "standard input, row 1", "UTF-8")
    refused(command("predict", "--run-dir", runs[task][0], stdin=b""), "standard input", "empty")
    refused(command("explain", "--run-dir", runs[task][0], stdin=b"\n"), "standard input, row 1")


def test_a_text_far_beyond_the_limit_is_answered(runs, tmp_path):
    (tmp_path / "long.txt").write_text("good " * 20_000 + "\ngood\n")
    code, out, err = command("predict", "--run-dir", runs["classify"][0], "--json", "--file", tmp_path / "long.txt")
    assert code == 0 and len([json.loads(line)["classes"] for line in out.splitlines()]) == 2, err


@pytest.mark.parametrize(
    "flags",
    [
        ["predict", "--search=lines.txt", "a film"],
        ["predict", "--top-k=3", "a film"],
        ["export", "--max-tokens=9"],
        ["export", "--most-tokens=900"],
    ],
)
def test_flags_that_go_with_another_task(runs, flags):
    what, flag, *inputs = flags
    said = command(what, "--run-dir", runs["classify"][0], flag, *inputs)
    refused(said, flag.split("=")[0], "this run learnt to classify")


def test_files_to_search(runs, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("film\ncafé\n".encode("latin-1"))
    for name, said in (("none.txt", "no such file"), ("empty.txt", "is empty"), ("latin.txt", "line 2: not UTF-8")):
        search = f"--search={tmp_path / name}"
        refused(command("predict", "--run-dir", runs["similarity"][0], search, "film"), name, said)
    code, out, err = command(
        "predict", "--run-dir", runs["similarity"][0], search, "--on-bad-example=skip", "--nearest=1", "film"
    )
    assert code == 0 and out == "1.0000  film\n" and "skipped 1 of 2 rows" in err, err


@pytest.mark.slow
def test_a_single_pair_to_validate_with_is_enough(tmp_path):
    one = write_table(tmp_path / "one.csv", PAIRED, ("a film", "a book", "2"))
    files = [table(tmp_path, "similarity"), f"--validation={one}", f"--test={one}"]
    code, out, err = train(tmp_path, "similarity", *files)
    assert code == 0, err
    code, out, err = command("evaluate", "--run-dir", tmp_path / "run")
    assert code == 0 and "1 pairs" in out, err
