"""What the header of a WAV says, and what is refused because of it; imports no TensorFlow.

The rules are written once, for numbers as for tensors: `wav.py` applies them in the graph, and this module to files
whose samples stay on disk. So the lengths of a thousand clips are known at once, and an hour is read part by part:

    with open("talk.wav", "rb") as file:
        header = read_header(file)                          # header.rate, header.channels, header.seconds
        for start, contents in parts(file, 30, overlap=2):  # contents is a WAV of its own, for `read_audio`
            ...
"""

import functools
import operator
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
LEAST_RATE, MOST_RATE = 1_000, 768_000  # in Hz
MOST_CHANNELS = 256
MOST_SECONDS = 600.0  # of a clip, where nobody says how long it may be
LOUDEST = 2.0**31  # of float samples: full scale of those that were never divided; squares of louder ones overflow
MOST_CHUNKS = 1000  # chunks are walked one by one: a file of nothing but empty ones must come to an end
# Bytes of a format chunk: the shortest, and the longest of which something is understood.
FMT_LEAST, FMT_MOST = 16, 40
# How the numbers of encodings go on in an extensible format, as words of two bytes.
GUID = struct.unpack("<7H", bytes.fromhex("000000001000800000aa00389b71"))

EMPTY = "0 bytes: no audio"
UNKNOWN = "not a WAV"
TEXT = "text, not a WAV"
OTHER = "{}, not a WAV"
CUT_OFF = "damaged WAV: its header is cut off"
CONTRADICTION = "damaged WAV: its header contradicts itself"
NO_SAMPLES = "a WAV of 0 samples"
NOT_NUMBERS = "a WAV with samples that are NaN, infinite or above 2^31"
RATE = f"a WAV of {{}} Hz: takes {LEAST_RATE} to {MOST_RATE} Hz"
CHANNELS = f"a WAV of {{}} channels: takes 1 to {MOST_CHANNELS}"
TOO_LONG = "a WAV of {} s: takes at most {} s"
ENCODING = "a WAV of {}: takes PCM and float"
PCM_BITS = "a WAV of {} bit PCM: takes 8, 16, 24 and 32 bit"
FLOAT_BITS = "a WAV of {} bit float: takes 32 and 64 bit"
# What WAVs hold that is not decoded.
ENCODINGS = {
    0x0002: "Microsoft ADPCM", 0x0006: "A-law", 0x0007: "mu-law", 0x0011: "IMA ADPCM", 0x0016: "G.723 ADPCM",
    0x0031: "GSM 6.10", 0x0040: "G.721 ADPCM", 0x0050: "MPEG", 0x0055: "MP3", 0x00FF: "AAC", 0x0161: "Windows Media",
}  # fmt: skip
# What files begin with that are none; a dot stands for any byte.
OTHERS = {
    b"ID3": "an MP3", b"\xff\xfb": "an MP3", b"\xff\xfa": "an MP3", b"\xff\xf3": "an MP3", b"\xff\xf2": "an MP3",
    b"\xff\xe3": "an MP3", b"\xff\xf1": "AAC", b"\xff\xf9": "AAC", b"OggS": "an Ogg", b"fLaC": "a FLAC",
    b"....ftyp": "an M4A or MP4", b"FORM....AIF": "an AIFF", b"\x1aE\xdf\xa3": "a WebM or Matroska", b"#!AMR": "AMR",
    b"caff": "a CAF", b"RIFF....AVI ": "an AVI", b"RIFF....WEBP": "a WebP picture", b"RIFX": "a big-endian RIFX",
    b"RF64": "an RF64 of more than 4 GB",
}  # fmt: skip
LOOKED_AT = 64  # bytes by which what is no WAV is told


class Header(NamedTuple):
    """What the header of a WAV says, in integers or scalar int64 tensors.

    Args:
        complete: Whether there are a format and a beginning of the samples; a boolean. Without, the rest means nothing.
        start: Where in the file they begin.
        data_bytes: Bytes of samples that are there.
        encoding: `PCM`, `FLOAT` or a number that is refused; of an extensible format, the one it names.
        channels: Samples of a frame.
        rate: Frames a second.
        frame_bytes: Bytes of a frame.
        bits: Of a sample that count, the upper ones of its bytes.
    """

    complete: Any
    start: Any
    data_bytes: Any
    encoding: Any
    channels: Any
    rate: Any
    frame_bytes: Any
    bits: Any

    @property
    def frames(self):
        return self.data_bytes // self.frame_bytes

    @property
    def seconds(self):
        return self.frames / self.rate

    @property
    def kinds(self) -> list:
        """Which of the ways to decode it is: PCM of 1, 2, 3 or 4 bytes, float of 4 or 8; six booleans."""

        def has(encoding, size):
            fits = (self.bits > 8 * (size - 1)) & (self.bits <= 8 * size)
            return (self.encoding == encoding) & (self.frame_bytes == size * self.channels) & fits

        return [has(PCM, size) for size in (1, 2, 3, 4)] + [has(FLOAT, size) for size in (4, 8)]


def rules(header: Header, most_seconds: float | None) -> list[tuple[Any, str, Callable[[], tuple]]]:
    """What must hold, in this order, before samples are decoded.

    Returns:
        Conditions, each with its complaint and with the numbers that stand in it, which are computed only if wanted.
    """
    h = header
    found = [(h.complete, CUT_OFF, tuple)]
    found += [(h.encoding != n, ENCODING.format(name), tuple) for n, name in ENCODINGS.items()]
    found += [
        ((h.encoding == PCM) | (h.encoding == FLOAT), ENCODING.format("encoding {}"), lambda: (h.encoding,)),
        ((h.encoding != PCM) | ((h.bits >= 1) & (h.bits <= 32)), PCM_BITS, lambda: (h.bits,)),
        ((h.encoding != FLOAT) | (h.bits == 32) | (h.bits == 64), FLOAT_BITS, lambda: (h.bits,)),
        ((h.rate >= LEAST_RATE) & (h.rate <= MOST_RATE), RATE, lambda: (h.rate,)),
        ((h.channels >= 1) & (h.channels <= MOST_CHANNELS), CHANNELS, lambda: (h.channels,)),
        (functools.reduce(operator.or_, h.kinds), CONTRADICTION, tuple),
        (h.data_bytes >= h.frame_bytes, NO_SAMPLES, tuple),
    ]
    if most_seconds is not None:
        most_frames = h.rate * round(1000 * most_seconds) // 1000
        fits = h.data_bytes < (most_frames + 1) * h.frame_bytes
        found += [(fits, TOO_LONG.format("{}", f"{most_seconds:g}"), lambda: (-(-h.frames // h.rate),))]
    return found


def read_header(file: BinaryIO, most_seconds: float | None = None) -> Header:
    """Reads the header of a WAV and nothing else.

    Args:
        file: open for reading of bytes, and to be moved about in.
        most_seconds: longer ones are refused; None: any length is taken.

    Raises:
        ValueError: when it is no WAV, a damaged one, or one that `read_audio` would not take either, with its reason;
            what only the samples tell, such as NaN, is not known here.
    """
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(LOOKED_AT)
    if not (head.startswith(b"RIFF") and (len(head) < 12 or head[8:12] == b"WAVE")):
        raise ValueError(_what_else(head))
    header = _read_chunks(file, total, int.from_bytes(head[4:8], "little"))
    for condition, complaint, numbers in rules(header, most_seconds):
        if not condition:
            raise ValueError(complaint.format(*numbers()))
    return header


def parts(file: BinaryIO, seconds: float, overlap: float = 0.0) -> Iterator[tuple[float, bytes]]:
    """Cuts a WAV of any length into short ones, of which only one is in memory.

    Args:
        file: as `read_header` takes it.
        seconds: length of a part; the last one is as long as is left.
        overlap: how much of its end a part shares with the next one's beginning, less than `seconds`.

    Yields:
        Where each part begins, in seconds, and the bytes of a WAV of it. Where `seconds - overlap` is a whole number,
        every part begins at a whole sample, before and after it is brought to another rate.

    Raises:
        ValueError: as `read_header`.
    """
    h = read_header(file)
    length = max(round(seconds * h.rate), 1)
    step = max(length - round(overlap * h.rate), 1)
    for first in range(0, max(h.frames - length + step, 1), step):
        file.seek(h.start + first * h.frame_bytes)
        samples = file.read(min(length, h.frames - first) * h.frame_bytes)
        yield first / h.rate, wav(h.encoding, h.channels, h.rate, h.frame_bytes, h.bits, samples)


def wav(encoding: int, channels: int, rate: int, frame_bytes: int, bits: int, samples: bytes) -> bytes:
    """The bytes of a WAV, with the numbers that `Header` explains."""
    byte_rate = min(rate * frame_bytes, 0xFFFFFFFF)
    fmt = struct.pack("<HHIIHH", encoding, channels, rate, byte_rate, frame_bytes, bits)
    return _chunk(b"RIFF", b"WAVE" + _chunk(b"fmt ", fmt) + _chunk(b"data", samples))


def data_bytes(size: int, riff_size: int, available: int, total: int) -> int:
    """How many bytes of samples there are, where a header says `size` and `available` are left of a file of `total`.

    Recordings that were cut off, and those whose length was not known as they began, have the rest of the file: their
    size is too large, or 0 in a file that is also otherwise not as long as it says.
    """
    return available if size == 0 and riff_size + 8 != total else min(size, available)


def _read_chunks(file: BinaryIO, total: int, riff_size: int) -> Header:
    """Walks the chunks until both the format and the samples are found, in whichever order."""
    places: dict[bytes, tuple[int, int]] = {}  # of the first of each kind: where its content begins, and its size
    at = 12
    for _ in range(MOST_CHUNKS):
        if at + 8 > total or {b"fmt ", b"data"} <= places.keys():
            break
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        places.setdefault(name, (at + 8, size))
        at += 8 + size + size % 2
    at, fmt_size = places.get(b"fmt ", (total, 0))
    start, size = places.get(b"data", (0, 0))
    file.seek(at)
    words = struct.unpack(f"<{FMT_MOST // 2}H", file.read(FMT_MOST).ljust(FMT_MOST, b"\0"))
    extended = words[0] == EXTENSIBLE and fmt_size >= FMT_MOST and words[13:] == GUID
    return Header(
        complete=start > 0 and fmt_size >= FMT_LEAST and at + FMT_LEAST <= total,
        start=start,
        data_bytes=data_bytes(size, riff_size, total - start, total),
        encoding=words[12] if extended else words[0],
        channels=words[1],
        rate=words[2] + 65536 * words[3],
        frame_bytes=words[6],
        bits=words[7],
    )


def _what_else(head: bytes) -> str:
    """What to say of bytes that do not begin as a WAV does."""
    for beginning, name in OTHERS.items():
        if len(head) >= len(beginning) and all(b in (ord("."), h) for b, h in zip(beginning, head, strict=False)):
            return OTHER.format(name)
    if not head:
        return EMPTY
    return TEXT if all(is_text(byte) for byte in head) else UNKNOWN


def is_text(byte):
    """Whether a byte, or each of a tensor of them, may stand in a text file; in UTF-8 every one above 127 may."""
    return (byte >= 32) & (byte != 127) | (byte >= 9) & (byte <= 13)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content
