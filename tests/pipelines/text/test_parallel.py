"""Reading sentence pairs: bad rows are named, the good ones are the same by every road."""

import collections
import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.text import parallel
from pipelines.text.parallel import ParallelText, inspect, read_pairs


def write(path, content: bytes):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def tsv(tmp_path, content: bytes, name="train.tsv") -> ParallelText:
    return ParallelText(write(tmp_path / name, content))


def aligned(tmp_path, source: bytes, target: bytes) -> ParallelText:
    return ParallelText(write(tmp_path / "train.en", source), write(tmp_path / "train.de.gz", target))


def through_tensorflow(text, inspection, **options):
    batches = parallel.dataset(text, inspection, **options)
    return [(source.decode(), target.decode()) for source, target in batches.as_numpy_iterator()]


# Arguments


def test_one_path_is_tsv_and_two_are_aligned(tmp_path):
    one, two = write(tmp_path / "a", b""), write(tmp_path / "b", b"")
    assert ParallelText.from_arguments([str(one)]) == ParallelText(one)
    assert ParallelText.from_arguments([str(one), str(two)]) == ParallelText(one, two)


@pytest.mark.parametrize("paths", [[], ["a", "b", "c"]])
def test_another_number_of_paths_is_refused(paths):
    with pytest.raises(UserError, match=f"received {len(paths)}"):
        ParallelText.from_arguments(paths)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.tsv: there is no such file"):
        ParallelText.from_arguments([str(tmp_path / "nowhere.tsv")])


# Bad rows

GOOD = b"a dog\tein Hund\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"no tab here\n", "no tab between source and target; put one"),
        (b"\tein Hund\n", "the source is empty"),
        (b"a dog\t \n", "the target is empty"),
        (b"a dog\t\xc2\xa0\n", "the target is empty"),  # a no-break space
        (b"\n", "an empty row"),
        (b"a dog\tein \xff\n", "the target is not valid UTF-8"),
    ],
)
def test_the_first_bad_row_is_named_with_its_remedy(tmp_path, row, said):
    text = tsv(tmp_path, GOOD * 16 + row + GOOD + row)
    with pytest.raises(UserError, match=said) as caught:
        inspect(text)
    assert "train.tsv, row 17: " in str(caught.value)
    assert str(caught.value).endswith(", or pass --on-bad-example skip")
    inspection = inspect(text, on_bad_example="skip")
    assert (inspection.rows, inspection.good) == (19, 17)
    assert inspection.bad_rows.dtype == np.int64 and inspection.bad_rows.tolist() == [17, 19]
    pairs = [("a dog", "ein Hund")] * 17
    assert list(read_pairs(text, inspection)) == inspection.sample == pairs
    assert through_tensorflow(text, inspection) == pairs


def test_of_two_files_the_one_at_fault_is_named(tmp_path):
    text = aligned(tmp_path, b"a\nb\n", b"x\n\xe4\n")
    with pytest.raises(UserError, match=r"train\.de\.gz, row 2: the target is not valid UTF-8"):
        inspect(text)


def test_the_summary_counts_by_reason(tmp_path):
    text = tsv(tmp_path, b"x\n" + GOOD * 3 + b"a\t\n" + GOOD + b"y\nz\n")
    assert inspect(text, on_bad_example="skip").summary() == (
        f"{text.source}: skipped 4 of 8 rows (3 without a tab, 1 empty), first at rows 1, 5, 7"
    )
    assert inspect(tsv(tmp_path, GOOD)).summary().endswith("1 rows, all good")


@pytest.mark.parametrize("on_bad_example", ["fail", "skip"])
def test_files_of_unequal_length_are_never_accepted(tmp_path, on_bad_example):
    for source, target, counts in [(5, 3, (5, 3)), (3, 4, (3, 4))]:
        text = aligned(tmp_path, b"a\n" * source, b"b\n" * target)
        with pytest.raises(UserError) as caught:
            inspect(text, on_bad_example=on_bad_example)
        assert f"train.en has {counts[0]} lines" in str(caught.value)
        assert f"train.de.gz has {counts[1]}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\r", b"no tab\n"])
def test_a_file_without_a_pair_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="no sentence pair"):
        inspect(tsv(tmp_path, content), on_bad_example="skip")


def test_a_damaged_gzip_file_is_refused(tmp_path):
    whole = gzip.compress(b"a\tb\n" * 5000)
    path = tmp_path / "train.tsv.gz"
    for damaged in (whole[:-20], b"a\tb\n", whole[:20] + b"\0\1\2" + whole[23:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="train.tsv.gz: damaged or truncated"):
            inspect(ParallelText(path))


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path):
    text = tsv(tmp_path, b"\0" * (30 << 20), "train.tsv.gz")
    tracemalloc.start()
    with pytest.raises(UserError, match="row 1: over 1048576 bytes"):
        inspect(text, on_bad_example="skip")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


# Lines as tf.data splits them


def test_line_ends_marks_and_further_columns(tmp_path):
    content = b"\xef\xbb\xbf a\tb \r\nc\r\td\te\tf\n\xef\xbb\xbfg\th\x0b\nlast\tone"
    text = tsv(tmp_path, content)
    pairs = [("a", "b"), ("c", "d"), ("\ufeffg", "h"), ("last", "one")]
    assert list(read_pairs(text, inspect(text))) == pairs
    assert through_tensorflow(text, inspect(text)) == pairs


FRAGMENTS = [
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"\x0b",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3",
    b"\xa4",
    b"\0",
    b"a",
    b"b",
]
MESSY = st.lists(st.sampled_from(FRAGMENTS + ["ß".encode(), "\u3000".encode()]), max_size=40).map(b"".join)


def oracle_lines(content: bytes) -> list[bytes]:
    lines = content.replace(b"\r", b"").split(b"\n")
    if not lines[-1]:
        del lines[-1]
    if lines and lines[0].startswith(b"\xef\xbb\xbf"):
        lines[0] = lines[0][3:]
    return lines


def oracle_pairs(rows: list[list[bytes]]) -> tuple[list[tuple[str, str]], list[int]]:
    pairs, bad = [], []
    for number, columns in enumerate(rows, start=1):
        try:
            source, target, *_ = [column.strip(b" \t\n\v\f\r").decode() for column in columns]
            assert source.strip() and target.strip()
        except (ValueError, AssertionError):  # too few columns, not UTF-8, empty
            bad.append(number)
        else:
            pairs.append((source, target))
    return pairs, bad


def check_against_oracle(text: ParallelText, rows: list[list[bytes]]):
    pairs, bad = oracle_pairs(rows)
    if not pairs:
        with pytest.raises(UserError, match="no sentence pair"):
            inspect(text, on_bad_example="skip")
        return
    inspection = inspect(text, on_bad_example="skip")
    assert inspection.bad_rows.tolist() == bad
    assert (inspection.rows, inspection.good) == (len(rows), len(pairs))
    assert sum(inspection.reasons.values()) == len(bad)
    assert inspection.sample == list(read_pairs(text, inspection)) == pairs
    assert through_tensorflow(text, inspection, rows_at_once=3) == pairs


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(MESSY, MESSY.map(lambda noise: b"a\tb" + noise + b"\nc\td\n"), st.binary(max_size=40)))
def test_any_tsv_bytes_read_alike(tmp_path_factory, content):
    text = tsv(tmp_path_factory.mktemp("tsv"), content)
    check_against_oracle(text, [line.split(b"\t")[:2] for line in oracle_lines(content)])


@settings(max_examples=60, deadline=None)
@given(source=MESSY, target=MESSY)
def test_any_aligned_bytes_read_alike(tmp_path_factory, source, target):
    text = aligned(tmp_path_factory.mktemp("aligned"), source, target)
    sources, targets = oracle_lines(source), oracle_lines(target)
    if len(sources) != len(targets):
        with pytest.raises(UserError, match="line-aligned"):
            inspect(text, on_bad_example="skip")
    else:
        check_against_oracle(text, [list(pair) for pair in zip(sources, targets, strict=True)])


# The sample


def test_the_sample_is_uniform_and_fixed_by_its_seed(tmp_path):
    text = tsv(tmp_path, b"".join(b"%d\tx\n" % number for number in range(40)))
    taken = collections.Counter()
    for seed in range(600):
        sample = inspect(text, sample_size=8, seed=seed).sample
        numbers = [int(source) for source, _ in sample]
        assert len(numbers) == 8 and numbers == sorted(set(numbers))
        taken.update(numbers)
    # Each pair is taken with probability 1/5: 120 times in 600, standard deviation below 10.
    assert len(taken) == 40 and all(75 < count < 165 for count in taken.values()), taken
    assert inspect(text, sample_size=8, seed=5).sample == inspect(text, sample_size=8, seed=5).sample
    assert inspect(text, sample_size=0).sample == []


def test_progress_is_drawn_on_standard_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "PROGRESS_FROM", 1000)
    monkeypatch.setenv("FORCE_COLOR", "1")  # draws even though standard error is no terminal here
    inspect(tsv(tmp_path, GOOD * 30_000), show_progress=True)
    printed = capsys.readouterr()
    assert "Checking" in printed.err and printed.out == ""
