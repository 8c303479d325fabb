"""The sample: the same everywhere, held-out text new but of known words, and labels that follow from what is said."""

import random
import re
from collections import Counter
from itertools import combinations

import pytest

from apps.nlp import sample
from apps.nlp.sample.pairs import DONE_TO_PEOPLE, DONE_TO_THINGS, PEOPLE, PLACES, THINGS
from apps.nlp.sample.reviews import TOPICS, Reviews

GOOD = {word for topic in TOPICS for word in topic.good}
BAD = {word for topic in TOPICS for word in topic.bad}


@pytest.fixture(scope="module")
def reviews():
    return sample.reviews()


@pytest.fixture(scope="module")
def pairs():
    return sample.pairs()


@pytest.fixture(scope="module")
def stories():
    return sample.stories()


def test_it_is_the_same_every_time(reviews, pairs, stories):
    assert (reviews, pairs, stories) == (sample.reviews(), sample.pairs(), sample.stories())


def test_sizes(reviews, pairs, stories):
    assert {split: len(found) for split, found in reviews.items()} == sample.COUNTS
    assert {split: len(found) for split, found in pairs.items()} == sample.COUNTS
    for split, least in sample.CHARACTERS.items():
        assert least <= len("\n".join(stories[split])) + 1 < least + 1000


def texts_of(found):
    return {
        split: {text for item in items for text in ([item] if isinstance(item, str) else item) if isinstance(text, str)}
        - {sample.NEGATIVE, sample.POSITIVE}
        for split, items in found.items()
    }


def test_held_out_text_is_new_and_of_known_words(reviews, pairs, stories):
    for found in (reviews, pairs, stories):
        texts = texts_of(found)
        assert not any(texts[one] & texts[other] for one, other in combinations(texts, 2))
        known = Counter(word for text in texts["train"] for word in sample.words(text))
        words = {word for split in ("validation", "test") for text in texts[split] for word in sample.words(text)}
        assert min(known[word] for word in words) >= sample.SEEN_AT_LEAST


def test_text_looks_like_english(reviews, pairs, stories):
    for found in (reviews, pairs, stories):
        for text in set().union(*texts_of(found).values()):
            assert re.fullmatch(r'[A-Z"][A-Za-z ,.?"]+[.?"]', text), text
            assert not re.search(r"  | ,|\ba [aeiou]|\ban [^aeiou]|\b(\w+) \1\b", text, re.IGNORECASE), text


# What is said decides


def praises(text: str) -> bool:
    """Reads a review as its reader would: by rules of its own that share none of the grammar's code."""
    text = text.lower().rstrip(".")
    # Who was wrong turns round what they said.
    if hearsay := re.search(r"^my \w+ .*\bwas (not )?(right|wrong)\b", text):
        agrees = (hearsay[2] == "right") != bool(hearsay[1])
        return agrees == opinion(text.replace(hearsay[0][hearsay[0].rindex("was") :], ""))
    # What was expected does not count, nor what is conceded.
    for pattern in (
        r"^i expected .* and got (.*)", r"^i got (.*), where .*", r"^it was not .*, it was (.*)",
        r"^it was (.*), not .*", r".*, but (.*)", r"^although .*?, (.*)", r"(.*), (?:although|even if) .*",
    ):  # fmt: skip
        if found := re.match(pattern, text):
            return opinion(found[1])
    first, *rest = [opinion(part) for part in text.split(", and ")]
    assert all(other == first for other in rest), text
    return first


def opinion(clause: str) -> bool:
    """Of one clause: its one word of praise or blame, turned round where it is denied."""
    (word,) = set(sample.words(clause)) & (GOOD | BAD)
    return (word in GOOD) != bool(re.search(r"\b(not|never|hardly|anything but|nothing|nobody)\b", clause))


def test_classes_follow_from_what_is_said(reviews):
    for found in reviews.values():
        for text, label in found:
            assert praises(text) == (label == sample.POSITIVE), text


def test_a_word_alone_decides_nothing(reviews):
    """Each word of praise or blame stands in reviews of either class."""
    seen = Counter((word, label) for text, label in reviews["train"] for word in sample.words(text))
    for word in GOOD | BAD:
        assert seen[word, sample.POSITIVE] >= 5 and seen[word, sample.NEGATIVE] >= 5


def test_both_classes_are_equally_long():
    grammar = Reviews(random.Random(0))
    mean = [sum(len(grammar.review(label).split()) for _ in range(2000)) / 2000 for label in (False, True)]
    assert abs(mean[0] - mean[1]) < 0.5


def event(text: str):
    """Agent, deed, patient and place of a sentence, each as the number of its concept."""
    text = text.lower().rstrip(".")

    def concept(groups, where):
        found = [(where.index(word), n) for n, words in enumerate(groups) for word in words
                 if re.search(rf"\b{word}\b", where)]  # fmt: skip
        return [n for _, n in sorted(found)]

    (place,) = set(concept(PLACES, text))
    text = re.sub("|".join(place for words in PLACES for place in words), "", text)
    (deed,) = concept(DONE_TO_PEOPLE + DONE_TO_THINGS, text)
    one, other = re.findall(r"\bthe (\w+)", text)
    numbers = {word: n for n, words in enumerate(PEOPLE + THINGS) for word in words}
    agent, patient = (other, one) if " by the " in text else (one, other)
    return numbers[agent], deed, numbers[patient], place


def test_scores_follow_from_what_is_said(pairs):
    for first, second, score in pairs["train"][:1000]:
        one, other = event(first), event(second)
        alike = [a == b for a, b in zip(one, other, strict=True)]
        if one[0] == other[2] and one[2] == other[0]:
            assert score == 2 and alike == [False, True, False, True]
        elif score in (3, 2):
            assert score == 3 and alike in ([True, True, False, True], [False, True, True, True])
        else:
            assert sum(alike) == {5: 4, 4: 3, 1: 1, 0: 0}[score] and (score != 4 or not alike[3])
        assert first != second


def test_scores_are_even(pairs):
    counts = Counter(score for *_, score in pairs["train"])
    assert sorted(counts) == [0, 1, 2, 3, 4, 5] and min(counts.values()) > 400


def test_pronouns_agree(stories):
    women = {"Ada", "Clara", "Edith", "Flora", "Ida", "Martha", "Nora", "Rosa"}
    for story in stories["test"]:
        hero = re.search(r"(?:^(?!There)|(?:named|lived) )([A-Z][a-z]+)(?: was|, )", story)[1]
        habit = re.search(r"Every \w+ (she|he) ", story)[1]
        assert (habit == "she") == (hero in women), story
