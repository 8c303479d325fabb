"""Samples to the bytes of a WAV that `read_audio` reads as the very same numbers."""

import numpy as np

from pipelines.audio.headers import FLOAT, PCM, wav


def write_wav(samples: np.ndarray, rate: int) -> bytes:
    """Encodes one channel.

    Args:
        samples: (n,) int16 or float32.
        rate: samples a second.
    """
    encoding, kind = {"i": (PCM, "<i2"), "f": (FLOAT, "<f4")}[samples.dtype.kind]
    size = np.dtype(kind).itemsize
    return wav(encoding, 1, rate, size, 8 * size, samples.astype(kind).tobytes())
