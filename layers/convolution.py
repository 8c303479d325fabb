"""Convolutions over time and over pictures."""

import keras
from keras import ops

from layers.window import Window, WindowOverTime


class _Convolution(Window):
    """A convolution whose every output channel sees all input channels of its group."""

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        **kwargs,
    ):
        super().__init__(kernel_size, strides, padding, dilation_rate, activation, use_bias, **kwargs)
        if filters < 1 or groups < 1 or filters % groups:
            raise ValueError(f"groups must divide filters. Received: filters={filters}, groups={groups}")
        self.filters = filters
        self.groups = groups

    def build(self, inputs_shape):
        channels = self._channels(inputs_shape)
        if channels % self.groups:
            raise ValueError(f"groups must divide the channels. Received: {channels} channels, groups={self.groups}")
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self._add_weights(shape, self.kernel_initializer, self.filters)

    def _convolve(self, x, padding):
        def convolve(x, kernel):
            return ops.conv(x, kernel, self.strides, padding, "channels_last", self.dilation_rate)

        if self.groups == 1:
            return convolve(x, self.kernel)
        # Group by group: one operation would be compiled by XLA even without jit, which TensorFlow Serving refuses.
        parts = zip(ops.split(x, self.groups, axis=-1), ops.split(self.kernel, self.groups, axis=-1), strict=True)
        return ops.concatenate([convolve(*part) for part in parts], axis=-1)

    def compute_output_shape(self, inputs_shape):
        return self._output_shape(inputs_shape, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "groups": self.groups}


@keras.saving.register_keras_serializable(package="espalier")
class Conv1D(WindowOverTime, _Convolution):
    """Convolution over time, with masks.

    y_k(t) = activation( Σ_c Σ_m w_ck(m) · x_c(t·s + m·d - p) + b_k )

    with stride s, dilation d and x zero outside of the input. The kernel is not flipped: as in every framework, it is
    the cross-correlation that goes by the name of convolution. The offset p is 0 for padding "valid", where the
    window never leaves the input; (window - 1)·d for "causal", so that no output sees a later step; and for "same"
    half of what makes ceil(T / s) outputs, the smaller half before the input.

    Masked steps count as zeros, as if the input ended before them. With a stride and padding "same" the window's
    offset depends on the padded length T; make T a multiple of the stride, or take "causal", where rows of a batch must
    give what they give alone.

    Args:
        filters: K, the number of output channels.
        kernel_size: taps of the window.
        strides: s, steps from one window to the next.
        padding: "valid", "same" or "causal".
        dilation_rate: d, steps from one tap to the next. Either this or `strides` must be 1.
        groups: the input and output channels fall into so many groups that do not see each other; divides both numbers.
        activation: name or function of the non-linearity; None for none.
        use_bias: whether b is learnt.
        kernel_initializer, bias_initializer, kernel_regularizer: as in Keras' layers.

    Call arguments:
        inputs: shape (B, T, C).
        mask: boolean (B, T), True = real. Default: the mask attached to the inputs.

    Returns:
        Shape (B, T', K), T' = floor((T - (window - 1)·d - 1) / s) + 1 for "valid", ceil(T / s) otherwise. The mask
        that is passed on marks the outputs that a row would have without its padding.

    Raises:
        ValueError: an argument is out of range, or the channels cannot be grouped.

    Example:
        >>> Conv1D(8, 3, strides=2, padding="causal")(keras.ops.ones((2, 9, 4))).shape
        TensorShape([2, 5, 8])

    References:
        Waibel et al. 1989, Phoneme Recognition Using Time-Delay Neural Networks. https://doi.org/10.1109/29.21701
        van den Oord et al. 2016, WaveNet (causal and dilated). https://arxiv.org/abs/1609.03499
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", **kwargs):
        super().__init__(filters, kernel_size, strides, padding, **kwargs)


@keras.saving.register_keras_serializable(package="espalier")
class Conv2D(_Convolution):
    """Convolution over pictures.

    y_k(i, j) = activation( Σ_c Σ_m Σ_n w_ck(m, n) · x_c(i·s + m·d - p, j·s + n·d - q) + b_k )

    with stride s, dilation d and x zero outside of the picture; for s = d = 1 and padding "valid" (p = q = 0) that is
    the textbook's y(i, j) = Σ_c Σ_m Σ_n w_c(m, n) · x_c(i + m, j + n). The kernel is not flipped: as in every
    framework, it is the cross-correlation that goes by the name of convolution. With padding "same", p and q are half
    of what makes ceil(H / s) × ceil(W / s) outputs, the smaller half above and to the left.

    Args:
        filters: K, the number of output channels.
        kernel_size, strides, dilation_rate: an integer, or two for height and width. Strides or dilation must be 1.
        padding: "valid" (windows lie inside the picture) or "same".
        groups: the input and output channels fall into so many groups that do not see each other; divides both numbers.
        activation: name or function of the non-linearity; None for none.
        use_bias: whether b is learnt.
        kernel_initializer, bias_initializer, kernel_regularizer: as in Keras' layers.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, H', W', K), H' = floor((H - (window - 1)·d - 1) / s) + 1 for "valid" and ceil(H / s) for "same".

    Raises:
        ValueError: an argument is out of range, or the channels cannot be grouped.

    Example:
        >>> Conv2D(8, 3, strides=2, padding="same")(keras.ops.ones((2, 9, 9, 3))).shape
        TensorShape([2, 5, 5, 8])

    References:
        LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition. https://doi.org/10.1109/5.726791
        Dumoulin & Visin 2016, A guide to convolution arithmetic for deep learning. https://arxiv.org/abs/1603.07285
    """

    def __init__(self, filters, kernel_size, strides=1, padding="valid", **kwargs):
        super().__init__(filters, kernel_size, strides, padding, **kwargs)

    def call(self, inputs):
        return self._finish(self._convolve(inputs, self.padding))
