"""Two translators without a neural network, which a trained model must beat to have learnt anything.

`DictionaryBaseline` replaces each word by its likeliest translation and keeps the source order: it knows
words but no grammar. `NearestNeighbourBaseline` answers the training translation of the most similar
training sentence: its grammar is perfect, its content borrowed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_BEFORE_CLOSING = re.compile(r"\s+([.,;:!?)\]])")
_NULL = ""  # Model 1's empty source word, which accounts for target words that translate nothing


class DictionaryBaseline:
    """Word-by-word translation with the lexical probabilities of IBM Model 1.

    Model 1 takes each target word f to come from one word e of the source sentence or from an empty word, all
    equally likely beforehand. Expectation maximisation then finds t(f | e), and e is translated by the f that
    maximises it. Source words are matched in lower case; unknown ones and punctuation are copied.

    Args:
        iterations: of expectation maximisation, at least 1.

    Example:
        >>> pairs = [("a dog", "ein Hund"), ("a cat", "eine Katze"), ("dog", "Hund")]
        >>> DictionaryBaseline().fit(pairs).translate(["Dog, cat"])
        ['Hund, Katze']

    References:
        Brown, Della Pietra, Della Pietra and Mercer (1993), The Mathematics of Statistical Machine
        Translation: Parameter Estimation. Computational Linguistics 19(2).
    """

    def __init__(self, iterations: int = 5):
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1. Received: {iterations}")
        self.iterations = iterations
        self.dictionary: dict[str, str] = {}

    def fit(self, pairs: Iterable[tuple[str, str]]) -> DictionaryBaseline:
        """Learn the dictionary from (source, target) sentences and return the baseline.

        Raises:
            ValueError: no pair has words on both sides.
        """
        tokens = [(_words(source.lower()), _words(target)) for source, target in pairs]
        tokens = [(source, target) for source, target in tokens if source and target]
        if not tokens:
            raise ValueError("A dictionary needs pairs with words on both sides. Received none")
        spelling = _usual_spelling(target for _, target in tokens)
        source_ids, target_ids = _Vocabulary(), _Vocabulary()
        sources = [source_ids.encode([_NULL, *source]) for source, _ in tokens]
        targets = [target_ids.encode([spelling.get(first, first), *rest]) for _, (first, *rest) in tokens]
        source, target, probability = _model_1(sources, targets, self.iterations)
        order = np.argsort(probability, kind="stable")  # so that the likeliest is written last and stays
        best = dict(zip(source[order].tolist(), target[order].tolist(), strict=True))
        self.dictionary = {source_ids.words[e]: target_ids.words[f] for e, f in best.items()}
        return self

    def translate(self, sources: Sequence[str]) -> list[str]:
        """Translate sentences word by word; the first letter is upper case where the source's is."""
        return [self._translate(source) for source in sources]

    def _translate(self, source: str) -> str:
        words = [self.dictionary.get(word.lower(), word) for word in _tokens(source)]
        sentence = _BEFORE_CLOSING.sub(r"\1", " ".join(words))
        return sentence[:1].upper() + sentence[1:] if source[:1].isupper() else sentence


class NearestNeighbourBaseline:
    """The translation of the training sentence whose source is most similar.

    Similarity is the cosine of TF-IDF vectors of words and word pairs.

    Args:
        batch_size: how many sentences are compared with the training set at once.
    """

    def __init__(self, batch_size: int = 256):
        self.batch_size = batch_size
        self._vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_TOKEN.pattern, dtype=np.float32)
        self._targets: list[str] = []

    def fit(self, pairs: Iterable[tuple[str, str]]) -> NearestNeighbourBaseline:
        """Remember (source, target) training sentences and return the baseline."""
        sources, targets = zip(*pairs, strict=True)
        self._matrix = self._vectorizer.fit_transform(sources)  # (training sentences, n-grams), unit rows
        self._targets = list(targets)
        return self

    def translate(self, sources: Sequence[str]) -> list[str]:
        """The training target of each source's nearest training source; the first of equally near ones."""
        nearest: list[int] = []
        for start in range(0, len(sources), self.batch_size):
            queries = self._vectorizer.transform(sources[start : start + self.batch_size])
            similarity = (queries @ self._matrix.T).toarray()  # (batch, training sentences)
            nearest += similarity.argmax(axis=1).tolist()
        return [self._targets[index] for index in nearest]


def _tokens(sentence: str) -> list[str]:
    """Words (with inner hyphens and apostrophes) and single punctuation marks."""
    return _TOKEN.findall(sentence)


def _words(sentence: str) -> list[str]:
    return [token for token in _tokens(sentence) if token[0].isalnum()]


def _usual_spelling(sentences: Iterable[list[str]]) -> dict[str, str]:
    """How words that stand first, with a capital letter, are usually written inside a sentence."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for word in sentence[1:]:
            seen[word[:1].upper() + word[1:]][word] += 1
    return {word: spellings.most_common(1)[0][0] for word, spellings in seen.items()}


class _Vocabulary:
    """Numbers for words, in order of appearance."""

    def __init__(self):
        self.words: list[str] = []
        self._ids: dict[str, int] = {}

    def encode(self, words: list[str]) -> np.ndarray:
        for word in words:
            if word not in self._ids:
                self._ids[word] = len(self.words)
                self.words.append(word)
        return np.array([self._ids[word] for word in words], dtype=np.int64)


def _model_1(
    sources: list[np.ndarray], targets: list[np.ndarray], iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IBM Model 1 over encoded sentence pairs.

    Every (source word, target token) of a pair is a link; the arrays over all links of the corpus fit in
    memory (29,000 pairs of 13 words: 5 million links), so an iteration is a few passes over them.

    Returns:
        Three arrays of equal length: source words e, target words f that occur together, and t(f | e).
    """
    source = np.concatenate([np.repeat(e, len(f)) for e, f in zip(sources, targets, strict=True)])
    target = np.concatenate([np.tile(f, len(e)) for e, f in zip(sources, targets, strict=True)])
    firsts = np.cumsum([0] + [len(f) for f in targets[:-1]])
    positions = [np.tile(np.arange(first, first + len(f)), len(e))
                 for first, e, f in zip(firsts, sources, targets, strict=True)]  # fmt: skip
    position = np.concatenate(positions)  # which target token of the corpus a link belongs to
    columns = int(target.max()) + 1
    entries, entry = np.unique(source * columns + target, return_inverse=True)  # links of the same two words
    entry_source, entry_target = entries // columns, entries % columns

    probability = np.ones(len(entries))  # uniform; the first normalisation below sets the scale
    for _ in range(iterations):
        link = probability[entry]
        responsibility = link / np.bincount(position, weights=link)[position]  # E step: whose is the token
        expected = np.bincount(entry, weights=responsibility)
        probability = expected / np.bincount(entry_source, weights=expected)[entry_source]  # M step
    return entry_source, entry_target, probability
