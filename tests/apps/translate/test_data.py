"""Splits: which files they are, and what is held out where none is given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.translate import data
from apps.translate.config import TranslateConfig
from pipelines.errors import UserError
from pipelines.runs import Run
from pipelines.text import parallel


def write(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return parallel.ParallelText(path)


def test_sample_is_written_once_among_the_assets(tmp_path):
    run = Run(tmp_path)
    splits = data.splits(TranslateConfig(), run)
    assert list(splits) == ["train", "validation", "test"]
    assert sum(1 for _ in open(splits["train"].source)) == 20_000
    before = splits["train"].source.stat().st_mtime_ns
    assert data.splits(TranslateConfig(), run) == splits
    assert splits["train"].source.stat().st_mtime_ns == before


def test_own_files_may_lack_splits(tmp_path):
    train = write(tmp_path / "t.tsv", [("a", "b")])
    splits = data.splits(TranslateConfig(train=(train.source,)), Run(tmp_path))
    assert splits == {"train": train}


@pytest.mark.parametrize("pair", ["en", "en-en", "en-xx", "en-de-fr"])
def test_unknown_language_pair(tmp_path, pair):
    with pytest.raises(UserError, match="write two of them as en-de"):
        data.splits(TranslateConfig(dataset="multi30k", language_pair=pair), Run(tmp_path))


@given(st.integers(1, 300), st.sets(st.integers(1, 300), max_size=20))
def test_held_out_pairs_and_the_rest_are_the_whole(tmp_path_factory, rows, bad):
    file = tmp_path_factory.mktemp("d") / "t.tsv"
    bad = {row for row in bad if row <= rows}
    if len(bad) >= rows - 1:
        return
    file.write_text("".join("bad\n" if row in bad else f"s{row}\tt{row}\n" for row in range(1, rows + 1)))
    text = parallel.ParallelText(file)
    found = parallel.inspect(text, on_bad_example="skip")
    rest, held_out = data.hold_out(text, found)
    kept = list(parallel.read_pairs(text, rest))
    assert sorted(kept + held_out) == sorted(parallel.read_pairs(text, found))
    assert len(held_out) == max(1, found.good // 50) and rest.good == len(kept)
    assert (np.diff(rest.bad_rows) > 0).all()
    streamed = [(s.decode(), t.decode()) for s, t in parallel.dataset(text, rest).as_numpy_iterator()]
    assert streamed == kept
