"""SentencePiece's pieces as the symbols of a recogniser: fewer and longer ones than characters."""

import numpy as np
import tensorflow as tf

from pipelines.text.characters import BLANK, names
from pipelines.text.tokenizer import END, PAD, UNKNOWN, Tokenizer


class Pieces(tf.Module):
    """The symbols that a model can write, with an id for each; the same to a recogniser as `Characters`.

    Ids 1 .. len(alphabet) are the pieces in the vocabulary's order, without its marks; 0 is CTC's blank, and padding.

    Args:
        model_file: what `train_sentencepiece` wrote.

    Attributes:
        alphabet: the pieces; a word's first begins with "▁".
        size: number of ids, the blank's included.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, model_file):
        super().__init__(name="pieces")
        self._tokenizer = Tokenizer(model_file)
        pieces = self._tokenizer.to_pieces(tf.range(END + 1, self._tokenizer.vocabulary_size))
        self.alphabet = tuple(piece.decode() for piece in pieces.numpy())
        self.size = len(self.alphabet) + 1

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, (L,) int32.

        Raises:
            ValueError: the text has characters that no piece has.
        """
        (ids,) = self._tokenizer.tokenize(tf.constant([text])).numpy()
        ids = ids[ids != END]
        if UNKNOWN in ids:
            strange = set(text) - set(" ".join(self.alphabet))
            raise ValueError(f"The pieces do not have {names(strange)}. Received: {text!r}")
        return ids - END

    def decode_batch(self, ids: tf.Tensor) -> tf.Tensor:
        """The texts of rows of ids, in the graph: (B, L) integers, in range, to (B,) UTF-8 strings."""
        return self._tokenizer.detokenize(tf.where(ids == BLANK, PAD, tf.cast(ids, tf.int32) + END))
