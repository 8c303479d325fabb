"""Residual blocks, the repeated part of image models: convolutions around which the input is led, with
normalisation, squeeze-and-excitation and stochastic depth."""

import keras
from keras import ops

from layers.convolution import Conv2D
from layers.depthwise import DepthwiseConv2D
from layers.normalisation import normalisation
from layers.pooling import GlobalAveragePooling2D
from layers.stochastic_depth import StochasticDepth
from layers.window import output_size, per_axis


@keras.saving.register_keras_serializable(package="espalier")
class SqueezeExcitation(keras.layers.Layer):
    """Weighs each channel of a picture by what all of its channels hold on average.

    z_c = (1 / (H·W)) Σ_i Σ_j x_c(i, j)
    y_c(i, j) = x_c(i, j) · σ(W_2 ReLU(W_1 z + b_1) + b_2)_c

    Args:
        ratio: how many times narrower than the input the hidden layer is; at least one unit is left.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, H, W, C).

    Raises:
        ValueError: the ratio is less than 1.

    Example:
        >>> SqueezeExcitation(ratio=4)(keras.ops.ones((2, 8, 8, 16))).shape
        TensorShape([2, 8, 8, 16])

    References:
        Hu et al. 2018, Squeeze-and-Excitation Networks. https://arxiv.org/abs/1709.01507
    """

    def __init__(self, ratio=16, **kwargs):
        super().__init__(**kwargs)
        if ratio < 1:
            raise ValueError(f"ratio must be at least 1. Received: ratio={ratio}")
        self.ratio = ratio
        self.pool = GlobalAveragePooling2D(keepdims=True, dtype=self.dtype_policy, name="pool")

    def build(self, inputs_shape):
        channels, dtype = inputs_shape[-1], self.dtype_policy
        self.squeeze = keras.layers.Dense(
            max(int(channels / self.ratio), 1), "relu", kernel_initializer="he_normal", dtype=dtype, name="squeeze"
        )
        self.excite = keras.layers.Dense(channels, "sigmoid", dtype=dtype, name="excite")
        self.squeeze.build((None, 1, 1, channels))
        self.excite.build((None, 1, 1, self.squeeze.units))

    def call(self, inputs):
        return inputs * self.excite(self.squeeze(self.pool(inputs)))  # (B, H, W, C) * (B, 1, 1, C)

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio}


class _Block(keras.layers.Layer):
    """What both residual blocks share: settings, and parts made after them."""

    def __init__(
        self,
        filters,
        strides=1,
        kernel_size=3,
        normalisation="batch",
        activation="relu",
        stochastic_depth=0.0,
        squeeze_excitation=None,
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if normalisation not in ("batch", "group", "none"):
            raise ValueError(f"normalisation must be batch, group or none. Received: normalisation={normalisation!r}")
        self.filters = filters
        self.strides = per_axis(strides, 2, "strides")
        self.kernel_size = per_axis(kernel_size, 2, "kernel_size")
        self.normalisation = normalisation
        self.activation = keras.activations.get(activation)
        self.stochastic_depth = stochastic_depth
        self.squeeze_excitation = squeeze_excitation
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.drop = StochasticDepth(stochastic_depth, dtype=self.dtype_policy, name="drop")

    def _settings(self, name):
        """Arguments of a convolution; a bias is learnt only where no normalisation shifts its output."""
        return {
            "use_bias": self.normalisation == "none",
            "kernel_regularizer": self.kernel_regularizer,
            "dtype": self.dtype_policy,
            "name": name,
        }

    def _norm(self, name, channels):
        return normalisation(self.normalisation, channels, dtype=self.dtype_policy, name=name)

    def _excitation(self):
        if self.squeeze_excitation is None:
            return keras.layers.Identity(dtype=self.dtype_policy, name="squeeze_excitation")
        return SqueezeExcitation(self.squeeze_excitation, dtype=self.dtype_policy, name="squeeze_excitation")

    def compute_output_shape(self, inputs_shape):
        batch, height, width, _ = inputs_shape
        sizes = [output_size(s, 1, stride, "same") for s, stride in zip((height, width), self.strides, strict=True)]
        return (batch, *sizes, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": list(self.strides),
            "kernel_size": list(self.kernel_size),
            "normalisation": self.normalisation,
            "activation": keras.activations.serialize(self.activation),
            "stochastic_depth": self.stochastic_depth,
            "squeeze_excitation": self.squeeze_excitation,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable(package="espalier")
class ResidualBlock(_Block):
    """Two convolutions and a way around them, pre-activation.

    h = φ(Norm(x))
    y = shortcut + Drop(SE(Conv(φ(Norm(Conv_s(h))))))
    shortcut = x, or Conv1x1_s(h) where the stride or the number of channels changes

    Normalisation and activation stand before the convolutions, as in this project's Transformer blocks: the sum of all
    branches runs through the network unchanged, which trains deeper networks with less care than normalising the sum
    does (He et al. 2016b), and a branch left out by stochastic depth leaves an exact identity. A stack of blocks
    therefore ends with one more normalisation and activation, which belong to the model.

    Args:
        filters: K, the number of output channels.
        strides: s of the first convolution and the shortcut, an integer or two.
        kernel_size: of both convolutions, an integer or two.
        normalisation: "batch", "group" (16 channels a group) or "none", where the convolutions have biases instead.
        activation: φ, name or function.
        stochastic_depth: rate at which rows leave the branch out in training.
        squeeze_excitation: ratio of a `SqueezeExcitation` at the branch's end; None for none.
        kernel_regularizer: of the convolutions.

    Call arguments:
        inputs: shape (B, H, W, C).
        training: whether batch statistics and stochastic depth are active.

    Returns:
        Shape (B, ceil(H / s), ceil(W / s), K).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> ResidualBlock(8, strides=2)(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 5, 5, 8])

    References:
        He et al. 2016a, Deep Residual Learning for Image Recognition. https://arxiv.org/abs/1512.03385
        He et al. 2016b, Identity Mappings in Deep Residual Networks. https://arxiv.org/abs/1603.05027
    """

    def build(self, inputs_shape):
        channels, filters, size = inputs_shape[-1], self.filters, self.kernel_size
        self.norm_1 = self._norm("norm_1", channels)
        self.conv_1 = Conv2D(filters, size, self.strides, "same", **self._settings("conv_1"))
        self.norm_2 = self._norm("norm_2", filters)
        self.conv_2 = Conv2D(filters, size, 1, "same", **self._settings("conv_2"))
        self.excitation = self._excitation()
        self.shortcut = None
        if channels != filters or self.strides != (1, 1):
            self.shortcut = Conv2D(filters, 1, self.strides, "same", **self._settings("shortcut"))
            self.shortcut.build(inputs_shape)
        hidden_shape = self.compute_output_shape(inputs_shape)
        for layer in (self.norm_1, self.conv_1):
            layer.build(inputs_shape)
        for layer in (self.norm_2, self.conv_2, self.excitation):
            layer.build(hidden_shape)

    def call(self, inputs, training=None):
        h = self.activation(self.norm_1(inputs, training=training))
        shortcut = inputs if self.shortcut is None else self.shortcut(h)
        h = self.activation(self.norm_2(self.conv_1(h), training=training))
        return ops.add(shortcut, self.drop(self.excitation(self.conv_2(h)), training=training))


@keras.saving.register_keras_serializable(package="espalier")
class InvertedResidualBlock(_Block):
    """A wide depthwise convolution between two narrow ends, which the way around it connects.

    h = φ(Norm(Conv1x1(x)))                           to t·C channels; left out where t = 1
    h = SE(φ(Norm(DepthwiseConv_s(h))))
    y = Norm(Conv1x1(h))                              to K channels, linear
    y = x + Drop(y)                                   where s = 1 and C = K

    The narrow end has no activation, which in few channels would destroy what it sets to zero.

    Args:
        filters: K, the number of output channels.
        expansion: t, how many times wider than the input the middle is; at least 1.
        strides: s of the depthwise convolution, an integer or two equal ones.
        kernel_size: of the depthwise convolution, an integer or two.
        normalisation: "batch", "group" (16 channels a group) or "none", where the convolutions have biases instead.
        activation: φ, name or function.
        stochastic_depth: rate at which rows leave the branch out in training; without effect where there is no sum.
        squeeze_excitation: ratio of a `SqueezeExcitation` in the middle; None for none.
        kernel_regularizer: of the convolutions.

    Call arguments:
        inputs: shape (B, H, W, C).
        training: whether batch statistics and stochastic depth are active.

    Returns:
        Shape (B, ceil(H / s), ceil(W / s), K).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> InvertedResidualBlock(8, expansion=4, strides=2)(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 5, 5, 8])

    References:
        Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks. https://arxiv.org/abs/1801.04381
        Howard et al. 2019, Searching for MobileNetV3 (excitation in the middle). https://arxiv.org/abs/1905.02244
    """

    def __init__(self, filters, expansion=6, strides=1, kernel_size=3, activation="relu6", **kwargs):
        super().__init__(filters, strides, kernel_size, activation=activation, **kwargs)
        if expansion < 1:
            raise ValueError(f"expansion must be at least 1. Received: expansion={expansion}")
        self.expansion = expansion

    def build(self, inputs_shape):
        channels = inputs_shape[-1]
        width = int(channels * self.expansion)
        wide_shape = (*inputs_shape[:-1], width)
        hidden_shape = (*self.compute_output_shape(inputs_shape)[:-1], width)
        self.has_shortcut = self.strides == (1, 1) and channels == self.filters
        self.expand = None
        if width != channels:
            self.expand = Conv2D(width, 1, **self._settings("expand"))
            self.expand_norm = self._norm("expand_norm", width)
            self.expand.build(inputs_shape)
            self.expand_norm.build(wide_shape)
        self.depthwise = DepthwiseConv2D(self.kernel_size, self.strides, "same", **self._settings("depthwise"))
        self.depthwise_norm = self._norm("depthwise_norm", width)
        self.excitation = self._excitation()
        self.contract = Conv2D(self.filters, 1, **self._settings("contract"))
        self.contract_norm = self._norm("contract_norm", self.filters)
        self.depthwise.build(wide_shape)
        for layer in (self.depthwise_norm, self.excitation, self.contract):
            layer.build(hidden_shape)
        self.contract_norm.build(self.compute_output_shape(inputs_shape))

    def call(self, inputs, training=None):
        h = inputs
        if self.expand is not None:
            h = self.activation(self.expand_norm(self.expand(h), training=training))
        h = self.activation(self.depthwise_norm(self.depthwise(h), training=training))
        h = self.contract_norm(self.contract(self.excitation(h)), training=training)
        return ops.add(inputs, self.drop(h, training=training)) if self.has_shortcut else h

    def get_config(self):
        return {**super().get_config(), "expansion": self.expansion}
