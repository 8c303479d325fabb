"""The sample that the nlp app learns from by default: text of grammars of the project's own, one for each task.

`reviews` are opinions in two classes. What is said is a function of how it is said: "not a dull film" praises, and of
"the bread was stale, but the soup was delicious" the main clause decides; so words alone do not tell the class.
`pairs` are sentences with a score of how much they say the same, whatever words and voice they say it in. `stories`
are running text. Held-out text is always new, and made of words that training has.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from apps.nlp.sample.grammar import Item
from apps.nlp.sample.pairs import Pairs
from apps.nlp.sample.reviews import Reviews
from apps.nlp.sample.stories import Stories

COUNTS = {"train": 3000, "validation": 300, "test": 400}  # reviews, and pairs
CHARACTERS = {"train": 300_000, "validation": 20_000, "test": 20_000}  # of stories, at least
SEEN_AT_LEAST = 5  # how often training holds each word of a held-out text
NEGATIVE, POSITIVE = "negative", "positive"


def reviews() -> dict[str, list[tuple[str, str]]]:
    """The splits of the classified sample: texts and their classes, `negative` or `positive`, about as many of each."""
    rng = random.Random(29)
    grammar = Reviews(rng)

    def draw():
        praises = rng.random() < 0.5
        return grammar.review(praises), (NEGATIVE, POSITIVE)[praises]

    return _splits(draw, lambda review: review[:1])


def pairs() -> dict[str, list[tuple[str, str, float]]]:
    """The splits of the compared sample: two sentences each, and a score from 0, nothing in common, to 5, the same."""
    return _splits(Pairs(random.Random(31)).pair, lambda pair: pair[:2])


def stories() -> dict[str, list[str]]:
    """The splits of the running text: stories of one paragraph each."""
    grammar = Stories(random.Random(37))
    told: dict[str, None] = {}  # a set in order

    def new() -> str:
        while (found := grammar.story()) in told:
            pass
        told[found] = None
        return found

    found = {}
    for split, least in CHARACTERS.items():
        texts = []
        while sum(map(len, texts)) + len(texts) < least:
            texts.append(new())
        found[split] = texts
    return found


def words(text: str) -> list[str]:
    """The words of a text, in lower case and without the marks around them."""
    return [word.strip('.,?!"') for word in text.lower().split()]


def _splits(draw: Callable[[], Item], texts_of: Callable[[Item], Sequence[str]]) -> dict[str, list[Item]]:
    """Draws the examples of each split. No text of a split is in an earlier one, and no example comes twice.

    Each word of a held-out text is `SEEN_AT_LEAST` times in training.
    """
    earlier: set[str] = set()
    known: Counter[str] = Counter()
    found = {}
    for split, count in COUNTS.items():
        items: dict[Item, None] = {}  # a set in order
        while len(items) < count:
            item = draw()
            texts = texts_of(item)
            if earlier.isdisjoint(texts) and (
                split == "train" or all(known[word] >= SEEN_AT_LEAST for text in texts for word in words(text))
            ):
                items[item] = None
        found[split] = list(items)
        seen = [text for item in items for text in texts_of(item)]
        earlier.update(seen)
        if split == "train":
            known.update(word for text in seen for word in words(text))
    return found
