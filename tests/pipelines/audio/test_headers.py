"""The reader of headers against the parser in the graph, and parts of long recordings."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.audio import headers
from pipelines.audio.headers import parts, read_header
from pipelines.audio.reading import read_audio, reason
from pipelines.audio.wav import read_wav
from tests.pipelines.audio import wavs
from tests.pipelines.audio.test_wav import NOT_NUMBERS, REFUSED, WHOLE
from tests.pipelines.audio.wavs import chunk, fmt, noise, riff


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def read(contents):
    return read_wav(contents, most_seconds=5)


def assert_agrees(contents):
    """The same length and rate, or the same complaint, as in the graph."""
    try:
        samples, rate = read(tf.constant(contents))
    except tf.errors.InvalidArgumentError as error:
        if reason(error) == NOT_NUMBERS:  # which no header tells
            read_header(io.BytesIO(contents), most_seconds=5)
            return
        with pytest.raises(ValueError) as caught:
            read_header(io.BytesIO(contents), most_seconds=5)
        assert str(caught.value) == reason(error)
    else:
        header = read_header(io.BytesIO(contents), most_seconds=5)
        assert (header.frames, header.rate) == (len(samples), rate)


def test_seconds_rate_and_channels():
    header = read_header(io.BytesIO(wavs.by_scipy(noise(11025, 2), 22050)))
    assert (header.seconds, header.rate, header.channels, header.bits) == (0.5, 22050, 2, 16)


@pytest.mark.parametrize("contents", [*WHOLE, *(contents for contents, _ in REFUSED.values())])
def test_agrees_with_the_graph(contents):
    assert_agrees(contents)


@settings(max_examples=60)
@given(
    count=st.integers(0, 40),
    channels=st.integers(1, 3),
    rate=st.integers(900, 96_000),
    dtype=st.sampled_from(["u1", "i2", "i4", "f4", "f8"]),
)
def test_agrees_on_what_scipy_writes(count, channels, rate, dtype):
    samples = np.random.default_rng(count).integers(0, 100, (count, channels)).astype(dtype)
    assert_agrees(wavs.by_scipy(samples, rate))


@settings(max_examples=30)
@given(raw=st.binary(max_size=60), channels=st.integers(1, 3), sample_bytes=st.integers(1, 4))
def test_agrees_on_what_python_writes(raw, channels, sample_bytes):
    whole = len(raw) // (channels * sample_bytes) * channels * sample_bytes
    assert_agrees(wavs.by_wave(raw[:whole], 8000, channels, sample_bytes))


@settings(max_examples=200)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=4), st.data())
def test_agrees_on_damaged_bytes(contents, changes, data):
    damaged = bytearray(contents[: data.draw(st.integers(0, len(contents)))])
    for at, value in changes:
        if at < len(damaged):
            damaged[at] = value
    assert_agrees(bytes(damaged))


CHUNKS = st.lists(
    st.tuples(
        st.sampled_from([b"fmt ", b"data", b"LIST"]),
        st.sampled_from([fmt(), fmt(3, bits=32), fmt(extensible=True), fmt()[:14], b"", b"odd", bytes(24)]),
        st.sampled_from([None, None, 0, 1, 17, 0xFFFFFFFF]),
    ),
    max_size=5,
)


@settings(max_examples=150)
@given(CHUNKS, st.sampled_from([None, 0, 36, 0xFFFFFFFF]), st.integers(0, 3))
def test_agrees_on_any_chunks(chunks, size, cut):
    contents = riff(*(chunk(*c) for c in chunks), size=size)
    assert_agrees(contents[: len(contents) - cut])


def test_no_more_than_the_header_is_read():
    class Counting(io.BytesIO):
        bytes_read = 0

        def read(self, size=-1):
            found = super().read(size)
            self.bytes_read += len(found)
            return found

    file = Counting(riff(chunk(b"LIST", bytes(10_000)), chunk(b"data", bytes(10_000)), chunk(b"fmt ", fmt())))
    assert read_header(file).frames == 5000
    assert file.bytes_read < 200


@pytest.mark.parametrize("contents", [WHOLE[1], WHOLE[4], wavs.by_scipy(noise(900, 2), 8000)], ids=len)
@pytest.mark.parametrize("seconds, overlap", [(0.01, 0), (0.01, 0.004), (100, 2), (0.0001, 0)])
def test_parts_are_wavs_and_joined_are_the_whole(contents, seconds, overlap):
    whole, rate = (x.numpy() for x in read(tf.constant(contents)))
    end = 0
    for start, part in parts(io.BytesIO(contents), seconds, overlap):
        samples, part_rate = (x.numpy() for x in read(tf.constant(part)))
        first = round(start * rate)
        np.testing.assert_array_equal(samples, whole[first : first + len(samples)])
        assert part_rate == rate and len(samples) <= max(round(seconds * rate), 1)
        assert end == 0 or first == end - round(overlap * rate)
        assert first + len(samples) > end  # each has something new
        end = first + len(samples)
    assert end == len(whole)


def test_parts_at_another_rate_join_too():
    """But for the 32 samples at their edges that see the silence outside."""
    contents = wavs.by_scipy(noise(44100)[:, 0], 11025)
    whole = read_audio(contents, 16000).numpy()
    for start, part in parts(io.BytesIO(contents), 2, 1):
        samples = read_audio(part, 16000).numpy()
        first = int(start * 16000)
        inner = slice(50 * (start > 0), -50 if first + len(samples) < len(whole) else None)
        np.testing.assert_allclose(samples[inner], whole[first : first + len(samples)][inner], atol=1e-6)


def test_parts_of_what_is_no_wav():
    with pytest.raises(ValueError, match="0 bytes: no audio"):
        next(parts(io.BytesIO(b""), 1))
    with pytest.raises(ValueError, match="A-law"):
        next(parts(io.BytesIO(REFUSED["A-law"][0]), 1))


def test_an_hour_is_read_in_parts_of_bounded_size(tmp_path):
    path = tmp_path / "hour.wav"
    with path.open("wb") as file:  # a hole: the samples take no space on disk
        file.write(riff(chunk(b"fmt ", fmt()), b"data" + struct.pack("<I", 2 * 16000 * 3600))[:44])
        file.truncate(44 + 2 * 16000 * 3600)
    with path.open("rb") as file:
        assert read_header(file).seconds == 3600
        sizes = [(start, len(contents)) for start, contents in parts(file, 30, 2)]
    assert max(size for _, size in sizes) == 44 + 2 * 16000 * 30
    assert [start for start, _ in sizes] == list(range(0, 3600 - 30 + 28, 28))
    with pytest.raises(ValueError, match="a WAV of 3600 s: takes at most 600 s"), path.open("rb") as file:
        read_header(file, headers.MOST_SECONDS)
