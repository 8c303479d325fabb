"""The sample that the translate app trains on by default: English to German from a grammar of its own.

A random generator composes meanings (`compose.py`, `phrases.py`) which `english.py` and `german.py` put into
words. The German is a function of the English, held-out sentences are new combinations of known words,
and so the sample measures whether a model has learnt grammar: case, gender, word order.
"""

from __future__ import annotations

import random
from collections import Counter

from apps.translate.sample import english, german
from apps.translate.sample.compose import Composer
from apps.translate.sample.lexicon import lemmas

SHORTEST, LONGEST = 4, 20  # English words
SEEN_AT_LEAST = 5  # how often training holds each word form of a held-out translation

Pair = tuple[str, str]


def generate(count: int, seed: int) -> list[Pair]:
    """`count` different (English, German) pairs; the same for the same seed everywhere.

    No two English sentences differ only in case or punctuation. A smaller count gives a prefix of a larger.
    """
    composer = Composer(random.Random(seed))
    pairs: dict[str, Pair] = {}
    while len(pairs) < count:
        meaning = composer.sentence()
        source = english.sentence(meaning)
        if SHORTEST <= len(source.split()) <= LONGEST:
            pairs.setdefault(normalised(source), (source, german.sentence(meaning)))
    return list(pairs.values())


def splits(train: int = 20_000, validation: int = 500, test: int = 500, seed: int = 17) -> dict[str, list[Pair]]:
    """Disjoint "train", "validation" and "test" pairs.

    Held-out sentences do not occur in training, even with other case or punctuation, but each of their German
    word forms does, at least `SEEN_AT_LEAST` times: they measure composition, not unknown words.

    Raises:
        ValueError: `train` is too small to hold the words of so many held-out sentences.
    """
    held_out = validation + test
    pairs = generate(train + 2 * held_out, seed)
    counts = Counter(word for _, target in pairs[:train] for word in normalised(target).split())
    known = [pair for pair in pairs[train:]
             if all(counts[word] >= SEEN_AT_LEAST for word in normalised(pair[1]).split())]  # fmt: skip
    if len(known) < held_out:
        raise ValueError(
            f"{train} training sentences know the words of only {len(known)} held-out sentences; "
            f"ask for more training sentences or fewer than {held_out}. Received: train={train}"
        )
    return {"train": pairs[:train], "validation": known[:validation], "test": known[validation:held_out]}


def vocabulary() -> list[str]:
    """The different English words of the lexicon in their dictionary form, sorted."""
    return lemmas()


def normalised(sentence: str) -> str:
    """The sentence in lower case without punctuation; two that agree in this are not told apart."""
    return " ".join(sentence.lower().replace(",", " ").strip(".? ").split())
