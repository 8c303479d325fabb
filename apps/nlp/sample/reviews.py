"""Opinions of one sentence about films, meals and the like, which praise or do not, whatever words they use."""

import random
from typing import NamedTuple

from apps.nlp.sample.grammar import Grammar, a, sentence


class Topic(NamedTuple):
    """Something that one has an opinion about, and in which words: good ones and bad ones."""

    thing: str
    parts: list[str]
    good: list[str]
    bad: list[str]


TOPICS = tuple(
    Topic(thing, *map(str.split, (parts, good, bad)))
    for thing, parts, good, bad in (
        ("film", "acting plot ending dialogue", "gripping moving witty clever", "dull tedious clumsy predictable"),
        ("meal", "soup bread fish dessert", "delicious fresh tasty fragrant", "bland stale greasy tasteless"),
        ("hotel", "room bed lobby garden", "charming cosy comfortable elegant", "shabby filthy noisy cramped"),
        (
            "concert",
            "singer pianist choir orchestra",
            "brilliant graceful lively superb",
            "feeble sloppy wooden boring",
        ),
        ("tour", "guide driver captain waiter", "friendly patient cheerful helpful", "rude careless grumpy arrogant"),
    )
)
DEGREES = ("very", "really", "particularly")
DENIALS = ("not", "never")
FRIENDS = (("sister", "she"), ("brother", "he"), ("aunt", "she"), ("uncle", "he"), ("neighbour", "he"))


class Reviews(Grammar):
    """Opinions of one sentence. Each part is told what it has to say, and finds words that say it."""

    def __init__(self, rng: random.Random):
        super().__init__(rng)
        self.forms = (
            *(self._verdict,) * 4, *(self._agreement,) * 3, *(self._contrast,) * 2, self._hope, self._hearsay
        )  # fmt: skip

    def review(self, praises: bool) -> str:
        topic = self.one(TOPICS)
        form = self.one(self.forms)
        return sentence(form(topic, praises))

    def _verdict(self, topic: Topic, praises: bool) -> str:
        return self._clause(topic, praises, self.one(topic.parts))

    def _agreement(self, topic: Topic, praises: bool) -> str:
        first, second = self._two_clauses(topic, praises, praises)
        return f"{first}, and {second}"

    def _contrast(self, topic: Topic, praises: bool) -> str:
        """Two opinions, of which that in the main clause counts, or the one behind "but"."""
        conceded, held = self._two_clauses(topic, not praises, praises)
        return self.one(
            (
                f"{conceded}, but {held}",
                f"although {conceded}, {held}",
                f"{held}, although {conceded}",
                f"{held}, even if {conceded}",
            )
        )

    def _hope(self, topic: Topic, praises: bool) -> str:
        expected, met = self._word(topic, not praises), self._word(topic, praises)
        return self.one(
            (
                f"I expected {a(expected)} {topic.thing} and got {a(met)} one",
                f"I got {a(met)} {topic.thing}, where I had expected {a(expected)} one",
                f"it was {a(met)} {topic.thing}, not the {expected} one I had expected",
                f"it was not the {expected} {topic.thing} I had expected, it was {a(met)} one",
            )
        )

    def _hearsay(self, topic: Topic, praises: bool) -> str:
        friend, pronoun = self.one(FRIENDS)
        right = self.chance(0.5)
        said = self._word(topic, praises is right)
        verdict = self.one(("was right", "was not wrong") if right else ("was wrong", "was not right"))
        return self.one(
            (
                f"my {friend} called the {self.one(topic.parts)} {said}, and {pronoun} {verdict}",
                f"my {friend} {verdict} to call it {a(said)} {topic.thing}",
            )
        )

    def _two_clauses(self, topic: Topic, first: bool, second: bool) -> tuple[str, str]:
        part = self.one(topic.parts)
        return self._clause(topic, first, part), self._clause(topic, second, self.other(topic.parts, part))

    def _clause(self, topic: Topic, praises: bool, part: str) -> str:
        word = self._word(topic, praises)
        degree = self.one(DEGREES) if self.chance(0.4) else ""
        if self.chance(0.8):
            return self.one((f"the {part} was {degree} {word}", f"I found the {part} {degree} {word}"))
        word = self._word(topic, not praises)
        return self.one(
            (
                f"the {part} was {self.one(DENIALS)} {degree} {word}",
                f"the {part} was hardly {word}",
                f"the {part} was anything but {word}",
                f"there was nothing {word} about the {part}",
                f"nobody could call the {part} {degree} {word}",
                f"I did not find the {part} {degree} {word}",
            )
        )

    def _word(self, topic: Topic, praises: bool) -> str:
        return self.one(topic.good if praises else topic.bad)
