"""Batches of rows: every row once, padded to few lengths, the same in parts as whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.nlp.rows import batches, lengths_of
from pipelines.batching import Shard, bucket_boundaries
from pipelines.bucketing import batch_count


def some_rows(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 50, length).astype(np.int32) for length in lengths]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 5))
def test_every_row_comes_once_and_whole(lengths, batch_size, seed):
    rows, other = some_rows(lengths), some_rows(lengths[::-1], 1)
    both = lengths_of(rows, other)
    boundaries = bucket_boundaries(both, 64)
    order = np.random.default_rng(seed).permutation(len(rows))
    numbers = np.arange(len(rows), dtype=np.int32)
    found = list(batches({"tokens": rows, "others": other}, {"number": numbers}, boundaries, batch_size, order=order))
    assert len(found) == batch_count(both, boundaries, batch_size)
    seen = []
    for batch in found:
        assert batch["tokens"].shape == batch["others"].shape and batch["tokens"].shape[1] in boundaries
        columns = (batch[name].numpy() for name in ("tokens", "others", "number", "weight"))
        for tokens, others, number, weight in zip(*columns, strict=True):
            np.testing.assert_array_equal(tokens[tokens > 0], rows[number])
            np.testing.assert_array_equal(others[others > 0], other[number])
            seen += [number] * int(weight)
    assert sorted(seen) == list(range(len(rows)))


def test_shards_are_the_parts_of_the_whole():
    rows = some_rows([3, 9, 4, 4, 17, 2, 8])
    whole = batches({"tokens": rows}, {}, (8, 20), 4)
    parts = [batches({"tokens": rows}, {}, (8, 20), 4, Shard(index, 2)) for index in range(2)]
    for together, *apart in zip(whole, *parts, strict=True):
        for name, value in together.items():
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in apart]))
