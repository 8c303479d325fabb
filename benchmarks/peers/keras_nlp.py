"""The nlp app's models from Keras' own layers, trained by `fit`, as a system to compare: arguments
`<case directory> on|off`, the second for XLA. It is timed as `keras_translate.py` is.

Attention is Keras' `dot_product_attention` between dense layers: its layer for grouped queries has no place for
rotary positions. The LSTM is not unrolled, though its steps are few: with a mask, the one that reads from the end then
computes something else.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from benchmarks.peers import keras_speech
from benchmarks.peers.keras_translate import Clock, make_optimizer
from benchmarks.peers.worker import read_case, serve


class Evidence(layers.Layer):
    """What each token says for each class by itself, summed over a text: ids (B, L) -> (B, K); 0 is padding."""

    def __init__(self, vocabulary_size, classes, **kwargs):
        super().__init__(**kwargs)
        self.shape = vocabulary_size, classes

    def build(self, tokens_shape):
        self.evidence = self.add_weight(self.shape, name="evidence")

    def call(self, tokens):
        found = ops.take(self.evidence, tokens, axis=0)
        return ops.sum(ops.where(ops.not_equal(tokens, 0)[:, :, None], found, 0.0), axis=1)


def norm(x, name):
    return layers.LayerNormalization(epsilon=1e-5, name=name)(x)


def build_classifier(settings: dict, length: int) -> keras.Model:
    """A functional model: ids (B, L) -> logits (B, K)."""
    sizes = settings["model"]
    width = sizes["width"]
    tokens = keras.Input((length,), dtype="int32")
    evidence = Evidence(settings["vocabulary_size"], settings["classes"], name="evidence")(tokens)
    mask = ops.not_equal(tokens, 0)
    x = layers.Embedding(settings["vocabulary_size"], width, name="embedding")(tokens) * width**0.5
    x = layers.Dropout(sizes["dropout"])(x)
    for number in range(sizes["layers"]):
        block = f"block_{number}"
        half = layers.LSTM(width // 2, return_sequences=True)
        h = layers.Bidirectional(half, name=f"{block}.recurrent")(norm(x, f"{block}.norm"), mask=mask)
        x = layers.add([x, layers.Dropout(sizes["dropout"])(h)])
    x, real = norm(x, "norm"), mask[:, :, None]
    greatest = ops.max(ops.where(real, x, -3e4), axis=1)
    pooled = layers.concatenate([layers.GlobalAveragePooling1D()(x, mask=mask), greatest])
    logits = layers.Dense(settings["classes"], name="logits")(layers.Dropout(sizes["dropout"])(pooled))
    return keras.Model(tokens, layers.add([logits, evidence]))


def build_language_model(settings: dict, length: int) -> keras.Model:
    """A functional model: ids (B, L) -> logits (B, L, V)."""
    sizes = settings["model"]
    width, heads, kv_heads = sizes["width"], sizes["heads"], sizes["kv_heads"]
    size = width // heads
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    cos, sin = (function(angles)[:, None].astype("float32") for function in (np.cos, np.sin))  # (L, 1, dh / 2)

    def rotate(x):
        """Rotary positions of queries or keys (B, L, h, dh), their halves paired."""
        first, second = ops.split(x, 2, axis=-1)
        return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def attend(x, name):
        projected = layers.Dense((heads + 2 * kv_heads) * size, name=f"{name}.query_key_value")(x)
        projected = layers.Reshape((length, heads + 2 * kv_heads, size))(projected)
        query, key, value = ops.split(projected, [heads, heads + kv_heads], axis=2)
        y = ops.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        return layers.Dense(width, name=f"{name}.output")(layers.Reshape((length, width))(y))

    tokens = keras.Input((length,), dtype="int32")
    embedding = layers.ReversibleEmbedding(settings["vocabulary_size"], width, name="embedding")
    x = layers.Dropout(sizes["dropout"])(embedding(tokens) * width**0.5)
    for number in range(sizes["layers"]):
        block = f"block_{number}"
        h = attend(norm(x, f"{block}.self_attention_norm"), f"{block}.self_attention")
        x = layers.add([x, layers.Dropout(sizes["dropout"])(h)])
        h = norm(x, f"{block}.feedforward_norm")
        h = layers.Dense(sizes["feedforward"], "gelu", name=f"{block}.feedforward.hidden")(h)
        h = layers.Dense(width, name=f"{block}.feedforward.output")(h)
        x = layers.add([x, layers.Dropout(sizes["dropout"])(h)])
    return keras.Model(tokens, embedding(norm(x, "norm"), reverse=True))


def build(settings: dict, length: int) -> keras.Model:
    return {"classify": build_classifier, "generate": build_language_model}[settings["task"]](settings, length)


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """As `keras_speech.load` does; the table of evidence, which has no layer to itself in the case, has one here."""
    keras_speech.load(model, {name if "." in name else f"{name}.{name}": value for name, value in weights.items()})


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    answers = batches["label" if settings["task"] == "classify" else "targets"]
    data = tf.data.Dataset.from_tensor_slices((batches["tokens"], answers)).repeat().prefetch(tf.data.AUTOTUNE)
    model = build(settings, batches["tokens"].shape[-1])
    load(model, weights)
    model.compile(
        make_optimizer(settings["optimizer"]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=sys.argv[2] == "on",
        steps_per_execution=settings["steps"],
    )
    clock = Clock()

    def train(steps):
        history = model.fit(data, steps_per_epoch=steps, verbose=0, callbacks=[clock]).history
        return clock.seconds, {name: history[name][-1] for name in ("loss", "accuracy")}

    serve(train, model.count_params(), {"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
