"""How good a classifier is: accuracy, confusion, figures for each class, and where it is wrong and sure of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from pipelines.errors import UserError

NAMED = 12  # classes that a message lists


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often each class was taken for each. Counts of several batches may be added up.

    Args:
        labels: (N,) integers from 0 to classes - 1.
        predicted: (N,), likewise.
        classes: K.

    Returns:
        (K, K) int64: rows are the true classes, columns the predicted ones.

    Raises:
        ValueError: where lengths differ or a class is out of range.
    """
    labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"Labels and predictions must be as many. Received: {labels.shape} and {predicted.shape}")
    for name, values in (("label", labels), ("prediction", predicted)):
        if wrong := values[(values < 0) | (values >= classes)].tolist():
            raise ValueError(f"Each {name} must be in [0, {classes}). Received: {wrong[0]}")
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def require_classes(source: str, found: Sequence[str], trained: Sequence[str]) -> None:
    """Raises UserError unless the classes of training data, in their order, are those that a run was trained on."""
    if list(found) != list(trained):
        names, others = (", ".join(part[:NAMED]) + (" ..." if len(part) > NAMED else "") for part in (found, trained))
        raise UserError(
            f"{source}: {names} are not the classes this run was trained on ({others}); restore them, or choose a new "
            "--run-dir"
        )


def accuracy(counts: np.ndarray) -> float:
    """Share of rows on the diagonal of (K, K) confusion counts. 0 where there are no rows."""
    return float(_ratio(np.trace(counts), np.sum(counts)))


def top_k_accuracy(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k highest scores. 0 where there are no rows.

    Of equal scores the lower class comes first, so that k = 1 is the accuracy of `argmax`.

    Args:
        labels: (N,) integers.
        scores: (N, K): logits or probabilities.
        k: at least 1; from K on everything is a hit.

    Raises:
        ValueError: for NaN, a label out of range, or a k below 1.
    """
    labels, scores = _checked(labels, scores)
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k={k}")
    own = scores[np.arange(len(labels)), labels][:, None]
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    return float(_ratio(np.count_nonzero(before.sum(axis=1) < k), len(labels)))


def worst_mistakes(labels: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Rows whose highest score is that of a wrong class, those with the highest such score first.

    Args:
        labels: (N,) integers.
        scores: (N, K). Probabilities: logits of different rows cannot be compared.
        count: how many are asked for; there may be fewer.

    Returns:
        (at most count,) indices of rows.

    Raises:
        ValueError: for NaN or a label out of range.
    """
    labels, scores = _checked(labels, scores)
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    return wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")][:count]


def calibration_error(confidences: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """How far a model's confidence is from how often it is right: the expected calibration error.

    Σ_b n_b / N · |accuracy(b) - mean confidence(b)| over bins b of equal width.

    Args:
        confidences: (N,) probabilities that the model gave its answers.
        right: (N,) whether each was right.
        bins: how many, at least 1.

    Returns:
        From 0 to 1; 0 where there are no rows.

    Raises:
        ValueError: lengths differ, or a confidence is no probability.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks. https://arxiv.org/abs/1706.04599
    """
    confidences, right = np.asarray(confidences, np.float64), np.asarray(right, bool)
    if confidences.shape != right.shape or confidences.ndim != 1 or bins < 1:
        raise ValueError(f"Each answer needs a confidence. Received: {confidences.shape}, {right.shape}, bins={bins}")
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError(f"Confidences are from 0 to 1. Received: {confidences.min()} to {confidences.max()}")
    of = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = np.bincount(of, right - confidences, bins)  # n_b (accuracy - mean confidence)
    return float(_ratio(np.abs(gaps).sum(), len(right)))


def multi_label_figures(targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Figures for texts or pictures that may have several labels, or none.

    Args:
        targets, predicted: (N, K) whether each row has each label.

    Returns:
        `accuracy`, the share of rows that have just the right labels; `precision`, `recall` and `f1`, means over the
        labels that occur; `micro_f1`, of all labels together.
    """
    targets, predicted = np.asarray(targets, bool), np.asarray(predicted, bool)
    hits, support, positive = (x.sum(axis=0) for x in (targets & predicted, targets, predicted))
    figures = ClassFigures(
        _ratio(hits, positive), _ratio(hits, support), _ratio(2 * hits, support + positive), support, positive
    )
    micro = float(_ratio(2 * hits.sum(), support.sum() + positive.sum()))
    exact = float(_ratio((targets == predicted).all(axis=1).sum(), len(targets)))
    return {"accuracy": exact, **figures.means(), "micro_f1": micro}


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """Figures for each of K classes; arrays of shape (K,).

    A figure that would be 0/0 is 0, as with scikit-learn's zero_division=0, and `notes` says why.

    Args:
        precision: share of what was predicted to be of a class that is.
        recall: share of what is of a class that was predicted to be.
        f1: harmonic mean of the two.
        support: how many rows are of the class.
        predicted: how many rows are taken for it.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> "ClassFigures":
        """From (K, K) confusion counts, rows true, columns predicted."""
        hits, support, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
        f1 = _ratio(2 * hits, support + predicted)
        return cls(_ratio(hits, predicted), _ratio(hits, support), f1, support, predicted)

    @property
    def notes(self) -> dict[int, str]:
        """Why figures are 0/0, for the classes of which some are."""
        reasons = {(0, 0): "no examples, never predicted", (0, 1): "no examples", (1, 0): "never predicted"}
        states = enumerate(zip(self.support > 0, self.predicted > 0, strict=True))
        return {index: reasons[state] for index, state in states if state in reasons}

    def means(self) -> dict[str, float]:
        """Means over the classes that occur, as truth or as prediction: scikit-learn's macro averages."""
        present = self.support + self.predicted > 0
        figures = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: float(_ratio(values.sum(where=present), present.sum())) for name, values in figures.items()}

    def table(self, names: Sequence[str], title: str = "") -> Table:
        """To be printed: a row for each class, and their means."""
        table = Table(title=title or None, title_justify="left", show_footer=True)
        means = self.means()
        table.add_column("class", "mean", overflow="fold")
        for name, mean in means.items():
            table.add_column(name, f"{mean:.4f}", justify="right")
        table.add_column("examples", str(self.support.sum()), justify="right")
        if self.notes:
            table.add_column("note")
        for index, name in enumerate(names):
            figures = (f"{getattr(self, figure)[index]:.4f}" for figure in means)
            note = [self.notes.get(index, "")] if self.notes else []
            table.add_row(Text(name), *figures, str(self.support[index]), *note)
        return table


def _ratio(part, whole):
    """part / whole, 0 where there is nothing to divide by."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _checked(labels, scores):
    labels, scores = np.asarray(labels, np.int64), np.asarray(scores)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"Each label needs a row of scores. Received: {labels.shape} and {scores.shape}")
    if wrong := labels[(labels < 0) | (labels >= scores.shape[1])].tolist():
        raise ValueError(f"Each label must be in [0, {scores.shape[1]}). Received: {wrong[0]}")
    if (rows := np.flatnonzero(np.isnan(scores).any(axis=1))).size:
        raise ValueError(f"Scores must be numbers. Received: NaN in row {rows[0]}")
    return labels, scores
