"""What a speech model hears: the logarithmic mel spectrogram of waveforms, and masks over it while training."""

import math

import keras
import numpy as np
from keras import ops

from layers.dropout import random_bits
from layers.window import zero_masked

_LEAST_VARIANCE = 1e-3  # of a normalised band: one that never changes, as in silence, becomes zero
_LEAST_ENERGY = 1e-10  # that a row is taken to have: silence is not made louder
_FAINT = 1e-4  # of the loudest frame's energy: 40 dB below it a frame counts half, and further below nearly nothing


@keras.saving.register_keras_serializable(package="espalier")
class LogMelSpectrogram(keras.layers.Layer):
    """The logarithm of a waveform's energy in bands of the mel scale, frame by frame.

    S(t, k) = |Σ_n w(n) · x(t·H + n - p) · exp(-2πi·k·n / K)|²
    y(t, m) = log(Σ_k F(k, m) · S(t, k) + floor)
    normalised: E(t, m) / max_tm E(t, m) in place of the energy E(t, m) = Σ_k F(k, m) · S(t, k), and then
                (y(t, m) - mean_t y(t, m)) / sqrt(var_t y(t, m) + 0.001)

    w is the periodic Hann window, H the hop in samples, K the next power of two from the frame's length on. Frame t is
    centred on its hop, at (t + 1/2)·H; beyond both ends lies silence. Filter m of F is a triangle of height 1 between
    three neighbours of bands + 2 points, equally far apart on the HTK mel scale,
    mel(f) = 2595 · log10(1 + f / 700), from lower_hz to upper_hz; it is not scaled by its width as Slaney's is.

    Mean and variance weigh a frame of energy e by e / (e + max e / 10000): those count in which something is heard. So
    the sounds of a clip come out the same however long it is silent before, between and after them, and however loud
    it is.

    All is computed in float32, whatever the policy: float16 holds neither the energies nor their differences. The
    layer has no weights. What follows a clip in its row changes nothing at its frames.

    Args:
        sample_rate: of the audio, in Hz.
        frame_ms: length of a frame in milliseconds.
        hop_ms: from one frame to the next, in milliseconds; no more than `frame_ms`.
        bands: M, bands of the mel scale.
        lower_hz: where the lowest band begins.
        upper_hz: where the highest one ends; default half the sample rate.
        normalise: bring each row to greatest energy 1, and each of its bands to mean 0 and variance 1.
        floor: energy that is added before the logarithm; of normalised rows, 1e-7 is 70 dB below the greatest.

    Call arguments:
        audio: shape (B, N), floats between -1 and 1.
        mask: boolean (B, N), True = real; each row's real samples come first. Default: all are.

    Returns:
        Shape (B, T, M), T = ceil(N / H), in the policy's dtype. The mask that is passed on marks the ceil(n / H) frames
        of a row of n real samples; the others are zero.

    Raises:
        ValueError: an argument is out of range, or a band is so narrow that no frequency of the transform is in it.

    Example:
        >>> LogMelSpectrogram(16000, bands=40)(keras.ops.ones((2, 16000))).shape
        TensorShape([2, 100, 40])

    References:
        Davis and Mermelstein 1980, Comparison of Parametric Representations for Monosyllabic Word Recognition.
        https://doi.org/10.1109/TASSP.1980.1163420
        Young et al. 2006, The HTK Book, section 5.4 (the mel scale and its filters).
    """

    def __init__(
        self,
        sample_rate=16000,
        frame_ms=25.0,
        hop_ms=10.0,
        bands=80,
        lower_hz=20.0,
        upper_hz=None,
        normalise=True,
        floor=1e-7,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # the samples of a half precision policy stay float32
        self.sample_rate = sample_rate
        self.frame_ms = frame_ms
        self.hop_ms = hop_ms
        self.bands = bands
        self.lower_hz = lower_hz
        self.upper_hz = upper_hz
        self.normalise = normalise
        self.floor = floor
        self.frame_length = round(sample_rate * frame_ms / 1000)
        self.hop = round(sample_rate * hop_ms / 1000)
        if not 0 < self.hop <= self.frame_length:
            raise ValueError(
                "a hop takes at least one sample and no more than a frame. Received: "
                f"frame_ms={frame_ms}, hop_ms={hop_ms}, sample_rate={sample_rate}"
            )
        if floor <= 0:
            raise ValueError(f"floor must be more than 0. Received: floor={floor}")
        self.fft_length = 2 ** math.ceil(math.log2(self.frame_length))
        # TensorFlow's own "periodic" window of an odd length is the symmetric one.
        self._window = np.hanning(self.frame_length + 1)[:-1].astype("float32")
        self._filters = mel_filters(bands, self.fft_length, sample_rate, lower_hz, upper_hz)

    def build(self, audio_shape):
        if len(audio_shape) != 2:
            raise ValueError(f"LogMelSpectrogram takes audio (batch, samples). Received: shape {tuple(audio_shape)}")

    def call(self, audio, mask=None):
        audio = ops.cast(audio, "float32")
        if mask is not None:
            audio = ops.where(mask, audio, 0.0)
            mask = self.compute_mask(audio, mask)
        before = (self.fft_length - self.hop) // 2
        audio = ops.pad(audio, ((0, 0), (before, self.fft_length - 1 - before)))  # makes it ceil(N / hop) frames
        real, imaginary = ops.stft(audio, self.frame_length, self.hop, self.fft_length, self._window, center=False)
        energy = ops.matmul(ops.square(real) + ops.square(imaginary), self._filters)  # (B, T, M)
        y = self._normalised(energy, mask) if self.normalise else ops.log(energy + self.floor)
        return ops.cast(zero_masked(y, mask), self.compute_dtype)

    def _normalised(self, energy, mask):
        energy = zero_masked(energy, mask)
        energy /= ops.maximum(ops.max(energy, axis=(1, 2), keepdims=True, initial=0.0), _LEAST_ENERGY)
        frames = ops.sum(energy, axis=2, keepdims=True) + _LEAST_ENERGY  # (B, T, 1)
        weight = zero_masked(frames / (frames + _FAINT * ops.max(frames, axis=1, keepdims=True, initial=0.0)), mask)
        weight /= ops.maximum(ops.sum(weight, axis=1, keepdims=True), _LEAST_ENERGY)
        y = ops.log(energy + self.floor)
        y -= ops.sum(weight * y, axis=1, keepdims=True)
        variance = ops.sum(weight * ops.square(y), axis=1, keepdims=True)
        return y * ops.rsqrt(variance + _LEAST_VARIANCE)

    def frames(self, samples):
        """How many frames clips of so many samples have: an integer or a tensor of them."""
        return -(-samples // self.hop)

    def compute_mask(self, audio, mask=None):
        return None if mask is None else mask[:, :: self.hop]

    def compute_output_shape(self, audio_shape):
        batch, samples = audio_shape
        return (batch, None if samples is None else self.frames(samples), self.bands)

    def get_config(self):
        return {
            **super().get_config(),
            "sample_rate": self.sample_rate,
            "frame_ms": self.frame_ms,
            "hop_ms": self.hop_ms,
            "bands": self.bands,
            "lower_hz": self.lower_hz,
            "upper_hz": self.upper_hz,
            "normalise": self.normalise,
            "floor": self.floor,
        }


def mel_filters(bands, fft_length, sample_rate, lower_hz, upper_hz=None):
    """The triangles of `LogMelSpectrogram`, as a matrix from frequencies to bands.

    Returns:
        (fft_length / 2 + 1, bands) float32.

    Raises:
        ValueError: the frequencies are out of order, or a band has none of the transform's.
    """
    upper_hz = sample_rate / 2 if upper_hz is None else upper_hz
    if not 0 <= lower_hz < upper_hz <= sample_rate / 2:
        raise ValueError(
            f"bands lie between 0 and half the sample rate, {sample_rate / 2:g} Hz. "
            f"Received: lower_hz={lower_hz}, upper_hz={upper_hz}"
        )
    if bands < 1:
        raise ValueError(f"bands must be at least 1. Received: bands={bands}")
    edges = np.linspace(_mel(lower_hz), _mel(upper_hz), bands + 2)
    here = _mel(np.arange(fft_length // 2 + 1) * sample_rate / fft_length)[:, None]  # (K / 2 + 1, 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((here - left) / (centre - left), (right - here) / (right - centre)))
    if not filters.any(axis=0).all():
        raise ValueError(
            f"a band holds none of the {fft_length // 2 + 1} frequencies: take longer frames or fewer bands. "
            f"Received: bands={bands}, lower_hz={lower_hz}, upper_hz={upper_hz}"
        )
    return filters.astype("float32")


def _mel(hertz):
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


@keras.saving.register_keras_serializable(package="espalier")
class SpecAugment(keras.layers.Layer):
    """Sets random stretches of time and random bands of frequency to zero, row by row, while training.

    frequency: f ~ U{0 .. F},    f0 ~ U{0 .. M - f},    y(t, m) = 0 for f0 ≤ m < f0 + f,      frequency_masks times
    time:      d ~ U{0 .. D},    t0 ~ U{0 .. n - d},    y(t, m) = 0 for t0 ≤ t < t0 + d,      time_masks times
               D = min(time_width, floor(n · time_share / time_masks)),    n = the row's real frames

    so that all time masks together cover at most `time_share` of the row's real frames, and short clips are not erased.
    Zero stands for the mean: the layer belongs after a normalised spectrogram. The numbers come from the generator of
    `Dropout`: they are equal with and without XLA, and a row's do not depend on its padding.

    Args:
        frequency_masks: bands to mask in each row.
        frequency_width: F, the widest, in mel bands.
        time_masks: stretches of time to mask in each row.
        time_width: the longest, in frames.
        time_share: of a row's real frames, masked at most, from 0 to 1.
        seed: integer, or None for one from Keras' global seed.

    Call arguments:
        inputs: shape (B, T, M), floats.
        mask: boolean (B, T), True = real; each row's real frames come first. Default: all are.
        training: whether to mask.

    Returns:
        The same shape and dtype. The mask is passed on.

    Raises:
        ValueError: an argument is out of range, or `frequency_width` exceeds M.

    Example:
        >>> SpecAugment()(keras.ops.ones((2, 100, 80)), training=True).shape
        TensorShape([2, 100, 80])

    References:
        Park et al. 2019, SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition.
        https://arxiv.org/abs/1904.08779 (without its time warping, which helped least there)
    """

    def __init__(
        self, frequency_masks=2, frequency_width=27, time_masks=2, time_width=40, time_share=0.4, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        if min(frequency_masks, frequency_width, time_masks, time_width) < 0 or not 0 <= time_share <= 1:
            raise ValueError(
                "counts and widths must be 0 or more, time_share between 0 and 1. "
                f"Received: {frequency_masks=}, {frequency_width=}, {time_masks=}, {time_width=}, {time_share=}"
            )
        self.frequency_masks = frequency_masks
        self.frequency_width = frequency_width
        self.time_masks = time_masks
        self.time_width = time_width
        self.time_share = time_share
        self.seed = seed
        self.supports_masking = True
        if frequency_masks + time_masks:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, inputs_shape):
        if self.frequency_width > inputs_shape[-1]:
            raise ValueError(
                f"frequency_width cannot exceed the {inputs_shape[-1]} bands. "
                f"Received: frequency_width={self.frequency_width}"
            )

    def call(self, inputs, mask=None, training=False):
        if not training or not self.frequency_masks + self.time_masks:
            return inputs
        rows, steps, bands = *ops.shape(inputs)[:2], inputs.shape[-1]
        draws = _uniform((rows, self.frequency_masks + self.time_masks, 2), self.seed_generator.next())
        keep = ops.ones((1, 1, 1), "bool")
        if self.frequency_masks:
            size = ops.full((rows, 1), float(bands))
            covered = _covered(draws[:, : self.frequency_masks], size, float(self.frequency_width), bands)
            keep = ops.logical_and(keep, ops.logical_not(covered)[:, None, :])
        if self.time_masks:
            real = ops.full((rows, 1), steps) if mask is None else ops.sum(mask, axis=1, keepdims=True)
            real = ops.cast(real, "float32")
            longest = ops.minimum(float(self.time_width), ops.floor(real * (self.time_share / self.time_masks)))
            covered = _covered(draws[:, self.frequency_masks :], real, longest, steps)
            keep = ops.logical_and(keep, ops.logical_not(covered)[:, :, None])
        return ops.where(keep, inputs, ops.zeros_like(inputs))

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def get_config(self):
        return {
            **super().get_config(),
            "frequency_masks": self.frequency_masks,
            "frequency_width": self.frequency_width,
            "time_masks": self.time_masks,
            "time_width": self.time_width,
            "time_share": self.time_share,
            "seed": self.seed,
        }


def _uniform(shape, seed):
    """Numbers from 0 to below 1 with 24 random bits, as many as float32 holds."""
    bits = ops.right_shift(random_bits(shape, seed), 8)
    return ops.cast(ops.cast(bits, "int32"), "float32") * 2.0**-24


def _covered(draws, size, widest, length):
    """Places of an axis that any of a row's masks covers.

    Args:
        draws: (B, masks, 2), for the width and the start of each.
        size: (B, 1), places from the start of the axis that masks may lie in.
        widest: scalar or (B, 1).
        length: of the axis.

    Returns:
        (B, length), boolean.
    """
    width = ops.floor(draws[..., 0] * (widest + 1))  # (B, masks)
    start = ops.floor(draws[..., 1] * (size - width + 1))
    place = ops.cast(ops.arange(length), "float32")[:, None]  # (length, 1)
    inside = ops.logical_and(place >= start[:, None], place < (start + width)[:, None])
    return ops.any(inside, axis=-1)
