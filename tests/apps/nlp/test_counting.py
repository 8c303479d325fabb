"""What counting tells, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.naive_bayes import MultinomialNB

from apps.nlp.counting import inverse_document_frequencies, log_ratios

SIZE = 12


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [rng.integers(0, SIZE, rng.integers(1, 9)) for _ in range(40)]


@pytest.fixture(scope="module")
def present(texts):
    """(N, V) whether a text has a token."""
    return np.array([np.isin(np.arange(SIZE), ids) for ids in texts]).astype(float)


def test_rarity_is_that_of_tf_idf(texts, present):
    expected = TfidfTransformer(smooth_idf=True).fit(present).idf_ - 1
    np.testing.assert_allclose(inverse_document_frequencies(texts, SIZE), expected, rtol=1e-5)


def test_ratios_are_the_weights_of_naive_bayes(texts, present):
    labels = np.arange(len(texts)) % 3
    found = log_ratios(texts, np.eye(3)[labels], SIZE, multi_label=False)
    weights = MultinomialNB(alpha=1.0).fit(present, labels).feature_log_prob_.T
    np.testing.assert_allclose(found, weights - weights.mean(axis=1, keepdims=True), atol=1e-5)


def test_each_of_several_labels_is_a_question_of_its_own(texts, present):
    targets = np.random.default_rng(1).integers(0, 2, (len(texts), 2))
    found = log_ratios(texts, targets, SIZE, multi_label=True)
    for label in range(2):
        no, yes = MultinomialNB(alpha=1.0).fit(present, targets[:, label]).feature_log_prob_
        np.testing.assert_allclose(found[:, label], yes - no, atol=1e-5)
