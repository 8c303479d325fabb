"""What can be had without a neural network: a trained model must beat it to have learnt more than words.

TF-IDF vectors tell classes apart and pairs alike; a language model is counted from five characters at a time.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from apps.nlp.data import Examples, class_names, classes_of
from pipelines.errors import UserError

WORDS = r"(?u)\b\w+\b"  # of one letter too
STRENGTHS = (1.0, 3.0, 10.0, 30.0)  # of C, the inverse of the regularisation


def classifier(
    train: Examples, validation: Examples, multi_label: bool = False
) -> Callable[[Examples], dict[str, float]]:
    """Logistic regression on TF-IDF of words and pairs of words.

    Args:
        train: to learn from.
        validation: chooses how much is regularised.
        multi_label: a text may have several classes, or none.

    Returns:
        What measures it on examples: `accuracy`, of several labels the share of texts all of whose labels are right,
        `macro_f1`, and the `c` chosen.

    Raises:
        UserError: no text has a word.
    """
    names = class_names(train, multi_label)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORDS, dtype=np.float32)
    try:
        inputs = vectorizer.fit_transform(train.texts)  # (N, n-grams)
    except ValueError:  # an empty vocabulary
        raise UserError(f"{train.source}: no text has a word in it") from None
    wanted, chosen = (_targets(split, names, multi_label) for split in (train, validation))
    models = {}
    for c in STRENGTHS:
        # The dual problem has as many unknowns as there are texts, a tenth of what the n-grams are: so much the faster.
        model = LogisticRegression(C=c, solver="liblinear", dual=True, max_iter=1000, random_state=0)
        models[c] = OneVsRestClassifier(model).fit(inputs, wanted)
    held_out = vectorizer.transform(validation.texts)
    best = max(STRENGTHS, key=lambda c: models[c].score(held_out, chosen))  # the first of the best

    def measured(test: Examples) -> dict[str, float]:
        found, there = models[best].predict(vectorizer.transform(test.texts)), _targets(test, names, multi_label)
        right = found.reshape(len(test), -1) == there.reshape(len(test), -1)  # of a single label, (N,) and (N, 1)
        average = "binary" if multi_label and len(names) == 1 else "macro"
        return {
            "accuracy": float(np.mean(right.all(axis=1))),
            "macro_f1": float(f1_score(there, found, average=average, zero_division=0.0)),
            "c": best,
        }

    return measured


def _targets(examples: Examples, names: Sequence[str], multi_label: bool) -> np.ndarray:
    """(N,) classes, or (N, C) of 0 and 1 where there may be several."""
    ids = {name: index for index, name in enumerate(names)}
    if not multi_label:
        return np.array([ids[label] for label in examples.labels], np.int64)
    found = np.zeros((len(examples), len(names)), np.int64)
    for row, label in zip(found, examples.labels, strict=True):
        row[[ids[name] for name in classes_of(label, multi_label)]] = 1
    return found


def similarity(train: Examples, test: Examples) -> dict[str, float]:
    """The cosine of TF-IDF vectors of words, of which training tells how rare they are.

    Returns:
        The correlations `pearson` and `spearman` of cosines and scores; NaN where either are all the same.

    Raises:
        UserError: no text has a word.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=WORDS, dtype=np.float32)
    try:
        vectorizer.fit((*train.texts, *train.others))
    except ValueError:  # an empty vocabulary
        raise UserError(f"{train.source}: no text has a word in it") from None
    first, second = vectorizer.transform(test.texts), vectorizer.transform(test.others)  # (N, words), unit rows
    cosines = np.asarray(first.multiply(second).sum(axis=1)).ravel()
    return correlations(test.scores, cosines)


def correlations(scores: np.ndarray, cosines: np.ndarray) -> dict[str, float]:
    """`pearson` and `spearman`, NaN where there is nothing to compare: one pair only, or all alike."""
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(cosines) == 0:
        return {"pearson": float("nan"), "spearman": float("nan")}
    return {
        "pearson": float(pearsonr(scores, cosines).statistic),
        "spearman": float(spearmanr(scores, cosines).statistic),
    }


def generate(train: Examples, test: Examples, order: int = 5) -> dict[str, float]:
    """An n-gram model of characters, smoothed as Witten and Bell (1991) do.

    p(c | h) = (count(h, c) + types(h) · p(c | h')) / (count(h) + types(h)), where h' is h without its first character,
    types(h) is how many different characters came after h, and under all lies the uniform distribution over the
    characters of training and one that stands for all others.

    Args:
        train: documents to count.
        test: documents to measure on; nothing is known of what came before each.
        order: n, the characters that are looked at together, the predicted one included.

    Returns:
        `bits_per_character` and `perplexity`, of a character.
    """
    known = {character: index for index, character in enumerate(sorted(set().union(*train.texts)), 1)}
    size = len(known) + 1  # with the unknown one
    pad = [size] * (order - 1)  # before each document
    symbols = []
    for document in (*train.texts, *test.texts):
        symbols += [*pad, *(known.get(character, 0) for character in document)]
    symbols = np.array(symbols, np.int64)  # (T,)
    is_text = symbols < size
    in_train = np.arange(len(symbols)) < sum(map(len, train.texts)) + len(pad) * len(train)
    counted, measured = np.flatnonzero(is_text & in_train), np.flatnonzero(is_text & ~in_train)

    probability = np.full(len(measured), 1 / size)
    histories = np.zeros(len(symbols), np.int64)  # (T,) number of the history that stands before each place
    for _ in range(order):
        # Numbers are dealt out anew for each length, so that they stay small however many characters there are.
        grams, gram = np.unique(histories * (size + 1) + symbols, return_inverse=True)
        gram_counts = np.bincount(gram[counted], minlength=len(grams))
        gram_history = grams // (size + 1)
        history_counts = np.bincount(gram_history, weights=gram_counts)
        types = np.bincount(gram_history, weights=gram_counts > 0)
        count, history = gram_counts[gram[measured]], histories[measured]
        total = history_counts[history] + types[history]
        probability = np.where(
            total > 0, (count + types[history] * probability) / np.maximum(total, 1), probability
        )  # a history that training has not says nothing
        histories = np.concatenate([[0], gram[:-1]])  # what was a history and its character is the next one's history
    bits = -float(np.mean(np.log2(probability)))
    return {"bits_per_character": bits, "perplexity": 2.0**bits}
