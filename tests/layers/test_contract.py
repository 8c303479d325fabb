"""The layer contract catches what it is meant to catch: each broken layer below fails it at the right
place."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers.contract import check_layer

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")


@keras.saving.register_keras_serializable(package="espalier")
class RunningSum(keras.layers.Layer):
    """A correct causal, masked layer: the running sum over time of a scaled input."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.supports_masking = True

    def build(self, x_shape):
        self.scale = self.add_weight(shape=(x_shape[-1],), initializer="ones", name="scale")

    def call(self, x, mask=None):
        x = x * self.scale * self.factor
        if mask is not None:
            x = ops.where(mask[..., None], x, ops.zeros_like(x))
        return self.over_time(x)

    def over_time(self, x):
        return ops.cumsum(x, axis=1)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def registered(layer):
    return keras.saving.register_keras_serializable(package="espalier")(layer)


@registered
class ForgetsItsFactor(RunningSum):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


@registered
class WrongShape(RunningSum):
    def compute_output_shape(self, x_shape):
        return (*x_shape[:-1], x_shape[-1] + 1)


@registered
class IdleWeight(RunningSum):
    def build(self, x_shape):
        super().build(x_shape)
        self.idle = self.add_weight(shape=(1,), name="idle")


@registered
class ZeroGradient(RunningSum):
    def over_time(self, x):
        return ops.stop_gradient(super().over_time(x)) + 0 * x


@registered
class SeesTheFuture(RunningSum):
    def over_time(self, x):
        return super().over_time(x) + 0.01 * ops.sum(x, axis=1, keepdims=True)


@registered
class IgnoresTheMask(RunningSum):
    def call(self, x, mask=None):
        total = ops.sum(x, axis=1, keepdims=True)
        return super().call(x) + 0.01 * total


@registered
class StaysInFloat32(RunningSum):
    def call(self, x, mask=None):
        return ops.cast(super().call(x, mask), "float32")

    def compute_output_spec(self, x, mask=None):
        return keras.KerasTensor(x.shape, "float32")


def steps(layer, inputs):
    x, sums, total = inputs["x"], [], 0.0
    for t in range(x.shape[1]):
        total = total + layer(x[:, t : t + 1])
        sums.append(total)
    return ops.concatenate(sums, axis=1)


def stateless_steps(layer, inputs):
    x = inputs["x"]
    return ops.concatenate([layer(x[:, t : t + 1]) for t in range(x.shape[1])], axis=1)


def test_a_correct_layer_passes():
    check_layer(lambda **kw: RunningSum(**kw), X, causal=True, padding={"x": "mask"}, decode=steps)


@pytest.mark.parametrize(
    "broken, message, options",
    [
        (lambda **kw: ForgetsItsFactor(3.0, **kw), "factor is not in the config", {}),
        (WrongShape, "symbolic and eager shapes differ", {}),
        (IdleWeight, "no gradient reaches .*idle", {}),
        (ZeroGradient, "gradient of .*scale is zero", {}),
        (SeesTheFuture, "outputs before 1 see position 1", {"causal": True}),
        (IgnoresTheMask, "padding x changes real outputs", {"padding": {"x": "mask"}}),
        (StaysInFloat32, "mixed_float16 gives", {}),
        (RunningSum, "step-by-step decoding differs", {"decode": stateless_steps}),
    ],
)
def test_a_broken_layer_fails(broken, message, options):
    with pytest.raises(AssertionError, match=message):
        check_layer(lambda **kw: broken(**kw), X, **options)
