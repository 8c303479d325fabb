"""The arithmetic of windows that slide over time or over pictures, and what all convolutions share."""

import keras
from keras import ops


def per_axis(value, rank, name):
    """One positive integer for each axis, from an integer or a sequence."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank or not all(isinstance(v, int) and v > 0 for v in values):
        raise ValueError(f"{name} must be a positive integer or {rank} of them. Received: {name}={value}")
    return values


def output_size(size, window, stride=1, padding="valid", dilation=1):
    """How many places a window of `window` taps, `dilation` apart, has along an axis; None where that is unknown.

    valid: floor((size - span) / stride) + 1 with span = (window - 1) * dilation + 1;  same, causal: ceil(size / stride)
    """
    if size is None:
        return None
    if padding == "valid":
        size -= (window - 1) * dilation
    return max(-(-size // stride), 0)


def output_mask(mask, window, stride=1, padding="valid", dilation=1):
    """Which outputs are real, from which steps are: those that the row alone, without its padding, would have.

    Args:
        mask: boolean (B, T), or None.

    Returns:
        Boolean (B, output_size(T, ...)), or None.
    """
    if mask is None:
        return None
    if padding != "valid":
        return mask[:, ::stride]
    reach = (window - 1) * dilation  # from the window's first step to its last; both must be real
    return ops.logical_and(mask[:, : -reach or None : stride], mask[:, reach::stride])


def zero_masked(x, mask):
    """x of shape (B, T, C), zero where the boolean mask (B, T) says padding; a mask of None changes nothing."""
    return x if mask is None else ops.where(mask[..., None], x, ops.zeros_like(x))


class Window(keras.layers.Layer):
    """What all convolutions share: a kernel that slides, and what is done to its output."""

    rank = 2  # axes to slide along
    paddings = ("valid", "same")

    def __init__(
        self,
        kernel_size,
        strides=1,
        padding="valid",
        dilation_rate=1,
        activation=None,
        use_bias=True,
        kernel_initializer="he_normal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding not in self.paddings:
            raise ValueError(f"padding must be one of {', '.join(self.paddings)}. Received: padding={padding!r}")
        self.kernel_size = per_axis(kernel_size, self.rank, "kernel_size")
        self.strides = per_axis(strides, self.rank, "strides")
        self.padding = padding
        self.dilation_rate = per_axis(dilation_rate, self.rank, "dilation_rate")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "strides and dilation_rate cannot both be more than 1, TensorFlow has no such convolution. "
                f"Received: strides={self.strides}, dilation_rate={self.dilation_rate}"
            )
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def _add_weights(self, kernel_shape, initializer, outputs):
        self.kernel = self.add_weight(
            name="kernel", shape=kernel_shape, initializer=initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(outputs,), initializer=self.bias_initializer)

    def _channels(self, inputs_shape):
        if len(inputs_shape) != self.rank + 2 or inputs_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes (batch, {'time' if self.rank == 1 else 'height, width'}, channels) "
                f"with a known number of channels. Received: shape {tuple(inputs_shape)}"
            )
        return inputs_shape[-1]

    def _finish(self, y):
        if self.use_bias:
            y = ops.add(y, self.bias)
        return self.activation(y)

    def _output_shape(self, inputs_shape, outputs):
        sizes = zip(inputs_shape[1:-1], self.kernel_size, self.strides, self.dilation_rate, strict=True)
        return (
            inputs_shape[0],
            *(output_size(size, k, stride, self.padding, d) for size, k, stride, d in sizes),
            outputs,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


class WindowOverTime(Window):
    """What convolutions over time share besides: causal padding, and masks."""

    rank = 1
    paddings = ("valid", "same", "causal")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return self._finish(self._convolve(*self._padded(zero_masked(inputs, mask))))

    def compute_mask(self, inputs, mask=None):
        return output_mask(mask, self.kernel_size[0], self.strides[0], self.padding, self.dilation_rate[0])

    def _padded(self, x):
        """x with the zeros before it that causal padding asks for, and what padding is left to do."""
        if self.padding != "causal":
            return x, self.padding
        before = (self.kernel_size[0] - 1) * self.dilation_rate[0]
        return ops.pad(x, ((0, 0), (before, 0), (0, 0))), "valid"
