"""WAV files to samples, in the graph: `tf.audio.decode_wav` reads PCM of 16 bits alone.

    samples, rate = read_wav(contents)     # scalar string -> (n,) float32 between -1 and 1, scalar int32

| in the file | what becomes of it |
|---|---|
| PCM of 8, 16, 24 or 32 bits | divided by the largest magnitude: -1 to below 1; of fewer bits the upper ones count |
| IEEE float of 32 or 64 bits | as it is; NaN and infinity are refused |
| WAVE_FORMAT_EXTENSIBLE | as the format that it names |
| channels | their mean |
| chunks | in any order, with what else there is between and after them |
| size 0 or too large, as of a stream or a recording cut off | what is there is taken |
"""

import tensorflow as tf

from pipelines.audio import headers
from pipelines.audio.headers import Header
from pipelines.graph import rarely, require


# Left as it is by AutoGraph, which has nothing to convert here and would take several times as long as the tracing.
@tf.autograph.experimental.do_not_convert
def read_wav(contents: tf.Tensor, most_seconds: float | None = headers.MOST_SECONDS) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a WAV.

    Args:
        contents: The bytes of a file, scalar string.
        most_seconds: Longer ones are refused, before they are decoded; None takes any length.

    Returns:
        The mean of the channels, (n,) float32 with n > 0, and how many of these make a second, scalar int32.

    Raises:
        tf.errors.InvalidArgumentError: when the bytes are no WAV, a damaged one, or one that is not taken.
            `reading.reason` makes a line of it.
    """
    contents, header = checked(contents, most_seconds)
    kind = tf.argmax(tf.stack(header.kinds), output_type=tf.int32)
    decoders = [_decode_8, _decode_16, _decode_24, _decode_32, _decode_float32, _decode_float64]  # as Header.kinds
    raw = tf.strings.substr(contents, header.start, header.frames * header.frame_bytes)
    samples = tf.switch_case(kind, [lambda decode=d: decode(raw) for d in decoders])
    frames = tf.reshape(samples, (header.frames, header.channels))
    mono = tf.cond(header.channels == 1, lambda: tf.identity(samples), lambda: tf.reduce_mean(frames, axis=1))
    return mono, tf.cast(header.rate, tf.int32)


def checked(contents: tf.Tensor, most_seconds: float | None) -> tuple[tf.Tensor, Header]:
    """The bytes, scalar string, that may be decoded, and their header.

    Raises:
        tf.errors.InvalidArgumentError: when `headers` has a rule against them.
    """
    is_wav, header = _read_header(contents)
    conditions, complaints, numbers = zip(*headers.rules(header, most_seconds), strict=True)
    conditions = tf.stack([is_wav, *conditions])

    def complaint():
        say = [lambda c=c, n=n: tf.strings.format(c, n()) for c, n in zip(complaints, numbers, strict=True)]
        first = tf.argmin(tf.cast(conditions, tf.int32), output_type=tf.int32)
        return tf.switch_case(first, [lambda: _what_else(contents), *say])

    contents = require(tf.reduce_all(conditions), contents, complaint)
    with tf.control_dependencies([contents]):  # nothing is divided by a number of the header that is not allowed
        return contents, Header(*(tf.identity(x) for x in header))


def _read_header(contents: tf.Tensor) -> tuple[tf.Tensor, Header]:
    """Whether it is a WAV at all, or the start of one; and its header."""
    total = tf.cast(tf.strings.length(contents), tf.int64)
    riff, riff_size, wave = tf.unstack(tf.io.decode_raw(contents, tf.int32, fixed_length=12))
    is_wav = (riff == _word(b"RIFF")) & ((wave == _word(b"WAVE")) | (total < 12))
    fmt, fmt_size, start, size = _find_chunks(contents, total)
    words = tf.io.decode_raw(
        tf.strings.substr(contents, fmt, headers.FMT_MOST), tf.uint16, fixed_length=headers.FMT_MOST
    )
    words = tf.cast(words, tf.int64)
    extended = (words[0] == headers.EXTENSIBLE) & (fmt_size >= headers.FMT_MOST)
    extended &= tf.reduce_all(words[13:] == headers.GUID)
    unknown = (size == 0) & (_unsigned(riff_size) + 8 != total)  # as headers.data_bytes
    return is_wav, Header(
        complete=(start > 0) & (fmt_size >= headers.FMT_LEAST) & (fmt + headers.FMT_LEAST <= total),
        start=start,
        data_bytes=tf.where(unknown, total - start, tf.minimum(size, total - start)),
        encoding=tf.where(extended, words[12], words[0]),
        channels=words[1],
        rate=words[2] + 65536 * words[3],
        frame_bytes=words[6],
        bits=words[7],
    )


def _find_chunks(contents: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where the contents of the first format chunk and of the first data chunk begin, each with its size.

    Returns:
        Four scalars, int64: of the format and then of the samples; zeros for what is missing.
    """
    zero = tf.constant(0, tf.int64)

    def goes_on(at, fmt, fmt_size, start, size):
        return (at + 8 <= total) & ((fmt == 0) | (start == 0))

    def next_chunk(at, fmt, fmt_size, start, size):
        words = tf.io.decode_raw(tf.strings.substr(contents, at, 8), tf.int32)
        name, length = tf.unstack(_unsigned(words), num=2)
        is_fmt, is_data = (name == _word(b"fmt ")) & (fmt == 0), (name == _word(b"data")) & (start == 0)
        at += 8
        fmt, fmt_size = tf.where(is_fmt, at, fmt), tf.where(is_fmt, length, fmt_size)
        start, size = tf.where(is_data, at, start), tf.where(is_data, length, size)
        return at + length + length % 2, fmt, fmt_size, start, size

    places = (tf.constant(12, tf.int64), zero, zero, zero, zero)
    return tf.while_loop(goes_on, next_chunk, places, maximum_iterations=headers.MOST_CHUNKS)[1:]


def _word(name: bytes) -> int:
    return int.from_bytes(name, "little")


def _unsigned(words: tf.Tensor) -> tf.Tensor:
    """int32 to int64, as the number from 0 to 2^32 - 1 that the same bits are; to uint32 they cannot be decoded."""
    return tf.bitwise.bitwise_and(tf.cast(words, tf.int64), 0xFFFFFFFF)


@rarely
def _what_else(contents: tf.Tensor) -> tf.Tensor:
    """What to say of bytes that do not begin as a WAV does, as headers._what_else."""
    head = tf.io.decode_raw(contents, tf.uint8, fixed_length=headers.LOOKED_AT)  # zeros where it is shorter
    length = tf.strings.length(contents)
    count = tf.minimum(length, headers.LOOKED_AT)
    complaint = tf.where(tf.reduce_all(headers.is_text(head[:count])), headers.TEXT, headers.UNKNOWN)
    complaint = tf.where(count == 0, headers.EMPTY, complaint)
    for beginning, name in reversed(headers.OTHERS.items()):  # the first one that fits has the last word
        fits = tf.reduce_all([head[i] == b for i, b in enumerate(beginning) if b != ord(".")])
        complaint = tf.where(fits & (length >= len(beginning)), headers.OTHER.format(name), complaint)
    return complaint


# Each of these takes whole frames and returns their samples one after the other, (frames * channels,) float32.


@rarely
def _decode_8(raw: tf.Tensor) -> tf.Tensor:
    return (tf.cast(tf.io.decode_raw(raw, tf.uint8), tf.float32) - 128) / 2.0**7  # unsigned, alone of all


def _decode_16(raw: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.decode_raw(raw, tf.int16), tf.float32) / 2.0**15


@rarely
def _decode_24(raw: tf.Tensor) -> tf.Tensor:
    low, middle, high = tf.unstack(tf.reshape(tf.io.decode_raw(raw, tf.uint8), (-1, 3)), axis=1)
    signed = tf.cast(tf.bitcast(high, tf.int8), tf.float32)
    return (signed * 65536 + tf.cast(middle, tf.float32) * 256 + tf.cast(low, tf.float32)) / 2.0**23


@rarely
def _decode_32(raw: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.io.decode_raw(raw, tf.int32), tf.float32) / 2.0**31


@rarely
def _decode_float32(raw: tf.Tensor) -> tf.Tensor:
    return _numbers(tf.io.decode_raw(raw, tf.float32))


@rarely
def _decode_float64(raw: tf.Tensor) -> tf.Tensor:
    return _numbers(tf.cast(tf.io.decode_raw(raw, tf.float64), tf.float32))


def _numbers(samples: tf.Tensor) -> tf.Tensor:
    return require(tf.reduce_all(tf.abs(samples) <= headers.LOUDEST), samples, lambda: headers.NOT_NUMBERS)
