"""From sentence pairs to batches of token ids: the road of a training set."""

from collections.abc import Sequence

import tensorflow as tf

from pipelines import batching
from pipelines.text.tokenizer import Tokenizer

TOKENIZED_AT_ONCE = 1024  # one call of the tokenizer for many sentences, which it spreads over the cores


def token_batches(
    pairs: tf.data.Dataset,
    tokenizer: Tokenizer,
    boundaries: Sequence[int],
    batch_size: int,
    *,
    shuffle_buffer: int = 0,
    seed: int = 0,
    epoch: int = 0,
    shard: batching.Shard = batching.WHOLE,
) -> tf.data.Dataset:
    """Shuffles, tokenises and batches sentence pairs.

    The same arguments give the same batches in the same order, so that `skip(n)` continues an interrupted
    epoch exactly. Pairs of which one side has more ids than the last boundary are dropped.

    Args:
        pairs: scalar strings (source, target).
        tokenizer: makes ids of them, the end id last.
        boundaries: ascending sequence lengths; see `batching.bucket_boundaries`.
        batch_size: rows of every batch; those missing at the end are all padding.
        shuffle_buffer: pairs held in memory to draw from; 0 keeps the order.
        seed: of the run.
        epoch: its number, from 0.
        shard: which rows of every batch to give.

    Returns:
        A dataset of {"source": (B, L), "target": (B, L)}, int32, L one of the boundaries, B the shard's share of
        batch_size.
    """

    def tokenize(sources, targets):
        return {"source": tokenizer.tokenize(sources), "target": tokenizer.tokenize(targets)}

    if shuffle_buffer:
        pairs = batching.shuffled(pairs, shuffle_buffer, seed, epoch)
    blocks = pairs.batch(TOKENIZED_AT_ONCE).map(tokenize)
    return batching.bucketed_batches(blocks, boundaries, batch_size, shard).prefetch(tf.data.AUTOTUNE)
