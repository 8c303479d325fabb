"""Decoding in the graph against Pillow, and what it refuses."""

import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

from pipelines.export import session
from pipelines.image.decoding import luma, normalise, read_image, read_images, reason
from pipelines.image.headers import MOST_PIXELS

SIZE = 8
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
COLOUR = Image.fromarray(NOISE[..., :3])
CLEAR = Image.fromarray(NOISE)  # with transparency


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def read_rgb(contents):
    return read_image(contents, SIZE, 3)


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def read_grey(contents):
    return read_image(contents, SIZE, 1)


def encode(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def decode(contents, read=read_rgb):
    return read(tf.constant(contents)).numpy()


def refusal(contents, read=read_rgb):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read(tf.constant(contents))
    return reason(caught.value)


def by_pillow(contents, mode="RGB"):
    array = np.asarray(Image.open(io.BytesIO(contents)).convert(mode))
    return array if mode == "RGB" else array[..., None]


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


def smooth(height, width):
    """A picture without the noise that JPEG is bad at."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) * 3 % 256], -1).astype(np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_lossless_pictures_equal_pillows_bit_for_bit(kind, mode):
    if (kind, mode) == ("BMP", "1"):
        pytest.skip("refused")
    picture = COLOUR.quantize(50) if mode == "P" else COLOUR.convert(mode)
    contents = encode(picture, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(decode(contents), by_pillow(contents))
    np.testing.assert_array_equal(decode(contents, read_grey), by_pillow(contents, "L"))


@pytest.mark.parametrize("width", range(5, 10))  # rows of a BMP are filled up to whole words
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_bmp_of_any_width(width, mode):
    pixels = RNG.integers(0, 256, (width, width, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    contents = encode(Image.fromarray(pixels).convert(mode), "BMP")
    image = read_image(contents + b"trailing bytes", width, 3).numpy()
    np.testing.assert_array_equal(image, by_pillow(contents))


def test_bmp_from_the_top_down():
    contents = bytearray(encode(COLOUR, "BMP"))
    contents[22:26] = struct.pack("<i", -SIZE)
    np.testing.assert_array_equal(decode(bytes(contents)), NOISE[::-1, :, :3])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_within_two_levels_of_pillows(mode, progressive):
    contents = encode(smooth(SIZE, SIZE).convert(mode), "JPEG", progressive=progressive)
    if mode == "CMYK":  # the two convert it to RGB by different formulas
        assert apart(decode(contents), by_pillow(contents)) <= 6
    else:
        assert apart(decode(contents), by_pillow(contents)) <= 2
        assert apart(decode(contents, read_grey), by_pillow(contents, "L")) <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_are_laid_over_white(kind):
    contents = encode(CLEAR, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    white = Image.new("RGBA", CLEAR.size, "white")
    expected = np.asarray(Image.alpha_composite(white, CLEAR).convert("RGB"))
    assert apart(decode(contents), expected) <= 1
    assert (decode(encode(Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 0)), kind)) == 255).all()


def test_transparency_to_the_nearest_level():
    colour, alpha = (part.astype(np.uint8) for part in np.mgrid[:256, :256])
    contents = encode(Image.fromarray(np.stack([colour, colour, colour, alpha], -1)), "PNG")
    exact = (colour * (alpha / 255) + 255 * (1 - alpha / 255)).round().astype(np.uint8)
    np.testing.assert_array_equal(read_image(contents, 256, 3)[..., 0], exact)


def test_transparency_of_a_palette_and_of_grey():
    palette = encode(COLOUR.quantize(4), "PNG", transparency=0)
    white = Image.new("RGBA", CLEAR.size, "white")
    picture = Image.open(io.BytesIO(palette)).convert("RGBA")
    np.testing.assert_array_equal(decode(palette), np.asarray(Image.alpha_composite(white, picture).convert("RGB")))
    grey = CLEAR.convert("LA")
    expected = np.asarray(Image.alpha_composite(white, grey.convert("RGBA")).convert("RGB"))
    assert apart(decode(encode(grey, "PNG")), expected) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_png_of_few_bits(bits, mode):
    """Written by hand, since Pillow writes grey pictures with 8 bits only."""
    values = RNG.integers(0, 2**bits, (SIZE, SIZE))
    rows = [b"\0" + np.packbits((row[:, None] >> np.arange(bits)[::-1]) & 1).tobytes() for row in values]
    chunks = png_chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, bits, 3 if mode == "P" else 0, 0, 0, 0))
    if mode == "P":
        chunks += png_chunk(b"PLTE", NOISE.tobytes()[: 3 * 2**bits].ljust(3 * 2**bits, b"x"))
    contents = (
        b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(decode(contents), by_pillow(contents))


def test_of_16_bits_the_upper_8_are_taken():
    levels = RNG.integers(0, 65536, (SIZE, SIZE), dtype=np.uint16)
    image = decode(encode(Image.fromarray(levels), "PNG"))
    np.testing.assert_array_equal(image, np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, -1))


def test_first_frame_of_an_animated_gif():
    others = [COLOUR.rotate(90 * i).quantize(30) for i in (1, 2, 3)]
    contents = encode(COLOUR.quantize(30), "GIF", save_all=True, append_images=others, comment=b"c" * 600, loop=0)
    assert Image.open(io.BytesIO(contents)).n_frames == 4
    np.testing.assert_array_equal(decode(contents), by_pillow(contents))


def test_later_frames_of_a_gif_are_not_looked_at():
    contents = encode(COLOUR.quantize(30), "GIF", save_all=True, append_images=[COLOUR.rotate(90).quantize(30)])
    np.testing.assert_array_equal(decode(contents[:-100]), by_pillow(contents))


def test_gif_with_a_frame_smaller_than_the_picture_is_black_around_it():
    contents = bytearray(encode(COLOUR.quantize(30), "GIF"))
    contents[6:10] = struct.pack("<HH", 12, 12)
    at = contents.index(b",\0\0\0\0\x08\0\x08\0")
    contents[at + 1 : at + 5] = struct.pack("<HH", 1, 3)
    image = read_image(bytes(contents), 12, 3).numpy()
    np.testing.assert_array_equal(image[3 : 3 + SIZE, 1 : 1 + SIZE], np.asarray(COLOUR.quantize(30).convert("RGB")))
    image[3 : 3 + SIZE, 1 : 1 + SIZE] = 0
    assert not image.any()


@pytest.mark.parametrize("order", ["MM", "II"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, order):
    exif = Image.Exif()
    exif.endian = ">" if order == "MM" else "<"
    exif[0x010F], exif[0x0112], exif[0x0131] = "a maker", orientation, "software"
    for shape in ((SIZE, SIZE), (40, 24)):
        contents = encode(smooth(*shape), "JPEG", exif=exif.tobytes(), quality=95)
        assert order.encode() + (b"\0*" if order == "MM" else b"*\0") in contents
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
        as_it_is = encode(upright, "PNG")
        assert apart(decode(contents), decode(as_it_is)) <= 2
    assert apart(decode(contents), decode(encode(smooth(40, 24), "PNG"))) > 20 or orientation == 1


@pytest.mark.parametrize("damage", ["value", "short", "outside", "order", "no tag"])
def test_damaged_exif_is_as_none(damage):
    body = {
        "value": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
        "short": b"MM\0*\0\0\0\x08\0\x09\x01\x12",
        "outside": b"II*\0\xff\xff\xff\xff",
        "order": b"XX\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
        "no tag": b"MM\0*\0\0\0\x08\0\0",
    }[damage]
    plain = encode(smooth(SIZE, SIZE), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 8 + len(body)) + b"Exif\0\0" + body
    np.testing.assert_array_equal(decode(plain[:2] + segment + plain[2:]), decode(plain))


def test_exif_after_another_segment_and_the_word_elsewhere():
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encode(smooth(SIZE, SIZE), "JPEG", exif=exif.tobytes())
    plain = encode(smooth(SIZE, SIZE), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 8) + b"Exif\0\0xx"
    np.testing.assert_array_equal(decode(turned[:2] + comment + turned[2:]), decode(turned))
    np.testing.assert_array_equal(decode(plain[:2] + comment + plain[2:]), decode(plain))
    assert not np.array_equal(decode(plain), decode(turned))


@pytest.mark.parametrize("shape", [(16, 16), (5, 5), (24, 16), (17, 90), (8, 9), (1, 30)])
def test_the_centre_square_is_resized(shape):
    picture = smooth(*shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    expected = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert apart(decode(encode(picture, "PNG")), expected) <= 1


def test_a_batch_equals_its_pictures():
    contents = [encode(COLOUR, "PNG"), encode(smooth(30, 20), "JPEG"), encode(COLOUR.quantize(9), "GIF")]
    batch = tf.function(lambda c: read_images(c, SIZE, 3))
    for rows in (contents, contents[:1], []):
        images = batch(tf.constant(rows, tf.string, (len(rows),)))
        assert images.shape == (len(rows), SIZE, SIZE, 3) and images.dtype == tf.uint8
        for image, one in zip(images, rows, strict=True):
            np.testing.assert_array_equal(image, decode(one))


def test_only_grey_and_rgb():
    with pytest.raises(ValueError, match="Received: 4"):
        read_image(b"", SIZE, 4)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side):
    """A picture of one colour, (side, side), grey with one bit a pixel."""
    rows = zlib.compress(bytes((1 + side // 8) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_a_small_file_of_a_huge_picture_is_refused_without_unfolding_it(tmp_path):
    contents = png_bomb(20_000)
    assert len(contents) < 60_000
    (tmp_path / "huge.png").write_bytes(contents)
    program = """
import resource, sys
import tensorflow as tf
from pipelines.image.decoding import read_images, reason
read = tf.function(lambda c: read_images(c, 8, 3), input_signature=[tf.TensorSpec((None,), tf.string)])
read.get_concrete_function()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read(tf.constant([open(sys.argv[1], "rb").read()] * 4))
except tf.errors.InvalidArgumentError as error:
    print(reason(error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sep="|")
"""
    found = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "huge.png"], capture_output=True, text=True, check=True
    )
    said, kilobytes = found.stdout.strip().split("|")
    assert said == "a PNG of 20000 x 20000 pixels: takes at most 64 megapixels"
    assert int(kilobytes) < 50_000


def test_the_limit_is_on_pixels():
    side = int(MOST_PIXELS**0.5)
    for width, height, fits in [(side, side, True), (side + 8, side, False), (1, 70_000_000, False)]:
        contents = bytearray(encode(COLOUR, "PNG"))
        contents[16:24] = struct.pack(">II", width, height)
        assert ("takes at most" in refusal(bytes(contents))) != fits


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "VP8", "VP8X", "JPEG"])
def test_the_size_is_read_from_every_kind_of_header(kind):
    huge = {
        "BMP": lambda: (encode(COLOUR, "BMP"), 18, struct.pack("<ii", 30_000, -20_000), "BMP of 30000 x 20000"),
        "GIF": lambda: (encode(COLOUR, "GIF"), 6, struct.pack("<HH", 30_000, 20_000), "GIF of 30000 x 20000"),
        "WEBP": lambda: (
            encode(COLOUR, "WEBP", lossless=True), 21, struct.pack("<I", 12_000 - 1 | 10_000 - 1 << 14),
            "WebP of 12000 x 10000",
        ),
        "VP8": lambda: (encode(COLOUR, "WEBP"), 26, struct.pack("<HH", 12_000, 10_000), "WebP of 12000 x 10000"),
        "VP8X": lambda: (
            encode(CLEAR, "WEBP"), 24, (29_999).to_bytes(3, "little") + (19_999).to_bytes(3, "little"),
            "WebP of 30000 x 20000",
        ),
        "JPEG": lambda: (
            (jpeg := encode(COLOUR, "JPEG")), jpeg.index(b"\xff\xc0") + 5, struct.pack(">HH", 20_000, 30_000),
            "JPEG of 30000 x 20000",
        ),
    }  # fmt: skip
    contents, at, size, said = huge[kind]()
    contents = contents[:at] + size + contents[at + len(size) :]
    assert refusal(contents) == f"a {said} pixels: takes at most 64 megapixels"


def test_a_gif_whose_first_frame_is_larger_than_the_picture():
    contents = bytearray(encode(COLOUR.quantize(4), "GIF"))
    contents[6:10] = struct.pack("<HH", 4, 4)
    assert refusal(bytes(contents)) == "damaged GIF: it has no first frame within its size"


UNKNOWN = "not a JPEG, PNG, BMP, GIF or WebP"
REFUSED = {
    "nothing": (b"", "0 bytes: no picture"),
    "text": (b"A cat, named .png\n", UNKNOWN),
    "one byte": (b"\xff", UNKNOWN),
    "zeros": (bytes(1000), UNKNOWN),
    "RIFF of sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), UNKNOWN),
    "PNG, start": (encode(COLOUR, "PNG")[:8], "damaged PNG: its header gives no size"),
    "PNG, half": (encode(COLOUR, "PNG")[:100], "damaged PNG: it cannot be decoded"),
    "JPEG, start": (encode(COLOUR, "JPEG")[:3], "damaged JPEG: it cannot be decoded"),
    "JPEG, half": (encode(COLOUR, "JPEG")[:-100], "damaged JPEG: it cannot be decoded"),
    "GIF, start": (encode(COLOUR, "GIF")[:10], "damaged GIF: it has no first frame within its size"),
    "GIF, half": (encode(COLOUR, "GIF")[:-40], "damaged GIF: it cannot be decoded"),
    "GIF, ends as an extension begins": (
        b"GIF89a\x08\0\x08\0\0\0\0!",
        "damaged GIF: it has no first frame within its size",
    ),
    "BMP, start": (encode(COLOUR, "BMP")[:10], "damaged BMP: its header gives no size"),
    "BMP, half": (encode(COLOUR, "BMP")[:-1], "damaged BMP: it ends before its last row"),
    "BMP of 1 bit": (
        encode(COLOUR.convert("1"), "BMP"),
        "a BMP that is compressed or has other than 8, 24 or 32 bits a pixel: takes neither",
    ),
    "WebP, start": (encode(COLOUR, "WEBP")[:15], "damaged WebP: its header gives no size"),
    "WebP, half": (encode(COLOUR, "WEBP")[:50], "damaged WebP: it cannot be decoded"),
    "WebP, animated": (
        encode(COLOUR, "WEBP", save_all=True, append_images=[COLOUR.rotate(90)]),
        "an animated WebP: takes still ones",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("read", [read_rgb, read_grey], ids=["rgb", "grey"])
def test_what_is_no_picture_is_refused_in_one_line(name, read):
    contents, said = REFUSED[name]
    assert refusal(contents, read) == said


def test_the_reason_survives_a_data_pipeline_and_a_batch_and_needs_no_graph():
    rows = tf.constant([encode(COLOUR, "PNG"), b"text"])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(tf.data.Dataset.from_tensor_slices(rows).map(read_rgb))
    assert reason(caught.value) == UNKNOWN
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.function(lambda c: read_images(c, SIZE, 3))(rows)
    assert reason(caught.value) == UNKNOWN
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read_image(rows[1], SIZE, 3)
    assert reason(caught.value) == UNKNOWN


WHOLE = [encode(COLOUR, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP")] + [encode(CLEAR, "WEBP")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.data())
def test_damaged_bytes_give_a_picture_or_one_kind_of_error(contents, changes, data):
    damaged = bytearray(contents[: data.draw(st.integers(0, len(contents)))])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    try:
        image = decode(bytes(damaged))
    except tf.errors.InvalidArgumentError as error:
        assert "\n" not in reason(error)
    else:
        assert image.shape == (SIZE, SIZE, 3)


def test_normalise():
    images = RNG.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    expected = (images / 255 - mean) / std
    for given_images in (images, images.astype(np.float32)):
        result = normalise(given_images, mean, std)
        assert result.dtype == tf.float32
        np.testing.assert_allclose(result, expected, atol=2e-6)
    np.testing.assert_array_equal(tf.function(normalise, jit_compile=True)(images, mean, std), result)
    np.testing.assert_allclose(normalise(images, [0.5], [0.5]), images / 127.5 - 1, atol=1e-6)


def test_luma_keeps_every_grey():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, -1)
    np.testing.assert_array_equal(luma(greys)[:, 0], np.arange(256))


def test_tensorflow_serving_takes_every_operation():
    operations = session.registered(pywrap_tf_session, op_def_pb2)
    for channels in (1, 3):
        function = tf.function(lambda c, n=channels: normalise(read_images(c, SIZE, n), (0.5,), (0.2,)))
        graph = function.get_concrete_function(tf.TensorSpec((None,), tf.string)).graph.as_graph_def()
        assert session.refused_operations(graph, operations) == []


def test_a_saved_model_in_a_session_reads_as_training_does(tmp_path):
    """TensorFlow Serving loads it in this way: every kind of picture, bit for bit, and what is none."""
    module = tf.Module()
    module.serve = tf.function(
        lambda image_bytes: {"x": normalise(read_images(image_bytes, SIZE, 3), (0.5,), (0.2,))},
        input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")],
    )
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.serve})
    contents = [*WHOLE, encode(smooth(90, 50), "JPEG"), encode(CLEAR, "PNG"), encode(COLOUR.quantize(9), "BMP")]
    trained_on = tf.data.Dataset.from_tensor_slices(contents).map(read_rgb).batch(len(contents))
    expected = next(iter(trained_on.map(lambda images: normalise(images, (0.5,), (0.2,))))).numpy()
    with tf.Graph().as_default(), tf.compat.v1.Session() as serving:
        loaded = tf.compat.v1.saved_model.load(serving, ["serve"], str(tmp_path))
        signature = loaded.signature_def["serving_default"]
        fetch, feed = signature.outputs["x"].name, signature.inputs["image_bytes"].name
        np.testing.assert_array_equal(serving.run(fetch, {feed: contents}), expected)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            serving.run(fetch, {feed: [contents[0], b"text"]})
        assert reason(caught.value) == UNKNOWN


def test_a_gif_of_nothing_but_extensions_comes_to_an_end():
    contents = b"GIF89a\x10\x00\x10\x00\x00\x00\x00" + b"\x21\xfe\x00" * 1_000_000
    begin = time.perf_counter()
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read_rgb(contents)
    assert "damaged GIF" in reason(caught.value) and time.perf_counter() - begin < 30
