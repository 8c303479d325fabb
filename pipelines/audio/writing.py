"""Samples to the bytes of a WAV that `read_audio` reads as the very same numbers."""

import struct

import numpy as np

_PCM, _FLOAT = 1, 3


def write_wav(samples: np.ndarray, rate: int) -> bytes:
    """Encodes one channel.

    Args:
        samples: (n,) int16 or float32.
        rate: samples a second.
    """
    encoding, kind = {"i": (_PCM, "<i2"), "f": (_FLOAT, "<f4")}[samples.dtype.kind]
    data = samples.astype(kind).tobytes()
    size = np.dtype(kind).itemsize
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, encoding, 1, rate, size * rate, size, 8 * size)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body
