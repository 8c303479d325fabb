"""What counting tokens tells before anything is learnt: how rare each is, and for which classes it speaks.

Models begin with it, and learn what it cannot tell. Where rows are few, that is worth several points.
"""

from collections.abc import Sequence

import numpy as np


def inverse_document_frequencies(texts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """The logarithm of how many texts there are for each that has a token (Spärck Jones 1972).

    Args:
        texts: N arrays of ids.
        size: V.

    Returns:
        (V,) float32, 0 for a mark that all texts have.
    """
    counts = _texts_with(texts, np.ones((len(texts), 1)), size)[:, 0]
    return np.log((1 + len(texts)) / (1 + counts)).astype(np.float32)


def log_ratios(texts: Sequence[np.ndarray], targets: np.ndarray, size: int, multi_label: bool) -> np.ndarray:
    """How much likelier a token is in texts of a class than in others: the weights of naive Bayes.

    Args:
        texts: N arrays of ids.
        targets: (N, K), 1 for each class of a text.
        size: V.
        multi_label: whether each class is a question of its own, against all texts that are not of it; else classes
            exclude each other.

    Returns:
        (V, K) float32, in nats, smoothed by 1.

    References:
        Wang & Manning 2012, Baselines and Bigrams. https://aclanthology.org/P12-2018/
    """
    for_it = _log_shares(1 + _texts_with(texts, targets, size))
    if multi_label:
        against = _log_shares(1 + _texts_with(texts, 1 - targets, size))
    else:
        against = for_it.mean(axis=1, keepdims=True)
    return (for_it - against).astype(np.float32)


def _log_shares(counts: np.ndarray) -> np.ndarray:
    return np.log(counts / counts.sum(axis=0))


def _texts_with(texts: Sequence[np.ndarray], weights: np.ndarray, size: int) -> np.ndarray:
    """(V, K) the weights (N, K) of all texts that have a token, however often."""
    counts = np.zeros((size, weights.shape[1]))
    for ids, weight in zip(texts, weights, strict=True):
        counts[np.unique(ids)] += weight
    return counts
