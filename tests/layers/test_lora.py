"""Low-rank adapters: nothing changes at first, then only they and the head do, and a file holds the sum."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as stock
from keras import ops

from apps.nlp.encoders import TextEncoder, mean_pool
from apps.nlp.language_model import LanguageModel
from layers import add_adapters
from pipelines.config import OptimizerConfig
from pipelines.training.optimizer import make_optimizer
from pipelines.training.step import TrainStep

TOKENS = np.array([[5, 7, 2, 9], [4, 3, 0, 0]], "int32")
V, WIDTH, RANK = 11, 8, 2
SETTINGS = {"width": WIDTH, "layers": 2, "heads": 2, "feedforward": 16, "dropout": 0.0}
CONFIG = OptimizerConfig(learning_rate=0.01, warmup_steps=1, average_decay=0.0, schedule="constant")


class Classifier(keras.Model):
    """Two logits of the mean of what an encoder finds."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.logits = stock.Dense(2, name="logits")

    def call(self, inputs, training=False):
        tokens = inputs["tokens"]
        return self.logits(mean_pool(self.encoder(tokens, training=training), ops.not_equal(tokens, 0)))


def classifier(kind="transformer"):
    keras.utils.set_random_seed(2)
    model = Classifier(TextEncoder(V, kind, **SETTINGS))
    model({"tokens": TOKENS})
    return model


class Labels:
    """Cross-entropy, as a task has it."""

    def sums(self, outputs, batch):
        losses = ops.sparse_categorical_crossentropy(batch["label"], outputs, from_logits=True)
        return {"loss": (ops.sum(losses), ops.cast(ops.size(losses), "float32"))}


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_changes_adapters_and_the_head_only(jit):
    model = classifier()
    before = model({"tokens": TOKENS})
    add_adapters(model.encoder, RANK)
    np.testing.assert_array_equal(model({"tokens": TOKENS}), before)

    batch = {"tokens": tf.constant(TOKENS), "label": tf.constant([0, 1])}
    spec = {name: tf.TensorSpec.from_tensor(value) for name, value in batch.items()}
    step = TrainStep(model, Labels(), make_optimizer(CONFIG, model, 10), CONFIG, spec, jit)
    values = {weight.path: weight.numpy() for weight in model.weights}
    step(batch)
    step(batch)  # A's gradient is zero as long as B is
    changed = {weight.path for weight in model.weights if not np.array_equal(weight, values[weight.path])}
    adapters = {path for path in values if "lora_kernel" in path}
    assert len(adapters) == 2 * 4 * SETTINGS["layers"]  # of two projections in attention and two after it
    assert changed == adapters | {path for path in values if path.endswith(("logits/kernel", "logits/bias"))}
    # What stays is neither copied nor sent to other replicas: the random state alone comes back.
    _, _, changes = step._pure(jit).structured_outputs
    assert all(model.non_trainable_variables[i].path.endswith("seed_generator_state") for i in changes)
    assert len(changes) < len(model.non_trainable_weights)


def test_a_language_model():
    model = LanguageModel(V, **SETTINGS)
    model.build({"tokens": (None, None)})
    before = model({"tokens": TOKENS})
    add_adapters(model, RANK)
    np.testing.assert_array_equal(model({"tokens": TOKENS}), before)
    assert len(model.trainable_weights) == 2 * 4 * SETTINGS["layers"]
    assert all("lora" in weight.name for weight in model.trainable_weights)
    assert not model.embedding.trainable_weights


def test_an_adapter_adds_a_product_of_low_rank():
    dense = stock.Dense(5, use_bias=False)
    dense.build((None, 7))
    x, kernel = np.random.default_rng(0).normal(size=(3, 7)), dense.kernel.numpy()
    add_adapters(dense, RANK)
    a, b = dense.trainable_weights
    assert a.shape == (7, RANK) and b.shape == (RANK, 5)
    b.assign(np.random.default_rng(1).normal(size=b.shape))
    np.testing.assert_allclose(dense(x), x @ (kernel + a.numpy() @ b.numpy()), rtol=1e-4, atol=1e-5)


def test_keras_own_attention():
    attention = stock.MultiHeadAttention(2, 4)
    x = np.random.default_rng(0).normal(size=(2, 3, WIDTH)).astype("float32")
    before = attention(x, x)
    add_adapters(attention, RANK)
    np.testing.assert_array_equal(attention(x, x), before)
    assert len(attention.trainable_weights) == 2 * 4
    assert not any("bias" in weight.name for weight in attention.trainable_weights)


def test_a_file_holds_the_sum(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, TextEncoder(V, **SETTINGS)(tokens))
    add_adapters(model, RANK)
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(np.random.default_rng(number).normal(size=weight.shape, scale=0.1))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert not any("lora" in weight.name for weight in again.weights)
    np.testing.assert_allclose(again(TOKENS), model(TOKENS), atol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "cnn"])
def test_what_has_no_projections(kind):
    model = classifier(kind)
    with pytest.raises(ValueError, match="as of a transformer"):
        add_adapters(model.encoder, RANK)
    assert not model.non_trainable_weights


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_is_positive(rank):
    with pytest.raises(ValueError, match="1 or more"):
        add_adapters(stock.Dense(2), rank)
