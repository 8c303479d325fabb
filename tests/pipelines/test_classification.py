"""A classifier's figures against scikit-learn's, on anything, and on real handwriting."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rich.console import Console
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from pipelines.classification import (
    ClassFigures,
    accuracy,
    calibration_error,
    confusion_counts,
    multi_label_figures,
    top_k_accuracy,
    worst_mistakes,
)


@st.composite
def answers(draw, least=1):
    """Labels and scores, which are often equal, with classes that may never occur."""
    rows, classes = draw(st.integers(least, 30)), draw(st.integers(2, 6))
    labels = draw(arrays.arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return labels, draw(arrays.arrays(np.float32, (rows, classes), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])))


@given(answers())
def test_counts_and_class_figures_are_scikit_learns(drawn):
    labels, scores = drawn
    predicted, classes = scores.argmax(axis=1), range(scores.shape[1])
    counts = confusion_counts(labels, predicted, len(classes))
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(labels, predicted, labels=classes))
    assert accuracy(counts) == pytest.approx(metrics.accuracy_score(labels, predicted))
    figures = ClassFigures.of(counts)
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    np.testing.assert_allclose((figures.precision, figures.recall, figures.f1, figures.support), expected)
    means = metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    np.testing.assert_allclose(list(figures.means().values()), means[:3])
    undefined = set(range(len(classes))) - (set(labels.tolist()) & set(predicted.tolist()))
    assert set(figures.notes) == undefined


@given(answers(), st.data())
def test_counts_of_batches_add_up(drawn, data):
    labels, scores = drawn
    cut, predicted, classes = data.draw(st.integers(0, len(labels))), scores.argmax(axis=1), scores.shape[1]
    parts = [confusion_counts(labels[part], predicted[part], classes) for part in (slice(cut), slice(cut, None))]
    np.testing.assert_array_equal(sum(parts), confusion_counts(labels, predicted, classes))


@given(st.integers(3, 8), st.integers(1, 30), st.randoms(use_true_random=False), st.data())
def test_top_k_is_scikit_learns_where_scores_differ(classes, rows, random, data):
    rng = np.random.default_rng(random.randrange(2**32))
    labels, k = rng.integers(0, classes, rows), data.draw(st.integers(1, classes - 1))
    scores = rng.permuted(np.tile(np.linspace(0, 1, classes), (rows, 1)), axis=1)
    expected = metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(classes))
    assert top_k_accuracy(labels, scores, k) == pytest.approx(expected)


@given(answers(least=0))
def test_top_k_with_equal_scores(drawn):
    labels, scores = drawn
    counts = confusion_counts(labels, scores.argmax(axis=1), scores.shape[1])
    found = [top_k_accuracy(labels, scores, k) for k in range(1, scores.shape[1] + 2)]
    assert found[0] == pytest.approx(accuracy(counts))
    assert found == sorted(found) and found[-1] == found[-2] == (1.0 if len(labels) else 0.0)


@given(answers(least=0), st.integers(0, 40))
def test_worst_mistakes(drawn, count):
    labels, scores = drawn
    found = worst_mistakes(labels, scores, count)
    predicted, confidence = scores.argmax(axis=1), scores.max(axis=1)
    wrong = [row for row in range(len(labels)) if predicted[row] != labels[row]]
    assert found.tolist() == sorted(wrong, key=lambda row: (-confidence[row], row))[:count]


def test_notes_say_why_a_figure_is_zero():
    figures = ClassFigures.of(np.array([[5, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]))
    assert figures.notes == {1: "no examples", 2: "never predicted", 3: "no examples, never predicted"}
    assert figures.means()["recall"] == pytest.approx((5 / 6 + 0 + 0) / 3)  # without class 3, which does not occur


@pytest.mark.parametrize("counts", [np.zeros([3, 3], int), np.zeros([0, 0], int)])
def test_nothing_counted_is_zero_everywhere(counts):
    figures = ClassFigures.of(counts)
    assert accuracy(counts) == 0.0 and set(figures.means().values()) == {0.0}
    assert not figures.f1.any() and len(figures.notes) == len(counts)


def printed(table):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_table_of_real_digits_shows_scikit_learns_figures():
    digits = load_digits()
    model = GaussianNB().fit(digits.data[:900], digits.target[:900])
    labels, scores = digits.target[900:], model.predict_proba(digits.data[900:])
    predicted = scores.argmax(axis=1)
    names = ["[red]zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "n:ine:"]
    text = printed(ClassFigures.of(confusion_counts(labels, predicted, 10)).table(names, "digits: 897 rows"))
    lines = [line for line in text.splitlines() if line.startswith("│")]
    report = metrics.classification_report(labels, predicted, target_names=names, output_dict=True, zero_division=0)
    for line, name in zip(lines, [*names, "macro avg"], strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        expected = [f"{report[name][figure]:.4f}" for figure in ("precision", "recall", "f1-score")]
        assert cells == ["mean" if name == "macro avg" else name, *expected, str(int(report[name]["support"]))]
    assert "digits: 897 rows" in text and "note" not in text


def test_table_has_notes_where_there_are_some():
    text = printed(ClassFigures.of(np.array([[5, 0], [2, 0]])).table(["cat", "dog"]))
    assert any("dog" in line and "never predicted" in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: confusion_counts([0, 1], [0], 2), r"as many. Received: \(2,\) and \(1,\)"),
        (lambda: confusion_counts([0, 2], [0, 1], 2), r"label must be in \[0, 2\). Received: 2"),
        (lambda: confusion_counts([0, 1], [0, -1], 2), r"prediction must be in \[0, 2\). Received: -1"),
        (lambda: top_k_accuracy([0], [[1.0, 0.0]], 0), "at least 1. Received: k=0"),
        (lambda: top_k_accuracy([0, 0], [[1.0, 0.0], [np.nan, 1.0]], 1), "NaN in row 1"),
        (lambda: worst_mistakes([5], [[1.0, 0.0]], 1), r"in \[0, 2\). Received: 5"),
        (lambda: worst_mistakes([0, 1], [[1.0, 0.0]], 1), r"\(2,\) and \(1, 2\)"),
    ],
)
def test_what_makes_no_sense_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_calibration_error_by_hand_and_of_a_calibrated_model():
    # Two bins of ten: 0.75 sure and half right, 0.95 sure and all right.
    found = calibration_error(np.array([0.75, 0.75, 0.95, 0.95]), np.array([1, 0, 1, 1]), bins=10)
    assert found == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.5, 1, 100_000)
    right = rng.uniform(size=100_000) < confidences
    assert calibration_error(confidences, right) < 0.01
    assert calibration_error(np.minimum(confidences + 0.2, 1), right) > 0.1
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0
    assert calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        calibration_error(np.array([1.2]), np.array([1]))


@given(st.data(), st.integers(1, 30), st.integers(2, 5))
def test_multi_label_figures_are_scikit_learns(data, rows, classes):
    draw = arrays.arrays(np.int64, (rows, classes), elements=st.integers(0, 1))
    targets, predicted = data.draw(draw), data.draw(draw)
    found = multi_label_figures(targets, predicted)
    assert found["accuracy"] == pytest.approx((targets == predicted).all(1).mean())
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="micro", zero_division=0))
    present = [k for k in range(classes) if targets[:, k].any() or predicted[:, k].any()]
    expected = [metrics.f1_score(targets[:, k], predicted[:, k], zero_division=0) for k in present]
    assert found["f1"] == pytest.approx(np.mean(expected) if expected else 0)
