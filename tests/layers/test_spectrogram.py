"""The log-mel spectrogram against SciPy, SpecAugment's masks against what they promise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from layers import LogMelSpectrogram, SpecAugment
from layers.spectrogram import mel_filters
from tests.layers.contract import check_layer

RNG = np.random.default_rng(0)
SMALL = {"sample_rate": 1000, "frame_ms": 32, "hop_ms": 10, "bands": 6}


def clips(lengths, total=None):
    """Noise that swells and a tone, (B, N) float32, with loud garbage behind the lengths; and the mask."""
    total = total or max(lengths)
    t = np.arange(total) / 1000
    audio = RNG.normal(size=(len(lengths), total)) * (0.1 + np.sin(t) ** 2) + np.sin(2 * np.pi * 90 * t)
    mask = np.arange(total) < np.array(lengths)[:, None]
    return np.where(mask, 0.2 * audio, 50.0).astype("float32"), mask


def by_scipy(audio, layer):
    """(n,) -> (T, M) in float64: SciPy's Fourier transform, and filters by interpolation between their corners."""
    frame, hop, length = layer.frame_length, layer.hop, layer.fft_length
    before = (length - hop) // 2 - (length - frame) // 2
    padded = np.concatenate([np.zeros(before), audio.astype(np.float64), np.zeros(frame + hop)])
    _, _, spectrum = signal.stft(
        padded, 1.0, "hann", frame, frame - hop, length, detrend=False, boundary=None, padded=False
    )
    power = np.abs(spectrum.T * signal.get_window("hann", frame).sum()) ** 2  # SciPy divides by the window's sum
    power = power[: -(-len(audio) // hop)]

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    corners = np.linspace(mel(layer.lower_hz), mel(layer.upper_hz or layer.sample_rate / 2), layer.bands + 2)
    places = mel(np.arange(length // 2 + 1) * layer.sample_rate / length)
    triangles = [np.interp(places, corners[m : m + 3], [0, 1, 0]) for m in range(layer.bands)]
    energy = power @ np.stack(triangles, axis=1)
    if not layer.normalise:
        return np.log(energy + layer.floor)
    energy /= energy.max()
    frames = energy.sum(1)
    weight = frames / (frames + 1e-4 * frames.max())
    y = np.log(energy + layer.floor)
    y -= np.average(y, axis=0, weights=weight)
    return y / np.sqrt(np.average(y**2, axis=0, weights=weight) + 1e-3)


@pytest.mark.parametrize("normalise", [True, False])
def test_contract(normalise):
    audio, mask = clips([130, 71])

    def make(**kw):
        return LogMelSpectrogram(**SMALL, normalise=normalise, **kw)

    check_layer(make, np.where(mask, audio, 0), atol=1e-4)
    check_layer(make, {"audio": audio, "mask": mask}, padding={"audio": "mask"}, atol=1e-4)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sample_rate": 8000, "bands": 40, "normalise": False},
        {"sample_rate": 22050, "hop_ms": 12.5, "lower_hz": 60.0, "upper_hz": 7600.0},
        {"frame_ms": 32, "hop_ms": 32, "bands": 64, "floor": 1e-3, "normalise": False},
    ],
    ids=str,
)
def test_equals_scipy(options, jit):
    layer = LogMelSpectrogram(**options)
    lengths = [layer.sample_rate // 2, 5 * layer.hop, 5 * layer.hop + 1, 1]
    audio, mask = clips(lengths)
    y = tf.function(layer, jit_compile=jit)(audio, mask=tf.constant(mask)).numpy()
    for row, length in enumerate(lengths):
        frames = layer.frames(length)
        np.testing.assert_allclose(y[row, :frames], by_scipy(audio[row, :length], layer), atol=1e-4)
        np.testing.assert_array_equal(y[row, frames:], 0)


def test_filters_equal_tensorflows():
    filters = mel_filters(80, 512, 16000, 20.0, 7600.0)
    expected = tf.signal.linear_to_mel_weight_matrix(80, 257, 16000, 20.0, 7600.0, tf.float64)
    np.testing.assert_allclose(filters, expected, atol=1e-4)  # TensorFlow's scale is 1127 · ln(1 + f / 700)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=3), st.integers(0, 90), st.booleans())
def test_a_clips_answer_does_not_depend_on_what_follows_it(lengths, padding, normalise):
    layer = LogMelSpectrogram(**SMALL, normalise=normalise)
    audio, mask = clips(lengths, max(lengths) + padding)
    y = layer(audio, mask=tf.constant(mask))
    assert y.shape == (len(lengths), layer.frames(audio.shape[1]), 6)
    real = np.asarray(y._keras_mask)
    for row, length in enumerate(lengths):
        alone = np.asarray(layer(audio[row : row + 1, :length]))[0]
        assert real[row].sum() == layer.frames(length) == len(alone)
        np.testing.assert_allclose(np.asarray(y)[row][real[row]], alone, atol=2e-4)


@settings(max_examples=20)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(-40, 20))
def test_silence_around_a_sound_and_its_loudness_change_nothing(before, after, gain):
    layer = LogMelSpectrogram()
    sound = np.hanning(3200) * np.random.default_rng(3).normal(0, 0.1, 3200)
    alone = layer(sound[None].astype("float32"))[0].numpy()
    hop = layer.hop
    padded = np.concatenate([np.zeros(before * hop), 10 ** (gain / 20) * sound, np.zeros(after * hop)])
    found = layer(padded[None].astype("float32"))[0].numpy()[before : before + len(alone)]
    heard = alone.max(1) > -1
    assert heard.mean() > 0.5
    np.testing.assert_allclose(found[heard], alone[heard], atol=0.03)


def test_a_tone_is_where_its_frequency_and_its_time_are():
    layer = LogMelSpectrogram(normalise=False)
    t = np.arange(16000)
    audio = np.where((t >= 4000) & (t < 12000), np.sin(2 * np.pi * 1000 * t / 16000), 0).astype("float32")
    y = layer(audio[None])[0].numpy()
    edges = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 8000)), 82)
    assert abs(y[50].argmax() - (np.searchsorted(edges, 1000) - 1)) <= 1  # 1000 Hz are 1000 mel
    loud = np.flatnonzero(y.max(1) > 0)
    # Frame t is centred at (t + 1/2) hops: the same number of frames looks over either edge.
    assert loud[0] + loud[-1] == 99 and 24 <= loud[0] <= 25


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_silence_short_and_empty_rows_are_finite(policy, jit):
    layer = LogMelSpectrogram(**SMALL, dtype=policy)
    mask = np.arange(50) < np.array([[50], [1], [0]])

    @tf.function(jit_compile=jit)
    def run(audio):
        with tf.GradientTape() as tape:
            tape.watch(audio)
            y = tf.cast(layer(audio, mask=tf.constant(mask)), tf.float32)
            return y, tape.gradient(tf.reduce_sum(y * y), audio)

    y, gradient = run(tf.zeros((3, 50)))
    assert np.isfinite(y).all() and np.isfinite(gradient).all()
    np.testing.assert_allclose(y, 0, atol=1e-2)
    assert LogMelSpectrogram(**SMALL)(np.zeros((2, 0), "float32")).shape == (2, 0, 6)


def test_samples_stay_float32_in_half_precision():
    """A soft sound beside a loud one is lost where samples have 8 bits: bfloat16 would change the answer by far."""
    audio, _ = clips([400])
    audio[:, 200:] = 0.5 + audio[:, 200:] * 1e-3
    exact = LogMelSpectrogram(**SMALL, normalise=False)(audio).numpy()
    half = LogMelSpectrogram(**SMALL, normalise=False, dtype="mixed_bfloat16")(audio)
    assert half.dtype == tf.bfloat16
    np.testing.assert_allclose(np.asarray(half, "float32"), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"hop_ms": 30}, "no more than a frame"),
        ({"hop_ms": 0}, "at least one sample"),
        ({"lower_hz": 9000.0}, "between 0 and half the sample rate, 8000 Hz"),
        ({"upper_hz": 9000.0}, "Received: lower_hz=20.0, upper_hz=9000.0"),
        ({"bands": 0}, "bands must be at least 1"),
        ({"bands": 200}, "longer frames or fewer bands"),
        ({"floor": 0}, "floor must be more than 0"),
    ],
)
def test_misuse_is_refused_clearly(options, said):
    with pytest.raises(ValueError, match=said):
        LogMelSpectrogram(**options)


def test_only_audio_without_channels():
    with pytest.raises(ValueError, match=r"Received: shape \(2, 100, 1\)"):
        LogMelSpectrogram(**SMALL)(np.zeros((2, 100, 1), "float32"))


FEATURES = RNG.normal(size=(2, 9, 8)).astype("float32") + 10
REAL = np.arange(9) < np.array([[9], [6]])


def test_spec_augment_keeps_the_contract():
    def make(**kw):
        return SpecAugment(frequency_width=3, time_width=3, seed=1, **kw)

    check_layer(make, {"inputs": FEATURES, "mask": REAL}, padding={"inputs": "mask"})
    check_layer(make, FEATURES)


def masked(layer, lengths, steps=60, bands=16, calls=40):
    """Which places of ones became zero, (calls · B, steps, bands)."""
    mask = np.arange(steps) < np.array(lengths)[:, None]
    x = np.ones((len(lengths), steps, bands), "float32")
    return np.concatenate([layer(x, mask=tf.constant(mask), training=True).numpy() for _ in range(calls)]) == 0


@settings(max_examples=20)
@given(
    st.integers(0, 3), st.integers(0, 16), st.integers(0, 3), st.integers(0, 40), st.floats(0, 1), st.integers(0, 60)
)
def test_masks_are_stretches_within_their_limits(frequency_masks, frequency_width, time_masks, time_width, share, real):
    layer = SpecAugment(frequency_masks, frequency_width, time_masks, time_width, share, seed=3)
    for zeros in masked(layer, [real, 60], calls=4):
        columns, rows = zeros.all(0), zeros.all(1)  # whole bands, whole frames
        np.testing.assert_array_equal(zeros, columns | rows[:, None])
        assert columns.sum() <= frequency_masks * frequency_width or rows.all()
        assert len(np.flatnonzero(np.diff(np.pad(columns, 1).astype(int)) == 1)) <= max(frequency_masks, rows.all())
        if not columns.all():
            assert rows.sum() <= min(time_masks * time_width, share * 60 + 1e-6)
    for zeros in masked(layer, [real], calls=4):
        if not zeros.all(0).all():
            assert not zeros.all(1)[real:].any()  # padding is nobody's business
            assert zeros.all(1).sum() <= share * real + 1e-6


def test_widths_and_places_are_uniform():
    """One mask each, of 0 to 4: every width equally often, every place of a width too."""
    layer = SpecAugment(1, 4, 1, 4, 1.0, seed=0)
    zeros = masked(layer, [10] * 500, steps=12, bands=10, calls=8)
    for axis in (1, 2):
        stretches = zeros.all(axis)[:, :10]
        widths = stretches.sum(1)
        np.testing.assert_allclose(np.bincount(widths, minlength=5) / 4000, 0.2, atol=0.03)
        starts = stretches[widths == 4].argmax(1)
        np.testing.assert_allclose(np.bincount(starts, minlength=7) / len(starts), 1 / 7, atol=0.05)
    times, bands = zeros.all(2).sum(1), zeros.all(1).sum(1)
    assert abs(np.corrcoef(times, bands)[0, 1]) < 0.06
    first, second = zeros[:-500].all(2).sum(1), zeros[500:].all(2).sum(1)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_only_in_training_and_new_in_every_call():
    layer = SpecAugment(frequency_width=3, seed=1)
    np.testing.assert_array_equal(layer(FEATURES), FEATURES)
    assert (layer(FEATURES, training=True).numpy() != layer(FEATURES, training=True).numpy()).any()
    np.testing.assert_array_equal(SpecAugment(0, 0, 0)(FEATURES, training=True), FEATURES)


def test_the_state_of_the_seed_decides_as_for_dropout():
    """The training step adds the replica's number to this state, and finds it by its name."""
    layer = SpecAugment(frequency_width=3, seed=5)
    layer.build(FEATURES.shape)
    (variable,) = layer.non_trainable_variables
    assert variable.path.endswith("seed_generator_state")
    state = tf.convert_to_tensor(variable.value)

    def run(state):
        return layer.stateless_call([], [state], FEATURES, training=True)[0].numpy()

    np.testing.assert_array_equal(run(state), run(state))
    other = state + tf.constant([1_000_003, 0], state.dtype)
    assert (run(state) != run(other)).any()


def test_spec_augment_is_equal_with_and_without_xla_and_dynamic_shapes():
    layer = SpecAugment(frequency_width=3, seed=9)
    layer.build(FEATURES.shape)
    state = tf.convert_to_tensor(layer.non_trainable_variables[0].value)

    def run(jit, signature=None):
        @tf.function(jit_compile=jit, input_signature=signature)
        def call(x, mask):
            return layer.stateless_call([], [state], x, mask=mask, training=True)[0]

        return call(tf.constant(FEATURES), tf.constant(REAL)).numpy()

    unknown = [tf.TensorSpec([None, None, 8]), tf.TensorSpec([None, None], tf.bool)]
    np.testing.assert_array_equal(run(True), run(False))
    np.testing.assert_array_equal(run(False, unknown), run(False))
    assert (run(False) != FEATURES).any()


@pytest.mark.parametrize("options", [{"frequency_masks": -1}, {"time_width": -1}, {"time_share": 1.5}])
def test_spec_augment_refuses_what_is_out_of_range(options):
    with pytest.raises(ValueError, match="0 or more, time_share between 0 and 1. Received"):
        SpecAugment(**options)
    with pytest.raises(ValueError, match="cannot exceed the 8 bands"):
        SpecAugment()(FEATURES)


def test_the_two_follow_each_other_in_a_model():
    """The mask of the samples becomes that of the frames, and goes on."""
    audio, mask = clips([130, 71])
    samples = keras.Input((None,))
    real = keras.Input((None,), dtype="bool")
    y = SpecAugment(frequency_width=2)(LogMelSpectrogram(**SMALL)(samples, mask=real))
    model = keras.Model([samples, real], keras.layers.GlobalAveragePooling1D()(y))
    np.testing.assert_allclose(
        model([tf.constant(audio), tf.constant(mask)]), 0, atol=1e-3
    )  # of normalised frames alone
