"""From texts to translations with a trained model: tokens, static batches, decoding, text."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from apps.translate.config import SearchConfig
from apps.translate.model import TranslationModel
from pipelines.bucketing import by_length
from pipelines.decoding import Answers, beam_search, greedy, length_normaliser, longest_limit
from pipelines.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Translation:
    """A translation and its score: the log-probability of its tokens, in nats, over the length normaliser."""

    text: str
    score: float


class Explanation(NamedTuple):
    """What the model looked at; see `Translator._explain`."""

    translation: tf.Tensor
    source_tokens: tf.Tensor
    translation_tokens: tf.Tensor
    attention: tf.Tensor


class Translator:
    """Translates any number of texts, in batches of similar lengths.

    Args:
        model: A trained model.
        tokenizer: The one it was trained with.
        limit: Longest source in pieces, the end token included.
        search: How translations are sought.
        n_best: How many of a text are given.
    """

    def __init__(
        self,
        model: TranslationModel,
        tokenizer: Tokenizer,
        limit: int,
        search: SearchConfig,
        n_best: int = 1,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.limit = limit
        self.search = search
        self.n_best = n_best
        # One graph for all lengths: tracing a decoder for each would take longer than it saves.
        self._decode = tf.function(self._decode_batch, input_signature=[tf.TensorSpec([None, None], tf.int32)])
        self.explain = tf.function(self._explain, input_signature=[tf.TensorSpec([None], tf.string)])

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, with the end token. Rows may be longer than `limit`: ask before translating."""
        return [np.asarray(ids, np.int32) for ids in self.tokenizer.tokenize(tf.constant(texts, tf.string)).to_list()]

    def translate(self, rows: Sequence[np.ndarray], batch_size: int, progress: str = "") -> list[list[Translation]]:
        """The best translations of token rows of at most `limit` ids, in the order given.

        Rows of similar length share a batch.

        Args:
            rows: Token ids of each text.
            batch_size: Rows in a batch.
            progress: What to call the work in a progress bar; without it there is none.
        """
        answers: list[list[Translation]] = [[] for _ in rows]
        batches = by_length([len(row) for row in rows], batch_size)
        for chosen in track(batches, progress, console=Console(stderr=True), transient=True, disable=not progress):
            source = np.zeros((len(chosen), len(rows[chosen[-1]])), np.int32)
            for row, index in enumerate(chosen):
                source[row, : len(rows[index])] = rows[index]
            texts, scores = (found.numpy() for found in self._decode(tf.constant(source)))
            for index, row_texts, row_scores in zip(chosen, texts, scores, strict=True):
                answers[index] = [
                    Translation(text.decode("utf-8", errors="replace"), float(score))
                    for text, score in zip(row_texts, row_scores, strict=True)
                ]
        return answers

    def _decode_batch(self, source):
        ids, scores = self.decode(source)
        texts = self.tokenizer.detokenize(tf.reshape(ids, [tf.size(scores), tf.shape(ids)[-1]]))
        return tf.reshape(texts, tf.shape(scores)), scores

    def decode(self, source: tf.Tensor) -> Answers:
        """Translates source ids (B, S). A translation longer than twice its source and 8 is cut there."""
        lengths = tf.math.count_nonzero(source, axis=1, dtype=tf.int32)
        limits = tf.where(lengths > 1, 2 * lengths + 8, 0)  # no text: nothing to say
        state = self.model.start_decoding(source, longest_limit(limits), self.search.beam)
        arguments = self.model.decode_step, state, limits, self.tokenizer.start_id, self.tokenizer.end_id
        alpha = self.search.length_penalty
        if self.search.beam > 1:
            return beam_search(*arguments, self.search.beam, self.n_best, alpha)
        ids, scores = greedy(*arguments)
        return Answers(ids, scores / length_normaliser(tf.math.count_nonzero(ids, axis=-1), alpha))

    def from_texts(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts (B,) to their best translations (B,) and scores (B,), all in the graph."""
        texts, scores = self._decode_batch(self._source(texts))
        return texts[:, 0], scores[:, 0]

    def _explain(self, texts: tf.Tensor) -> Explanation:
        """Which source tokens each token of a translation came from: cross-attention, mean of layers and heads.

        Args:
            texts: (B,) strings.

        Returns:
            Translations (B,), source tokens (B, S), translation tokens (B, T), with "" where rows are shorter, and
            attention (B, T, S): row t is what was looked at when token t was chosen.
        """
        source = self._source(texts)
        ids = self.decode(source).ids[:, 0]
        ids = ids[:, : tf.reduce_max(tf.math.count_nonzero(ids, axis=1))]
        # float32 whatever the model computes in: REST clients know no other small floats.
        attention = tf.reduce_mean(tf.cast(self.model.attention(source, ids), tf.float32), axis=(1, 2))
        real = tf.cast((ids != 0)[:, :, None] & (source != 0)[:, None, :], attention.dtype)
        tokens = self.tokenizer.to_pieces
        return Explanation(self.tokenizer.detokenize(ids), tokens(source), tokens(ids), attention * real)

    def _source(self, texts: tf.Tensor) -> tf.Tensor:
        """Ids (B, S) of texts; those that are too long are refused by the graph itself."""
        tokens = self.tokenizer.tokenize(texts)
        longest = tf.reduce_max(tf.concat([[0], tf.cast(tokens.row_lengths(), tf.int32)], axis=0))
        message = f"a text is cut into more pieces than the model takes ({self.limit - 1}); split it into sentences"
        with tf.control_dependencies([tf.debugging.assert_less_equal(longest, self.limit, message)]):
            return tokens.to_tensor()
