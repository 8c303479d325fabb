"""Tokenisation by characters, in the graph: every character of running text is a token and comes back as it was.

It has the interface of `pipelines.text.tokenizer.Tokenizer`. Nothing is normalised: tabs, newlines and blanks in a row
are characters like all others. It holds no table, which an export would have to make anew when it is loaded: a
character's id is its place among the sorted code points.
"""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.text.alphabet import Alphabetical
from pipelines.text.tokenizer import END, PAD, START, UNKNOWN

MARKS = ("", "<unk>", "<s>", "</s>")  # what the ids before the characters' are called


class CharacterTokenizer(Alphabetical, tf.Module):
    """Text to ids and back, a character an id.

    Ids are 0 padding, 1 unknown, 2 start, 3 end; then the alphabet in the order of its code points.

    Args:
        alphabet: every character once, in any order.

    Attributes:
        alphabet: the characters, sorted.
        vocabulary_size: number of ids.
        pad_id, start_id, end_id: the ids of the marks.

    Raises:
        ValueError: the alphabet is empty or has a character twice.
    """

    pad_id, start_id, end_id = PAD, START, END

    def __init__(self, alphabet: str):
        super().__init__(name="character_tokenizer")
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise ValueError(f"An alphabet has characters, each of them once. Received: alphabet={alphabet!r}")
        self.alphabet = "".join(sorted(alphabet))
        self.vocabulary_size = len(MARKS) + len(alphabet)
        self._codes = np.array([ord(character) for character in self.alphabet], np.int32)

    @classmethod
    def of(cls, texts: Iterable[str]) -> "CharacterTokenizer":
        """Of the characters that occur in some texts.

        Raises:
            UserError: there are none.
        """
        alphabet = set().union(*texts)
        if not alphabet:
            raise UserError("there is no text to take characters from")
        return cls("".join(alphabet))

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns UTF-8 strings (B,) into int32 ids (B, None), the end id last. Any bytes are legal: what is not UTF-8 is
        unknown, as are characters beyond the alphabet."""
        points = tf.strings.unicode_decode(tf.strings.join([texts, "\0"]), "UTF-8")  # (B, None), with room for the end
        codes = tf.constant(self._codes)
        places = tf.searchsorted(codes, points.flat_values)
        known = tf.gather(codes, tf.minimum(places, tf.size(codes) - 1)) == points.flat_values
        ids = tf.where(known, places + len(MARKS), UNKNOWN)
        ends = tf.fill([tf.size(texts)], END)
        return points.with_flat_values(tf.tensor_scatter_nd_update(ids, points.row_limits()[:, None] - 1, ends))

    def detokenize(self, ids: tf.Tensor) -> tf.Tensor:
        """Turns int32 ids (B, T) into strings (B,).

        What follows the first end id is dropped, and so are padding and start ids; unknown ones become U+FFFD.
        """
        before_end = tf.cumsum(tf.cast(ids == END, tf.int32), axis=1) == 0  # (B, T)
        texts = tf.gather(tf.constant(["", "\ufffd", "", "", *self.alphabet]), ids)
        return tf.strings.reduce_join(tf.where(before_end, texts, ""), axis=1)

    def to_pieces(self, ids: tf.Tensor) -> tf.Tensor:
        """The characters that int32 ids of any shape stand for, as strings; "" for padding."""
        return tf.gather(tf.constant([*MARKS, *self.alphabet]), ids)
