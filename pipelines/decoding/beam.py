"""Beam search: the likeliest whole sequences, as far as K hypotheses a row can find them."""

from typing import Any

import tensorflow as tf

from layers import donated_caches
from pipelines.decoding.step import Answers, DecodingStep, Frontier, likeliest, longest_limit, private

IMPOSSIBLE = -float("inf")


def length_normaliser(length: tf.Tensor, alpha: float) -> tf.Tensor:
    """What a sum of log-probabilities over `length` tokens is divided by: ((5 + length) / 6)^alpha.

    References:
        Wu et al. 2016, Google's Neural Machine Translation System, equation 14. https://arxiv.org/abs/1609.08144
    """
    return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** alpha


def beam_search(
    step: DecodingStep,
    state: Any,
    limits: tf.Tensor,
    start_id: int,
    end_id: int,
    beams: int = 4,
    n_best: int = 1,
    length_penalty: float = 0.0,
) -> Answers:
    """Keeps the K likeliest unfinished hypotheses of each row, and the best finished ones.

    A row ends when no unfinished hypothesis can come to beat its n-th best finished one any more: log-probabilities
    only fall, and the length they are divided by is bounded.

    Args:
        step: predicts the next token of K hypotheses a row.
        state: what the step keeps between calls, with room for K · L steps, L = max(limits).
        limits: (B,) int32, how many tokens each row's answer may have; 0 for a row that needs none.
        start_id: token before the first one.
        end_id: token that ends an answer.
        beams: K.
        n_best: N, answers to give, at most K.
        length_penalty: alpha of `length_normaliser`, not negative; 0 compares plain sums, which favours short
            answers.

    Returns:
        N answers a row, scored by the sum of log-probabilities over the length normaliser. Where fewer than N
        ended within the limit, the best unfinished ones follow.

    Raises:
        ValueError: N is larger than K, or the length penalty negative.
    """
    if not 1 <= n_best <= beams:
        raise ValueError(f"n_best must be between 1 and beams. Received: n_best={n_best}, beams={beams}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must not be negative. Received: {length_penalty}")
    rows, longest = tf.size(limits), longest_limit(limits)
    positions = tf.range(longest)
    own = tf.eye(beams, dtype=tf.bool)[None, :, None]  # (1, K, 1, K)
    worst_normaliser = length_normaliser(limits, length_penalty)  # (B,)

    def extend(position, alive: Answers, frontier_ids, past, state):
        """The best 2 K candidates of each row, whatever they end with: enough for K that do not end."""
        tokens, parents = frontier_ids
        visible = tf.gather(past, parents, batch_dims=1)  # (B, K, L, K)
        visible |= own & (positions == position)[None, None, :, None]
        frontier = Frontier(tokens, position, parents, tf.reshape(visible, [rows, beams, longest * beams]))
        with donated_caches():
            logits, state = step(frontier, state)
        size = logits.shape[-1]
        each = min(2 * beams, size)
        scores, ids = likeliest(tf.reshape(tf.cast(logits, tf.float32), [rows * beams, size]), each)
        scores = tf.reshape(alive.scores, [-1, 1]) + scores
        scores, places = tf.math.top_k(tf.reshape(scores, [rows, beams * each]), min(2 * beams, beams * each))
        tokens = tf.gather(tf.reshape(ids, [rows, beams * each]), places, batch_dims=1)
        parents = places // each  # (B, 2 K)
        ids = tf.gather(alive.ids, parents, batch_dims=1)
        ids = tf.where(positions == position, tokens[..., None], ids)
        return Answers(ids, scores), tokens, parents, visible, state

    def unfinished(_position, _alive, _frontier, _past, _finished, done, _state):
        return ~tf.reduce_all(done)

    def body(position, alive, frontier, past, finished, done, state):
        candidates, tokens, parents, past, state = extend(position, alive, frontier, past, state)
        ended = tokens == end_id
        normaliser = length_normaliser(position + 1, length_penalty)
        # An end counts where it is among the K best: one beam then ends where greedy decoding does.
        counts = ended & (tf.range(tf.shape(ended)[1]) < beams)
        found = Answers(candidates.ids, tf.where(counts, candidates.scores / normaliser, IMPOSSIBLE))
        found, _ = _best(_join(finished, found), beams)
        going_on = Answers(candidates.ids, tf.where(ended, IMPOSSIBLE, candidates.scores))
        going_on, places = _best(going_on, beams)
        # A row that is done stays as it is, however long others take.
        finished, alive = _where(done, finished, found), _where(done, alive, going_on)
        bound = alive.scores[:, 0] / worst_normaliser
        done |= (finished.scores[:, n_best - 1] >= bound) | (position + 1 >= limits)
        frontier = tuple(tf.gather(x, places, batch_dims=1) for x in (tokens, parents))
        return position + 1, alive, frontier, past, finished, done, state

    no_ids = tf.zeros([rows, beams, longest], tf.int32)
    # At first all hypotheses are the same: one counts.
    first = tf.where(tf.range(beams) == 0, tf.zeros([rows, beams]), IMPOSSIBLE)
    start = (
        tf.constant(0),
        Answers(no_ids, first),
        (tf.fill([rows, beams], start_id), tf.zeros([rows, beams], tf.int32)),
        tf.zeros([rows, beams, longest, beams], tf.bool),
        Answers(no_ids, tf.fill([rows, beams], IMPOSSIBLE)),
        limits <= 0,
        private(state),
    )
    _, alive, _, _, finished, _, _ = tf.while_loop(unfinished, body, start)
    return _fill_up(finished, alive, n_best, worst_normaliser)


def _fill_up(finished: Answers, alive: Answers, n_best: int, normaliser: tf.Tensor) -> Answers:
    """The N best answers: what has ended, then what was cut at the limit."""
    cut = Answers(alive.ids, alive.scores / normaliser[:, None])
    tiers = [tf.fill(tf.shape(finished.scores), 2), tf.ones(tf.shape(cut.scores), tf.int32)]
    both = _join(finished, cut)
    tier = tf.where(both.scores > IMPOSSIBLE, tf.concat(tiers, axis=1), 0)
    # Each list is sorted by score, and a stable sort leaves it so.
    order = tf.argsort(tier, axis=1, direction="DESCENDING", stable=True)[:, :n_best]
    return Answers(*(tf.gather(x, order, batch_dims=1) for x in both))


def _join(a: Answers, b: Answers) -> Answers:
    return Answers(*(tf.concat(pair, axis=1) for pair in zip(a, b, strict=True)))


def _best(answers: Answers, count: int) -> tuple[Answers, tf.Tensor]:
    """The `count` best answers, and their places among the given ones."""
    scores, places = tf.math.top_k(answers.scores, count)
    return Answers(tf.gather(answers.ids, places, batch_dims=1), scores), places


def _where(condition: tf.Tensor, chosen: Answers, other: Answers) -> Answers:
    """Row by row, by a condition (B,)."""
    ids = tf.where(condition[:, None, None], chosen.ids, other.ids)
    return Answers(ids, tf.where(condition[:, None], chosen.scores, other.scores))
