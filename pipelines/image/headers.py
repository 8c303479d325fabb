"""What the bytes of a picture say about themselves, read in the graph before any pixel is decoded.

A picture of 48 kB can unfold to gigabytes, so its size is taken from its header and too large a one is refused
there. What TensorFlow's own decoders do not look at is read here too: how a camera was held (EXIF), where the first
frame of a GIF ends, where the rows of a BMP lie.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipelines.graph import rarely, require

# Pictures beyond it are refused: decoded, one of this size takes 192 MB.
MOST_PIXELS = 64_000_000

NAMES = ("JPEG", "PNG", "BMP", "GIF", "WebP")
JPEG, PNG, BMP, GIF, WEBP = range(5)
# What each begins with; a dot stands for any byte.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8", b"RIFF....WEBP")
_MASK = np.array([[0 if c == ord(".") else 255 for c in start.ljust(12, b".")] for start in _BEGINNINGS], np.uint8)
_MAGIC = np.array([list(start.ljust(12, b".")) for start in _BEGINNINGS], np.uint8) & _MASK
_EMPTY = "0 bytes: no picture"
_UNKNOWN = f"not a {', '.join(NAMES[:-1])} or {NAMES[-1]}"
_ANIMATED_WEBP = "an animated WebP: takes still ones"
_UNREAD_BMP = "a BMP that is compressed or has other than 8, 24 or 32 bits a pixel: takes neither"
_HEAD = 70  # bytes from the start that hold every size, that of a JPEG excepted
# What is looked for beside the size stands near the start: EXIF is among the first segments, of at most 64 kB each.
_METADATA_WITHIN = 1 << 18
_MOST_SEGMENTS = 64
_MOST_EXTENSIONS = 1024  # before the first frame of a GIF: a file of nothing else must come to an end


class Header(NamedTuple):
    """What a picture's header says.

    Args:
        kind: Position in `NAMES`, scalar int32; -1 for something else.
        height: In pixels before any rotation, scalar int64; 0 where the header is damaged.
        width: Likewise.
        readable: False for what this kind of file can hold and is not decoded, scalar bool.
    """

    kind: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    readable: tf.Tensor


def read_header(contents: tf.Tensor) -> Header:
    """Reads the header of a picture, given as a scalar string.

    Raises:
        tf.errors.InvalidArgumentError: when a JPEG's header is damaged; all else is in the result.
    """
    head = tf.io.decode_raw(contents, tf.uint8, fixed_length=_HEAD)  # zeros where it is shorter
    found = tf.reduce_all(tf.bitwise.bitwise_and(head[:12], _MASK) == _MAGIC, axis=1)
    kind = tf.where(tf.reduce_any(found), tf.argmax(found, output_type=tf.int32), -1)
    head = tf.cast(head, tf.int64)
    sizes = [lambda: _jpeg_size(contents), lambda: _png_size(head), lambda: _bmp_size(head), lambda: _gif_size(head)]
    sizes += [lambda: _webp_size(head), lambda: _no_size()]  # the last one also answers for -1
    height, width, readable = tf.switch_case(kind, sizes)
    return Header(kind, height, width, readable)


def checked(contents: tf.Tensor) -> tuple[tf.Tensor, Header]:
    """The bytes, scalar string, that may be decoded, and their header.

    Raises:
        tf.errors.InvalidArgumentError: when they are no picture, a damaged one, or one beyond `MOST_PIXELS`.
    """
    header = read_header(contents)
    fits = (header.height > 0) & (header.width > 0) & (header.height * header.width <= MOST_PIXELS)
    return require(fits & header.readable, contents, lambda: _complaint(contents, header)), header


@rarely
def _complaint(contents: tf.Tensor, header: Header) -> tf.Tensor:
    name = tf.gather(NAMES, tf.maximum(header.kind, 0))
    size = [tf.strings.as_string(header.width), " x ", tf.strings.as_string(header.height)]
    limit = f" pixels: takes at most {MOST_PIXELS // 1_000_000} megapixels"
    too_large = tf.strings.join(["a ", name, " of ", *size, limit])
    without_size = tf.strings.join(["damaged ", name, ": its header gives no size"])
    unreadable = tf.where(header.kind == WEBP, _ANIMATED_WEBP, _UNREAD_BMP)
    unknown = tf.where(tf.strings.length(contents) == 0, _EMPTY, _UNKNOWN)
    complaint = tf.where(header.readable, too_large, unreadable)
    complaint = tf.where((header.height > 0) & (header.width > 0), complaint, without_size)
    return tf.where(header.kind < 0, unknown, complaint)


def number(data: tf.Tensor, at: int | tf.Tensor, length: int, big_endian: bool = False) -> tf.Tensor:
    """The unsigned number in `length` bytes of data (n,) int64; what lies beyond the end counts as zeros."""
    part = data[at : at + length]
    powers = tf.constant([256**i for i in (reversed(range(length)) if big_endian else range(length))], tf.int64)
    return tf.reduce_sum(part * powers[: tf.size(part)])


def _no_size() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return tf.constant(0, tf.int64), tf.constant(0, tf.int64), tf.constant(True)


def _jpeg_size(contents):
    shape = tf.cast(tf.image.extract_jpeg_shape(contents), tf.int64)
    return shape[0], shape[1], tf.constant(True)


@rarely
def _png_size(head):
    return number(head, 20, 4, big_endian=True), number(head, 16, 4, big_endian=True), tf.constant(True)


@rarely
def _gif_size(head):
    return number(head, 8, 2), number(head, 6, 2), tf.constant(True)


@rarely
def _bmp_size(head):
    height = number(head, 22, 4)
    height = tf.where(bmp_is_top_down(head), (1 << 32) - height, height)
    bits, compression = number(head, 28, 2), number(head, 30, 4)
    # Bit fields are fine where they only spell out the usual order of blue, green, red.
    usual = (number(head, 54, 4) == 0xFF0000) & (number(head, 58, 4) == 0xFF00) & (number(head, 62, 4) == 0xFF)
    plain = (compression == 0) | ((compression == 3) & (bits == 32) & usual)
    readable = plain & ((bits == 8) | (bits == 24) | (bits == 32)) & (number(head, 14, 4) >= 40)
    return height, number(head, 18, 4), readable


def bmp_is_top_down(head: tf.Tensor) -> tf.Tensor:
    """Whether the first row of a BMP is the top one, which a negative height says."""
    return number(head, 22, 4) >= 1 << 31


@rarely
def _webp_size(head):
    chunk = number(head, 12, 4)
    animated = number(head, 20, 1) & 2 > 0

    def lossy():
        return number(head, 28, 2) & 0x3FFF, number(head, 26, 2) & 0x3FFF, tf.constant(True)

    def lossless():
        bits = number(head, 21, 4)
        return 1 + (bits // 16384 & 0x3FFF), 1 + (bits & 0x3FFF), tf.constant(True)

    def extended():  # an animated one makes TensorFlow 2.21's decoder write beyond its buffer: it must not get there
        return 1 + number(head, 27, 3), 1 + number(head, 24, 3), ~animated

    known = {b"VP8 ": lossy, b"VP8L": lossless, b"VP8X": extended}
    return tf.case([(chunk == int.from_bytes(k, "little"), size) for k, size in known.items()], default=_no_size)


def may_have_exif(contents: tf.Tensor) -> tf.Tensor:
    """Whether the word is there at all, scalar bool: one operation, much quicker than to walk the segments."""
    return tf.strings.regex_full_match(tf.strings.substr(contents, 0, _METADATA_WITHIN), r"\C*Exif\x00\x00\C*")


@rarely
def exif_orientation(contents: tf.Tensor) -> tf.Tensor:
    """How to turn a JPEG upright: its EXIF orientation, scalar int64 from 1 (as it is) to 8.

    The segments are walked from the start until one holds EXIF; its first directory is searched for tag 0x0112.
    """
    head = tf.strings.substr(contents, 0, _METADATA_WITHIN)
    data = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int64)
    exif = int.from_bytes(b"Exif\0\0", "big")

    def is_exif(at):
        return (number(data, at, 2, True) == 0xFFE1) & (number(data, at + 4, 6, True) == exif)

    def goes_on(at):
        marker = number(data, at, 2, True)
        return (marker >= 0xFFC0) & (marker != 0xFFDA) & ~is_exif(at)  # 0xFFDA: pixels begin

    def next_segment(at):
        return (at + 2 + number(data, at + 2, 2, True),)

    start = tf.constant(2, tf.int64)
    (at,) = tf.while_loop(goes_on, next_segment, (start,), maximum_iterations=_MOST_SEGMENTS)
    tiff = at + 10

    def in_order(big_endian: bool):
        directory = tiff + number(data, tiff + 4, 4, big_endian)
        count = number(data, directory, 2, big_endian)
        entries = data[directory + 2 : directory + 2 + 12 * count]
        entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12))
        high, low = (0, 1) if big_endian else (1, 0)
        values = tf.boolean_mask(entries[:, 8 + high] * 256 + entries[:, 8 + low],
                                 entries[:, high] * 256 + entries[:, low] == 0x0112)  # fmt: skip
        return tf.concat([values, [1]], 0)[0]

    order = tf.where(is_exif(at), number(data, tiff, 2), 0)
    value = tf.case(
        [
            (order == int.from_bytes(b"MM", "little"), lambda: in_order(big_endian=True)),
            (order == int.from_bytes(b"II", "little"), lambda: in_order(big_endian=False)),
        ],
        default=lambda: tf.constant(1, tf.int64),
    )
    return tf.where((value >= 1) & (value <= 8), value, 1)


def has_transparency(contents: tf.Tensor) -> tf.Tensor:
    """Whether a PNG has an alpha channel or names a transparent colour, scalar bool."""
    head = tf.strings.substr(contents, 0, _METADATA_WITHIN)
    colour_type = tf.io.decode_raw(contents, tf.uint8, fixed_length=26)[25]
    return (colour_type & 4 > 0) | tf.strings.regex_full_match(head, r"\C*\x00\x00[\x00\x01]\CtRNS\C*")


@rarely
def first_frame(contents: tf.Tensor, header: Header) -> tuple[tf.Tensor, tf.Tensor]:
    """A GIF's first frame as a GIF of its own, scalar string, and where in the picture it lies.

    TensorFlow's decoder unpacks all frames before it takes the first, each of which may be as large as the picture, and
    it confuses the pixels of a frame that is smaller than the picture.

    Returns:
        The bytes, and how many pixels are above, below, left and right of the frame, ((2,), (2,)) int64.

    Raises:
        tf.errors.InvalidArgumentError: when there is no frame, or it lies outside the picture.
    """
    data = tf.cast(tf.io.decode_raw(contents, tf.uint8), tf.int32)
    last = tf.size(data) - 1
    ends = _chain_ends(data)

    def byte(at):
        return data[tf.minimum(at, last)]

    def table(flags):  # bytes of a table of colours
        return tf.where(flags & 0x80 > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)

    def after_chain(at):
        return ends[tf.minimum(at, last)] + 1

    start = 13 + table(byte(10))
    # Extensions; not beyond the end, where the last byte would be taken for one again and again.
    (at,) = tf.while_loop(
        lambda at: (at < last) & (byte(at) == 0x21),
        lambda at: (after_chain(at + 2),),
        (start,),
        maximum_iterations=_MOST_EXTENSIONS,
    )
    place = tf.cast(data[at : at + 9], tf.int64)
    left, top = number(place, 1, 2), number(place, 3, 2)
    right, bottom = header.width - left - number(place, 5, 2), header.height - top - number(place, 7, 2)
    inside = (byte(at) == 0x2C) & (right >= 0) & (bottom >= 0)
    contents = require(inside, contents, lambda: "damaged GIF: it has no first frame within its size")
    end = after_chain(at + 11 + table(byte(at + 9)))

    def cut(start, end):
        return tf.strings.substr(contents, start, end - start)

    size = cut(at + 5, at + 9)
    frame = [cut(0, 6), size, cut(10, at), b",\0\0\0\0", size, cut(at + 9, end), b";"]
    return tf.strings.join(frame), tf.reshape(tf.stack([top, bottom, left, right]), (2, 2))


def _chain_ends(data: tf.Tensor) -> tf.Tensor:
    """Where the chain of sub-blocks that starts at each byte ends, (n,) int32: at a byte 0, or with the file.

    A sub-block is its length and as many bytes. Each round doubles how many sub-blocks are jumped, so that long
    chains take a dozen rounds and not thousands of steps.
    """
    here = tf.range(tf.size(data))
    jump = tf.where(data == 0, here, tf.minimum(here + 1 + data, tf.size(data) - 1))
    (_, ends) = tf.while_loop(
        lambda before, after: tf.reduce_any(before != after),
        lambda before, after: (after, tf.gather(after, after)),
        (here, jump),
        shape_invariants=(tf.TensorShape([None]), tf.TensorShape([None])),
    )
    return ends
