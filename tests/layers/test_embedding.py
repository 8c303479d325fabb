"""Tied embedding against keras.layers.ReversibleEmbedding and against plain indexing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import TiedEmbedding
from tests.layers.contract import check_layer

IDS = np.array([[5, 7, 2, 0], [1, 0, 0, 0]], "int32")


def test_it_keeps_the_contract():
    check_layer(lambda **kw: TiedEmbedding(11, 8, **kw), IDS)


def test_both_directions_share_one_matrix():
    embedding = TiedEmbedding(11, 8)
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, embedding(embedding(ids), reverse=True))
    (matrix,) = model.get_weights()
    np.testing.assert_allclose(model(IDS), (matrix[IDS] * 8**0.5) @ matrix.T, atol=1e-5)


@pytest.mark.parametrize("scale", [True, False])
def test_it_equals_keras_reversible_embedding(scale):
    ours, theirs = (
        TiedEmbedding(11, 8, scale=scale),
        keras.layers.ReversibleEmbedding(11, 8, tie_weights=True),
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32")
    ours.build((None, None))
    theirs.build((None, None))
    theirs.set_weights(ours.get_weights())
    factor = 8**0.5 if scale else 1.0
    np.testing.assert_allclose(ours(IDS), theirs(IDS) * factor, atol=1e-5)
    np.testing.assert_allclose(ours(x, reverse=True), theirs(x, reverse=True), atol=1e-5)


def test_scaled_embeddings_start_with_unit_variance():
    keras.utils.set_random_seed(0)
    layer = TiedEmbedding(2000, 64)
    assert np.std(layer(np.arange(2000)[None])) == pytest.approx(1.0, abs=0.02)


def test_mask_zero_marks_padding_and_reverse_passes_a_mask_on():
    layer = TiedEmbedding(11, 8, mask_zero=True)
    embedded = layer(IDS)
    np.testing.assert_array_equal(embedded._keras_mask, IDS != 0)
    np.testing.assert_array_equal(layer(embedded, reverse=True)._keras_mask, IDS != 0)
    assert getattr(TiedEmbedding(11, 8)(IDS), "_keras_mask", None) is None


@pytest.mark.parametrize("policy, dtype", [("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")])
def test_logits_come_in_the_compute_dtype(policy, dtype):
    layer = TiedEmbedding(11, 8, dtype=policy)
    assert layer(layer(IDS), reverse=True).dtype == dtype
    assert layer.embeddings.dtype == "float32"


def test_half_precision_gradients_of_a_frequent_token_are_summed_in_float32():
    layer = TiedEmbedding(3, 2, scale=False, dtype="mixed_float16")
    ids = np.ones((1, 4097), "int32")
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(keras.ops.cast(layer(ids), "float32"))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.embeddings.value))
    np.testing.assert_array_equal(gradient[1], [4097.0, 4097.0])  # float16 would stop at 2048


def test_symbolic_logits_have_the_vocabulary_as_last_axis():
    layer = TiedEmbedding(11, 8)
    assert layer(keras.Input((None, 8)), reverse=True).shape == (None, None, 11)
    assert layer(keras.Input((None,), dtype="int32")).shape == (None, None, 8)
