"""From the frames' log-probabilities to symbols: the likeliest alignment, or the likeliest labellings by prefix
beam search, which may lean on a language model or a word list. In the graph, with what TensorFlow Serving links."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from pipelines.ctc.automaton import Automaton
from pipelines.ctc.loss import IMPOSSIBLE, ctc_loss, log_add

ROOT, ABOVE_ROOT = 1, 2  # hashes of the empty prefix and of what would be its parent
MULTIPLIER = 6364136223846793005  # odd, with well-spread bits (Knuth's MMIX)


class Transcripts(NamedTuple):
    """The answers to each row, the best first.

    Args:
        ids: (B, N, L) int32 without blanks, zeros after the end; L is the longest answer's length.
        lengths: (B, N) int32, symbols.
        log_probabilities: (B, N) float32, of the labelling: the sum over its alignments. -inf where a row has
            fewer answers.
        confidences: (B, N) float32 in [0, 1]: the geometric mean of the probability over the symbols,
            p^(1 / max(1, length)), so that long answers compare with short ones.
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    log_probabilities: tf.Tensor
    confidences: tf.Tensor


def greedy(log_probs: tf.Tensor, lengths: tf.Tensor) -> Transcripts:
    """The labelling of the likeliest alignment: the likeliest of each frame, repeats merged, blanks removed.

    Args:
        log_probs: (B, T, V), any float type; blank is id 0.
        lengths: (B,) integers, frames of each row; what follows them is ignored.

    Returns:
        One answer a row. Its log-probability sums over all its alignments, not the likeliest alone.
    """
    log_probs = tf.cast(log_probs, tf.float32)
    frames = tf.sequence_mask(lengths, tf.shape(log_probs)[1])
    best = tf.where(frames, tf.argmax(log_probs, axis=-1, output_type=tf.int32), 0)
    before = tf.pad(best[:, :-1], [[0, 0], [1, 0]])
    ids, counts = _compact(tf.where(best != before, best, 0)[:, None])
    return _transcripts(ids, counts, -ctc_loss(log_probs, lengths, ids[:, 0], counts[:, 0])[:, None])


def prefix_beam_search(
    log_probs: tf.Tensor,
    lengths: tf.Tensor,
    beams: int = 16,
    top: int = 1,
    biases: Sequence[Automaton] = (),
) -> Transcripts:
    """The likeliest labellings, as far as K prefixes a row can find them.

    Each frame lets a prefix stay, by a blank or by its last symbol going on, or grow by one symbol. A prefix that
    grows into another one of the beam hands its alignments over to that one.

    Args:
        log_probs: (B, T, V), any float type, normalised (log-softmax); blank is id 0.
        lengths: (B,) integers, frames of each row; what follows them is ignored.
        beams: K.
        top: N, answers to give, at most K.
        biases: what is added to a prefix's log-probability when prefixes are compared, each over the same V ids.

    Returns:
        N answers a row, ordered by log-probability plus biases. Their log-probabilities are without the biases, and
        lack those alignments whose prefixes fell out of the beam: a lower bound, that K tightens.

    Raises:
        ValueError: N is larger than K.

    References:
        Graves 2012, Supervised Sequence Labelling with Recurrent Neural Networks, section 7.5.
        Hannun et al. 2014, First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
        DNNs. https://arxiv.org/abs/1408.2873
    """
    if not 1 <= top <= beams:
        raise ValueError(f"top must be between 1 and beams. Received: top={top}, beams={beams}")
    rows, steps, size = tf.shape(log_probs)[0], tf.shape(log_probs)[1] + 1, log_probs.shape[2]
    # After a row's last frame nothing but a blank can come, and that for certain: its beam stays as it is. One such
    # frame is added, so that there is one even where there is no sound at all.
    log_probs = tf.pad(tf.cast(log_probs, tf.float32), [[0, 0], [0, 1], [0, 0]])
    frames = tf.sequence_mask(lengths, steps)[..., None]
    waiting = tf.where(tf.range(size) == 0, 0.0, IMPOSSIBLE)
    log_probs = tf.where(frames, tf.maximum(log_probs, IMPOSSIBLE), waiting)
    log_probs = tf.transpose(log_probs, [1, 0, 2])  # (T + 1, B, V)

    def step(time, beam, slots, symbols):
        beam, slot, symbol = _extend(log_probs[time], beam, biases)
        return time + 1, beam, slots.write(time, slot), symbols.write(time, symbol)

    slots, symbols = (tf.TensorArray(tf.int32, size=steps, element_shape=[None, beams]) for _ in range(2))
    start = (tf.constant(0), _start(rows, beams, len(biases)), slots, symbols)
    _, beam, slots, symbols = tf.while_loop(lambda time, *_: time < steps, step, start)

    bias = beam.bias
    for automaton, state in zip(biases, beam.states, strict=True):
        bias += tf.gather(automaton.scores[:, 0], state)
    total = log_add(beam.silent, beam.voiced)
    _, places = tf.math.top_k(total + bias, top)
    total = tf.gather(total, places, batch_dims=1)
    real = total > IMPOSSIBLE / 2
    spoken = tf.where(real[..., None], _follow_back(places, slots.stack(), symbols.stack()), 0)
    return _transcripts(*_compact(spoken), tf.where(real, total, -float("inf")))


class _Beam(NamedTuple):
    """K prefixes of each row, all (B, K).

    Args:
        silent: log-probability of the alignments so far that end in a blank.
        voiced: the same of those that end in the last symbol.
        last: the last symbol, 0 of the empty prefix.
        name: int64, a hash of the prefix.
        parent: int64, that of the prefix without its last symbol.
        bias: sum of the biases so far.
        states: of each automaton.
    """

    silent: tf.Tensor
    voiced: tf.Tensor
    last: tf.Tensor
    name: tf.Tensor
    parent: tf.Tensor
    bias: tf.Tensor
    states: tuple[tf.Tensor, ...]


def _start(rows, beams, automata):
    """The empty prefix; the other slots hold nothing that is possible."""
    shape = tf.stack([rows, beams])
    first = tf.broadcast_to(tf.where(tf.range(beams) == 0, 0.0, IMPOSSIBLE), shape)
    zeros = tf.zeros(shape, tf.int32)
    names = [tf.fill(shape, tf.constant(name, tf.int64)) for name in (ROOT, ABOVE_ROOT)]
    return _Beam(first, tf.fill(shape, IMPOSSIBLE), zeros, *names, tf.zeros(shape), (zeros,) * automata)


def _extend(frame, beam, biases):
    """One frame (B, V) more: the new beam, the slot that each of its prefixes comes from, and its new symbol or 0."""
    beams, size = beam.last.shape[1], frame.shape[1]
    total = log_add(beam.silent, beam.voiced)
    again = tf.gather(frame, beam.last, batch_dims=1)  # (B, K): the last symbol's own log-probability
    lasts = tf.one_hot(beam.last, size)  # (B, K, V)
    # The last symbol counts anew only after a blank.
    grown = frame[:, None] + tf.where(lasts > 0, beam.silent[..., None], total[..., None])  # (B, K, V)

    # Prefix i grown by the last symbol of prefix j is prefix j, if i is the parent of j. Empty slots take no part:
    # nothing keeps their names apart.
    real = total > IMPOSSIBLE / 2
    parents = (beam.name[:, :, None] == beam.parent[:, None]) & real[:, :, None] & real[:, None]  # (B, K i, K j)
    handed = again[:, None] + tf.where(
        beam.last[:, :, None] == beam.last[:, None], beam.silent[..., None], total[..., None]
    )
    handed = tf.reduce_max(tf.where(parents, handed, IMPOSSIBLE), axis=1)  # (B, K j); no prefix has two parents
    silent, voiced = total + frame[:, :1], log_add(beam.voiced + again, handed)
    taken = tf.cast(parents, tf.float32) @ lasts > 0  # (B, K, V)
    grown = tf.where(taken | (tf.range(size) == 0), IMPOSSIBLE, grown)

    gains = tf.zeros_like(grown)
    for automaton, state in zip(biases, beam.states, strict=True):
        gains += tf.gather(automaton.scores, state)
    stay, grow = log_add(silent, voiced) + beam.bias, grown + beam.bias[..., None] + gains

    def joined(staying, growing):
        return tf.concat([staying, tf.reshape(growing, [-1, beams * size])], axis=1)  # (B, K + K V)

    _, places = tf.math.top_k(joined(stay, grow), beams)
    stays = places < beams
    slot = tf.where(stays, places, (places - beams) // size)
    symbol = tf.where(stays, 0, (places - beams) % size)

    def pick(values, from_slots=slot):
        return tf.gather(values, from_slots, batch_dims=1)

    name, bias = pick(beam.name), pick(beam.bias)
    states = []
    for automaton, state in zip(biases, map(pick, beam.states), strict=True):
        edge = tf.stack([state, symbol], axis=-1)
        bias += tf.where(stays, 0.0, tf.gather_nd(automaton.scores, edge))
        states.append(tf.where(stays, state, tf.gather_nd(automaton.following, edge)))
    following = _Beam(
        silent=tf.where(stays, pick(silent), IMPOSSIBLE),
        voiced=pick(joined(voiced, grown), places),
        last=tf.where(stays, pick(beam.last), symbol),
        name=tf.where(stays, name, _named(name, symbol)),
        parent=tf.where(stays, pick(beam.parent), name),
        bias=bias,
        states=tuple(states),
    )
    return following, slot, symbol


def _named(name, symbol):
    """The hash of a prefix from its parent's. Two prefixes of one beam are confused once in some 2^60 times.

    A prefix that fell out of the beam and comes back is known again by it; its slot would tell nothing.
    """
    name = (name + tf.cast(symbol, tf.int64) + 1) * MULTIPLIER
    return tf.bitwise.bitwise_xor(name, tf.bitwise.right_shift(name, tf.constant(29, tf.int64)))


def _follow_back(places, slots, symbols):
    """The symbols that the prefixes in the last beam's places (B, N) took at each frame: (B, N, T), 0 for none."""
    steps = tf.shape(slots)[0]

    def step(time, places, taken):
        taken = taken.write(time, tf.gather(symbols[time], places, batch_dims=1))
        return time - 1, tf.gather(slots[time], places, batch_dims=1), taken

    taken = tf.TensorArray(tf.int32, size=steps, element_shape=places.shape)
    _, _, taken = tf.while_loop(lambda time, *_: time >= 0, step, (steps - 1, places, taken))
    return tf.transpose(taken.stack(), [1, 2, 0])


def _compact(symbols):
    """Symbols (B, N, T) without their zeros: ids (B, N, L), zeros at the end, and lengths (B, N)."""
    shape = tf.shape(symbols)
    rows = tf.reshape(symbols, [shape[0] * shape[1], shape[2]])
    ids = tf.ragged.boolean_mask(rows, rows > 0).to_tensor()
    lengths = tf.math.count_nonzero(symbols, axis=2, dtype=tf.int32)
    return tf.reshape(ids, [shape[0], symbols.shape[1], tf.shape(ids)[1]]), lengths


def _transcripts(ids, lengths, log_probabilities):
    confidences = tf.exp(log_probabilities / tf.cast(tf.maximum(lengths, 1), tf.float32))
    return Transcripts(ids, lengths, log_probabilities, tf.minimum(confidences, 1.0))
