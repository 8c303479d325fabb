"""The speech model from Keras' own layers and with Keras' own CTC loss, trained by `fit`, as a system to compare:
arguments `<case directory> on|off`, the second for XLA. It is timed as `keras_translate.py` is.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from benchmarks.peers.keras_translate import Clock, make_optimizer
from benchmarks.peers.worker import read_case, serve


class Recognizer(keras.Model):
    """Its loss needs to know which steps are padding, which a loss of `compile` is not told."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.ctc_loss(y["labels"], y_pred, y["label_length"], steps_of(x["frames"]))
        return ops.sum(loss) / ops.cast(ops.sum(y["label_length"]), "float32")


def steps_of(frames):
    """How many steps two convolutions that halve them make of frames."""
    return (frames + 3) // 4


def build(settings: dict, length: int) -> keras.Model:
    """A functional model: features (B, F, M), and how many frames are real (B,) -> logits (B, T, V)."""
    sizes = settings["model"]
    features = x = keras.Input((length, sizes["bands"]), name="features")
    frames = keras.Input((), dtype="int32", name="frames")
    for number in (1, 2):
        name = f"convolution_{number}"
        x = layers.Conv1D(sizes["width"], 3, 2, padding="causal", activation="relu", name=name)(x)
    mask = ops.less(ops.arange(x.shape[1], dtype="int32"), steps_of(frames)[:, None])
    x = layers.Dropout(sizes["dropout"])(layers.Dense(sizes["width"], name="projection")(x))
    for number in range(1, sizes["layers"] + 1):
        block = f"block_{number}"
        h = layers.LayerNormalization(epsilon=1e-5, name=f"{block}.norm")(x)
        both = layers.Bidirectional(layers.LSTM(sizes["width"], return_sequences=True), name=f"{block}.recurrent")
        h = layers.Dense(sizes["width"], name=f"{block}.output")(both(h, mask=mask))
        x = layers.add([x, layers.Dropout(sizes["dropout"])(h)])
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    logits = layers.Dense(settings["symbols"], name="logits")(x)
    return Recognizer({"features": features, "frames": frames}, logits)


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Sets the weights of the layers that have some: in each, they are in the order in which the case names them."""
    for layer in model.layers:
        if layer.trainable_variables:
            own = [value for name, value in weights.items() if name.startswith(f"{layer.name}.")]
            for variable, value in zip(layer.trainable_variables, own, strict=True):
                variable.assign(value)


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    inputs, targets = ({k: batches[k] for k in keys} for keys in (("features", "frames"), ("labels", "label_length")))
    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).repeat().prefetch(tf.data.AUTOTUNE)
    model = build(settings, batches["features"].shape[2])
    load(model, weights)
    model.compile(
        make_optimizer(settings["optimizer"]), jit_compile=sys.argv[2] == "on", steps_per_execution=settings["steps"]
    )
    clock = Clock()

    def train(steps):
        history = model.fit(data, steps_per_epoch=steps, verbose=0, callbacks=[clock]).history
        return clock.seconds, {"loss": history["loss"][-1]}

    parameters = sum(value.size for value in weights.values())
    serve(train, parameters, {"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
