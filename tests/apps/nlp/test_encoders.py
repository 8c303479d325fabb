"""The encoders by the layer contract's properties, and the networks on top of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from apps.nlp.encoders import TextEncoder, max_pool, mean_pool
from apps.nlp.model import MaskedLanguageModel, SentenceEncoder, TextClassifier

KINDS = ("cnn", "rnn", "transformer")
SMALL = {"width": 16, "layers": 2, "heads": 2, "feedforward": 32, "kernel_size": 3, "dropout": 0.0}
TOKENS = np.array([[5, 7, 3, 0, 0], [4, 9, 8, 6, 3]], np.int32)


def encoder(kind, **options):
    return TextEncoder(30, kind, **SMALL | options)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    layer = encoder(kind)
    together = layer(TOKENS).numpy()
    alone = layer(TOKENS[:1, :3]).numpy()
    np.testing.assert_allclose(together[0, :3], alone[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_from_its_config(kind):
    layer = encoder(kind)
    again = TextEncoder.from_config(layer.get_config())
    expected = layer(TOKENS)
    again(TOKENS)
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(again(TOKENS), expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_changes_no_gradient(kind):
    tokens = tf.constant(TOKENS)

    factors = np.random.default_rng(0).normal(size=(2, 5, 16)).astype("float32")

    def gradients(layer):
        trainable = [tf.identity(variable.value) for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            values = zip(layer.trainable_variables, trainable, strict=True)
            with keras.StatelessScope(state_mapping=list(values)):  # as in a training step
                loss = tf.reduce_sum(factors * layer(tokens, training=True))
        return tape.gradient(loss, trainable)

    plain, again = encoder(kind), encoder(kind, remat=True)
    plain(tokens), again(tokens)
    again.set_weights(plain.get_weights())
    for one, other in zip(gradients(plain), gradients(again), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(one), tf.convert_to_tensor(other), atol=1e-4)


def test_pools():
    states = np.arange(12, dtype="float32").reshape(2, 3, 2) - 20
    mask = np.array([[True, True, False], [False, False, False]])
    np.testing.assert_allclose(mean_pool(states, mask), [[-19, -18], [0, 0]])
    np.testing.assert_allclose(max_pool(states, mask), [[-18, -17], [0, 0]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_classifier_does_not_see_padding(kind, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        evidence = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
        model = TextClassifier(encoder(kind), evidence, 0.1, 0.1)
        whole = model({"tokens": TOKENS})
        alone = model({"tokens": TOKENS[:1, :3]})
    finally:
        keras.config.set_dtype_policy(before)
    assert whole.shape == (2, 3) and whole.dtype == "float32"
    np.testing.assert_allclose(whole[:1], alone, atol=1e-5 if policy == "float32" else 2e-2)


def test_a_classifier_begins_as_naive_bayes():
    evidence = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    model = TextClassifier(encoder("rnn"), evidence, 0.1, 0.1)
    expected = [evidence[row[row > 0]].sum(axis=0) for row in TOKENS]
    np.testing.assert_allclose(model({"tokens": TOKENS}), expected, atol=1e-5)


def test_a_sentence_vector_begins_as_a_projection_of_tf_idf():
    weights = np.linspace(0, 3, 30).astype("float32")
    model = SentenceEncoder(encoder("transformer"), weights)
    cosine = model({"tokens": TOKENS, "others": TOKENS})
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    table = model.vectors.embeddings.numpy()
    expected = sum(weights[token] * table[token] for token in TOKENS[0, :3])
    np.testing.assert_allclose(model.embed(TOKENS)[0], expected / np.linalg.norm(expected), atol=1e-5)
    assert not np.any(model.embed(np.zeros((1, 2), np.int32)))
    parts = model.parts(TOKENS).numpy()
    assert not parts[0, 3:].any()


def test_a_sentence_vector_of_a_pretrained_encoder_begins_as_the_mean_of_states():
    read = encoder("transformer")
    model = SentenceEncoder(read, np.linspace(0, 3, 30).astype("float32"), 64, pretrained=True)
    np.testing.assert_allclose(model({"tokens": TOKENS, "others": TOKENS}), 1, atol=1e-5)
    found = model.embed(TOKENS).numpy()
    means = np.array([states[row > 0].mean(axis=0) for states, row in zip(read(TOKENS).numpy(), TOKENS, strict=True)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, means @ means.T, atol=1e-5)
    assert not any("vectors" in weight.path for weight in model.weights)


def test_hidden_words_are_guessed_from_all_symbols():
    model = MaskedLanguageModel(encoder("transformer"))
    assert model({"tokens": TOKENS}).shape == (2, 5, 30)
    assert [w.path for w in model.trainable_weights if "bias" in w.path and w.shape == (30,)]
