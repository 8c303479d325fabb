"""From texts to translations with a trained model: tokens, static batches, decoding, text."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from apps.translate.model import TranslationTransformer
from pipelines.decoding import greedy
from pipelines.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Translation:
    """A translation and the log-probability of its tokens, in nats."""

    text: str
    score: float


class Translator:
    """Translates any number of texts in batches of a few static shapes.

    Args:
        model: A trained model.
        tokenizer: The one it was trained with.
        lengths: Source lengths to pad to, ascending; the last is the model's limit.
    """

    def __init__(self, model: TranslationTransformer, tokenizer: Tokenizer, lengths: Sequence[int]):
        self.model = model
        self.tokenizer = tokenizer
        self.lengths = sorted(set(lengths))
        # One graph for all lengths: tracing a decoder for each would take longer than it saves.
        self._decode = tf.function(self._decode_batch, input_signature=[tf.TensorSpec([None, None], tf.int32)])

    @property
    def limit(self) -> int:
        """Longest source in pieces, the end token included."""
        return self.lengths[-1]

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, with the end token. Rows may be longer than `limit`: ask before translating."""
        return [np.asarray(ids, np.int32) for ids in self.tokenizer.tokenize(tf.constant(texts, tf.string)).to_list()]

    def translate(self, rows: Sequence[np.ndarray], batch_size: int) -> list[Translation]:
        """Translates token rows of at most `limit` ids, in the order given.

        Rows of similar length share a batch; the last batch of a length is filled up with empty rows.
        """
        answers: list[Translation | None] = [None] * len(rows)
        batch_size = min(batch_size, max(len(rows), 1))
        for length, indices in self._by_length(rows).items():
            for begin in range(0, len(indices), batch_size):
                chosen = indices[begin : begin + batch_size]
                source = np.zeros((batch_size, length), np.int32)
                for row, index in enumerate(chosen):
                    source[row, : len(rows[index])] = rows[index]
                texts, scores = self._decode(tf.constant(source))
                for index, text, score in zip(chosen, texts.numpy(), scores.numpy(), strict=False):
                    answers[index] = Translation(text.decode("utf-8", errors="replace"), float(score))
        return answers

    def _by_length(self, rows):
        groups: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            length = next(length for length in self.lengths if len(row) <= length)
            groups.setdefault(length, []).append(index)
        return groups

    def _decode_batch(self, source):
        ids, scores = self.decode(source)
        return self.tokenizer.detokenize(ids), scores

    def decode(self, source):
        """Source ids (B, S) -> target ids (B, 2 S + 8) and scores (B,). Longer translations are cut there."""
        rows, length = tf.unstack(tf.shape(source))
        longest = 2 * length + 8
        state = self.model.start_decoding(source, longest)
        return greedy(self.model.decode_step, state, rows, longest, self.tokenizer.start_id, self.tokenizer.end_id)
