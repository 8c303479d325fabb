"""The baselines: what they learn from little, that they agree with what defines them, and what they reach."""

import os
from collections import Counter, defaultdict

import numpy as np
import pytest

from apps.nlp import baselines, data
from apps.nlp.config import NlpConfig
from apps.nlp.data import Examples
from pipelines.errors import UserError

needs_data = pytest.mark.skipif(not os.environ.get("ESPALIER_DATA"), reason="needs ESPALIER_DATA")


def labelled(*rows: tuple[str, str]) -> Examples:
    texts, labels = zip(*rows, strict=True)
    return Examples(texts, labels=labels)


ANIMALS = labelled(*[(f"the {a} ran", a[0]) for a in "dog cat dog cat ape ape".split()])


def test_classes_by_their_words():
    test = labelled(("a dog", "d"), ("my cat", "c"), ("an ape", "a"), ("no dog", "c"))
    found = baselines.classifier(ANIMALS, ANIMALS)(test)
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_validation_chooses_the_strength():
    """The same training, other validation texts: what is chosen is what is best on those."""
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.choice(list("abcdefgh"), 4)), str(rng.integers(2))) for _ in range(120)]
    train, validation, test = labelled(*rows[:60]), labelled(*rows[60:90]), labelled(*rows[90:])
    on_validation = baselines.classifier(train, validation)(validation)["accuracy"]
    for c in baselines.STRENGTHS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(baselines, "STRENGTHS", (c,))
            assert baselines.classifier(train, validation)(validation)["accuracy"] <= on_validation
    assert baselines.classifier(train, validation)(test)["c"] in baselines.STRENGTHS


def test_a_single_label_or_none():
    rows = labelled(*[("red", "r"), ("grey", ""), ("a red one", "r"), ("a grey one", "")] * 3)
    test = labelled(("red", "r"), ("grey", ""), ("so red", ""), ("so grey", ""))
    found = baselines.classifier(rows, rows, multi_label=True)(test)
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx(2 / 3)  # of the label, and not of those without it too


def test_several_labels_and_none():
    rows = [("red", "r"), ("blue", "b"), ("red and blue", "r|b"), ("grey", "")] * 3
    found = baselines.classifier(*[labelled(*rows)] * 2, multi_label=True)(labelled(*rows))
    assert found["accuracy"] == 1 and found["macro_f1"] == 1
    wrong = labelled(("red and blue", "r"), ("grey", ""))
    assert baselines.classifier(labelled(*rows), labelled(*rows), multi_label=True)(wrong)["accuracy"] == 0.5


def test_cosines_follow_common_words():
    pairs = Examples(
        ("a dog runs", "a dog runs", "a dog runs"), ("a dog runs", "a dog sleeps", "my cat sleeps"),
        scores=np.array([5, 3, 0], np.float32),
    )  # fmt: skip
    found = baselines.similarity(pairs, pairs)
    assert found["spearman"] == 1 and 0.95 < found["pearson"] <= 1
    same = baselines.similarity(pairs, pairs.take(np.array([0, 0])))
    assert np.isnan(same["pearson"]) and np.isnan(same["spearman"])


def test_text_without_words():
    nothing = Examples(("!", "?"), ("...", "-"), ("a", "b"), np.array([1.0, 2.0]), source="marks.csv")
    with pytest.raises(UserError, match=r"marks\.csv: no text has a word"):
        baselines.similarity(nothing, nothing)
    with pytest.raises(UserError, match=r"marks\.csv: no text has a word"):
        baselines.classifier(nothing, nothing)


def counted(train, test, order):
    """The same model, counted in dictionaries one character at a time."""
    after = defaultdict(Counter)
    for document in train:
        padded = ["^"] * (order - 1) + list(document)
        for place in range(order - 1, len(padded)):
            for length in range(order):
                after[tuple(padded[place - length : place])][padded[place]] += 1
    known = set("".join(train))

    def probability(history, character):
        shorter = probability(history[1:], character) if history else 1 / (len(known) + 1)
        seen = after.get(tuple(history))
        return shorter if seen is None else (seen[character] + len(seen) * shorter) / (seen.total() + len(seen))

    bits = []
    for document in test:
        padded = ["^"] * (order - 1) + [character if character in known else "?" for character in document]
        bits += [-np.log2(probability(padded[p - order + 1 : p], padded[p])) for p in range(order - 1, len(padded))]
    return np.mean(bits)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_n_grams_are_those_of_the_definition(order):
    train, test = ("abracadabra\n", "a barn", "cab"), ("a bra", "barracuda", "z")
    found = baselines.generate(Examples(train), Examples(test), order)
    assert found["bits_per_character"] == pytest.approx(counted(train, test, order))
    assert found["perplexity"] == pytest.approx(2 ** counted(train, test, order))


def test_the_sample_leaves_room_for_a_model():
    found = data.splits(NlpConfig())
    assert 0.65 < baselines.classifier(found["train"], found["validation"])(found["test"])["accuracy"] < 0.9
    found = data.splits(NlpConfig(task="similarity"))
    assert 0.4 < baselines.similarity(found["train"], found["test"])["pearson"] < 0.7
    found = data.splits(NlpConfig(task="generate"))
    assert 0.5 < baselines.generate(found["train"], found["test"])["bits_per_character"] < 0.9


@needs_data
def test_public_sets():
    """Near what others measured: 0.813 on SST-2, 0.665 on STS-B."""
    found = data.splits(NlpConfig(dataset="sst2"))
    assert baselines.classifier(found["train"], found["validation"])(found["test"])["accuracy"] == pytest.approx(
        0.81, abs=0.012
    )
    found = data.splits(NlpConfig(task="similarity", dataset="stsb"))
    assert baselines.similarity(found["train"], found["test"])["pearson"] == pytest.approx(0.665, abs=0.01)
