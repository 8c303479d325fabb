"""From the bytes of a picture to the tensor that a model takes: one function for training and for the SavedModel.

    pictures = read_images(contents, size=32, channels=3)            # (B,) string -> (B, 32, 32, 3) uint8
    model_input = normalise(pictures, mean=(0.5,), std=(0.25,))      # float32

What a file is, its bytes say, not its name:

| bytes | what becomes of them |
|---|---|
| JPEG | turned upright as its EXIF orientation says; CMYK is converted |
| PNG | grey, palette, RGB; transparent pixels over white; of 16 bits the upper 8; of an animation the still picture |
| BMP | 8 (palette), 24 or 32 bits a pixel, not compressed; a fourth channel is ignored |
| GIF | the first frame, without transparency; black where it does not cover the picture |
| WebP | still ones; transparent pixels over white |

The centre square, as wide as the shorter side, is resized (bilinear, antialiased) where it is not of the wanted size:
proportions are kept, and of a wide picture the left and right edges are lost. A square picture of the wanted size
passes through bit for bit.
"""

import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.graph import rarely, refusal, require
from pipelines.image import headers
from pipelines.image.headers import Header

# Pictures of a request that are decoded at a time: each may take MOST_PIXELS * 3 bytes, and more with transparency.
PARALLEL = 4
# Luma of ITU-R BT.601 in 1/65536; they add up to one, so that grey stays the same grey.
_LUMA = (19595, 38470, 7471)


# Left as it is by AutoGraph, which has nothing to convert here and would take four times as long as the tracing.
@tf.autograph.experimental.do_not_convert
def read_image(contents: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """Decodes one picture.

    Args:
        contents: The bytes of a file, scalar string.
        size: Height and width of the result in pixels.
        channels: 1 for grey (colour becomes its BT.601 luma), 3 for RGB (grey is repeated).

    Returns:
        (size, size, channels) uint8.

    Raises:
        tf.errors.InvalidArgumentError: when the bytes are no picture, a damaged one, or one of more than
            `headers.MOST_PIXELS`, which is refused before it is decoded. `reason` makes a line of it.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is 1 or 3. Received: {channels}")
    contents, header = headers.checked(contents)
    decoders = [_decode_jpeg, _decode_png, _decode_bmp, _decode_gif, _decode_webp]  # in the order of headers.NAMES
    image = tf.switch_case(header.kind, [lambda decode=d: decode(contents, header) for d in decoders])
    fits = tf.reduce_all(tf.shape(image)[:2] == size)
    image = tf.cond(fits, lambda: tf.identity(image), lambda: _resized(image, size))
    # Turned when it is small: a centre square stays one. Most pictures have no EXIF, and then no more is done.
    has_exif = (header.kind == headers.JPEG) & headers.may_have_exif(contents)
    image = tf.cond(has_exif, lambda: _upright(image, headers.exif_orientation(contents)), lambda: tf.identity(image))
    if channels == 1:
        image = luma(image)
    return tf.ensure_shape(image, (size, size, channels))


@tf.autograph.experimental.do_not_convert
def read_images(contents: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """Decodes a batch of pictures, (B,) string, as `read_image` does. Returns (B, size, size, channels) uint8."""
    return tf.map_fn(
        lambda one: read_image(one, size, channels),
        contents,
        fn_output_signature=tf.TensorSpec((size, size, channels), tf.uint8),
        parallel_iterations=PARALLEL,
    )


def normalise(images: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """(images / 255 - mean) / std, as float32.

    Args:
        images: Values from 0 to 255, uint8 or float, (..., channels).
        mean: Mean of the training pictures on a scale from 0 to 1, for each channel or one for all.
        std: Standard deviation likewise.
    """
    # One subtraction and one product of constants: no compiler has a reason to reorder them, so that training and the
    # SavedModel agree to the last bit.
    shift = (255 * np.asarray(mean, np.float64)).astype(np.float32)
    scale = (1 / (255 * np.asarray(std, np.float64))).astype(np.float32)
    return (tf.cast(images, tf.float32) - shift) * scale


def luma(images: tf.Tensor) -> tf.Tensor:
    """The brightness of RGB pictures by ITU-R BT.601: (..., 3) uint8 -> (..., 1) uint8.

    Of TensorFlow's own `rgb_to_grayscale` the weights add up to 0.9999: white would become 254.
    """
    weighted = tf.reduce_sum(tf.cast(images, tf.int32) * _LUMA, axis=-1, keepdims=True)
    return tf.cast((weighted + 32768) // 65536, tf.uint8)


def reason(error: tf.errors.OpError) -> str:
    """What `read_image` found wrong, in a few words and without TensorFlow's names of nodes."""
    if said := refusal(error.message):
        return said
    if kind := re.search("|".join(headers.NAMES), error.message, re.IGNORECASE):
        name = next(name for name in headers.NAMES if name.lower() == kind[0].lower())
        return f"damaged {name}: it cannot be decoded"
    return " ".join(error.message.split())


# Each of these returns an RGB picture, (height, width, 3) uint8; of one with transparency only the centre square.


def _decode_jpeg(contents: tf.Tensor, header: Header) -> tf.Tensor:
    return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")


@rarely
def _decode_png(contents: tf.Tensor, header: Header) -> tf.Tensor:
    # Four channels are asked for only where there are four: else, of pictures with 1, 2 or 4 bits a pixel, the fourth
    # would not be 255.
    return tf.cond(
        headers.has_transparency(contents),
        lambda: _over_white(_centre(tf.io.decode_png(contents, channels=4))),
        lambda: tf.io.decode_png(contents, channels=3),
    )


@rarely
def _decode_webp(contents: tf.Tensor, header: Header) -> tf.Tensor:
    image = tf.io.decode_image(contents, expand_animations=False)  # 3 or 4 channels, as they are in the file
    return tf.cond(tf.shape(image)[-1] == 4, lambda: _over_white(_centre(image)), lambda: image[..., :3])


@rarely
def _decode_gif(contents: tf.Tensor, header: Header) -> tf.Tensor:
    frame, margins = headers.first_frame(contents, header)
    image = tf.io.decode_image(frame, channels=3, expand_animations=False)
    return tf.pad(image, tf.concat([margins, [[0, 0]]], 0))


@rarely
def _decode_bmp(contents: tf.Tensor, header: Header) -> tf.Tensor:
    """By hand: TensorFlow's decoder takes positions in the palette for grey levels."""
    data = tf.io.decode_raw(contents, tf.uint8)
    head = tf.cast(data[:54], tf.int64)
    start, bytes_per_pixel = headers.number(head, 10, 4), headers.number(head, 28, 2) // 8
    row = (header.width * bytes_per_pixel + 3) // 4 * 4  # rows are filled up to whole words
    end = start + row * header.height
    whole = tf.size(data, tf.int64) >= end
    data = require(whole, data, lambda: "damaged BMP: it ends before its last row")
    rows = tf.reshape(data[start:end], (header.height, row))[:, : header.width * bytes_per_pixel]
    rows = tf.cond(headers.bmp_is_top_down(head), lambda: rows, lambda: rows[::-1])

    def look_up():
        palette = data[14 + headers.number(head, 14, 4) : start][: 256 * 4]
        palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], (-1, 4))
        palette = tf.pad(palette, ((0, 256 - tf.shape(palette)[0]), (0, 0)))  # a table may be shorter
        return tf.gather(palette, tf.cast(rows, tf.int32))

    def direct():
        return tf.reshape(rows, (header.height, header.width, bytes_per_pixel))

    image = tf.cond(bytes_per_pixel == 1, look_up, direct)
    return image[..., 2::-1]  # blue comes first


def _centre(image: tf.Tensor) -> tf.Tensor:
    """The centre square of (height, width, channels)."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


@rarely
def _resized(image: tf.Tensor, size: int) -> tf.Tensor:
    """The centre square of an RGB picture, (size, size, 3) uint8."""
    levels = tf.image.resize(_centre(image), (size, size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(levels), 0, 255), tf.uint8)


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """Lays (height, width, 4) uint8 over white. Returns (height, width, 3) uint8."""
    colour, alpha = image[..., :3], image[..., 3:]

    def blended():
        # colour * a + white * (1 - a), to the nearest level; x / 255 is done in 16 bits, for large pictures' sake.
        opacity = tf.cast(alpha, tf.uint16)
        x = tf.cast(colour, tf.uint16) * opacity + 255 * (255 - opacity) + 128
        shift = tf.constant(8, tf.uint16)
        return tf.cast(tf.bitwise.right_shift(x + tf.bitwise.right_shift(x, shift), shift), tf.uint8)

    return tf.cond(tf.reduce_all(alpha == 255), lambda: tf.identity(colour), blended)


@rarely
def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a square picture as EXIF says: 2-4 mirror it, 5-8 swap rows and columns and then mirror."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: tf.identity(image))
    for axis, orientations in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        mirrored = tf.reduce_any(orientation == orientations)
        image = tf.cond(mirrored, lambda x=image, i=axis: tf.reverse(x, [i]), lambda x=image: tf.identity(x))
    return image
