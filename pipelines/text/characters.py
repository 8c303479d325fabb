"""Characters as the symbols of a recogniser: a transcript in plain form, its ids, and text from ids, in Python and in
the graph."""

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.text.alphabet import Alphabetical

BLANK = 0  # CTC's symbol for "nothing (new) is said here"

# U+00B4 and U+0060 are accents by name and apostrophes by use; U+02BC is the letter, U+2032 the prime.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u00b4\u0060\u2018\u2019\u201b\u02bc\u2032\uff07", "'"))
_SEPARATORS = "/\\\u2044\u2215\u2212"  # slashes and the minus sign: what they join are words of their own


class Characters(Alphabetical):
    """The symbols that a model can write, with an id for each.

    Ids 1 .. len(alphabet) are the characters in the alphabet's order; 0 is CTC's blank, and padding.

    Args:
        alphabet: every character once.

    Attributes:
        alphabet: as given.
        size: number of ids, the blank's included.

    Raises:
        ValueError: the alphabet is empty or has a character twice.
    """

    def __init__(self, alphabet: str):
        self._ids = {character: number for number, character in enumerate(alphabet, start=1)}
        if not alphabet or len(self._ids) < len(alphabet):
            raise ValueError(f"An alphabet has characters, each of them once. Received: alphabet={alphabet!r}")
        self.alphabet = alphabet
        self.size = len(alphabet) + 1

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Characters":
        """The characters that occur in some texts, in the order of their code points."""
        return cls("".join(sorted(set().union(*texts))))

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, (L,) int32.

        Raises:
            ValueError: the text has characters that are not in the alphabet; they are named.
        """
        if strange := set(text) - self._ids.keys():
            raise ValueError(f"The alphabet does not have {names(strange)}. Received: {text!r}")
        return np.array([self._ids[character] for character in text], np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; blanks are nothing.

        Raises:
            ValueError: an id is out of range.
        """
        if wrong := [number for number in map(int, ids) if not 0 <= number < self.size]:
            raise ValueError(f"Ids are in [0, {self.size}). Received: {wrong[0]}")
        return "".join(self.alphabet[number - 1] for number in map(int, ids) if number != BLANK)

    def decode_batch(self, ids: tf.Tensor) -> tf.Tensor:
        """The texts of rows of ids, in the graph: (B, L) integers, in range, to (B,) UTF-8 strings."""
        symbols = tf.constant(["", *self.alphabet])
        return tf.strings.reduce_join(tf.gather(symbols, ids), axis=1)


def normalise(text: str) -> str:
    """A transcript in the plain form that a recogniser learns to write.

    Compatibility forms become the usual ones (NFKC), capitals small, typographic apostrophes "'"; hyphens, dashes and
    slashes become blanks; all else that is neither letter nor digit is dropped, and blanks in a row become one. Letters
    and digits of any script stay as they are: numbers are not spelled out. Applied twice it changes nothing more.
    """
    # The accent U+00B4 would be taken apart by NFKC, which in turn brings U+02BC to light ("ŉ").
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower().translate(_APOSTROPHES)
    kept, is_letter = [], False
    for character in text:
        kind = unicodedata.category(character)
        if kind.startswith("M"):  # a mark, such as an accent, goes with what it stands on
            kept.append(character if is_letter else "")
            continue
        is_letter = kind[0] in "LN"
        is_blank = kind == "Pd" or character.isspace() or character in _SEPARATORS
        kept.append(character if is_letter or character == "'" else " " if is_blank else "")
    # Neighbours now may be what was apart before, and compose.
    return " ".join(unicodedata.normalize("NFKC", "".join(kept)).split())


def names(characters: Iterable[str]) -> str:
    """What to call characters, of which some may be invisible."""
    codes = {character: f"U+{ord(character):04X} {unicodedata.name(character, '')}" for character in sorted(characters)}
    return ", ".join(f"{character!r} ({code.rstrip()})" for character, code in codes.items())
