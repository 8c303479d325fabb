"""Buckets that waste least, batches of few shapes, and an order fixed by (seed, epoch)."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.batching import bucket_boundaries, bucketed_batches, shuffled


def padded_tokens(lengths, boundaries) -> int:
    return int(np.asarray(boundaries)[np.searchsorted(boundaries, lengths)].sum())


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 45), min_size=1, max_size=30),
    max_length=st.integers(1, 45),
    count=st.integers(1, 4),
)
def test_boundaries_are_the_best_of_all_choices(lengths, max_length, count):
    kept = [length for length in lengths if length <= max_length]
    if not kept:
        with pytest.raises(ValueError, match="no length"):
            bucket_boundaries(np.array(lengths), max_length, count)
        return
    boundaries = bucket_boundaries(np.array(lengths), max_length, count)
    last = min(-(-max(kept) // 4) * 4, max_length)
    inner = range(4, last, 4)
    best = min(
        padded_tokens(kept, [*chosen, last]) for size in range(count) for chosen in itertools.combinations(inner, size)
    )
    assert padded_tokens(kept, boundaries) == best
    assert boundaries[-1] == last and len(boundaries) <= count
    assert list(boundaries) == sorted(set(boundaries)) and set(boundaries[:-1]) <= set(inner)


def test_no_boundary_without_use():
    assert bucket_boundaries(np.array([7, 8, 7]), 100, 4) == (8,)
    assert bucket_boundaries(np.array([3, 30, 200]), 50, 4) == (4, 32)
    assert bucket_boundaries(np.array([50]), 50, 4) == (50,)


def blocks_of(rows: list[dict[str, list[int]]], size: int = 7) -> tf.data.Dataset:
    spec = {name: tf.TensorSpec([None], tf.int32) for name in ("source", "target")}
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec).ragged_batch(size)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), max_size=40),
    batch_size=st.integers(1, 5),
)
def test_every_example_that_fits_is_in_one_batch_of_the_right_shape(lengths, batch_size):
    boundaries = (4, 8, 12)
    rows = [{"source": [n + 1] * s, "target": [n + 1] * t} for n, (s, t) in enumerate(lengths)]
    batches = list(bucketed_batches(blocks_of(rows), boundaries, batch_size).as_numpy_iterator())
    seen = {}
    for batch in batches:
        width = batch["source"].shape[1]
        assert width in boundaries
        for name in ("source", "target"):
            assert batch[name].shape == (batch_size, width) and batch[name].dtype == np.int32
        for source, target in zip(batch["source"], batch["target"], strict=True):
            number, count = source[0], ((source > 0).sum(), (target > 0).sum())
            if number == 0:
                assert not source.any() and not target.any(), "a missing row is all padding"
                continue
            assert number not in seen
            seen[number] = count
            assert set(source[: count[0]]) == set(target[: count[1]]) == {number}, "padding comes last"
            assert width == min(b for b in boundaries if b >= max(count)), "the smallest that holds it"
    assert seen == {n + 1: pair for n, pair in enumerate(lengths) if max(pair) <= 12}
    partial = [batch["source"].shape[1] for batch in batches if (batch["source"][:, 0] == 0).any()]
    assert len(partial) == len(set(partial)), "at most one partial batch of each shape"


def test_batches_do_not_depend_on_how_examples_are_cut_into_blocks():
    lengths = np.random.default_rng(0).integers(1, 14, (100, 2))
    rows = [{"source": [n + 1] * s, "target": [n + 1] * t} for n, (s, t) in enumerate(lengths)]
    by_hand, waiting = [], {4: [], 8: [], 12: []}  # a batch comes as soon as its bucket has enough
    for n, longest in enumerate(lengths.max(axis=1), 1):
        for bucket in [b for b in waiting if b >= longest][:1]:
            waiting[bucket].append(n)
            if len(waiting[bucket]) == 3:
                by_hand.append(waiting[bucket])
                waiting[bucket] = []
    for size in (1, 7, 1000):
        batches = list(bucketed_batches(blocks_of(rows, size), (4, 8, 12), 3).as_numpy_iterator())
        assert [batch["source"][:, 0].tolist() for batch in batches[: len(by_hand)]] == by_hand


def test_the_batch_dimension_is_static():
    spec = bucketed_batches(blocks_of([]), (4, 8), 3).element_spec
    assert {name: tensor.shape.as_list() for name, tensor in spec.items()} == {
        "source": [3, None],
        "target": [3, None],
    }


def order(seed: int, epoch: int, buffer_size: int = 50) -> list[int]:
    return list(shuffled(tf.data.Dataset.range(50), buffer_size, seed, epoch).as_numpy_iterator())


def test_order_depends_on_seed_and_epoch_alone():
    tf.random.set_seed(1)
    first = order(7, 3)
    tf.random.set_seed(2)
    tf.random.uniform([])
    assert order(7, 3) == first
    assert sorted(first) == list(range(50))
    others = [tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(others)) == 16
    again = shuffled(tf.data.Dataset.range(50), 50, 7, 3)
    assert list(again.as_numpy_iterator()) == list(again.as_numpy_iterator()) == first


def test_shuffling_leaves_the_global_seed_alone():
    tf.random.set_seed(5)
    expected = tf.random.uniform([]).numpy()
    tf.random.set_seed(5)
    order(1, 1)
    assert tf.random.uniform([]).numpy() == expected
