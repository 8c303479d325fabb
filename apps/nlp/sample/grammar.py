"""What the sample's grammars share: chance, and the look of a sentence."""

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Grammar:
    """Draws by chance. Only `random()` and `choice()` are used, which are the same everywhere."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def one(self, options: Sequence[Item]) -> Item:
        return self.rng.choice(options)

    def other(self, options: Sequence[Item], *taken: Item) -> Item:
        return self.one([option for option in options if option not in taken])

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability


def sentence(text: str) -> str:
    """With a capital letter, single spaces, and a full stop unless it ends otherwise."""
    text = " ".join(text.split()).replace(" ,", ",")
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?", '"')) else ".")


def a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
