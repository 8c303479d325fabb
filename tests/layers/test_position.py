"""Position encodings against NumPy."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers import RotaryEmbedding, SinusoidalPositionEncoding
from tests.layers.contract import check_layer

RNG = np.random.default_rng(0)


def sinusoids(positions, dim, max_wavelength=10000.0):
    """The paper's formula, one entry at a time."""
    encoding = np.zeros((len(positions), dim))
    for row, position in enumerate(positions):
        for i in range(dim // 2):
            angle = position / max_wavelength ** (2 * i / dim)
            encoding[row, 2 * i], encoding[row, 2 * i + 1] = np.sin(angle), np.cos(angle)
    return encoding


def rotated(x, positions, base=10000.0):
    """Half-split rotation as multiplication by complex numbers; x (B, h, T, d)."""
    half = x.shape[-1] // 2
    frequencies = base ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.outer(positions, frequencies))
    return np.concatenate([turned.real, turned.imag], axis=-1)


def test_sinusoids_keep_the_contract():
    def decode(layer, inputs):
        x = inputs["x"]
        steps = [layer(x[:, t : t + 1], position=t) for t in range(x.shape[1])]
        return keras.ops.concatenate(steps, axis=1)

    x = RNG.normal(size=(2, 7, 6)).astype("float32")
    check_layer(lambda **kw: SinusoidalPositionEncoding(**kw), x, causal=True, decode=decode)


@pytest.mark.parametrize("max_wavelength", [10000.0, 100.0])
def test_sinusoids_equal_the_formula(max_wavelength):
    x = RNG.normal(size=(2, 50, 16)).astype("float32")
    y = SinusoidalPositionEncoding(max_wavelength)(x)
    np.testing.assert_allclose(y, x + sinusoids(range(50), 16, max_wavelength), atol=1e-5)


def test_sinusoids_at_a_position_of_its_own_in_each_row():
    x = np.zeros((3, 1, 8), "float32")
    y = SinusoidalPositionEncoding()(x, position=np.array([4, 0, 9]))
    np.testing.assert_allclose(y[:, 0], sinusoids([4, 0, 9], 8), atol=1e-5)


def test_half_precision_tells_far_positions_apart():
    layer = SinusoidalPositionEncoding(dtype="mixed_float16")
    y = np.asarray(layer(np.zeros((2, 1, 8), "float32"), position=np.array([3000, 3001])))
    np.testing.assert_allclose(y[:, 0], sinusoids([3000, 3001], 8), atol=2e-3)


def test_rotation_keeps_the_contract():
    def decode(layer, inputs):
        x = inputs["x"]
        steps = [layer(x[:, :, t : t + 1], position=t) for t in range(x.shape[2])]
        return keras.ops.concatenate(steps, axis=2)

    x = RNG.normal(size=(2, 3, 7, 6)).astype("float32")
    check_layer(lambda **kw: RotaryEmbedding(**kw), x, decode=decode)


@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_rotation_equals_complex_multiplication(base):
    x = RNG.normal(size=(2, 3, 40, 8)).astype("float32")
    np.testing.assert_allclose(RotaryEmbedding(base)(x), rotated(x, np.arange(40), base), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_rotated_products_depend_on_distance_only(p, q, shift):
    layer = RotaryEmbedding()
    a, b = np.sin(np.arange(8.0, dtype="float32")), np.cos(np.arange(8.0, dtype="float32") ** 2)

    def product(position_a, position_b):
        x = layer(a[None, None, None], position=position_a)
        y = layer(b[None, None, None], position=position_b)
        return float(keras.ops.sum(x * y))

    assert product(p, q) == pytest.approx(product(p + shift, q + shift), abs=2e-3)


@pytest.mark.parametrize("layer, shape", [(SinusoidalPositionEncoding(), (1, 2, 5)), (RotaryEmbedding(), (1, 1, 2, 5))])
def test_an_odd_width_is_refused(layer, shape):
    with pytest.raises(ValueError, match="even. Received: size 5"):
        layer(np.zeros(shape, "float32"))
