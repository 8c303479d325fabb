"""Transcribed recordings, and how they become batches of few static shapes."""

import dataclasses
import functools
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from pipelines.audio.augmentation import augment
from pipelines.audio.config import Augmentation
from pipelines.audio.headers import read_header
from pipelines.audio.reading import read_audio, reason
from pipelines.audio.writing import write_wav
from pipelines.batching import WHOLE, Shard, bucket_boundaries
from pipelines.bucketing import covering, plan
from pipelines.examples import report


class Samples(NamedTuple):
    """Decoded clips, one after the other.

    Args:
        audio: (n,) float32, all samples.
        starts: (N,) int64, where in `audio` each clip begins.
        lengths: (N,) int64, how many samples it has.
        rate: samples a second.
    """

    audio: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    rate: int


@dataclasses.dataclass(frozen=True)
class Clips:
    """Transcribed recordings: WAVs in memory or in files, decoded or not yet.

    Args:
        texts: the transcript of each, as given.
        seconds: (N,) float64, the length of each.
        contents: N WAVs, or None.
        files: N paths of WAVs, or None.
        samples: the decoded ones, or None.
        source: file or set that they are from, for errors.
        rows: (N,) the number in the source of each, from 1 on; None: as they come.
    """

    texts: tuple[str, ...]
    seconds: np.ndarray
    contents: Sequence[bytes] | None = None
    files: Sequence[str] | None = None
    samples: Samples | None = None
    source: str = ""
    rows: np.ndarray | None = None

    def __len__(self):
        return len(self.texts)

    def name(self, index: int) -> str:
        """What to call a clip in errors and titles."""
        row = index + 1 if self.rows is None else self.rows[index]
        return self.files[index] if self.files is not None else f"{self.source}, clip {row}"

    def audio(self, index: int) -> np.ndarray:
        """The samples of a decoded clip, (n,) float32."""
        start = self.samples.starts[index]
        return self.samples.audio[start : start + self.samples.lengths[index]]

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All samples, and where in them each clip begins and how long it is: copied once and not in each epoch."""
        with tf.device("CPU:0"):
            return tuple(tf.constant(found) for found in self.samples[:3])

    def encoded(self, index: int) -> bytes:
        """The bytes of a clip: those it has, or a WAV of its samples, float32, that loses nothing."""
        if self.files is not None:
            return Path(self.files[index]).read_bytes()
        return self.contents[index] if self.contents is not None else write_wav(self.audio(index), self.samples.rate)

    def lengths(self, sample_rate: int) -> np.ndarray:
        """(N,) int64, how many samples `read_audio` makes of each clip."""
        if self.samples is not None and self.samples.rate == sample_rate:
            return self.samples.lengths
        # Seconds are whole samples of one rate or another, so what rounding did to them is far below the margin.
        return np.ceil(self.seconds * sample_rate - 1e-7).astype(np.int64)

    def take(self, indices: np.ndarray) -> "Clips":
        """Some of the clips, in the order of `indices`."""
        rows = np.arange(1, len(self) + 1) if self.rows is None else self.rows

        def chosen(items):
            return None if items is None else [items[i] for i in indices]

        samples = self.samples
        if samples is not None:
            samples = samples._replace(starts=samples.starts[indices], lengths=samples.lengths[indices])
        return dataclasses.replace(
            self,
            texts=tuple(self.texts[i] for i in indices),
            seconds=self.seconds[indices],
            contents=chosen(self.contents),
            files=chosen(self.files),
            samples=samples,
            rows=rows[indices],
        )


def measure(
    texts: Sequence[str],
    contents: Sequence[bytes] | None = None,
    files: Sequence[str] | None = None,
    source: str = "",
    rows: Sequence[int] | None = None,
    most_seconds: float | None = None,
    on_bad_example: str = "fail",
    bad: Mapping[int, str] | None = None,
) -> Clips:
    """Clips of which only the headers have been read: how long each is, and which are none.

    Args:
        texts: the transcript of each.
        contents: WAVs; or
        files: paths of WAVs.
        source: file or set that they are from.
        rows: the number in the source of each; by default 1 to N.
        most_seconds: longer ones are bad; None: any length is taken.
        on_bad_example: fail, or skip.
        bad: what is wrong with other rows of the source, found before.

    Raises:
        UserError: a bad clip that is not to be skipped, named by its row, or none that is good.
    """
    rows = np.arange(1, len(texts) + 1) if rows is None else np.asarray(rows, np.int64)
    bad = dict(bad or {})
    seconds = np.zeros(len(texts))
    for index, row in enumerate(rows):
        where = "" if files is None else f"{files[index]}: "
        try:
            with io.BytesIO(contents[index]) if files is None else open(files[index], "rb") as file:
                seconds[index] = read_header(file).seconds
        except ValueError as error:
            bad[row] = f"{where}{error}"
        except OSError as error:
            bad[row] = f"{where}{error.strerror.lower()}"
        if most_seconds is not None and seconds[index] > most_seconds:
            bad[row] = f"{where}{seconds[index]:.0f} s long, more than --most-seconds {most_seconds:g}"
    good = np.flatnonzero(~np.isin(rows, list(bad)))
    in_order = dict(sorted(bad.items()))
    report(source, in_order, len(bad) + good.size, on_bad_example, "clip", lambda row: f"{source}, row {row}")
    return Clips(tuple(texts), seconds, contents, files, source=source, rows=rows).take(good)


def decode(clips: Clips, sample_rate: int, most_seconds: float | None, on_bad_example: str, show: bool = True) -> Clips:
    """Reads every clip once, so that a bad one is known by name before anything is spent on the others.

    Silence is bad here, where it has a transcript to be learnt; to be transcribed it is a recording like others.

    Args:
        clips: any.
        sample_rate: that they are brought to, in Hz.
        most_seconds: longer ones are bad; None: any length is taken.
        on_bad_example: fail, or skip.
        show: print a progress bar.

    Returns:
        The good ones with their samples, which take 4 bytes each: an hour at 16 kHz is 230 MB.

    Raises:
        UserError: a bad clip that is not to be skipped, or none that is good.
    """
    if clips.samples is not None and clips.samples.rate == sample_rate:
        return clips
    lengths = clips.lengths(sample_rate)
    ends = np.cumsum(lengths)
    audio = np.zeros(ends[-1], np.float32)
    read = _reading(sample_rate, most_seconds)  # before the threads, which would each trace it
    bad: dict[int, str] = {}

    def one(index: int) -> None:
        try:
            found = read(tf.constant(clips.encoded(index))).numpy()
            if not found.any():
                bad[index] = "nothing but silence, and yet a transcript"
            audio[ends[index] - lengths[index] : ends[index]] = found
        except tf.errors.InvalidArgumentError as error:
            bad[index] = reason(error)
        except OSError as error:
            bad[index] = error.strerror.lower()

    console = Console(stderr=True)
    bar = {"total": len(clips), "console": console, "transient": True, "disable": not (show and console.is_terminal)}
    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(one, range(len(clips))), "reading clips", **bar):
            if bad and on_bad_example == "fail":
                pool.shutdown(wait=False, cancel_futures=True)
                break
    report(clips.source, dict(sorted(bad.items())), len(clips), on_bad_example, "clip", clips.name)
    found = dataclasses.replace(clips, contents=None, samples=Samples(audio, ends - lengths, lengths, sample_rate))
    return found.take(np.setdiff1d(np.arange(len(clips)), list(bad))) if bad else found


@functools.cache
def _reading(sample_rate: int, most_seconds: float | None) -> tf.types.experimental.ConcreteFunction:
    """`read_audio`, traced once for all splits: that takes as long as reading hundreds of clips."""
    read = tf.function(lambda contents: read_audio(contents, sample_rate, most_seconds))
    return read.get_concrete_function(tf.TensorSpec([], tf.string))


def bucket_lengths(lengths: np.ndarray, sample_rate: int) -> tuple[int, ...]:
    """The few numbers of samples, ascending, to which clips of these lengths are filled up so that padding is least."""
    tenth = sample_rate / 10
    tenths = np.ceil(np.asarray(lengths) / tenth).astype(np.int64)
    return tuple(math.ceil(n * tenth) for n in bucket_boundaries(tenths, int(tenths.max())))


def batches(
    clips: Clips,
    labels: Sequence[np.ndarray],
    sample_rate: int,
    boundaries: Sequence[int],
    batch_size: int,
    shard: Shard = WHOLE,
    order: np.ndarray | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Clips as a model takes them, in the order of `plan`.

    Args:
        clips: as `decode` gives them.
        labels: the ids of each transcript, all above 0.
        sample_rate: in Hz.
        boundaries: ascending numbers of samples; clips longer than the last are filled up to the longest of them.
        batch_size: rows of a whole batch.
        shard: which rows of every batch to give.
        order: (M,) indices of the clips; by default all as they come.
        augmentation: what to change at random; None: nothing.
        seed: of the changes; each clip of each seed has its own.

    Returns:
        Batches of `audio` (B, N) float32 and `labels` (B, L) int32, both filled up with zeros, `audio_length` (B,)
        and `label_length` (B,) int32, and `weight` (B,) float32, 0 for rows that fill a batch up. N and L depend on
        the bucket alone: N is its boundary, or what the slowest speed makes of it, and L its longest transcript.
    """
    augmentation = augmentation or Augmentation()
    lengths = clips.lengths(sample_rate)
    boundaries = covering(boundaries, lengths)
    planned = plan(lengths, boundaries, batch_size, order)
    rows = shard.rows(batch_size)
    changes = any((augmentation.speed, augmentation.noise, augmentation.gain))
    label_lengths = np.array([len(ids) for ids in labels], np.int32)
    label_widths = np.ones(len(boundaries), np.int32)
    np.maximum.at(label_widths, np.searchsorted(boundaries, lengths), label_lengths)
    filled = np.zeros((len(labels), label_widths.max()), np.int32)
    for row, ids in zip(filled, labels, strict=True):
        row[: len(ids)] = ids

    samples, starts, lengths = clips.tensors
    with tf.device("CPU:0"):
        slowest = 100 - round(100 * augmentation.speed)  # percent
        widths = tf.constant([-(-n * 100 // slowest) for n in boundaries], tf.int32)
        label_widths, label_lengths, filled = (tf.constant(x) for x in (label_widths, label_lengths, filled))

    def batch(indices, weights, bucket):
        def one(index):
            audio = samples[starts[index] : starts[index] + lengths[index]]
            if changes:
                audio = augment(audio, tf.stack([seed, tf.cast(index, tf.int32)]), augmentation)
            length = tf.size(audio)
            return tf.pad(audio, [[0, widths[bucket] - length]]), length

        specs = (tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int32))
        audio, audio_length = tf.map_fn(one, indices, fn_output_signature=specs)
        return {
            "audio": tf.ensure_shape(audio, [batch_size // shard.count, None]),
            "audio_length": audio_length,
            "labels": tf.gather(filled, indices)[:, : label_widths[bucket]],
            "label_length": tf.gather(label_lengths, indices),
            "weight": weights,
        }

    found = tf.data.Dataset.from_tensor_slices((planned.indices[:, rows], planned.weights[:, rows], planned.buckets))
    return found.map(batch, tf.data.AUTOTUNE).prefetch(4)
