"""Bytes to the model's samples: in a data pipeline, in batches, and in a SavedModel as TensorFlow Serving runs it."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import signal
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

from pipelines.audio.reading import read_audio, read_audios, reason, resampled
from pipelines.export import session
from tests.pipelines.audio import wavs
from tests.pipelines.audio.test_wav import REFUSED, WHOLE
from tests.pipelines.audio.wavs import noise, plain

RNG = np.random.default_rng(0)
TEXT = "text, not a WAV"
GOOD = [*WHOLE[:-1], plain(70, 8000), wavs.by_scipy(noise(99, 2), 44100), wavs.by_scipy(RNG.normal(size=40), 22050)]


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def read(contents):
    return read_audio(contents, 16000, most_seconds=30)


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
def read_rows(contents):
    return read_audios(contents, 16000, most_seconds=30)


def test_mono_of_the_models_rate_passes_through_bit_for_bit():
    samples = RNG.uniform(-1, 1, 100).astype(np.float32)
    np.testing.assert_array_equal(read(wavs.by_scipy(samples)), samples)
    np.testing.assert_array_equal(read(plain()), noise()[:, 0] / 2**15)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_stereo_of_another_rate_is_mixed_and_resampled(rate, dtype):
    t = np.arange(rate) / rate
    left, right = np.sin(2 * np.pi * 440 * t), 0.5 * np.sin(2 * np.pi * 1000 * t)
    samples = np.stack([left, right], 1)
    samples = (samples * 32767).round().astype(dtype) if dtype == "i2" else samples.astype(dtype)
    audio = read(wavs.by_scipy(samples, rate)).numpy()
    expected = signal.resample((left + right) / 2, 16000)  # exact for tones of whole hertz
    assert audio.shape == (16000,) and audio.dtype == np.float32
    np.testing.assert_allclose(audio[100:-100], expected[100:-100], atol=1e-3)


def test_a_batch_equals_its_recordings():
    for rows in (GOOD, GOOD[:1], []):
        audio, lengths = read_rows(tf.constant(rows, tf.string, (len(rows),)))
        assert audio.dtype == tf.float32 and lengths.dtype == tf.int32
        assert audio.shape == (len(rows), max(lengths.numpy(), default=0))
        for row, length, contents in zip(audio.numpy(), lengths.numpy(), rows, strict=True):
            np.testing.assert_array_equal(row[:length], read(contents))
            np.testing.assert_array_equal(row[length:], 0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_taken_is_refused_in_one_line(name):
    contents, said = REFUSED[name]
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read(contents)
    assert reason(caught.value) == said.replace("at most 600 s", "at most 30 s")


def test_the_reason_survives_a_data_pipeline_and_a_batch_and_needs_no_graph():
    rows = tf.constant([plain(), b"text"])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(tf.data.Dataset.from_tensor_slices(rows).map(read, num_parallel_calls=2))
    assert reason(caught.value) == TEXT
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read_rows(rows)
    assert reason(caught.value) == TEXT
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read_audio(b"text", 16000)
    assert reason(caught.value) == TEXT
    assert reason(tf.errors.InvalidArgumentError(None, None, "something\nelse")) == "something else"


def test_tensorflow_serving_takes_every_operation():
    graph = read_rows.get_concrete_function().graph.as_graph_def()
    assert session.refused_operations(graph, session.registered(pywrap_tf_session, op_def_pb2)) == []


def test_a_saved_model_in_a_session_reads_as_training_does(tmp_path):
    """TensorFlow Serving loads it in this way: every kind of recording, bit for bit, and what is none."""

    def serve(audio_bytes):
        audio, lengths = read_audios(audio_bytes, 16000, 30)
        return {"audio": audio, "length": lengths}

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[tf.TensorSpec((None,), tf.string, name="audio_bytes")])
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.serve})
    trained_on = tf.data.Dataset.from_tensor_slices(GOOD).map(read).padded_batch(len(GOOD))
    expected, expected_lengths = next(iter(trained_on)).numpy(), [len(read(contents)) for contents in GOOD]
    with tf.Graph().as_default(), tf.compat.v1.Session() as serving:
        loaded = tf.compat.v1.saved_model.load(serving, ["serve"], str(tmp_path))
        signature = loaded.signature_def["serving_default"]
        fetch = [signature.outputs[name].name for name in ("audio", "length")]
        feed = signature.inputs["audio_bytes"].name
        audio, lengths = serving.run(fetch, {feed: GOOD})
        np.testing.assert_array_equal(audio, expected)
        np.testing.assert_array_equal(lengths, expected_lengths)
        for contents, said in REFUSED.values():
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                serving.run(fetch, {feed: [GOOD[0], contents]})
            assert reason(caught.value) == said.replace("at most 600 s", "at most 30 s")
        np.testing.assert_array_equal(serving.run(fetch, {feed: GOOD})[0], expected)  # and it goes on


def test_down_to_a_telephones_rate_and_back():
    """A round trip of a chirp through 8 kHz keeps what 8 kHz can hold."""
    t = np.arange(32000) / 16000
    chirp = signal.chirp(t, 100, 2, 3200).astype(np.float32)
    down = read_audio(wavs.by_scipy(chirp), 8000).numpy()
    again = read(wavs.by_scipy(down, 8000)).numpy()
    assert len(down) == 16000 and len(again) == 32000
    np.testing.assert_allclose(again[500:-500], chirp[500:-500], atol=3e-3)


@tf.function(input_signature=[tf.TensorSpec((None, None), tf.float32), tf.TensorSpec((None,), tf.int32)])
def of_waveforms(waveforms, rates):
    return resampled(waveforms, rates, 16000)


def test_waveforms_of_several_rates_become_what_their_wavs_become():
    samples = RNG.uniform(-1, 1, (3, 90)).astype(np.float32)
    rates = [8000, 16000, 44100]
    audio, lengths = of_waveforms(samples, rates)
    for row, rate, found, length in zip(samples, rates, audio.numpy(), lengths.numpy(), strict=True):
        np.testing.assert_allclose(found[:length], read(wavs.by_scipy(row, rate)), atol=1e-6)
        assert not found[length:].any()
    assert of_waveforms(np.zeros((0, 5), "float32"), np.zeros(0, "int32"))[0].shape == (0, 0)
    assert of_waveforms(np.zeros((2, 0), "float32"), [8000, 16000])[1].numpy().tolist() == [0, 0]


def test_waveforms_may_be_as_loud_as_wavs():
    for value in (2.0**31, -(2.0**31)):
        loud = np.full((1, 9), value, np.float32)
        np.testing.assert_array_equal(of_waveforms(loud, [16000])[0][0], read(wavs.by_scipy(loud[0], 16000)))


@pytest.mark.parametrize(
    "value, rate, said", [(0.0, 0, "a waveform of 0 Hz"), (np.nan, 8000, "NaN"), (1e30, 8000, "NaN")]
)
def test_waveforms_that_are_none_are_refused(value, rate, said):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        of_waveforms(np.full((1, 9), value, np.float32), [rate])
    assert said in reason(caught.value)
