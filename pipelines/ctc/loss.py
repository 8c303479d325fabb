"""The CTC loss in plain TensorFlow operations: it stands inside a function that XLA compiles, where the native
one cannot, and has a gradient of its own, so that no loop is differentiated."""

import tensorflow as tf

# The logarithm of what cannot happen. Finite, so that differences of two of them are no NaN.
IMPOSSIBLE = -1e30


def log_add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(exp a + exp b), for finite a and b."""
    return tf.maximum(a, b) + tf.math.softplus(-tf.abs(a - b))


def feasible(labels: tf.Tensor, label_lengths: tf.Tensor, logit_lengths: tf.Tensor) -> tf.Tensor:
    """Whether there are frames enough: one for each symbol, and one for the blank between two equal neighbours.

    Args:
        labels: (B, L) integers.
        label_lengths: (B,) integers.
        logit_lengths: (B,) integers, frames.

    Returns:
        (B,) bool.
    """
    label_lengths, logit_lengths = tf.cast(label_lengths, tf.int32), tf.cast(logit_lengths, tf.int32)
    inside = tf.range(tf.shape(labels)[1])[1:] < label_lengths[:, None]
    repeats = (labels[:, 1:] == labels[:, :-1]) & inside
    return label_lengths + tf.reduce_sum(tf.cast(repeats, tf.int32), axis=1) <= logit_lengths


def ctc_loss(logits: tf.Tensor, logit_lengths: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """-log p(labels | logits), summed over all alignments (connectionist temporal classification).

    The forward variables and the backward ones come out of one loop over time: the backward ones are the forward
    ones of the sequence read from its end. Call it within a `tf.function`; the loop is slow in eager mode.

    A row without enough frames for its labels (see `feasible`) has neither alignments nor a gradient: its loss is
    0, as its gradient is, so that it neither hides the others' loss nor moves the weights. A row that only its logits
    rule out (-inf) has a loss near 1e30 and a finite gradient.

    Args:
        logits: (B, T, V), any float type; computed in float32. Id 0 is the blank.
        logit_lengths: (B,) integers, frames of each row; at most T. What follows them is ignored.
        labels: (B, L) integers from 1 to V - 1. What follows their length is ignored.
        label_lengths: (B,) integers, at most L; 0 asks for blanks only.

    Returns:
        (B,) float32, in nats. It has first derivatives with respect to `logits` and no second ones.

    References:
        Graves et al. 2006, Connectionist Temporal Classification. https://www.cs.toronto.edu/~graves/icml_2006.pdf
    """
    labels = tf.cast(labels, tf.int32)
    label_lengths, logit_lengths = tf.cast(label_lengths, tf.int32), tf.cast(logit_lengths, tf.int32)
    possible = feasible(labels, label_lengths, logit_lengths)

    @tf.custom_gradient
    def loss(logits):
        scores = tf.cast(logits, tf.float32)
        frames = tf.sequence_mask(logit_lengths, tf.shape(logits)[1])  # (B, T)
        emissions, blanks, largest = _emissions(scores, frames, labels)
        forward, backward, total = _variables(emissions, blanks, labels, label_lengths)
        normaliser = tf.reduce_logsumexp(scores, axis=-1)
        likelihood = total + tf.reduce_sum(tf.where(frames, largest - normaliser, 0.0), axis=-1)

        def gradient(upstream):
            # Both variables count the frame's own emission. No share exceeds the whole, but by rounding, which is
            # coarse where all is impossible.
            occupancy = tf.exp(tf.minimum(forward + backward - emissions - total[:, None], 0.0))  # (T, B, L)
            occupancy = tf.transpose(tf.where(emissions > IMPOSSIBLE / 2, occupancy, 0.0), [1, 0, 2])
            # Nor do the symbols' shares together.
            occupancy /= tf.maximum(tf.reduce_sum(occupancy, axis=-1, keepdims=True), 1.0)
            size = tf.shape(scores)[-1]
            expected = occupancy @ tf.one_hot(labels, size)  # (B, T, V)
            silent = 1.0 - tf.reduce_sum(occupancy, axis=-1, keepdims=True)
            expected += silent * tf.one_hot(0, size)
            counted = frames & possible[:, None]
            found = tf.where(counted[..., None], tf.nn.softmax(scores) - expected, 0.0) * upstream[:, None, None]
            message = "The CTC loss has no second derivatives."
            return tf.raw_ops.PreventGradient(input=tf.cast(found, logits.dtype), message=message)

        return tf.where(possible, -likelihood, 0.0), gradient

    return loss(logits)


def _emissions(scores, frames, labels):
    """What each frame says for the row's symbols and for the blank, relative to the largest of them.

    So the variables stay near zero on the likely alignments, where float32 is finest. After a row's last frame
    nothing but a blank can come, and that for certain: the variables stay as they are.

    Returns:
        (T, B, L) for symbols, (T, B, 1) for the blank, and what was subtracted (B, T).
    """
    symbols = tf.gather(scores, labels, axis=2, batch_dims=1)  # (B, T, L)
    blanks = scores[..., :1]
    largest = tf.maximum(tf.reduce_max(tf.concat([symbols, blanks], axis=2), axis=2), IMPOSSIBLE)
    frames = frames[..., None]
    symbols = tf.where(frames, tf.maximum(symbols - largest[..., None], IMPOSSIBLE), IMPOSSIBLE)
    blanks = tf.where(frames, tf.maximum(blanks - largest[..., None], IMPOSSIBLE), 0.0)
    return tf.transpose(symbols, [1, 0, 2]), tf.transpose(blanks, [1, 0, 2]), largest


def _variables(emissions, blanks, labels, label_lengths):
    """Forward and backward variables of the symbols, and the sum over all alignments.

    Blank l stands before symbol l, and blank L at the end. Read backwards, all of a row's order turns round: its
    padding comes first and is waited out, in time at the starting blank, in symbols by starting after them.

    Returns:
        Two (T, B, L), both with the frame's own emission, and (B,).
    """
    steps, (rows, longest) = tf.shape(emissions)[0], tf.unstack(tf.shape(labels))
    both = tf.concat([emissions, tf.reverse(emissions, [0, 2])], axis=1)  # (T, 2 B, L)
    both_blanks = tf.concat([blanks, tf.reverse(blanks, [0])], axis=1)  # (T, 2 B, 1)
    # Whether symbol l may follow symbol l - 1 without the blank between.
    symbols = tf.concat([labels, tf.reverse(labels, [1])], axis=0)  # (2 B, L)
    direct = symbols != tf.pad(symbols, [[0, 0], [1, 0]], constant_values=-1)[:, :-1]
    starts = tf.concat([tf.zeros_like(label_lengths), longest - label_lengths], axis=0)
    start = tf.where(tf.range(longest + 1) == starts[:, None], 0.0, IMPOSSIBLE)  # (2 B, L + 1)

    def step(time, before, at, kept):
        """`before` are the blanks' variables (2 B, L + 1), `at` the symbols' (2 B, L)."""
        arriving = log_add(before, tf.pad(at, [[0, 0], [1, 0]], constant_values=IMPOSSIBLE))
        entering = tf.where(direct, arriving[:, :-1], before[:, :-1])
        at = log_add(at, entering) + both[time]
        return time + 1, arriving + both_blanks[time], at, kept.write(time, at)

    kept = tf.TensorArray(tf.float32, size=steps, element_shape=[None, emissions.shape[-1]])
    first = (tf.constant(0), start, tf.fill(tf.stack([2 * rows, longest]), IMPOSSIBLE), kept)
    _, before, at, kept = tf.while_loop(lambda time, *_: time < steps, step, first, maximum_iterations=steps)
    # Reversed rows end at the last blank or symbol, whatever their padding.
    at = tf.pad(at, [[0, 0], [1, 0]], constant_values=IMPOSSIBLE)
    total = log_add(before[rows:, -1], at[rows:, -1])
    kept = kept.stack()
    return kept[:, :rows], tf.reverse(kept[:, rows:], [0, 2]), total
