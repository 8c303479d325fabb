"""Small languages whose every sentence can be looked at: a model with a recurrent state, and exhaustive search."""

import functools
import itertools

import numpy as np
import tensorflow as tf

START, END = 2, 3
STATES = 997


class Language:
    """Next-token probabilities that depend on the row and on everything said so far.

    Args:
        seed: which language.
        size: tokens.
        spread: how far apart the logits lie.
    """

    def __init__(self, seed: int, size: int = 6, spread: float = 1.5):
        self.size = size
        logits = np.random.default_rng(seed).normal(0, spread, (STATES, size))
        self.log_probabilities = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype("float32")

    def step(self, frontier, codes):
        """A `DecodingStep`. The state (B, K) numbers each hypothesis' history."""
        codes = tf.gather(codes, frontier.parents, batch_dims=1)
        codes = (codes * 31 + frontier.tokens * 7 + 1) % STATES
        return tf.gather(tf.constant(self.log_probabilities), codes), codes

    def score(self, row: int, sentence) -> float:
        """Sum of the log-probabilities of a row's sentence."""
        code, total = row, 0.0
        for token, following in zip([START, *sentence[:-1]], sentence, strict=True):
            code = (code * 31 + token * 7 + 1) % STATES
            total += self.log_probabilities[code, following]
        return float(total)

    def sentences(self, limit: int):
        """All sentences that end within the limit."""
        words = [token for token in range(self.size) if token != END]
        for length in range(limit):
            for body in itertools.product(words, repeat=length):
                yield (*body, END)


def decoder(function, hypotheses: int = 1, **settings):
    """A compiled decoder of any batch: (rows (B,), limits (B,), ...) -> Answers, as NumPy arrays."""
    language = settings.pop("language")

    @functools.partial(tf.function, reduce_retracing=True)
    def run(rows, limits, **more):
        codes = tf.repeat(rows[:, None], hypotheses, axis=1)
        return function(language.step, codes, limits, START, END, **settings, **more)

    def call(rows, limits, **more):
        answers = run(tf.constant(rows, tf.int32), tf.constant(limits, tf.int32), **more)
        return type(answers)(*(x.numpy() for x in answers))

    return call


def said(ids) -> tuple[int, ...]:
    """Ids (L,) without what follows the end."""
    ids = list(ids)
    return tuple(ids[: ids.index(END) + 1] if END in ids else ids)
