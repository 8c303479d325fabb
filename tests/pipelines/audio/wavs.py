"""WAVs for tests: whole ones by SciPy and Python's own module, odd ones put together by hand."""

import io
import struct
import wave

import numpy as np
from scipy.io import wavfile

GUID = bytes.fromhex("000000001000800000aa00389b71")


def by_scipy(samples, rate=16000):
    """uint8, int16, int32, float32 or float64, (n,) or (n, channels)."""
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def by_wave(raw, rate=16000, channels=1, sample_bytes=2):
    """PCM of 1 to 4 bytes a sample, given as bytes."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, sample_bytes, rate, 0, "NONE", ""))
        writer.writeframes(raw)
    return file.getvalue()


def chunk(name, content, size=None):
    return name + struct.pack("<I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def fmt(encoding=1, channels=1, rate=16000, bits=16, frame_bytes=None, extensible=False, guid=GUID):
    """The content of a format chunk."""
    frame_bytes = channels * ((bits + 7) // 8) if frame_bytes is None else frame_bytes
    tag = 0xFFFE if extensible else encoding
    plain = struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes & 0xFFFFFFFF, frame_bytes, bits)
    return plain + (struct.pack("<HHIH", 22, bits, 0, encoding) + guid if extensible else b"")


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def noise(count=50, channels=1, seed=0):
    """(count, channels) int16."""
    return np.random.default_rng(seed).integers(-(2**15), 2**15, (count, channels)).astype("<i2")


def plain(count=50, rate=16000):
    """A WAV of 16 bits."""
    return by_scipy(noise(count)[:, 0], rate)
