"""Pooling: maxima and averages over windows, or over all of time or of a picture."""

import keras
from keras import ops

from layers.window import output_mask, output_size, per_axis, zero_masked


def _lowest(dtype):
    """A finite number that loses to every real one: among infinities alone, the maximum's gradient has no place."""
    return -65504.0 if keras.backend.standardize_dtype(dtype) == "float16" else -3e38


class _Pooling(keras.layers.Layer):
    """What windowed poolings share."""

    rank = 2

    def __init__(self, pool_size=2, strides=None, padding="valid", **kwargs):
        super().__init__(**kwargs)
        if padding not in ("valid", "same"):
            raise ValueError(f"padding must be valid or same. Received: padding={padding!r}")
        self.pool_size = per_axis(pool_size, self.rank, "pool_size")
        self.strides = self.pool_size if strides is None else per_axis(strides, self.rank, "strides")
        self.padding = padding
        self.supports_masking = self.rank == 1

    def build(self, inputs_shape):
        pass

    def _max(self, x):
        return ops.max_pool(x, self.pool_size, self.strides, self.padding, "channels_last")

    def _average(self, x):
        return ops.average_pool(x, self.pool_size, self.strides, self.padding, "channels_last")

    def compute_output_shape(self, inputs_shape):
        batch, *sizes, channels = inputs_shape
        windows = zip(sizes, self.pool_size, self.strides, strict=True)
        return (batch, *(output_size(*window, self.padding) for window in windows), channels)

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": list(self.pool_size),
            "strides": list(self.strides),
            "padding": self.padding,
        }


class _Pooling1D(_Pooling):
    rank = 1

    def compute_mask(self, inputs, mask=None):
        return output_mask(mask, self.pool_size[0], self.strides[0], self.padding)


@keras.saving.register_keras_serializable(package="espalier")
class MaxPooling1D(_Pooling1D):
    """The largest value of each window of steps, channel by channel.

    y_c(t) = max_m x_c(t·s + m - p)    over the window's real steps;  0 ≤ m < window

    Padding and p are as in `Conv1D`; places outside of the input take no part, and padded steps never win.

    Args:
        pool_size: steps of the window.
        strides: s, steps from one window to the next; default `pool_size`.
        padding: "valid" or "same".

    Call arguments:
        inputs: shape (B, T, C).
        mask: boolean (B, T), True = real. Default: the mask attached to the inputs.

    Returns:
        Shape (B, T', C), T' = floor((T - window) / s) + 1 for "valid", ceil(T / s) for "same". The mask that is passed
        on marks the outputs that a row would have without its padding; the others are zero.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> MaxPooling1D(2)(keras.ops.ones((2, 9, 4))).shape
        TensorShape([2, 4, 4])

    References:
        Waibel et al. 1989, Phoneme Recognition Using Time-Delay Neural Networks. https://doi.org/10.1109/29.21701
    """

    def call(self, inputs, mask=None):
        if mask is None:
            return self._max(inputs)
        x = ops.where(mask[..., None], inputs, ops.full_like(inputs, _lowest(inputs.dtype)))
        return zero_masked(self._max(x), self.compute_mask(inputs, mask))


@keras.saving.register_keras_serializable(package="espalier")
class AveragePooling1D(_Pooling1D):
    """The mean of each window of steps, channel by channel.

    y_c(t) = (1 / n) Σ_m x_c(t·s + m - p)    over the window's n real steps;  0 ≤ m < window

    Padding and p are as in `Conv1D`; places outside of the input and padded steps do not count.

    Args:
        pool_size, strides, padding: as in `MaxPooling1D`.

    Call arguments:
        inputs: shape (B, T, C).
        mask: boolean (B, T), True = real. Default: the mask attached to the inputs.

    Returns:
        As `MaxPooling1D`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> AveragePooling1D(3, strides=1, padding="same")(keras.ops.ones((2, 9, 4))).shape
        TensorShape([2, 9, 4])
    """

    def call(self, inputs, mask=None):
        if mask is None:
            return self._average(inputs)
        mean = self._average(zero_masked(inputs, mask))
        share = self._average(ops.cast(mask[..., None], inputs.dtype))  # of a window's steps that are real
        real = self.compute_mask(inputs, mask)
        return zero_masked(mean / ops.where(share > 0, share, ops.ones_like(share)), real)


@keras.saving.register_keras_serializable(package="espalier")
class MaxPooling2D(_Pooling):
    """The largest value of each window of a picture, channel by channel.

    y_c(i, j) = max_m max_n x_c(i·s + m - p, j·s + n - q)    0 ≤ m < window height, 0 ≤ n < window width

    Padding, p and q are as in `Conv2D`; places outside of the picture take no part.

    Args:
        pool_size: sizes of the window, an integer or two for height and width.
        strides: s, an integer or two; default `pool_size`.
        padding: "valid" or "same".

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, H', W', C), H' = floor((H - window) / s) + 1 for "valid", ceil(H / s) for "same".

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> MaxPooling2D(2)(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 4, 4, 4])

    References:
        Scherer et al. 2010, Evaluation of Pooling Operations in Convolutional Architectures for Object Recognition.
        https://doi.org/10.1007/978-3-642-15825-4_10
    """

    def call(self, inputs):
        return self._max(inputs)


@keras.saving.register_keras_serializable(package="espalier")
class AveragePooling2D(_Pooling):
    """The mean of each window of a picture, channel by channel.

    y_c(i, j) = (1 / n) Σ_m Σ_n x_c(i·s + m - p, j·s + n - q)    over the window's n places inside of the picture

    Padding, p and q are as in `Conv2D`; places outside of the picture do not count.

    Args:
        pool_size, strides, padding: as in `MaxPooling2D`.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        As `MaxPooling2D`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> AveragePooling2D(3, strides=2, padding="same")(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 5, 5, 4])

    References:
        LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition. https://doi.org/10.1109/5.726791
    """

    def call(self, inputs):
        return self._average(inputs)


class _GlobalPooling(keras.layers.Layer):
    """What poolings over everything share."""

    rank = 2

    def __init__(self, keepdims=False, **kwargs):
        super().__init__(**kwargs)
        self.keepdims = keepdims
        self.supports_masking = self.rank == 1

    def build(self, inputs_shape):
        pass

    def _reduce(self, reduction, x):
        return reduction(x, axis=tuple(range(1, 1 + self.rank)), keepdims=self.keepdims)

    def compute_mask(self, inputs, mask=None):
        return None  # there are no steps left to mask

    def compute_output_shape(self, inputs_shape):
        ones = (1,) * self.rank if self.keepdims else ()
        return (inputs_shape[0], *ones, inputs_shape[-1])

    def get_config(self):
        return {**super().get_config(), "keepdims": self.keepdims}


@keras.saving.register_keras_serializable(package="espalier")
class GlobalMaxPooling1D(_GlobalPooling):
    """The largest value of each channel over time: y_c = max_t x_c(t) over the real steps t, 0 where there are none.

    Args:
        keepdims: keep time as an axis of length 1.

    Call arguments:
        inputs: shape (B, T, C).
        mask: boolean (B, T), True = real. Default: the mask attached to the inputs.

    Returns:
        Shape (B, C), or (B, 1, C), without a mask.

    Example:
        >>> GlobalMaxPooling1D()(keras.ops.ones((2, 9, 4))).shape
        TensorShape([2, 4])
    """

    rank = 1

    def call(self, inputs, mask=None):
        if mask is None:
            return self._reduce(ops.max, inputs)
        y = self._reduce(ops.max, ops.where(mask[..., None], inputs, ops.full_like(inputs, _lowest(inputs.dtype))))
        return ops.where(self._reduce(ops.any, mask[..., None]), y, ops.zeros_like(y))


@keras.saving.register_keras_serializable(package="espalier")
class GlobalAveragePooling1D(_GlobalPooling):
    """The mean of each channel over time: y_c = (1 / n) Σ_t x_c(t) over the n real steps t, 0 where there are none.

    Args:
        keepdims: keep time as an axis of length 1.

    Call arguments:
        inputs: shape (B, T, C).
        mask: boolean (B, T), True = real. Default: the mask attached to the inputs.

    Returns:
        Shape (B, C), or (B, 1, C), without a mask.

    Example:
        >>> GlobalAveragePooling1D()(keras.ops.ones((2, 9, 4))).shape
        TensorShape([2, 4])
    """

    rank = 1

    def call(self, inputs, mask=None):
        if mask is None:
            return self._reduce(ops.mean, inputs)
        # In float32: a long sum does not fit into half precision.
        total = self._reduce(ops.sum, ops.cast(zero_masked(inputs, mask), "float32"))
        count = self._reduce(ops.sum, ops.cast(mask[..., None], "float32"))
        return ops.cast(total / ops.maximum(count, 1.0), inputs.dtype)


@keras.saving.register_keras_serializable(package="espalier")
class GlobalMaxPooling2D(_GlobalPooling):
    """The largest value of each channel of a picture: y_c = max_i max_j x_c(i, j).

    Args:
        keepdims: keep height and width as axes of length 1.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, C), or (B, 1, 1, C).

    Example:
        >>> GlobalMaxPooling2D()(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 4])
    """

    def call(self, inputs):
        return self._reduce(ops.max, inputs)


@keras.saving.register_keras_serializable(package="espalier")
class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel of a picture: y_c = (1 / (H·W)) Σ_i Σ_j x_c(i, j).

    Args:
        keepdims: keep height and width as axes of length 1.

    Call arguments:
        inputs: shape (B, H, W, C).

    Returns:
        Shape (B, C), or (B, 1, 1, C).

    Example:
        >>> GlobalAveragePooling2D()(keras.ops.ones((2, 9, 9, 4))).shape
        TensorShape([2, 4])

    References:
        Lin et al. 2014, Network In Network. https://arxiv.org/abs/1312.4400
    """

    def call(self, inputs):
        return self._reduce(ops.mean, inputs)
