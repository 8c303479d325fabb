"""Normalisation over a batch or over a vector, in fewer operations than Keras has for it."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="espalier")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation of pictures, faster in training on CPU.

    y_c = γ_c · (x_c - mean(x_c)) / sqrt(var(x_c) + ε) + β_c,  mean and variance over batch and places

    Keras writes that as a dozen operations, each of which goes through memory once, and as many in the gradient.
    TensorFlow has it as one operation and one for the gradient: about a third of the time without XLA, which fuses the
    dozen itself. Outputs, gradients and moving averages equal Keras' own, whose call does everything but training on
    (B, H, W, C) with TensorFlow.

    Args, call arguments: as `keras.layers.BatchNormalization`.

    Example:
        >>> BatchNormalization()(keras.ops.ones((2, 4, 4, 3)), training=True).shape
        TensorShape([2, 4, 4, 3])

    References:
        Ioffe & Szegedy 2015, Batch Normalization. https://arxiv.org/abs/1502.03167
    """

    def call(self, inputs, training=None, mask=None):
        plain = self.center and self.scale and not (self.renorm or self.synchronized)
        last = self.axis in (-1, 3) and len(inputs.shape) == 4
        if (
            not (training and self.trainable and plain and last and mask is None)
            or keras.backend.backend() != "tensorflow"
        ):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        # Statistics and parameters are float32 whatever the inputs are.
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=ops.convert_to_tensor(inputs),
            scale=ops.convert_to_tensor(self.gamma, "float32"),
            offset=ops.convert_to_tensor(self.beta, "float32"),
            mean=ops.zeros((0,)),
            variance=ops.zeros((0,)),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation estimates the variance of a population; Keras averages that of the batch.
        count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), "float32")
        variance = variance * (ops.maximum(count - 1.0, 1.0) / count)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + ops.stop_gradient(value) * (1.0 - self.momentum))
        return y


@keras.saving.register_keras_serializable(package="espalier")
class LayerNormalization(keras.layers.LayerNormalization):
    """Keras' layer normalisation over the last axis, in fewer operations.

    y = γ · (x - mean(x)) / sqrt(var(x) + ε) + β,  mean and variance of each vector

    Keras subtracts the mean twice, in the variance and in a sum of its own. A step of a decoder has a norm every few
    small operations, and each of them costs more to start than to compute. Half precisions are computed in float32, as
    Keras does.

    Args, call arguments: as `keras.layers.LayerNormalization`, whose call does everything but normalising the last axis
    with scale and offset.

    Example:
        >>> LayerNormalization()(keras.ops.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    References:
        Ba et al. 2016, Layer Normalization. https://arxiv.org/abs/1607.06450
    """

    def call(self, inputs):
        last = self.axis in (-1, len(inputs.shape) - 1)
        if not (last and self.center and self.scale) or self.rms_scaling:
            return super().call(inputs)
        x = ops.cast(inputs, keras.backend.result_type(self.compute_dtype, "float32"))
        gamma, beta = (ops.cast(weight, x.dtype) for weight in (self.gamma, self.beta))
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        return ops.cast(centred * (ops.rsqrt(variance + self.epsilon) * gamma) + beta, self.compute_dtype)


def normalisation(kind, channels, **settings):
    """The layer that a network's `normalisation` setting names.

    Args:
        kind: "batch" (statistics of the batch, and of the training data later), "group" (of each picture, over groups
            of channels) or "none".
        channels: of its input.
        settings: `dtype` and `name`.

    Returns:
        A layer for (B, H, W, channels).

    Raises:
        ValueError: another kind.

    References:
        Ioffe & Szegedy 2015, Batch Normalization. https://arxiv.org/abs/1502.03167
        Wu & He 2018, Group Normalization. https://arxiv.org/abs/1803.08494
    """
    if kind == "batch":
        # A quicker average than Keras' 0.99, which after a short training still remembers its start.
        return BatchNormalization(momentum=0.9, epsilon=1e-5, **settings)
    if kind == "group":
        # 16 channels a group, fewer where 16 does not divide them.
        return keras.layers.GroupNormalization(channels // math.gcd(channels, 16), epsilon=1e-5, **settings)
    if kind != "none":
        raise ValueError(f"normalisation must be batch, group or none. Received: normalisation={kind!r}")
    return keras.layers.Identity(**settings)
