"""What is written is read again to the bit, by this project and by others."""

import io

import numpy as np
import pytest
import tensorflow as tf
from scipy.io import wavfile

from pipelines.audio.wav import read_wav
from pipelines.audio.writing import write_wav


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_written_and_read(kind):
    samples = np.random.default_rng(0).uniform(-1, 1, 1001).astype(np.float32)
    samples = samples if kind is np.float32 else (samples * 32767).astype(np.int16)
    wav = write_wav(samples, 22050)
    rate, found = wavfile.read(io.BytesIO(wav))
    assert rate == 22050 and found.dtype == kind
    np.testing.assert_array_equal(found, samples)
    read, rate = read_wav(tf.constant(wav))
    assert rate == 22050
    np.testing.assert_array_equal(read, samples if kind is np.float32 else samples / np.float32(2**15))
