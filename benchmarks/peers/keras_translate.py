"""The translate model from Keras' own layers, trained by `fit`, as a system to compare: arguments
`<case directory> on|off`, the second for XLA.

Written for speed: masks are passed where they are needed instead of travelling with every tensor, a fit runs all
steps of a turn in one call of its training function (`steps_per_execution`), and what a fit takes to start
is not counted.
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from benchmarks.peers.sinusoids import sinusoids
from benchmarks.peers.worker import read_case, serve


class SmoothedCrossEntropy(keras.losses.Loss):
    """Label smoothing over integer labels, which Keras' sparse loss lacks."""

    def __init__(self, smoothing):
        super().__init__(reduction="mean_with_sample_weight")
        self.smoothing = smoothing

    def call(self, labels, logits):
        hard = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        even = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        return (1 - self.smoothing) * hard + self.smoothing * even


class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a fall with the square root of the step, which Keras has no schedule for."""

    def __init__(self, peak, warmup_steps):
        self.peak, self.warmup_steps = peak, warmup_steps

    def __call__(self, step):
        t = ops.cast(step, "float32") + 1.0
        return self.peak * ops.minimum(t / self.warmup_steps, ops.sqrt(self.warmup_steps / t))


def build(settings: dict, source_length: int, target_length: int) -> keras.Model:
    """A functional model: source ids (B, S) and shifted target ids (B, T) -> logits (B, T, V)."""
    sizes = settings["model"]
    width, rate = sizes["width"], sizes["dropout"]
    source = keras.Input((source_length,), dtype="int32", name="source")
    shifted = keras.Input((target_length,), dtype="int32", name="shifted")
    embedding = keras.layers.ReversibleEmbedding(settings["vocabulary_size"], width, name="embedding")
    memory_mask = ops.not_equal(source, 0)[:, None, :]  # (B, 1, S)

    def embed(ids):
        x = embedding(ids) * width**0.5 + sinusoids(ids.shape[1], width)
        return keras.layers.Dropout(rate)(x)

    def norm(x, name):
        return keras.layers.LayerNormalization(epsilon=1e-5, name=name)(x)

    def attend(x, name, memory=None, **masks):
        attention = keras.layers.MultiHeadAttention(sizes["heads"], width // sizes["heads"], name=name)
        normed = norm(x, f"{name}_norm")
        return x + keras.layers.Dropout(rate)(attention(normed, normed if memory is None else memory, **masks))

    def feed_forward(x, name):
        hidden = keras.layers.Dense(sizes["feedforward"], "relu", name=f"{name}.hidden")(norm(x, f"{name}_norm"))
        return x + keras.layers.Dropout(rate)(keras.layers.Dense(width, name=f"{name}.output")(hidden))

    memory = embed(source)
    for i in range(sizes["encoder_layers"]):
        memory = attend(memory, f"encoder.{i}.self_attention", attention_mask=memory_mask)
        memory = feed_forward(memory, f"encoder.{i}.feedforward")
    memory = norm(memory, "encoder_norm")
    x = embed(shifted)
    for i in range(sizes["decoder_layers"]):
        x = attend(x, f"decoder.{i}.self_attention", use_causal_mask=True)
        x = attend(x, f"decoder.{i}.memory_attention", memory, attention_mask=memory_mask)
        x = feed_forward(x, f"decoder.{i}.feedforward")
    return keras.Model([source, shifted], embedding(norm(x, "decoder_norm"), reverse=True))


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    for layer in model.layers:
        if not layer.weights or isinstance(layer, keras.layers.Dropout):
            continue
        own = {name: value for name, value in weights.items() if name.startswith(layer.name + ".")}
        if not isinstance(layer, keras.layers.MultiHeadAttention):
            layer.set_weights(list(own.values()))
            continue
        *inputs, output_kernel, output_bias = own.values()
        heads, size = layer.num_heads, layer.key_dim
        # One kernel and one bias each for query, key and value, with an axis for the heads.
        kernels = np.split(np.concatenate(inputs[::2], axis=-1), 3, axis=-1)
        biases = np.split(np.concatenate(inputs[1::2]), 3)
        projections = [
            value.reshape(*value.shape[:-1], heads, size)
            for pair in zip(kernels, biases, strict=True)
            for value in pair
        ]
        layer.set_weights([*projections, output_kernel.reshape(heads, size, -1), output_bias])


class Clock(keras.callbacks.Callback):
    """Seconds from the beginning of the first step to the end of the last."""

    def on_train_begin(self, logs=None):
        self.begin = None

    def on_train_batch_begin(self, batch, logs=None):
        self.begin = self.begin or time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds = time.perf_counter() - self.begin


def make_optimizer(settings: dict) -> keras.Optimizer:
    """AdamW with decay on matrices only, and its schedule."""
    adam = keras.optimizers.AdamW(
        InverseSquareRoot(settings["learning_rate"], settings["warmup_steps"]),
        weight_decay=settings["weight_decay"],
        beta_1=settings["beta_1"],
        beta_2=settings["beta_2"],
        epsilon=1e-9,
        global_clipnorm=settings["clip_norm"],
    )
    adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "embeddings"])
    return adam


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    source, target = batches["source"], batches["target"]
    shifted = np.insert(target[:, :, :-1], 0, settings["start_id"], axis=2)
    data = tf.data.Dataset.from_tensor_slices(((source, shifted), target, (target != 0).astype("float32")))
    data = data.repeat().prefetch(tf.data.AUTOTUNE)
    model = build(settings, source.shape[-1], target.shape[-1])
    load(model, weights)
    model.compile(
        make_optimizer(settings["optimizer"]),
        SmoothedCrossEntropy(settings["label_smoothing"]),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
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
