"""The recurrent translator as a model: steps equal a full pass, whichever hypotheses they extend; padding changes
nothing; recomputation changes no gradient; it reloads. And as a user trains it, by the command line."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from apps.translate.__main__ import APP
from apps.translate.config import ModelConfig, TranslateConfig
from apps.translate.recurrent import RecurrentTranslator
from pipelines.cli import main
from pipelines.config import resolve
from pipelines.decoding import Frontier
from pipelines.errors import UserError
from tests.apps.translate import test_model as transformer
from tests.apps.translate.test_export import TEXTS
from tests.apps.translate.test_model import START, batch, decode, search

SMALL = ModelConfig(kind="rnn", encoder_layers=2, decoder_layers=3, width=16, dropout=0.0)


def make(settings=SMALL, **changes):
    """A model whose predictions differ clearly from token to token, unlike those of a fresh one."""
    keras.utils.set_random_seed(2)
    model = RecurrentTranslator.from_settings(settings, 40, START, **changes)
    for variable in model.trainable_variables:
        variable.assign(variable * 2.0)
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.mark.parametrize(("size", "least", "most"), [("tiny", 2.1e6, 2.6e6), ("small", 10e6, 14e6), ("base", 4e7, 5e7)])
def test_sizes_have_about_as_many_parameters_as_the_transformers(size, least, most):
    config = resolve(TranslateConfig, None, ["--model.kind=rnn", "--size", size], "train")
    assert config.model.kind == "rnn" and config.model.heads == ModelConfig().heads
    model = RecurrentTranslator.from_settings(config.model, 8000, START)
    assert least < model.count_params() < most


def test_a_configuration_without_a_kind_is_a_transformer():
    config = resolve(TranslateConfig, None, ["--size", "small"], "train")
    assert config.model == ModelConfig("transformer", 6, 6, 256, 1024, 4, 0.0)


def test_heads_mean_nothing_to_it_and_its_width_is_even():
    resolve(TranslateConfig, None, ["--model.kind=rnn", "--model.width=10", "--model.heads=3"], "train").check()
    with pytest.raises(UserError, match="--model.width 9: takes an even number"):
        resolve(TranslateConfig, None, ["--model.kind=rnn", "--model.width=9"], "train").check()


def test_logits_are_what_steps_give(model):
    source, target = batch(0), batch(1)
    full = model({"source": source, "target": target})
    state = model.start_decoding(source, max_length=7)
    shifted = model.shift(target)
    for position in range(7):
        frontier = Frontier(shifted[:, position : position + 1], position, np.zeros((4, 1), np.int32), None)
        logits, state = model.decode_step(frontier, state)
        np.testing.assert_allclose(logits[:, 0], full[:, position], atol=1e-5)


def test_hypotheses_go_on_from_their_parents(model):
    """Three hypotheses of each row that are dropped and doubled at random: each as if it were alone."""
    rng = np.random.default_rng(4)
    source, rows, beams, length = batch(0), 4, 3, 6
    state = model.start_decoding(source, length, beams)
    shapes = tf.nest.map_structure(lambda x: x.shape, state)
    pasts = np.zeros((rows, beams, 0), np.int32)
    tokens = np.full((rows, beams), START, np.int32)
    for position in range(length):
        parents = rng.integers(0, beams, (rows, beams)).astype("int32")
        logits, state = model.decode_step(Frontier(tokens, position, parents, None), state)
        assert tf.nest.map_structure(lambda x: x.shape, state) == shapes
        kept = np.take_along_axis(pasts, parents[..., None], 1) if position else pasts
        for k in range(beams):  # `tokens` follow the start token, so a full pass predicts at `position`
            target = np.concatenate([kept[:, k], tokens[:, k : k + 1]], axis=1)[:, 1:]
            target = np.pad(target, ((0, 0), (0, 1)))
            full = model({"source": source, "target": target})
            np.testing.assert_allclose(logits[:, k], full[:, position], atol=1e-5)
        pasts = np.concatenate([kept, tokens[..., None]], axis=2)
        tokens = rng.integers(4, 40, (rows, beams)).astype("int32")


def test_greedy_decoding_equals_reading_the_prefix_again(model):
    source = batch(5, rows=8)
    ids, scores = tf.function(lambda s: decode(model, s))(tf.constant(source))
    expected = transformer.greedy_without_cache(model, source, 12)
    np.testing.assert_array_equal(ids, expected)
    assert len(np.unique(expected)) > 4  # a model that says one thing only would prove nothing
    log_probabilities = ops.log_softmax(model({"source": source, "target": expected}))
    chosen = np.take_along_axis(np.asarray(log_probabilities), expected[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores, (chosen * (expected != 0)).sum(1), atol=1e-3)


def test_beam_search_equals_reading_the_prefix_again(model):
    source = batch(5, rows=4)
    ids, scores = tf.function(lambda s: search(model, s, 8))(tf.constant(source))
    for row in range(4):
        expected = transformer.beam_search_without_cache(model, source[row : row + 1], 8, 4)
        np.testing.assert_allclose(scores[row], [score for _, score in expected], atol=1e-3)
        for found, (tokens, _) in zip(ids[row].numpy(), expected, strict=True):
            np.testing.assert_array_equal(found[: len(tokens)], tokens)


def test_padding_changes_no_answer(model):
    source, target = batch(6), batch(7)
    padded = np.pad(source, ((0, 3), (0, 5)))
    ids, scores = decode(model, source)
    more_ids, more_scores = decode(model, padded)
    np.testing.assert_array_equal(more_ids[:4], ids)
    np.testing.assert_allclose(more_scores[:4], scores, atol=1e-4)
    assert np.isfinite(more_scores).all()
    logits = model({"source": source, "target": target})
    more_logits = model({"source": padded, "target": np.pad(target, ((0, 3), (0, 5)))})
    np.testing.assert_allclose(more_logits[:4, :7], logits, atol=1e-5)


def test_attention_rows_are_distributions_over_real_tokens(model):
    source, target = batch(7), batch(8)
    attention = np.asarray(model.attention(source, target))
    assert attention.shape == (4, 1, 1, 7, 7)
    np.testing.assert_allclose(attention.sum(-1), 1.0, atol=1e-5)
    assert not attention[np.broadcast_to((source == 0)[:, None, None, None], attention.shape)].any()
    assert attention.max() > 0.3  # it looks somewhere


def gradients(model, jit):
    inputs = {"source": tf.constant(batch(0)), "target": tf.constant(batch(1))}
    weights = [tf.convert_to_tensor(v) for v in model.trainable_variables]
    state = [tf.convert_to_tensor(v) for v in model.non_trainable_variables]

    @tf.function(jit_compile=jit)
    def run(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, _ = model.stateless_call(weights, state, inputs, training=True)
            loss = tf.reduce_sum(tf.sin(logits))
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]

    return run(weights)


def test_gradients_are_the_same_recomputed_and_compiled():
    settings = dataclasses.replace(SMALL, encoder_layers=1, decoder_layers=2)  # quicker to compile
    model = make(settings)
    expected = gradients(model, jit=False)
    assert all(np.abs(g).max() > 0 for g in expected)
    for others in (gradients(make(settings, remat=True), jit=False), gradients(model, jit=True)):
        for found, reference in zip(others, expected, strict=True):
            np.testing.assert_allclose(found, reference, rtol=1e-3, atol=1e-4 * np.abs(reference).max())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_near_and_decodes(model, policy):
    source, target = batch(0), batch(1)
    expected = model({"source": source, "target": target})
    keras.config.set_dtype_policy(policy)
    try:
        half = RecurrentTranslator.from_settings(SMALL, 40, START)
        half.set_weights(model.get_weights())
        found = ops.cast(half({"source": source, "target": target}), "float32")
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
        _, scores = tf.function(lambda s: search(half, s, 5))(tf.constant(source))
        assert np.isfinite(scores).all()
    finally:
        keras.config.set_dtype_policy("float32")


def test_reload(model, tmp_path):
    inputs = {"source": batch(0), "target": batch(1)}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)


@pytest.mark.slow
def test_it_trains_evaluates_predicts_explains_and_exports(flags, tmp_path, capsys):
    """In this process, which spares TensorFlow's start at each command."""
    run, saved = tmp_path / "run", tmp_path / "saved"
    at = ["--run-dir", str(run)]
    main(APP, ["train", *at, *flags, "--model.kind=rnn", "--max-steps=6"])
    assert "kind: rnn" in (run / "config.yaml").read_text()
    main(APP, ["evaluate", *at, "--beam=1"])
    assert 0 <= json.loads((run / "metrics.json").read_text())["bleu"] <= 100
    main(APP, ["explain", *at, "--beam=1", "--output", str(tmp_path), TEXTS[0]])
    assert (tmp_path / "0001-the-dog-sleeps.png").exists()
    main(APP, ["export", *at, "--output", str(saved)])
    assert "all of which TensorFlow Serving runs; answers as recorded" in capsys.readouterr().out
    main(APP, ["predict", *at, "--json", *TEXTS])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(saved / "translate" / "1"))
        signature = loaded.signature_def["serving_default"]
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found = session.run(fetches, {signature.inputs["text"].name: np.array(TEXTS, object)})
    assert [text.decode() for text in found["translation"]] == [row["text"] for row in rows]
    np.testing.assert_allclose(found["score"], [row["score"] for row in rows], atol=2e-4)
