"""Labelled pictures, and how they become batches."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from pipelines.batching import WHOLE, Shard, epoch_seed
from pipelines.errors import UserError
from pipelines.examples import report
from pipelines.image import headers
from pipelines.image.augmentation import augment, mix
from pipelines.image.config import Augmentation
from pipelines.image.decoding import PARALLEL, normalise, read_image, read_images, reason

MEGABYTE = 1 << 20
LARGEST_SIDE = 224  # that is taken by itself, where nobody says how large pictures shall be
TEXT = tf.TensorSpec([], tf.string)
LOOKED_AT = 20  # pictures from which size and channels are taken
MEASURED = 10_000  # pictures from which mean and standard deviation are taken


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Labelled pictures: decoded ones, or encoded ones in memory or in files.

    Args:
        classes: names of the classes.
        labels: (N,) int32, indices into `classes`.
        pixels: (N, H, W, C) uint8, or None.
        contents: N encoded pictures, or None.
        files: N paths, or None.
        source: file or folder that they are from, for errors.
        rows: (N,) the number in the source of each, from 1 on; None: as they come.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray | None = None
    contents: Sequence[bytes] | None = None
    files: Sequence[str] | None = None
    source: str = ""
    rows: np.ndarray | None = None

    def __len__(self):
        return len(self.labels)

    def name(self, index: int) -> str:
        """What to call a picture in errors and titles."""
        row = index + 1 if self.rows is None else self.rows[index]
        return self.files[index] if self.files is not None else f"{self.source}, picture {row}"

    def encoded(self, index: int) -> bytes:
        """The bytes of a picture: those it has, or a PNG of its pixels."""
        if self.pixels is not None:
            return tf.io.encode_png(self.pixels[index]).numpy()
        return Path(self.files[index]).read_bytes() if self.files is not None else self.contents[index]

    @functools.cached_property
    def tensor(self) -> tf.Tensor:
        """`pixels`, copied once and not in each epoch."""
        with tf.device("CPU:0"):
            return tf.constant(self.pixels)

    def take(self, indices: np.ndarray) -> "Pictures":
        """Some of the pictures, in the order of `indices`."""
        rows = np.arange(1, len(self) + 1) if self.rows is None else self.rows

        def chosen(items):
            return None if items is None else [items[i] for i in indices]

        return dataclasses.replace(
            self,
            labels=self.labels[indices],
            pixels=None if self.pixels is None else self.pixels[indices],
            contents=chosen(self.contents),
            files=chosen(self.files),
            rows=rows[indices],
        )


def size_and_channels(pictures: Pictures) -> tuple[int, int]:
    """The side of the square and the channels that suit pictures: those that most of the first ones have."""
    if pictures.pixels is not None:
        _, height, width, channels = pictures.pixels.shape
        return min(height, width, LARGEST_SIDE), channels
    sides, grey = [], True
    # From end to end: pictures often come class after class.
    tried = np.unique(np.linspace(0, len(pictures) - 1, LOOKED_AT).astype(int))
    for index in tried:
        try:
            contents = tf.constant(pictures.encoded(index))
            _, header = headers.checked(contents)
            colours = read_image(contents, 32, 3).numpy()
        except (tf.errors.InvalidArgumentError, OSError, ValueError):  # the last where a path can be none
            continue  # named later, when all are read
        sides.append(int(min(header.height, header.width)))
        grey = grey and bool((colours == colours[..., :1]).all())
    if not sides:
        raise UserError(
            f"{pictures.source}: none of {len(tried)} pictures that were tried can be read; is this the right folder?"
        )
    ((side, _),) = collections.Counter(sides).most_common(1)
    return min(side, LARGEST_SIDE), 1 if grey else 3


def decode(
    pictures: Pictures, size: int, channels: int, on_bad_example: str, cache_megabytes: int, show: bool = True
) -> Pictures:
    """Reads every picture once, so that a bad one is known by name before anything is spent on the others.

    Args:
        pictures: any.
        size: of the square that they are brought to.
        channels: 1 or 3.
        on_bad_example: fail, or skip.
        cache_megabytes: what is kept decoded; where all together are larger, they stay encoded.
        show: print a progress bar.

    Returns:
        The good ones: their pixels (N, size, size, channels), or still encoded.

    Raises:
        UserError: a bad picture that is not to be skipped, or none that is good.
    """
    if pictures.pixels is not None and pictures.pixels.shape[1:] == (size, size, channels):
        return pictures
    keep = len(pictures) * size * size * channels <= cache_megabytes * MEGABYTE
    pixels = np.empty((len(pictures) if keep else 0, size, size, channels), np.uint8)
    # Traced here, once: the threads would each begin to.
    read = tf.function(lambda contents: read_image(contents, size, channels)).get_concrete_function(TEXT)
    bad: dict[int, str] = {}

    def one(index: int) -> None:
        try:
            found = read(tf.constant(pictures.encoded(index)))
            if keep:
                pixels[index] = found.numpy()
        except tf.errors.InvalidArgumentError as error:
            bad[index] = reason(error)
        except OSError as error:
            bad[index] = error.strerror.lower()
        except ValueError as error:  # a path that can be none
            bad[index] = str(error)

    with ThreadPoolExecutor(PARALLEL) as pool:
        console = Console(stderr=True)
        shown = show and console.is_terminal
        for _ in track(
            pool.map(one, range(len(pictures))),
            "reading pictures",
            len(pictures),
            console=console,
            transient=True,
            disable=not shown,
        ):
            if bad and on_bad_example == "fail":
                pool.shutdown(wait=False, cancel_futures=True)
                break
    report(pictures.source, dict(sorted(bad.items())), len(pictures), on_bad_example, "picture", pictures.name)
    good = np.array([i for i in range(len(pictures)) if i not in bad], np.int64)
    kept = pictures.take(good) if bad else pictures
    if not keep:
        return kept
    return dataclasses.replace(kept, pixels=pixels[good] if bad else pixels, contents=None)


def batches(
    pictures: Pictures,
    size: int,
    channels: int,
    statistics: tuple[Sequence[float], Sequence[float]],
    batch_size: int,
    shard: Shard = WHOLE,
    order: np.ndarray | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Pictures as a model takes them.

    Args:
        pictures: as `decode` gives them.
        size: of the square.
        channels: 1 or 3.
        statistics: mean and standard deviation of each channel, on a scale from 0 to 1.
        batch_size: rows of a whole batch.
        shard: which rows of every batch to give.
        order: (M,) indices of the pictures; by default all as they come.
        augmentation: what to change at random; None: nothing.
        seed: of the changes; each picture of each seed has its own.

    Returns:
        Batches of `image` (B, size, size, channels) float32, `target` (B, K) float32 and `weight` (B,) float32,
        0 for rows that fill the last batch up.
    """
    order = np.arange(len(pictures)) if order is None else order
    missing = -len(order) % batch_size
    # Real pictures fill the last batch up, not zeros, for the sake of layers that look at the whole batch.
    filled = np.concatenate([order, np.resize(order, missing)]).reshape(-1, batch_size)
    weights = (np.arange(filled.size) < len(order)).astype(np.float32).reshape(filled.shape)
    rows = shard.rows(batch_size)
    read, labels = reader(pictures, size, channels), tf.constant(pictures.labels)
    classes, augmentation = len(pictures.classes), augmentation or Augmentation()

    def batch(number, indices, weight):
        images = read(indices)
        seeds = tf.stack([tf.fill(tf.shape(indices), seed), tf.cast(indices, tf.int32)], 1)
        images = normalise(augment(images, seeds, augmentation), *statistics)
        rows = {"image": images, "target": tf.one_hot(tf.gather(labels, indices), classes), "weight": weight}
        return mix(rows, tf.stack([seed, tf.cast(number, tf.int32)]), augmentation)

    indices = tf.data.Dataset.from_tensor_slices((filled[:, rows], weights[:, rows])).enumerate()
    return indices.map(lambda number, rows: batch(number, *rows), tf.data.AUTOTUNE).prefetch(4)


def reader(pictures: Pictures, size: int, channels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """From indices (B,) to pixels, uint8 (B, size, size, channels)."""
    if pictures.pixels is not None:
        pixels = pictures.tensor
        return lambda indices: tf.gather(pixels, indices)
    if pictures.files is None:
        contents = tf.constant(pictures.contents)
        return lambda indices: read_images(tf.gather(contents, indices), size, channels)
    files = tf.constant(pictures.files)
    return lambda indices: read_images(tf.map_fn(tf.io.read_file, tf.gather(files, indices)), size, channels)


def shuffled_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """(count,) indices in an order of its own for every epoch."""
    return np.random.default_rng(epoch_seed(seed, epoch)).permutation(count)


def channel_statistics(pictures: Pictures, size: int, channels: int) -> tuple[list, list]:
    """Mean and standard deviation of each channel on a scale from 0 to 1, over some pictures spread evenly."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(MEASURED, len(pictures))).astype(int))
    read = reader(pictures, size, channels)
    total, squares = np.zeros(channels), np.zeros(channels)
    for part in np.array_split(chosen, -(-len(chosen) // 100)):
        pixels = read(part).numpy() / 255
        total += pixels.mean((1, 2)).sum(0)
        squares += (pixels**2).mean((1, 2)).sum(0)
    mean = total / len(chosen)
    deviation = np.sqrt(np.maximum(squares / len(chosen) - mean**2, 1e-4))
    return mean.round(4).tolist(), deviation.round(4).tolist()
