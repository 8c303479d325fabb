"""The parser of WAVs in the graph against SciPy's, and what it refuses."""

import io
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from pipelines.audio import headers
from pipelines.audio.reading import reason
from pipelines.audio.wav import read_wav
from tests.pipelines.audio import wavs
from tests.pipelines.audio.wavs import chunk, fmt, noise, plain, riff

RNG = np.random.default_rng(0)
FULL_SCALE = {"uint8": 2**7, "int16": 2**15, "int32": 2**31, "float32": 1, "float64": 1}
EIGHT = bytes(range(8))


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def read(contents):
    return read_wav(contents)


def refusal(contents, **options):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        read_wav(contents, **options) if options else read(tf.constant(contents))
    return reason(caught.value)


def by_scipy(contents):
    """Its samples as `read_wav` gives them, in float64, and the rate."""
    rate, samples = wavfile.read(io.BytesIO(contents))
    samples = (samples.astype(np.float64) - 128 * (samples.dtype == np.uint8)) / FULL_SCALE[str(samples.dtype)]
    return (samples if samples.ndim == 1 else samples.mean(1)), rate


def assert_read(contents, expected=None, rate=16000):
    if expected is None:
        expected, rate = by_scipy(contents)
    samples, found = read(tf.constant(contents))
    assert samples.dtype == tf.float32 and found.dtype == tf.int32 and found == rate
    np.testing.assert_allclose(samples, expected, atol=2e-7, rtol=2e-7)


def samples_of(dtype, shape):
    """Noise over the whole range, its ends included."""
    if np.dtype(dtype).kind == "f":
        return np.concatenate([RNG.normal(size=shape), np.full((2, shape[1]), [[-3.0], [1e-30]])]).astype(dtype)
    limits = np.iinfo(dtype)
    ends = np.full((2, shape[1]), [[limits.min], [limits.max]], dtype)
    return np.concatenate([RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True), ends])


@pytest.mark.parametrize("dtype", FULL_SCALE)
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_every_depth_equals_scipys(dtype, channels, rate):
    for count in (1, 37):
        samples = samples_of(dtype, (count, channels))
        assert_read(wavs.by_scipy(samples if channels > 1 else samples[:, 0], rate))


@pytest.mark.parametrize("sample_bytes", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pcm_equals_what_python_wrote(sample_bytes, channels):
    raw = RNG.integers(0, 256, 35 * channels * sample_bytes, np.uint8).tobytes()
    assert_read(wavs.by_wave(raw, 22050, channels, sample_bytes))


def test_24_bits_by_hand():
    levels = [0, 1, -1, 2**23 - 1, -(2**23), 0x123456, -0x123456]
    raw = b"".join(level.to_bytes(3, "little", signed=True) for level in levels)
    samples, _ = read(tf.constant(wavs.by_wave(raw, sample_bytes=3)))
    np.testing.assert_array_equal(samples, np.array(levels) / 2**23)


@pytest.mark.parametrize("encoding, bits", [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_extensible_format_is_the_one_that_it_names(encoding, bits, channels):
    raw = RNG.uniform(-1, 1, 24).astype({64: "f8"}.get(bits, "f4")).tobytes()
    usual = riff(chunk(b"fmt ", fmt(encoding, channels, bits=bits)), chunk(b"data", raw))
    extensible = riff(chunk(b"fmt ", fmt(encoding, channels, bits=bits, extensible=True)), chunk(b"data", raw))
    np.testing.assert_array_equal(read(tf.constant(extensible))[0], read(tf.constant(usual))[0])
    assert_read(extensible)


def test_of_12_bits_in_16_the_upper_ones_count():
    raw = struct.pack("<4h", 0, 16, -16, -(2**15))
    contents = riff(chunk(b"fmt ", fmt(bits=12)), chunk(b"data", raw))
    assert_read(contents, [0, 16 / 2**15, -16 / 2**15, -1])


FORMAT, DATA = chunk(b"fmt ", fmt()), chunk(b"data", noise(5).tobytes())
OTHER, ODD = chunk(b"LIST", b"INFOdata\x04\0\0\0abcd"), chunk(b"note", b"odd")


@pytest.mark.parametrize(
    "chunks",
    [
        (FORMAT, DATA),
        (DATA, FORMAT),
        (OTHER, FORMAT, OTHER, DATA, OTHER),
        (ODD, ODD, FORMAT, ODD, DATA, ODD),
        (OTHER, DATA, ODD, FORMAT),
        (chunk(b"fmt ", fmt() + b"\0\0"), DATA),
        (chunk(b"fmt ", fmt() + bytes(40)), DATA),
        (FORMAT, DATA, chunk(b"data", bytes(8)), chunk(b"fmt ", fmt(rate=8000))),
        (*[chunk(b"junk", b"")] * 900, FORMAT, DATA),
    ],
)
def test_chunks_in_any_order_and_odd_ones(chunks):
    assert_read(riff(*chunks), noise(5)[:, 0] / 2**15)


def test_an_odd_number_of_8_bit_samples():
    assert_read(riff(chunk(b"fmt ", fmt(bits=8)), chunk(b"data", b"\x80\0\xff"), OTHER), [0, -1, 127 / 128])


@pytest.mark.parametrize("sizes", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (36, 0), (0x80000024, 0x7FFFFFFF), (None, 400)])
def test_a_stream_has_what_is_there(sizes):
    """Sizes that were not known, or are larger than what came; whole frames of it."""
    riff_size, data_size = sizes
    contents = riff(FORMAT, chunk(b"data", noise(5).tobytes(), size=data_size), size=riff_size)
    assert_read(contents, noise(5)[:, 0] / 2**15)
    assert_read(contents + b"\x01", noise(5)[:, 0] / 2**15)


def test_a_size_of_0_in_a_file_that_is_as_long_as_it_says_means_no_samples():
    assert refusal(riff(FORMAT, chunk(b"data", b""), OTHER)) == "a WAV of 0 samples"


def encoded(number, **options):
    return riff(chunk(b"fmt ", fmt(number, **options)), chunk(b"data", EIGHT))


CUT_OFF = "damaged WAV: its header is cut off"
CONTRADICTION = "damaged WAV: its header contradicts itself"
NOT_NUMBERS = "a WAV with samples that are NaN, infinite or above 2^31"
ENDLESS = riff(*[chunk(b"junk", b"")] * 2000, FORMAT, DATA)
REFUSED = {
    "nothing": (b"", "0 bytes: no audio"),
    "text": (b"A cat, named .wav\n", "text, not a WAV"),
    "UTF-8": ("Füße\r\n".encode(), "text, not a WAV"),
    "a page": (b"<!DOCTYPE html>" + b" " * 100 + b"\0", "text, not a WAV"),
    "zeros": (bytes(1000), "not a WAV"),
    "MP3 with a title": (b"ID3\x03\0" + bytes(100), "an MP3, not a WAV"),
    "MP3": (b"\xff\xfb\x90\x64" + bytes(100), "an MP3, not a WAV"),
    "Ogg": (b"OggS\0\x02" + bytes(100), "an Ogg, not a WAV"),
    "FLAC": (b"fLaC\0\0\0\x22" + bytes(100), "a FLAC, not a WAV"),
    "M4A": (b"\0\0\0\x20ftypM4A " + bytes(100), "an M4A or MP4, not a WAV"),
    "AIFF": (b"FORM\0\0\0\x20AIFFCOMM" + bytes(100), "an AIFF, not a WAV"),
    "WebM": (b"\x1aE\xdf\xa3" + bytes(100), "a WebM or Matroska, not a WAV"),
    "RIFF of a picture": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(40), "a WebP picture, not a WAV"),
    "RIFF of something": (b"RIFF\x24\0\0\0ABCD" + bytes(40), "not a WAV"),
    "RIFX": (b"RIFX" + plain()[4:], "a big-endian RIFX, not a WAV"),
    "RF64": (b"RF64" + plain()[4:], "an RF64 of more than 4 GB, not a WAV"),
    "4 bytes": (plain()[:4], CUT_OFF),
    "11 bytes": (plain()[:11], CUT_OFF),
    "12 bytes": (plain()[:12], CUT_OFF),
    "within the format": (plain()[:30], CUT_OFF),
    "before the samples' size": (plain()[:42], CUT_OFF),
    "format at the end, cut off": (riff(DATA, FORMAT)[:-1], CUT_OFF),
    "a format chunk of 14 bytes": (riff(chunk(b"fmt ", fmt()[:14]), DATA), CUT_OFF),
    "no format": (riff(DATA), CUT_OFF),
    "no samples' chunk": (riff(FORMAT), CUT_OFF),
    "too many chunks": (ENDLESS, CUT_OFF),
    "no samples": (plain()[:44], "a WAV of 0 samples"),
    "half a frame": (riff(FORMAT, chunk(b"data", b"\0")), "a WAV of 0 samples"),
    "A-law": (encoded(6, bits=8), "a WAV of A-law: takes PCM and float"),
    "mu-law": (encoded(7, bits=8), "a WAV of mu-law: takes PCM and float"),
    "ADPCM": (encoded(2, bits=4), "a WAV of Microsoft ADPCM: takes PCM and float"),
    "IMA ADPCM": (encoded(0x11, bits=4), "a WAV of IMA ADPCM: takes PCM and float"),
    "MP3 in a WAV": (encoded(0x55), "a WAV of MP3: takes PCM and float"),
    "A-law, extensible": (encoded(6, bits=8, extensible=True), "a WAV of A-law: takes PCM and float"),
    "another encoding": (encoded(1234), "a WAV of encoding 1234: takes PCM and float"),
    "another GUID": (encoded(1, extensible=True, guid=bytes(14)), "a WAV of encoding 65534: takes PCM and float"),
    "64 bit PCM": (encoded(1, bits=64), "a WAV of 64 bit PCM: takes 8, 16, 24 and 32 bit"),
    "0 bit PCM": (encoded(1, bits=0), "a WAV of 0 bit PCM: takes 8, 16, 24 and 32 bit"),
    "16 bit float": (encoded(3, bits=16), "a WAV of 16 bit float: takes 32 and 64 bit"),
    "0 Hz": (encoded(1, rate=0), "a WAV of 0 Hz: takes 1000 to 768000 Hz"),
    "1 Hz": (encoded(1, rate=1), "a WAV of 1 Hz: takes 1000 to 768000 Hz"),
    "4 GHz": (encoded(1, rate=2**32 - 1), "a WAV of 4294967295 Hz: takes 1000 to 768000 Hz"),
    "no channels": (encoded(1, channels=0), "a WAV of 0 channels: takes 1 to 256"),
    "65535 channels": (encoded(1, channels=65535, frame_bytes=0), "a WAV of 65535 channels: takes 1 to 256"),
    "frames of 0 bytes": (encoded(1, frame_bytes=0), CONTRADICTION),
    "frames of 3 bytes": (encoded(1, frame_bytes=3), CONTRADICTION),
    "NaN": (wavs.by_scipy(np.array([0, np.nan], "f4")), NOT_NUMBERS),
    "infinite": (wavs.by_scipy(np.array([0, -np.inf], "f8")), NOT_NUMBERS),
    "beyond float32": (wavs.by_scipy(np.array([0, 1e300], "f8")), NOT_NUMBERS),
    "NaN in one channel": (wavs.by_scipy(np.array([[0, 0], [0, np.nan]], "f4")), NOT_NUMBERS),
    "601 s": (wavs.by_scipy(np.zeros(600_001, "u1"), 1000), "a WAV of 601 s: takes at most 600 s"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_taken_is_refused_in_one_line(name):
    contents, said = REFUSED[name]
    assert refusal(contents) == said


def test_the_limit_is_on_seconds():
    contents = plain(16000)
    assert read_wav(contents, most_seconds=1)[0].shape == (16000,)
    stereo = riff(chunk(b"fmt ", fmt(channels=2)), chunk(b"data", bytes(4 * 16000 + 3)))  # and not quite another frame
    assert read_wav(stereo, most_seconds=1)[0].shape == (16000,)
    assert refusal(plain(16001), most_seconds=1) == "a WAV of 2 s: takes at most 1 s"
    assert refusal(contents, most_seconds=0.25) == "a WAV of 1 s: takes at most 0.25 s"
    assert read_wav(wavs.by_scipy(np.zeros(700_000, "u1"), 1000), None)[0].shape == (700_000,)


def test_a_long_one_is_refused_without_unfolding_it():
    """An hour of 8 bits would become four times as many bytes."""
    program = """
import resource
import tensorflow as tf
from pipelines.audio.reading import reason
from pipelines.audio.wav import read_wav
from tests.pipelines.audio.wavs import chunk, fmt, riff
read = tf.function(lambda c: read_wav(c, 30), input_signature=[tf.TensorSpec((), tf.string)])
read.get_concrete_function()
contents = tf.constant(riff(chunk(b"fmt ", fmt(bits=8)), chunk(b"data", bytes(3600 * 16000))))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read(contents)
except tf.errors.InvalidArgumentError as error:
    print(reason(error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sep="|")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, kilobytes = found.stdout.strip().split("|")
    assert said == "a WAV of 3600 s: takes at most 30 s"
    assert int(kilobytes) < 40_000


def test_a_file_of_nothing_but_chunks_comes_to_an_end():
    contents = tf.constant(riff(bytes(64_000_000)))  # 8 million empty ones
    start = time.perf_counter()
    with pytest.raises(tf.errors.InvalidArgumentError):
        read(contents)
    assert time.perf_counter() - start < 5


WHOLE = [
    plain(), riff(OTHER, DATA, ODD, FORMAT), wavs.by_scipy(noise(20, 2)), wavs.by_scipy(RNG.normal(size=20)),
    wavs.by_wave(bytes(range(90)), 8000, 2, 3), encoded(3, bits=32, extensible=True), encoded(6, bits=8),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4), st.data())
def test_damaged_bytes_give_samples_or_one_kind_of_error(contents, changes, data):
    damaged = bytearray(contents[: data.draw(st.integers(0, len(contents)))])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    try:
        samples, rate = read(tf.constant(bytes(damaged)))
    except tf.errors.InvalidArgumentError as error:
        said = reason(error)
        assert "\n" not in said and "WAV" in said or said == "0 bytes: no audio"
    else:
        assert 0 < len(samples) <= len(damaged) and np.isfinite(samples).all()
        assert headers.LEAST_RATE <= rate <= headers.MOST_RATE


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120), st.booleans(), st.data())
def test_any_bytes_give_samples_or_one_kind_of_error(contents, with_format, data):
    if with_format:
        numbers = st.integers(0, 2**16 - 1)
        words = struct.pack("<8H", data.draw(st.sampled_from([1, 3, 0xFFFE])), *(data.draw(numbers) for _ in range(7)))
        contents = riff(chunk(b"fmt ", words + contents[:30]), b"data" + contents)
    try:
        samples, _ = read(tf.constant(contents))
    except tf.errors.InvalidArgumentError as error:
        assert "\n" not in reason(error)
    else:
        assert np.isfinite(samples).all()
