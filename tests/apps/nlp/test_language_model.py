"""The language model: cached decoding of several prompts equals a full pass, padding changes nothing, it reloads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from apps.nlp.config import ModelConfig, NlpConfig
from apps.nlp.language_model import LanguageModel
from pipelines.decoding import Frontier, beam_search, greedy, sample, sample_one_by_one

END, SIZE = 3, 30
SMALL = ModelConfig(width=16, layers=2, heads=4, kv_heads=2, feedforward=32, dropout=0.0)
LENGTHS = (6, 1, 4, 2)  # of prompts in a batch


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    model = LanguageModel.from_settings(SMALL, SIZE, context=20)
    # Larger weights than at the start make predictions differ clearly from token to token.
    for variable in model.trainable_variables:
        variable.assign(variable * 2.0)
    return model


def texts(seed, length):
    return np.random.default_rng(seed).integers(4, SIZE, (len(LENGTHS), length)).astype("int32")


def prompts(seed):
    """Rows of LENGTHS tokens, and the same padded before them."""
    rows = [row[:length] for row, length in zip(texts(seed, max(LENGTHS)), LENGTHS, strict=True)]
    return rows, tf.stack([np.pad(row, (max(LENGTHS) - len(row), 0)) for row in rows])


@pytest.mark.parametrize("size, millions", [("tiny", 0.7), ("small", 9.6)])
def test_sizes(size, millions):
    settings = NlpConfig.generator_sizes[size]
    model = LanguageModel(100, **settings)
    model.build({"tokens": (None, None)})
    np.testing.assert_allclose(model.count_params() / 1e6, millions, rtol=0.06)


def test_logits_do_not_depend_on_what_follows_nor_on_padding(model):
    tokens = texts(0, 9)
    full = np.asarray(model({"tokens": tokens}))
    assert full.shape == (4, 9, SIZE)
    changed = np.concatenate([tokens[:, :5], texts(1, 4)], axis=1)
    np.testing.assert_allclose(model({"tokens": changed})[:, :5], full[:, :5], atol=1e-5)
    padded = model({"tokens": np.pad(tokens, ((0, 0), (3, 2)))})[:, 3:-2]
    np.testing.assert_allclose(padded, full, atol=1e-4)


def test_steps_after_prompts_of_several_lengths_give_what_a_full_pass_gives(model):
    rows, padded = prompts(0)
    answers = texts(2, 7)
    state = model.start_decoding(padded, max_length=8)
    shapes = tf.nest.map_structure(lambda x: tuple(x.shape), state)
    last = np.full((4, 1), END, np.int32)  # the first step reads the prompt's last token in its place
    for position in range(8):
        visible = (np.arange(8) <= position)[None, None]
        logits, state = model.decode_step(Frontier(last, position, np.zeros((4, 1), np.int32), visible), state)
        for row, prompt in enumerate(rows):
            text = np.concatenate([prompt, answers[row, :position]])[None]
            np.testing.assert_allclose(logits[row, 0, END:], model({"tokens": text})[0, -1, END:], atol=1e-4)
            assert np.isneginf(logits[row, 0, :END]).all()  # no mark but the end is ever written
        last = answers[:, position : position + 1] if position < 7 else None
    assert tf.nest.map_structure(lambda x: tuple(x.shape), state) == shapes


def greedy_without_cache(model, prompt, length):
    """Greedy decoding that reads the whole text again for every token."""
    text, answer = list(prompt), []
    while len(answer) < length and END not in answer:
        logits = model({"tokens": tf.constant([text])})[0, -1, END:]
        answer.append(END + int(ops.argmax(logits)))
        text.append(answer[-1])
    return answer + [0] * (length - len(answer))


def test_cached_greedy_equals_uncached_greedy(model):
    rows, padded = prompts(3)
    run = tf.function(
        lambda p: greedy(model.decode_step, model.start_decoding(p, 8), tf.fill([4], 8), END, END).ids[:, 0]
    )
    expected = [greedy_without_cache(model, prompt, 8) for prompt in rows]
    for _ in range(2):  # a second call would find what the first one had left in a shared buffer
        np.testing.assert_array_equal(run(padded), expected)
    assert len(np.unique(expected)) > 4  # a model that says one thing only would prove nothing


def test_hypotheses_of_a_beam_share_their_prompt(model):
    _, padded = prompts(4)

    def search(beams, n_best):
        state = model.start_decoding(padded, 6, beams)
        return beam_search(model.decode_step, state, tf.fill([4], 6), END, END, beams, n_best=n_best)

    ids, scores = search(3, 3)
    for row in range(4):
        for answer, score in zip(ids[row].numpy(), scores[row].numpy(), strict=True):
            answer = answer[answer != 0]
            text = np.concatenate([padded[row], answer])[None]
            logits = model({"tokens": text})[0, len(padded[row]) - 1 : -1, END:]
            total = np.asarray(ops.log_softmax(logits))[np.arange(len(answer)), answer - END].sum()
            np.testing.assert_allclose(score, total, atol=1e-3)


def test_tokens_that_come_one_by_one_are_those_that_come_together(model):
    _, padded = prompts(5)
    arguments = {"temperature": 0.9, "top_k": 10, "top_p": 0.9}
    seeds = tf.constant([7, 8, 9, 10], tf.int64)
    state = model.start_decoding(padded, 15)
    together, _ = sample(model.decode_step, state, tf.fill([4], 15), END, END, seeds, **arguments)
    for row in (0, 1):
        state = model.start_decoding(padded[row : row + 1], 15)
        found = list(sample_one_by_one(model.decode_step, state, 15, END, END, 7 + row, **arguments))
        np.testing.assert_array_equal(together[row, 0, : len(found)], found)
        assert len(found) == 15 or found[-1] == END


def test_decoding_looks_back_no_further_than_training_did():
    keras.utils.set_random_seed(0)
    # Of a single layer: deeper ones see, through those below, further than their window.
    settings = {"width": 16, "layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.0}
    model = LanguageModel(SIZE, **settings, context=5)
    model.build({"tokens": (None, None)})
    tokens = texts(6, 12)
    state = model.start_decoding(tokens[:, :4], 9)
    for position in range(9):
        visible = (np.arange(9) <= position)[None, None]
        token = tokens[:, 3 + position : 4 + position]
        logits, state = model.decode_step(Frontier(token, position, np.zeros((4, 1), np.int32), visible), state)
    np.testing.assert_allclose(logits[:, 0, END:], model({"tokens": tokens[:, -5:]})[:, -1, END:], atol=1e-4)


def test_recomputing_blocks_changes_no_gradient():
    tokens = texts(7, 6)

    def gradients(remat):
        keras.utils.set_random_seed(0)
        model = LanguageModel.from_settings(SMALL, SIZE, context=8, remat=remat)

        @tf.function
        def run(weights, state):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                logits, _ = model.stateless_call(weights, state, {"tokens": tokens}, training=True)
                loss = tf.reduce_sum(logits**2)
            return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]

        groups = model.trainable_variables, model.non_trainable_variables
        return run(*([tf.convert_to_tensor(variable.value) for variable in group] for group in groups))

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_allclose(again, plain, atol=1e-4 * float(tf.reduce_max(tf.abs(plain))))


def test_reload(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = {"tokens": texts(8, 5)}
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)
    assert loaded.context == model.context
