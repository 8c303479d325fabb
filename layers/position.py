"""Position information for attention, which by itself cannot tell one order of its inputs from another: the
fixed sinusoids that are added to embeddings, and the rotation of queries and keys that makes scores
relative."""

import keras
from keras import ops


def _angles(length, dim, base, position):
    """Angles pos / base^(2i/dim), in float32 whatever the compute dtype: float16 cannot count past 2048.

    Returns:
        Shape (1 or B, length, dim / 2). Row t belongs to position `position + t` (`t` if position is None).
    """
    positions = ops.cast(ops.arange(length), "float32")[None, :]  # (1, T)
    if position is not None:
        positions = positions + ops.reshape(ops.cast(position, "float32"), (-1, 1))  # (1 or B, T)
    exponents = ops.arange(0, dim, 2, dtype="float32") / dim
    return positions[:, :, None] * ops.power(float(base), -exponents)


def _require_even(dim, layer):
    if dim % 2:
        raise ValueError(f"{layer} pairs each sine with a cosine, so the last axis must be even. Received: size {dim}")


@keras.saving.register_keras_serializable(package="espalier")
class SinusoidalPositionEncoding(keras.layers.Layer):
    """Adds the fixed sinusoidal encoding of each position to its input.

    PE(pos, 2i)     = sin(pos / max_wavelength^(2i/d))
    PE(pos, 2i + 1) = cos(pos / max_wavelength^(2i/d))

    The layer has no weights and no maximum length. Padding masks pass through unchanged.

    Args:
        max_wavelength: base of the geometric series of wavelengths, from 2π to 2π · max_wavelength.

    Call arguments:
        x: shape (B, T, d), d even.
        position: None, or an integer scalar or (B,): the position of `x[:, 0]`, for decoding step by step.

    Returns:
        `x + PE`, shape (B, T, d).

    Raises:
        ValueError: d is odd.

    Example:
        >>> SinusoidalPositionEncoding()(keras.ops.zeros((1, 3, 8))).shape
        TensorShape([1, 3, 8])

    References:
        Vaswani et al. 2017, Attention Is All You Need, section 3.5. https://arxiv.org/abs/1706.03762
    """

    def __init__(self, max_wavelength=10000.0, **kwargs):
        super().__init__(**kwargs)
        self.max_wavelength = max_wavelength
        self.supports_masking = True

    def build(self, x_shape):
        _require_even(x_shape[-1], "SinusoidalPositionEncoding")

    def call(self, x, position=None):
        length, dim = ops.shape(x)[1], x.shape[-1]
        angles = _angles(length, dim, self.max_wavelength, position)  # (1 or B, T, d/2)
        # Stacking on a new last axis interleaves: sin, cos, sin, cos, ...
        encoding = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)  # (1 or B, T, d/2, 2)
        encoding = ops.reshape(encoding, (-1, length, dim))
        return x + ops.cast(encoding, x.dtype)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "max_wavelength": self.max_wavelength}


@keras.saving.register_keras_serializable(package="espalier")
class RotaryEmbedding(keras.layers.Layer):
    """Rotates queries or keys by an angle proportional to their position.

    The pair (x_i, x_{i + d/2}) is a point of the plane, turned by pos · base^(-2i/d):

    y_i         = x_i · cos(θ) - x_{i + d/2} · sin(θ)
    y_{i + d/2} = x_{i + d/2} · cos(θ) + x_i · sin(θ)

    A rotated query times a rotated key depends on the distance between them only. The pairing is
    *half-split* (first half with second half, as GPT-NeoX and Llama checkpoints have it), not interleaved
    neighbours as in the paper's equation 34; the two differ by a fixed permutation of the features.

    Args:
        base: the base of the geometric series of frequencies.

    Call arguments:
        x: shape (B, h, T, d), d even.
        position: None, or an integer scalar or (B,): the position of `x[:, :, 0]`, for decoding step by step.

    Returns:
        Shape (B, h, T, d).

    Raises:
        ValueError: d is odd.

    Example:
        >>> RotaryEmbedding()(keras.ops.ones((1, 2, 5, 8))).shape
        TensorShape([1, 2, 5, 8])

    References:
        Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding.
        https://arxiv.org/abs/2104.09864
    """

    def __init__(self, base=10000.0, **kwargs):
        super().__init__(**kwargs)
        self.base = base
        self.supports_masking = True

    def build(self, x_shape):
        _require_even(x_shape[-1], "RotaryEmbedding")

    def call(self, x, position=None):
        angles = _angles(ops.shape(x)[2], x.shape[-1], self.base, position)
        angles = angles[:, None]  # (1 or B, 1, T, d/2): the same for every head
        cos, sin = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
        first, second = ops.split(x, 2, axis=-1)
        return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "base": self.base}
