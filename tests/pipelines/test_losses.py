"""Losses against NumPy and Keras' own."""

import keras
import numpy as np
import pytest

from pipelines import losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_cross_entropy_is_kerass(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 5, 7)).astype("float32") * 4, rng.integers(0, 7, (3, 5))
    expected = keras.losses.categorical_crossentropy(
        np.eye(7)[labels], logits, from_logits=True, label_smoothing=smoothing
    )
    np.testing.assert_allclose(losses.smoothed_cross_entropy(logits, labels, smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_cross_entropy_is_kerass(smoothing):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(5, 7)).astype("float32") * 4, rng.dirichlet(np.ones(7), 5).astype("float32")
    expected = keras.losses.categorical_crossentropy(target, logits, from_logits=True, label_smoothing=smoothing)
    np.testing.assert_allclose(losses.soft_cross_entropy(logits, target, smoothing), expected, rtol=1e-5)


def test_huge_logits_stay_finite():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], "float32")
    np.testing.assert_allclose(losses.smoothed_cross_entropy(logits, np.array([0, 0])), [0.0, 1e4])


def test_hits():
    logits = np.array([[[0.1, 0.9, 0.0], [3.0, -1.0, 2.0]]], "float32")
    np.testing.assert_array_equal(losses.hits(logits, np.array([[1, 2]])), [[1.0, 0.0]])
