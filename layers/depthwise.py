"""Convolutions that look at each channel by itself, and their completion by a mix of channels."""

import keras
from keras import ops

from layers.convolution import Conv2D
from layers.window import Window, WindowOverTime


class _Depthwise(Window):
    """A convolution of each channel by itself."""

    def build(self, inputs_shape):
        channels = self._channels(inputs_shape)
        if len(set(self.strides)) > 1:
            raise ValueError(f"strides must be equal for height and width. Received: strides={self.strides}")

        def initializer(shape, dtype):
            # Drawn as if channels were outputs: a unit sees its window's values, not all channels of them.
            return ops.reshape(self.kernel_initializer((*self.kernel_size, 1, channels), dtype=dtype), shape)

        self._add_weights((*self.kernel_size, channels, 1), initializer, channels)

    def _convolve(self, x, padding):
        return ops.depthwise_conv(x, self.kernel, self.strides, padding, "channels_last", self.dilation_rate)

    def compute_output_shape(self, inputs_shape):
        return self._output_shape(inputs_shape, inputs_shape[-1])


@keras.saving.register_keras_serializable(package="espalier")
class DepthwiseConv1D(WindowOverTime, _Depthwise):
    """Convolution of each channel by itself over time, with masks.

    y_c(t) = activation( Σ_m w_c(m) · x_c(t·s + m·d - p) + b_c )

    The symbols and the masks are those of `Conv1D`. It mixes no channels; a Dense layer beside it does that.

    TensorFlow has an operation for it. XLA on CPU does without: there it gives the same numbers, but slowly: 32 × 100
    steps of 144 channels under 31 taps take 6 ms forward and backward on two cores, and 75 ms with XLA.

    Args:
        kernel_size, strides, padding, dilation_rate, activation, use_bias, ...: as in `Conv1D`.

    Call arguments:
        inputs: shape (B, T, C).
        mask: boolean (B, T), True = real. Default: the mask attached to the inputs.

    Returns:
        Shape (B, T', C), T' and the mask that is passed on as in `Conv1D`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> DepthwiseConv1D(3, strides=2, padding="causal")(keras.ops.ones((2, 9, 4))).shape
        TensorShape([2, 5, 4])

    References:
        Kaiser et al. 2017, Depthwise Separable Convolutions for Neural Machine Translation.
        https://arxiv.org/abs/1706.03059
    """

    def __init__(self, kernel_size, strides=1, padding="valid", **kwargs):
        super().__init__(kernel_size, strides, padding, **kwargs)


@keras.saving.register_keras_serializable(package="espalier")
class DepthwiseConv2D(_Depthwise):
    """Convolution of each channel by itself.

    y_c(i, j) = activation( Σ_m Σ_n w_c(m, n) · x_c(i·s + m·d - p, j·s + n·d - q) + b_c )

    The symbols are those of `Conv2D`. It is cheap and mixes no channels; a 1 × 1 convolution beside it does that.

    Args:
        kernel_size, strides, padding, dilation_rate, activation, use_bias, ...: as in `Conv2D`; strides are equal for
            height and width.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, H', W', C), sizes as in `Conv2D`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> DepthwiseConv2D(3, padding="same")(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 9, 9, 4])

    References:
        Howard et al. 2017, MobileNets. https://arxiv.org/abs/1704.04861
    """

    def call(self, inputs):
        return self._finish(self._convolve(inputs, self.padding))


@keras.saving.register_keras_serializable(package="espalier")
class DepthwiseSeparableConv2D(keras.layers.Layer):
    """A convolution in two cheap parts: each channel by itself over space, then all channels at each place.

    z_c(i, j) = Σ_m Σ_n w_c(m, n) · x_c(i·s + m·d - p, j·s + n·d - q)
    y_k(i, j) = activation( Σ_c v_ck · z_c(i, j) + b_k )

    The symbols are those of `Conv2D`, of which it takes about 1/K + 1/window² of the multiplications.

    Args:
        filters: K, the number of output channels.
        kernel_size, strides, padding, dilation_rate: as in `DepthwiseConv2D`.
        activation: name or function of the non-linearity after both parts; None for none.
        use_bias: whether b is learnt.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, H', W', K), sizes as in `Conv2D`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> DepthwiseSeparableConv2D(8, 3, padding="same")(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 9, 9, 8])

    References:
        Chollet 2017, Xception. https://arxiv.org/abs/1610.02357
        Howard et al. 2017, MobileNets. https://arxiv.org/abs/1704.04861
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        dilation_rate=1,
        activation=None,
        use_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.depthwise = DepthwiseConv2D(
            kernel_size, strides, padding, dilation_rate, use_bias=False, dtype=self.dtype_policy, name="depthwise"
        )
        self.pointwise = Conv2D(
            filters, 1, activation=activation, use_bias=use_bias, dtype=self.dtype_policy, name="pointwise"
        )
        self.filters = filters
        self.kernel_size = self.depthwise.kernel_size
        self.strides = self.depthwise.strides
        self.padding = padding
        self.dilation_rate = self.depthwise.dilation_rate
        self.activation = self.pointwise.activation
        self.use_bias = use_bias

    def build(self, inputs_shape):
        self.depthwise.build(inputs_shape)
        self.pointwise.build(self.depthwise.compute_output_shape(inputs_shape))

    def call(self, inputs):
        return self.pointwise(self.depthwise(inputs))

    def compute_output_shape(self, inputs_shape):
        return self.pointwise.compute_output_shape(self.depthwise.compute_output_shape(inputs_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
