"""A language model over symbols, counted from transcripts, as an automaton that a beam search can lean on."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.ctc.automaton import Automaton

END = 0  # what follows the last symbol, and what stands before the first


def ngram(texts: Iterable[Sequence[int]], size: int, order: int = 3) -> Automaton:
    """Counts an n-gram model with Witten-Bell smoothing.

    p(c | h) = (count(h, c) + types(h) · p(c | h')) / (count(h) + types(h)), where h' is h without its first symbol
    and types(h) is how many different symbols were seen after h; under all lies the uniform distribution over V. A
    state stands for a history of at most n - 1 symbols that was seen, so that tables grow with the texts, and
    not with V^n.

    Args:
        texts: ids in [1, V) of each text.
        size: V, ids with the blank; the blank's column holds the probability of the end.
        order: n, the symbols that are looked at together, the predicted one included.

    Returns:
        An automaton whose scores are log-probabilities in nats.

    Raises:
        ValueError: the order is below 1, or an id is outside [1, V).

    References:
        Witten and Bell 1991, The Zero-Frequency Problem. https://doi.org/10.1109/18.87000
    """
    if order < 1:
        raise ValueError(f"order must be at least 1. Received: {order}")
    counts = _counts(texts, size, order)
    start = (END,)[: order - 1]
    # Shorter histories first, since longer ones build on them; the start is state 0.
    histories = sorted(counts.keys() | {(), start}, key=lambda history: (history != start, len(history), history))
    states = {history: state for state, history in enumerate(histories)}
    probabilities = {}
    for history in sorted(histories, key=len):
        shorter = probabilities[history[1:]] if history else np.full(size, 1 / size)
        seen = counts.get(history)
        if seen is None:
            probabilities[history] = shorter
            continue
        row = len(seen) * shorter
        row[list(seen)] += list(seen.values())
        probabilities[history] = row / (sum(seen.values()) + len(seen))

    def follow(history, symbol):
        """The longest known end of the history with the symbol."""
        longer = (*history, symbol)
        while longer not in states:
            longer = longer[1:]
        return states[longer]

    following = [[follow(history, symbol) if symbol else 0 for symbol in range(size)] for history in histories]
    scores = np.log([probabilities[history] for history in histories])
    return Automaton(scores.astype("float32"), np.array(following, "int32"))


def _counts(texts, size, order):
    """How often each symbol came after each history of 0 to order - 1 symbols."""
    counts = defaultdict(Counter)
    for text in texts:
        text = [int(symbol) for symbol in text]
        if any(not 0 < symbol < size for symbol in text):
            raise ValueError(f"ids must be between 1 and {size - 1}. Received: {text}")
        padded = (END, *text, END)
        for place in range(1, len(padded)):
            for length in range(min(order - 1, place) + 1):
                counts[padded[place - length : place]][padded[place]] += 1
    return counts
