"""A list of known words as an automaton that a beam search can lean on."""

from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.ctc.automaton import Automaton


def word_list(
    words: Iterable[Sequence[int]],
    size: int,
    separator: int,
    penalty: float,
) -> Automaton:
    """Takes `penalty` off for every word that is not in the list, as soon as its symbols leave the list.

    States are the beginnings of words (a trie), and one more for the rest of an unknown word. Separators in a row,
    and at either end of a text, make no words.

    Args:
        words: ids of each, without the separator.
        size: V, ids with the blank.
        separator: the id between words.
        penalty: in nats, not negative; a large one (1e4) allows nothing but the list.

    Raises:
        ValueError: a word is empty or holds an id that no word can hold.
    """
    nodes: list[dict[int, int]] = [{}]
    ends = set()
    for word in words:
        word = [int(symbol) for symbol in word]
        if not word or any(not 0 < symbol < size or symbol == separator for symbol in word):
            raise ValueError(f"a word must have ids between 1 and {size - 1} but the separator. Received: {word}")
        node = 0
        for symbol in word:
            if symbol not in nodes[node]:
                nodes[node][symbol] = len(nodes)
                nodes.append({})
            node = nodes[node][symbol]
        ends.add(node)
    unknown = len(nodes)
    scores = np.zeros([unknown + 1, size], "float32")
    following = np.full([unknown + 1, size], unknown, "int32")
    scores[:unknown, :] = -penalty
    for node, children in enumerate(nodes):
        for symbol, child in children.items():
            scores[node, symbol], following[node, symbol] = 0.0, child
    # A word ends at a separator or with the text; an unknown one has been paid for.
    closing = [0, separator]
    scores[np.ix_(sorted(ends), closing)] = 0.0
    scores[0, closing] = 0.0
    following[:, closing] = 0
    return Automaton(scores, following)
