"""From files to batches of ids: nothing lost, nothing invented, and the same again after an interruption."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.text import parallel
from pipelines.text.batches import token_batches
from pipelines.text.tokenizer import Tokenizer, train_sentencepiece

PAIRS = [
    (f"{colour} {animal}" + " and more" * (number % 5), f"{animal} {colour}" + " noch" * (number % 3))
    for number, (colour, animal) in enumerate(
        (colour, animal) for colour in ("red", "green", "blue") * 5 for animal in ("dog", "cat", "horse", "hen")
    )
]
BATCH_SIZE = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A dataset of pairs read from a file with bad rows among the good, and a tokenizer."""
    directory = tmp_path_factory.mktemp("corpus")
    rows = [f"{source}\t{target}\n" for source, target in PAIRS]
    rows[10:10] = ["no tab\n"]
    (directory / "train.tsv").write_text("".join(rows), encoding="utf-8")
    text = parallel.ParallelText.from_arguments([str(directory / "train.tsv")])
    inspection = parallel.inspect(text, on_bad_example="skip")
    train_sentencepiece((side for pair in inspection.sample for side in pair), directory / "vocabulary.model")
    return parallel.dataset(text, inspection), Tokenizer(directory / "vocabulary.model")


def batches_of(corpus, boundaries=(16, 32, 64), **options):
    pairs, tokenizer = corpus
    return token_batches(pairs, tokenizer, boundaries, BATCH_SIZE, **options)


def test_batches_hold_exactly_the_pairs_of_the_file(corpus):
    _, tokenizer = corpus
    found = []
    for batch in batches_of(corpus, shuffle_buffer=20):
        assert batch["source"].shape == batch["target"].shape
        texts = [tokenizer.detokenize(batch[name]).numpy() for name in ("source", "target")]
        found += [(source.decode(), target.decode()) for source, target in zip(*texts, strict=True) if source]
        ends = tf.reduce_sum(tf.cast(batch["target"] == tokenizer.end_id, tf.int32), axis=1)
        assert set(ends.numpy()) <= {0, 1}
    assert sorted(found) == sorted(PAIRS)


def test_pairs_over_the_last_boundary_are_dropped(corpus):
    pairs, tokenizer = corpus
    sizes = [int(max(tokenizer.tokenize([source, target]).row_lengths())) for source, target in PAIRS]
    limit = int(np.median(sizes))
    kept = sum(int((batch["source"].numpy()[:, 0] > 0).sum()) for batch in batches_of(corpus, (limit,)))
    assert kept == sum(size <= limit for size in sizes) < len(PAIRS)


def flat(batches) -> list[tuple]:
    return [(batch["source"].tobytes(), batch["target"].tobytes()) for batch in batches.as_numpy_iterator()]


def test_skipping_what_was_seen_continues_an_epoch_exactly(corpus):
    options = {"shuffle_buffer": 25, "seed": 3, "epoch": 2}
    whole = flat(batches_of(corpus, **options))
    tf.random.set_seed(99)  # another process, another global state
    for seen in (0, 1, 7, len(whole)):
        assert flat(batches_of(corpus, **options).skip(seen)) == whole[seen:]


def test_epochs_and_seeds_differ(corpus):
    runs = [flat(batches_of(corpus, shuffle_buffer=100, seed=s, epoch=e)) for s, e in [(0, 0), (0, 1), (1, 0)]]
    assert runs[0] != runs[1] != runs[2] != runs[0]
    assert flat(batches_of(corpus)) == flat(batches_of(corpus, seed=1, epoch=1)), "no buffer, no shuffling"
