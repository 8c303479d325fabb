"""Speaks sentences with espeak-ng, as a program of its own.

    echo '{"text": "good morning", "voice": "en-us+f2", "speed": 160, "pitch": 50, "seed": 0}' \
        | python -m apps.speech.espeak > clips.tar

It reads one JSON object a line, to the end, and then writes a tar of as many WAVs (0.wav, 1.wav ...) of 16 kHz, mono,
16 bits. espeak-ng is under the GPL, version 3; so its library is loaded here alone and never where a model is trained:
there, sentences are handed to this program and recordings are taken from it (`apps/speech/synthesis.py`).
"""

import contextlib
import ctypes
import io
import json
import math
import sys
import tarfile
from collections.abc import Callable

import numpy as np

from pipelines.audio.writing import write_wav

SAMPLE_RATE = 16000

# Of espeak-ng's C interface (speak_lib.h).
_SYNCHRONOUS = 2  # speaking returns when all is spoken
_UTF8 = 1
_RATE, _PITCH = 1, 3  # parameters: words a minute, and 0 to 100
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_BYTES = 2  # of a sample


def main() -> None:
    """Speaks what standard input asks for. Ends with one line on standard error and code 1 where it cannot."""
    requests = [json.loads(line) for line in sys.stdin.buffer]
    speak = _open()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        for number, request in enumerate(requests):
            contents = write_wav(speak(**request), SAMPLE_RATE)
            member = tarfile.TarInfo(f"{number}.wav")
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))


def _open() -> Callable[..., np.ndarray]:
    """Loads the library. Returns a function of text, voice, speed, pitch and seed to samples, int16."""
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        set_seed = library.espeak_ng_SetRandSeed
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    except ImportError:
        sys.exit("espeak-ng is not installed; pip install espeakng-loader")
    except (OSError, RuntimeError, AttributeError) as error:
        sys.exit(f"espeak-ng cannot be loaded ({error}); pip install --force-reinstall espeakng-loader")
    if rate <= 0:
        sys.exit("espeak-ng finds no voices; pip install --force-reinstall espeakng-loader")

    parts: list[bytes] = []

    @_CALLBACK
    def keep(samples, count, _events):
        if samples and count > 0:
            parts.append(ctypes.string_at(samples, count * _BYTES))
        return 0

    library.espeak_SetSynthCallback(keep)

    def speak(text: str, voice: str, speed: int, pitch: int, seed: int) -> np.ndarray:
        _ = keep  # the library holds no reference to it
        parts.clear()
        if library.espeak_SetVoiceByName(voice.encode()):
            sys.exit(f"espeak-ng has no voice '{voice}'")
        set_seed(ctypes.c_long(seed))  # breath is noise, which would otherwise begin with the time of day
        library.espeak_SetParameter(_RATE, speed, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        said = text.encode()
        if library.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, 0, 0, _UTF8, None, None) or not parts:
            sys.exit(f"espeak-ng cannot say '{text}'")
        return _resampled(np.frombuffer(b"".join(parts), np.int16), rate)

    return speak


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Brings whole recordings to the rate by their spectra: what lies above half of it is left out."""
    if rate == SAMPLE_RATE:
        return samples
    divisor = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // divisor, rate // divisor
    padded = np.pad(samples, (0, -len(samples) % down))
    count = len(padded) * up // down
    found = np.fft.irfft(np.fft.rfft(padded)[: count // 2 + 1], count) * (up / down)
    return np.clip(np.round(found), -(2**15), 2**15 - 1).astype(np.int16)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody waits for the rest
        main()
