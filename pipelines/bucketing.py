"""Which examples share a batch: those of like length, in an order that depends on nothing but the order given."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """Which examples are in which batch.

    Args:
        indices: (G, B) int64, the examples of each batch; one that only fills a batch up is in another row too.
        weights: (G, B) float32, 0 for rows that fill a batch up, else 1.
        buckets: (G,) int64, which boundary a batch is filled up to.
    """

    indices: np.ndarray
    weights: np.ndarray
    buckets: np.ndarray


def plan(lengths: np.ndarray, boundaries: Sequence[int], batch_size: int, order: np.ndarray | None = None) -> Plan:
    """Puts examples of like length into batches.

    A batch comes as soon as its bucket has enough of them, in the order given; what is left comes at the end.

    Args:
        lengths: (N,) integers, of each example.
        boundaries: ascending lengths.
        batch_size: rows of every batch.
        order: (M,) indices of examples; by default all as they come.
    """
    order = np.arange(len(lengths)) if order is None else np.asarray(order)
    boundaries = covering(boundaries, lengths)
    of = np.searchsorted(boundaries, np.asarray(lengths)[order])
    found = []  # of each batch: when it comes, its examples, how many of them count, its bucket
    for bucket in range(len(boundaries)):
        places = np.flatnonzero(of == bucket)
        for start in range(0, len(places), batch_size):
            mine = places[start : start + batch_size]
            whole = len(mine) == batch_size
            # Real ones fill a batch up, not zeros, for the sake of layers that look at the whole batch.
            when = mine[-1] if whole else len(order) + bucket
            found.append((when, np.resize(order[mine], batch_size), len(mine), bucket))
    found.sort(key=lambda batch: batch[0])
    counts = np.array([count for _, _, count, _ in found], np.int64)
    return Plan(
        np.array([mine for _, mine, _, _ in found], np.int64).reshape(-1, batch_size),
        (np.arange(batch_size) < counts[:, None]).astype(np.float32),
        np.array([bucket for *_, bucket in found], np.int64),
    )


def batch_count(lengths: np.ndarray, boundaries: Sequence[int], batch_size: int) -> int:
    """How many batches `plan` makes of examples of these lengths."""
    sizes = np.bincount(np.searchsorted(covering(boundaries, lengths), lengths))
    return int((-(-sizes // batch_size)).sum())


def by_length(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Batches of indices of all examples, those of like length together, the shortest first."""
    order = np.argsort(lengths, kind="stable")
    return [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]


def covering(boundaries: Sequence[int], lengths: np.ndarray) -> list[int]:
    """The boundaries, and another one for examples that are longer than the last of them, where there are any."""
    longest = int(np.max(lengths, initial=0))
    return [*boundaries, longest] if longest > boundaries[-1] else list(boundaries)
