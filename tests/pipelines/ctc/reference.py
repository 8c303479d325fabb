"""CTC by looking at every path, and prefix beam search over dictionaries, both in float64."""

import itertools

import numpy as np

from pipelines.ctc import Automaton


def log_softmax(x):
    x = np.asarray(x, "float64")
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def random_log_probs(seed, *shape, spread=2.0):
    """(..., V) float32, normalised."""
    return log_softmax(np.random.default_rng(seed).normal(0, spread, shape)).astype("float32")


def random_automaton(seed, size, states=5):
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, (states, size)).astype("float32")
    return Automaton(scores, rng.integers(0, states, (states, size)).astype("int32"))


def collapsed(path) -> tuple[int, ...]:
    """The labelling of a path: repeats merged, blanks removed."""
    return tuple(symbol for symbol, _ in itertools.groupby(map(int, path)) if symbol)


def paths(log_probs):
    """Every path through the frames (T, V), with its log-probability."""
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        yield path, sum(float(frame[symbol]) for frame, symbol in zip(log_probs, path, strict=True))


def labellings(log_probs) -> dict[tuple[int, ...], float]:
    """The log-probability of every labelling of the frames (T, V)."""
    found = {}
    for path, score in paths(log_probs):
        labelling = collapsed(path)
        found[labelling] = np.logaddexp(found.get(labelling, -np.inf), score)
    return found


def prefix_search(log_probs, beams, biases=()):
    """[(labelling, log-probability)], the best first, by log-probability and biases."""

    def biased(prefix, masses, end=False):
        total = np.logaddexp(*masses)
        for automaton in biases:
            state = 0
            for symbol in prefix:
                total += float(automaton.scores[state, symbol])
                state = automaton.following[state, symbol]
            total += float(automaton.scores[state, 0]) if end else 0.0
        return total

    beam = {(): (0.0, -np.inf)}
    for frame in np.asarray(log_probs, "float64"):
        following = {}

        def add(prefix, silent=-np.inf, voiced=-np.inf, following=following):
            before = following.get(prefix, (-np.inf, -np.inf))
            following[prefix] = (np.logaddexp(before[0], silent), np.logaddexp(before[1], voiced))

        for prefix, (silent, voiced) in beam.items():
            total = np.logaddexp(silent, voiced)
            add(prefix, silent=total + frame[0])
            for symbol in range(1, len(frame)):
                if prefix and prefix[-1] == symbol:
                    add(prefix, voiced=voiced + frame[symbol])
                    add((*prefix, symbol), voiced=silent + frame[symbol])
                else:
                    add((*prefix, symbol), voiced=total + frame[symbol])
        possible = {prefix: masses for prefix, masses in following.items() if max(masses) > -np.inf}
        beam = dict(sorted(possible.items(), key=lambda item: -biased(*item))[:beams])
    ranked = sorted(beam.items(), key=lambda item: -biased(*item, end=True))
    return [(prefix, np.logaddexp(*masses)) for prefix, masses in ranked]
