"""The image networks from Keras' own layers, trained by `fit`, as a system to compare: arguments
`<case directory> on|off`, the second for XLA. It is timed as `keras_translate.py` is.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.peers.keras_translate import Clock, make_optimizer
from benchmarks.peers.worker import read_case, serve


def convolve(x, filters, window, name, **options):
    return layers.Conv2D(filters, window, padding="same", name=name, **options)(x)


def norm(x, name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def residual(x, filters, stride, name):
    """Two convolutions and a way around them, pre-activation."""
    h = layers.ReLU()(norm(x, f"{name}.norm_1"))
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = convolve(h, filters, 1, f"{name}.shortcut", strides=stride, use_bias=False)
    h = convolve(h, filters, 3, f"{name}.conv_1", strides=stride, use_bias=False)
    h = layers.ReLU()(norm(h, f"{name}.norm_2"))
    return layers.add([shortcut, convolve(h, filters, 3, f"{name}.conv_2", use_bias=False)])


def inverted_residual(x, filters, stride, name, expansion=6):
    """A wide depthwise convolution between two narrow ends, and a way around them where they are alike."""
    h = convolve(x, expansion * x.shape[-1], 1, f"{name}.expand", use_bias=False)
    h = layers.ReLU(6.0)(norm(h, f"{name}.expand_norm"))
    h = layers.DepthwiseConv2D(3, stride, "same", use_bias=False, name=f"{name}.depthwise")(h)
    h = layers.ReLU(6.0)(norm(h, f"{name}.depthwise_norm"))
    h = norm(convolve(h, filters, 1, f"{name}.contract", use_bias=False), f"{name}.contract_norm")
    return layers.add([x, h]) if stride == 1 and x.shape[-1] == filters else h


def build(settings: dict) -> keras.Model:
    """A functional model: pictures (B, S, S, C) -> logits (B, K), float32."""
    sizes = settings["model"]
    image = x = keras.Input((settings["size"], settings["size"], settings["channels"]))
    if sizes["architecture"] == "cnn":
        for number, filters in ((1, 32), (2, 64)):
            x = layers.MaxPooling2D(2)(convolve(x, filters, 3, f"conv_{number}", activation="relu"))
        x = layers.Dense(128, "relu", name="dense")(layers.Flatten()(x))
    else:
        block = {"resnet": residual, "mobile": inverted_residual}[sizes["architecture"]]
        x = convolve(x, sizes["width"], 3, "stem", use_bias=False)
        for stage, count in enumerate(sizes["blocks"]):
            for number in range(count):
                stride = 2 if stage and not number else 1
                x = block(x, sizes["width"] * 2**stage, stride, f"stage_{stage + 1}_{number + 1}")
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(norm(x, "norm")))
    return keras.Model(image, layers.Dense(settings["classes"], dtype="float32", name="logits")(x))


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    for layer in model.layers:
        for variable in layer.trainable_variables:
            variable.assign(weights[f"{layer.name}.{variable.name}"])


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(settings["precision"])
    target = np.eye(settings["classes"], dtype="float32")[batches["label"]]
    data = tf.data.Dataset.from_tensor_slices((batches["image"], target)).repeat().prefetch(tf.data.AUTOTUNE)
    model = build(settings)
    load(model, weights)
    model.compile(
        make_optimizer(settings["optimizer"]),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings["label_smoothing"]),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=sys.argv[2] == "on",
        steps_per_execution=settings["steps"],
    )
    clock = Clock()

    def train(steps):
        history = model.fit(data, steps_per_epoch=steps, verbose=0, callbacks=[clock]).history
        return clock.seconds, {name: history[name][-1] for name in ("loss", "accuracy")}

    parameters = sum(value.size for value in weights.values())
    serve(train, parameters, {"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
