"""What a beam search leans on besides the frames: a machine that reads symbols and gives each a score."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Automaton(NamedTuple):
    """A finite automaton over V ids that starts in state 0. As arrays, or as tensors when it is to be exported.

    Id 0, which is CTC's blank and never part of a text, stands for the end: column 0 scores ending in a state.

    Args:
        scores: (S, V) float32, what each state adds for each symbol.
        following: (S, V) int32, which state each symbol leads to; column 0 is not used.
    """

    scores: np.ndarray
    following: np.ndarray

    def score(self, ids) -> float:
        """The score of a whole text, its end included."""
        state, total = 0, 0.0
        for symbol in ids:
            total += float(self.scores[state, symbol])
            state = self.following[state, symbol]
        return total + float(self.scores[state, 0])

    def weighted(self, weight: float, bonus: float = 0.0) -> "Automaton":
        """The same with every score times `weight`, plus `bonus` for every symbol other than the end.

        A language model makes each symbol less likely, which favours short answers; a bonus makes up for that.
        """
        scores = np.asarray(self.scores, "float32") * np.float32(weight)
        scores[:, 1:] += np.float32(bonus)
        return self._replace(scores=scores)

    def save(self, path: Path | str) -> None:
        """Writes an .npz file, whatever the path ends with."""
        with open(path, "wb") as file:
            np.savez_compressed(file, **self._asdict())

    @classmethod
    def load(cls, path: Path | str) -> "Automaton":
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["scores"], arrays["following"])
