"""Clips against what `read_audio` makes of them one by one, and the plan of batches by its properties."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.audio.clips import batches, bucket_lengths, decode, measure
from pipelines.audio.config import Augmentation
from pipelines.audio.reading import read_audio
from pipelines.batching import Shard
from pipelines.bucketing import batch_count, plan
from pipelines.errors import UserError
from tests.pipelines.audio import wavs

RATE = 8000
COUNTS = (900, 3000, 500, 1700, 1000, 2900, 800, 950, 1600, 700, 990)  # samples
BOUNDARIES = (1000, 2000, 3000)
LABELS = [np.arange(1, 2 + n % 5, dtype=np.int32) for n in range(len(COUNTS))]


@pytest.fixture(scope="module")
def contents():
    return [wavs.by_scipy(wavs.noise(n, seed=n)[:, 0], RATE) for n in COUNTS]


@pytest.fixture(scope="module")
def clips(contents):
    return decode(measure([f"text {n}" for n in COUNTS], contents, source="set"), RATE, None, "fail")


def listed(dataset):
    return list(dataset.as_numpy_iterator())


def made(clips, **options):
    return listed(batches(clips, LABELS, RATE, BOUNDARIES, 2, **options))


def equal(one, other):
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def read():
    """`read_audio`, to 8 kHz."""
    return tf.function(lambda wav: read_audio(wav, RATE), input_signature=[tf.TensorSpec([], tf.string)])


def test_lengths_from_headers_are_those_of_the_samples(read):
    rates = [8000, 11025, 16000, 22050, 44100, 48000]
    counts = [1, 2, 159, 441, 1000, 4409, 4410, 4411]
    given = [(n, rate) for n in counts for rate in rates]
    found = measure(["x"] * len(given), [wavs.plain(n, rate) for n, rate in given])
    assert found.seconds.tolist() == [n / rate for n, rate in given]
    lengths = [read(found.encoded(i)).shape[0] for i in range(len(given))]
    assert found.lengths(RATE).tolist() == lengths == decode(found, RATE, None, "fail").samples.lengths.tolist()
    assert found.lengths(44100).tolist() == [-(-n * 44100 // rate) for n, rate in given]


def test_what_is_decoded_is_what_is_read(clips, contents, read):
    for index, wav in enumerate(contents):
        np.testing.assert_array_equal(clips.audio(index), read(wav))
        np.testing.assert_array_equal(read(clips.encoded(index)), clips.audio(index))
    assert decode(clips, RATE, None, "fail") is clips


def test_decoded_clips_are_brought_to_another_rate(clips):
    assert decode(clips, 2 * RATE, None, "fail").samples.lengths.tolist() == [2 * n for n in COUNTS]


def test_some_of_them(clips, contents):
    some = clips.take(np.array([5, 2]))
    assert some.texts == ("text 2900", "text 500") and some.rows.tolist() == [6, 3] and len(some) == 2
    assert some.name(0) == "set, clip 6"
    np.testing.assert_array_equal(some.audio(1), clips.audio(2))
    assert measure(some.texts, contents[:2]).take(np.array([1])).encoded(0) == contents[1]


def test_files(tmp_path, contents):
    (tmp_path / "a.wav").write_bytes(contents[0])
    found = measure(["a"], files=[str(tmp_path / "a.wav")], source="manifest")
    assert found.name(0) == str(tmp_path / "a.wav") and found.encoded(0) == contents[0]
    (tmp_path / "a.wav").unlink()
    with pytest.raises(UserError, match=r"a\.wav: no such file or directory; mend or remove it"):
        decode(found, RATE, None, "fail")


def test_a_bad_header_is_named_by_its_row(capsys, contents):
    given = [contents[0], b"ID3 and so on", contents[1], wavs.plain(0), wavs.plain(RATE * 40, RATE)]
    texts = list("abcde")
    with pytest.raises(UserError, match="set, row 2: an MP3, not a WAV; mend or remove it, or pass --on-bad-example"):
        measure(texts, given, source="set", most_seconds=30)
    found = measure(texts, given, source="set", most_seconds=30, on_bad_example="skip", bad={9: "no JSON"})
    assert found.texts == ("a", "c") and found.rows.tolist() == [1, 3]
    assert "set: skipped 4 of 6 clips; set, row 2: an MP3" in capsys.readouterr().out
    with pytest.raises(UserError, match="row 1: 40 s long, more than --most-seconds 30"):
        measure("e", given[4:], source="set", most_seconds=30)
    with pytest.raises(UserError, match="set: no good clip among"):
        measure("e", given[4:], source="set", most_seconds=30, on_bad_example="skip")


@pytest.mark.parametrize(
    "sample, said", [(np.nan, "a WAV with samples that are NaN"), (0, "nothing but silence, and yet a transcript")]
)
def test_what_only_samples_tell_is_found_when_decoding(capsys, contents, read, sample, said):
    bad = wavs.by_scipy(np.array([0, sample, 0], np.float32), RATE)
    found = measure(["a", "b", "c"], [contents[0], bad, contents[1]], source="set")
    with pytest.raises(UserError, match=f"set, clip 2: {said}"):
        decode(found, RATE, None, "fail")
    left = decode(found, RATE, None, "skip")
    assert left.texts == ("a", "c") and "skipped 1 of 3 clips; set, clip 2" in capsys.readouterr().out
    np.testing.assert_array_equal(left.audio(1), read(contents[1]))


def test_boundaries_are_tenths_of_seconds_that_hold_all():
    lengths = np.random.default_rng(0).integers(1000, 90_000, 500)
    found = bucket_lengths(lengths, 16000)
    assert len(found) == 4 and list(found) == sorted(found)
    assert lengths.max() <= found[-1] < lengths.max() + 1600 and all(n % 1600 == 0 for n in found)
    assert bucket_lengths(np.array([5]), 11025) == (1103,)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 7), st.randoms())
def test_a_plan_has_each_clip_once_with_others_of_its_bucket(lengths, batch_size, rng):
    lengths, boundaries = np.array(lengths), [10, 20, 30]
    order = np.array(rng.sample(range(len(lengths)), rng.randint(0, len(lengths))), np.int64)
    found = plan(lengths, boundaries, batch_size, order)
    assert sorted(found.indices[found.weights > 0]) == sorted(order)
    limits = np.array([0, *boundaries, 40])
    for clips, weights, bucket in zip(*found, strict=True):
        assert (lengths[clips] > limits[bucket]).all() and (lengths[clips] <= limits[bucket + 1]).all()
        assert set(clips) == set(clips[weights > 0])
    everything = plan(lengths, boundaries, batch_size)
    assert len(everything.buckets) == batch_count(lengths, boundaries, batch_size)


def test_whole_batches_come_when_they_are_whole():
    found = plan(np.array([5, 15, 5, 15, 15, 5]), [10, 20], 2)
    assert found.indices.tolist() == [[0, 2], [1, 3], [5, 5], [4, 4]]
    assert found.weights.tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]] and found.buckets.tolist() == [0, 1, 0, 1]


def test_batches(clips):
    found = made(clips)
    planned = plan(np.array(COUNTS), BOUNDARIES, 2)
    assert len(found) == len(planned.buckets) == batch_count(np.array(COUNTS), BOUNDARIES, 2)
    for batch, indices, weights, bucket in zip(found, *planned, strict=True):
        np.testing.assert_array_equal(batch["weight"], weights)
        assert batch["audio"].shape == (2, BOUNDARIES[bucket]) and batch["audio"].dtype == np.float32
        assert {batch[key].dtype for key in ("audio_length", "labels", "label_length")} == {np.dtype(np.int32)}
        for row, index in enumerate(indices):
            length, size = batch["audio_length"][row], batch["label_length"][row]
            np.testing.assert_array_equal(batch["audio"][row, :length], clips.audio(index))
            assert not batch["audio"][row, length:].any() and length == COUNTS[index]
            np.testing.assert_array_equal(batch["labels"][row, :size], LABELS[index])
            assert not batch["labels"][row, size:].any()
    assert len({(batch["audio"].shape, batch["labels"].shape) for batch in found}) <= 3


def test_shapes_do_not_depend_on_the_order(clips):
    def shapes(seed):
        order = np.random.default_rng(seed).permutation(len(COUNTS))
        return {(batch["audio"].shape, batch["labels"].shape) for batch in made(clips, order=order)}

    assert shapes(0) == shapes(1) == shapes(2)


def test_a_clip_longer_than_all_boundaries_has_a_shape_of_its_own(clips):
    found = listed(batches(clips, LABELS, RATE, (1000, 2000), 2))
    assert sum(batch["weight"].sum() for batch in found) == len(COUNTS)
    assert max(batch["audio"].shape[1] for batch in found) == 3000


def test_shards_are_the_parts_of_every_batch(clips):
    order = np.random.default_rng(0).permutation(len(COUNTS))
    options = {"order": order, "augmentation": Augmentation(speed=0.1, noise=0.5), "seed": 3}
    parts = [made(clips, shard=Shard(index, 2), **options) for index in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)]
    assert equal(joined, made(clips, **options))


def test_changes_depend_on_the_seed_and_the_clip_alone(clips):
    options = {"augmentation": Augmentation(speed=0.2, noise=0.7, gain=6), "seed": 5}

    def by_clip(order, **changed):
        found = made(clips, order=order, **(options | changed))
        planned = plan(np.array(COUNTS), BOUNDARIES, 2, order)
        return {
            int(index): batch["audio"][row, : batch["audio_length"][row]].tobytes()
            for batch, indices in zip(found, planned.indices, strict=True)
            for row, index in enumerate(indices)
        }

    forwards, backwards = by_clip(np.arange(11)), by_clip(np.arange(11)[::-1])
    assert forwards == backwards == by_clip(np.arange(11))
    other = by_clip(np.arange(11), seed=6)
    assert all(forwards[index] != other[index] for index in range(11))


def test_the_slowest_speed_still_fits(clips):
    flat = dataclasses.replace(clips, samples=clips.samples._replace(audio=np.ones_like(clips.samples.audio)))
    sizes = set()
    for seed in range(3):
        for batch in made(flat, augmentation=Augmentation(speed=0.5), seed=seed):
            sizes.add(batch["audio"].shape[1])
            assert (batch["audio_length"] <= batch["audio"].shape[1]).all()
    assert sizes == {2000, 4000, 6000}
