"""Running text as a language model is trained on it: one stream of tokens, cut into windows of a fixed length."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from pipelines import batching

TOKENIZED_AT_ONCE = 4096  # lines in one call of the tokenizer, which it spreads over the cores


def token_stream(documents: Sequence[str], tokenizer) -> np.ndarray:
    """The tokens of all documents, (N,) int32, with the end id before each of them and after the last.

    A document's lines are tokenized apart: where its tokenizer takes newlines for tokens, that changes nothing.
    """
    parts = [np.array([tokenizer.end_id], np.int32)]
    for lines, last in _blocks(documents):
        ids = tokenizer.tokenize(tf.constant(lines))
        ends = ids.row_limits().numpy() - 1  # where the tokenizer put the end ids
        kept = np.ones(len(ids.flat_values), bool)
        kept[ends[~np.array(last)]] = False
        parts.append(ids.flat_values.numpy()[kept])
    return np.concatenate(parts)


def _blocks(documents: Sequence[str]) -> Iterator[tuple[list[str], list[bool]]]:
    """Many lines at a time, and of each whether a document ends there."""
    lines, last = [], []
    for document in documents:
        cut = [line + "\n" for line in document.split("\n")]
        cut[-1] = cut[-1][:-1]
        lines += cut
        last += [False] * (len(cut) - 1) + [True]
        if len(lines) >= TOKENIZED_AT_ONCE:
            yield lines, last
            lines, last = [], []
    if lines:
        yield lines, last


def window_count(stream: np.ndarray, length: int) -> int:
    """How many windows of so many targets a stream has."""
    return -(-(len(stream) - 1) // length)


def windows(
    stream: np.ndarray, length: int, batch_size: int, seed: int | None = None, shard: batching.Shard = batching.WHOLE
) -> tf.data.Dataset:
    """Batches of windows that together have every token of a stream but the first as a target, once.

    Args:
        stream: (N,) int32, what `token_stream` returns.
        length: L, of a window.
        batch_size: rows of every batch; those missing at the end are all padding.
        seed: of the windows' order and of where the first one begins: the stream then is a circle. The same seed gives
            the same batches. Without one, the windows are those of the stream in its order.
        shard: which rows of every batch to give.

    Returns:
        A dataset of {"tokens": (B, L), "targets": (B, L)}, int32: targets[t] follows tokens[t]; zero is padding.
    """
    count = len(stream) - 1  # of targets; the end id before the first document is that after the last one
    starts, shift = np.arange(window_count(stream, length)) * length, 0
    if seed is not None:
        random = np.random.default_rng(seed)
        starts, shift = random.permutation(starts), int(random.integers(count))
    missing = -len(starts) % batch_size
    starts = np.concatenate([starts, np.full(missing, count)])  # of which nothing is in the stream
    rows = starts.reshape(-1, batch_size)[:, shard.rows(batch_size)]
    circle = tf.constant(stream[:-1])

    def cut(starts):
        places = starts[:, None] + tf.range(length)  # (B, L)
        tokens, targets = (tf.gather(circle, (places + shift + ahead) % count) for ahead in (0, 1))
        real = tf.cast(places < count, tf.int32)
        return {"tokens": tokens * real, "targets": targets * real}

    return tf.data.Dataset.from_tensor_slices(rows.astype(np.int32)).map(cut).prefetch(tf.data.AUTOTUNE)
