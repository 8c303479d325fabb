"""Resampling against tones that are known in closed form, and against SciPy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from pipelines.audio.resampling import resample

RNG = np.random.default_rng(0)
TO_16K = [(8000, 16000), (11025, 16000), (22050, 16000), (44100, 16000), (48000, 16000), (96000, 16000)]
RATES = [*TO_16K, (16000, 22050), (16000, 8000), (44101, 16000), (16001, 16000), (90, 100), (110, 100)]


@tf.function(input_signature=[tf.TensorSpec((None,), tf.float32), *[tf.TensorSpec((), tf.int32)] * 2])
def resampled(audio, from_rate, to_rate):
    return resample(audio, from_rate, to_rate)


def tone(share, rates, count, phase=0.3):
    """A sine of a share of half the lower rate, before and after; (count,) and (ceil(count * to / from),)."""
    hertz = share * min(rates) / 2
    counts = (count, -(-count * rates[1] // rates[0]))
    return [np.sin(2 * np.pi * hertz * np.arange(n) / rate + phase) for n, rate in zip(counts, rates, strict=True)]


def inner(y, rates):
    """Without what sees the silence beyond both ends."""
    edge = math.ceil(70 * rates[1] / min(rates))
    return y[edge:-edge]


def decibels(error, of):
    return 10 * np.log10(np.mean(np.square(error)) / np.mean(np.square(of)))


@pytest.mark.parametrize("rates", RATES, ids=str)
def test_tones_of_the_pass_band_are_right_to_60_decibels(rates):
    for share in (0.01, 0.2, 0.5, 0.7, 0.85):
        before, after = tone(share, rates, 12_000)
        y = resampled(before.astype(np.float32), *rates).numpy()
        assert y.shape == after.shape
        assert decibels(inner(y - after, rates), inner(after, rates)) < -60


@pytest.mark.parametrize("rates", [rates for rates in RATES if rates[0] > rates[1]], ids=str)
def test_tones_that_the_lower_rate_cannot_hold_are_60_decibels_down(rates):
    for share in (1.0, 1.1, 1.5, 2.5):
        if share * rates[1] < rates[0]:
            before, _ = tone(share, rates, 12_000)
            assert decibels(inner(resampled(before.astype(np.float32), *rates), rates), before) < -60


@pytest.mark.parametrize("rates", TO_16K, ids=str)
def test_equals_scipys_on_what_both_let_pass(rates):
    """Noise of up to 0.8 of half the lower rate; SciPy with a filter as good as ours, its own is right to 54 dB."""
    divisor = math.gcd(*rates)
    up, down = rates[1] // divisor, rates[0] // divisor
    taps = signal.firwin(2 * 40 * max(up, down) + 1, 0.9 / max(up, down), window=("kaiser", 10.0))
    band = signal.firwin(301, 0.8 * min(rates) / rates[0], window=("kaiser", 10.0))
    noise = np.convolve(RNG.normal(size=20_000), band, "same").astype(np.float32)
    expected = signal.resample_poly(noise.astype(np.float64), up, down, window=taps)
    y = resampled(noise, *rates).numpy()
    assert y.shape == expected.shape
    assert decibels(inner(y - expected, rates), inner(expected, rates)) < -60


def by_the_formula(audio, from_rate, to_rate):
    """Every output a sum over all inputs, in float64."""
    divisor = math.gcd(from_rate, to_rate)
    down, up = from_rate // divisor, to_rate // divisor
    n = np.arange(-(-len(audio) * up // down))
    u = (n[:, None] * down - np.arange(len(audio)) * up) / max(up, down)
    window = np.where(np.abs(u) <= 32, np.i0(7.857 * np.sqrt(np.maximum(0, 1 - (u / 32) ** 2))) / np.i0(7.857), 0)
    return (0.924 * np.sinc(0.924 * u) * window * min(1, up / down)) @ audio


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 400), st.integers(1, 400))
def test_every_output_is_the_weighted_sum(count, from_rate, to_rate):
    audio = np.random.default_rng(count).normal(size=count).astype(np.float32)
    y = resampled(audio, from_rate, to_rate).numpy()
    if from_rate == to_rate:
        np.testing.assert_array_equal(y, audio)
    else:
        np.testing.assert_allclose(y, by_the_formula(audio, from_rate, to_rate), atol=2e-5)


@pytest.mark.parametrize("rates", [(768_000, 16_000), (1000, 48_000), (44_101, 48_000), (767_999, 16_000)], ids=str)
def test_extreme_ratios(rates):
    audio = RNG.normal(size=300).astype(np.float32)
    # The window ends in a step of -90 dB, which the table makes a slope.
    np.testing.assert_allclose(resampled(audio, *rates), by_the_formula(audio, *rates), atol=1e-4)


def test_nothing_becomes_nothing():
    assert resampled(np.zeros(0, np.float32), 8000, 16000).shape == (0,)


def test_a_delay_becomes_a_delay():
    """One second later in, one second later out: parts that begin at whole seconds join."""
    audio = RNG.normal(size=3 * 1102).astype(np.float32)
    y = resampled(audio, 1102, 1600).numpy()
    later = resampled(audio[1102:], 1102, 1600).numpy()
    np.testing.assert_allclose(y[1600 + 60 :], later[60:], atol=1e-5)
