"""The Transformer: cached decoding equals a full pass, padding changes nothing, it reloads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from apps.translate.config import ModelConfig, TranslateConfig
from apps.translate.model import TranslationTransformer
from pipelines.decoding import Frontier, beam_search, greedy

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
        visible = (np.arange(7) <= position)[None, None]
        frontier = Frontier(shifted[:, position : position + 1], position, np.zeros((4, 1), np.int32), visible)
        logits, state = model.decode_step(frontier, state)
        np.testing.assert_allclose(logits[:, 0], full[:, position], atol=1e-4)


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
    ids, scores = greedy(model.decode_step, state, tf.fill([source.shape[0]], length), START, END)
    return ids[:, 0], scores[:, 0]


def search(model, source, length=12, beams=4):
    state = model.start_decoding(source, length, beams)
    limits = tf.fill([source.shape[0]], length)
    return beam_search(model.decode_step, state, limits, START, END, beams, n_best=beams, length_penalty=0.6)


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


def beam_search_without_cache(model, source, length, beams):
    """Beam search of one source that reads whole prefixes again, as a list of (ids, score)."""

    def normaliser(tokens):
        return ((5 + len(tokens)) / 6) ** 0.6

    alive, finished = [((), 0.0)], []
    for position in range(length):
        target = np.zeros((len(alive), length), np.int32)
        for row, (tokens, _) in enumerate(alive):
            target[row, :position] = tokens
        logits = model({"source": np.repeat(source, len(alive), 0), "target": target})[:, position]
        steps = np.asarray(ops.log_softmax(logits))
        extended = [
            ((*tokens, token), score + steps[row, token])
            for row, (tokens, score) in enumerate(alive)
            for token in range(40)
        ]
        extended = sorted(extended, key=lambda found: -found[1])[: 2 * beams]
        finished += [(t, s / normaliser(t)) for t, s in extended[:beams] if t[-1] == END]
        alive = [(t, s) for t, s in extended if t[-1] != END][:beams]
    cut = [(t, s / normaliser(t)) for t, s in alive]
    return (sorted(finished, key=lambda found: -found[1]) + cut)[:beams]


def test_cached_beam_search_equals_uncached_beam_search(model):
    """Hypotheses share the cache of their row, which is overwritten in place."""
    source = batch(5, rows=4)
    expected = [beam_search_without_cache(model, source[row : row + 1], 8, 4) for row in range(4)]
    run = tf.function(lambda s: search(model, s, 8))
    for _ in range(2):  # a second call would find what the first one had left in a shared buffer
        ids, scores = run(tf.constant(source))
        for row in range(4):
            np.testing.assert_allclose(scores[row], [score for _, score in expected[row]], atol=1e-3)
            for found, (tokens, _) in zip(ids[row].numpy(), expected[row], strict=True):
                np.testing.assert_array_equal(found[: len(tokens)], tokens)


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


@pytest.mark.slow
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
