"""The Transformer: cached decoding equals a full pass, padding changes nothing, it reloads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from apps.translate.config import ModelConfig, TranslateConfig
from apps.translate.model import TranslationTransformer
from pipelines.decoding import greedy

START, END = 2, 3
SMALL = ModelConfig(encoder_layers=2, decoder_layers=2, width=16, feedforward=32, heads=4, dropout=0.0)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    model = TranslationTransformer.from_settings(SMALL, 40, START)
    # Larger weights than at the start make predictions differ clearly from token to token.
    for variable in model.trainable_variables:
        variable.assign(variable * 2.0)
    return model


def batch(seed, rows=4, length=7):
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 40, (rows, length)).astype("int32")
    for row in range(rows):
        ids[row, length - row % 3 - 1] = END
        ids[row, length - row % 3 :] = 0
    return ids


def test_tiny_has_about_two_and_a_half_million_parameters():
    tiny = TranslateConfig.sizes["tiny"]
    model = TranslationTransformer.from_settings(ModelConfig(**tiny), 8000, START)
    assert 2.2e6 < model.count_params() < 2.8e6


def test_logits_are_what_cached_steps_give(model):
    source, target = batch(0), batch(1)
    full = model({"source": source, "target": target})
    state = model.start_decoding(source, max_length=7)
    shifted = model.shift(target)
    for position in range(7):
        logits, state = model.decode_step(shifted[:, position], position, state)
        np.testing.assert_allclose(logits, full[:, position], atol=1e-4)


def greedy_without_cache(model, source, length):
    """Greedy decoding that reads the whole prefix again for every token."""
    target = np.zeros((len(source), length), np.int32)
    done = np.zeros(len(source), bool)
    for position in range(length):
        logits = model({"source": source, "target": target})[:, position]
        token = np.where(done, 0, ops.convert_to_numpy(ops.argmax(logits, axis=-1)))
        target[:, position] = token
        done |= token == END
    return target


def decode(model, source, length=12):
    state = model.start_decoding(source, length)
    return greedy(model.decode_step, state, len(source), length, START, END)


def test_cached_greedy_equals_uncached_greedy(model):
    source = batch(5, rows=8)
    ids, scores = tf.function(lambda s: decode(model, s))(tf.constant(source))
    expected = greedy_without_cache(model, source, 12)
    np.testing.assert_array_equal(ids, expected)
    assert len(np.unique(expected)) > 4  # a model that says one thing only would prove nothing
    # The score is the log-probability of the answer, read off a full pass.
    log_probabilities = ops.log_softmax(model({"source": source, "target": expected}))
    chosen = np.take_along_axis(np.asarray(log_probabilities), expected[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores, (chosen * (expected != 0)).sum(1), atol=1e-3)


def test_padding_changes_no_answer(model):
    source = batch(6)
    padded = np.pad(source, ((0, 3), (0, 5)))
    ids, scores = decode(model, source)
    more_ids, more_scores = decode(model, padded)
    np.testing.assert_array_equal(more_ids[:4], ids)
    np.testing.assert_allclose(more_scores[:4], scores, atol=1e-4)
    assert np.isfinite(more_scores).all()


def test_attention_rows_are_distributions_over_real_tokens(model):
    source, target = batch(7), batch(8)
    attention = np.asarray(model.attention(source, target))
    assert attention.shape == (4, 2, 4, 7, 7)
    np.testing.assert_allclose(attention.sum(-1), 1.0, atol=1e-5)
    assert (attention[np.broadcast_to((source == 0)[:, None, None, None, :], attention.shape)] < 1e-6).all()


def test_reload(model, tmp_path):
    inputs = {"source": batch(0), "target": batch(1)}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


def test_int8_and_lora_reach_the_projections():
    keras.utils.set_random_seed(0)
    inputs = {"source": batch(0), "target": batch(1)}
    model = TranslationTransformer.from_settings(SMALL, 40, START)
    before = np.asarray(model(inputs))
    model.quantize("int8")
    assert np.abs(np.asarray(model(inputs)) - before).max() < 0.1
    kernels = [v for v in model.variables if v.path.endswith("query_key_value/kernel")]
    assert len(kernels) == 4 and {v.dtype for v in kernels} == {"int8"}

    model = TranslationTransformer.from_settings(SMALL, 40, START)
    for block in model.decoder:
        block.self_attention.enable_lora(2)
    trained = [v.path for v in model.decoder[0].self_attention.trainable_variables]
    assert len(trained) == 4 and all("lora" in path for path in trained)  # A and B of two projections
