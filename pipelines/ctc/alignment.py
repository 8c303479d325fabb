"""When each symbol was said: the likeliest alignment of a known labelling (Viterbi), in the graph."""

import tensorflow as tf

from pipelines.ctc.loss import IMPOSSIBLE, feasible


def align(log_probs: tf.Tensor, lengths: tf.Tensor, labels: tf.Tensor, label_lengths: tf.Tensor) -> tf.Tensor:
    """The symbol that each frame belongs to on the likeliest path through the blanks and symbols of a labelling.

    Args:
        log_probs: (B, T, V), any float type; blank is id 0.
        lengths: (B,) integers, frames of each row.
        labels: (B, L) integers.
        label_lengths: (B,) integers.

    Returns:
        (B, T) int32, positions in the labels; -1 for blanks, after a row's last frame, and throughout rows without
        frames enough (`feasible`).
    """
    labels, label_lengths = tf.cast(labels, tf.int32), tf.cast(label_lengths, tf.int32)
    (rows, longest), steps = tf.unstack(tf.shape(labels)), tf.shape(log_probs)[1] + 1
    states = tf.range(2 * longest + 1)  # even ones are blanks, odd ones symbols
    is_blank = states % 2 == 0
    path = tf.reshape(tf.stack([tf.zeros_like(labels), labels], axis=2), [rows, 2 * longest])
    path = tf.pad(path, [[0, 0], [0, 1]])  # (B, S) ids
    # A row that has ended waits in its last blank; the frame that is added gives every row such an end.
    log_probs = tf.pad(tf.cast(log_probs, tf.float32), [[0, 0], [0, 1], [0, 0]])
    frames = tf.sequence_mask(lengths, steps)[..., None]
    emissions = tf.maximum(tf.gather(log_probs, path, axis=2, batch_dims=1), IMPOSSIBLE)
    emissions = tf.where(frames, emissions, tf.where(is_blank, 0.0, IMPOSSIBLE))
    emissions = tf.transpose(emissions, [1, 0, 2])  # (T + 1, B, S)
    # A symbol may follow another one directly if they differ.
    leap = path != tf.pad(path, [[0, 0], [2, 0]], constant_values=-1)[:, :-2]
    behind = [[0, 0], [2, 0]]

    def step(time, best, moves):
        """`best` (B, S): log-probability of the best way to each state. A move is how many states one came on."""
        padded = tf.pad(best, behind, constant_values=IMPOSSIBLE)
        ways = tf.stack([best, padded[:, 1:-1], tf.where(leap, padded[:, :-2], IMPOSSIBLE)], axis=-1)
        moves = moves.write(time, tf.argmax(ways, axis=-1, output_type=tf.int32))
        return time + 1, tf.reduce_max(ways, axis=-1) + emissions[time], moves

    start = tf.broadcast_to(tf.where(states == 0, 0.0, IMPOSSIBLE), tf.shape(path))
    moves = tf.TensorArray(tf.int32, size=steps, element_shape=[None, None])
    _, _, moves = tf.while_loop(lambda time, *_: time < steps, step, (tf.constant(0), start, moves))
    moves = moves.stack()  # (T + 1, B, S)

    def step_back(time, state, visited):
        return time - 1, state - tf.gather(moves[time], state, batch_dims=1), visited.write(time, state)

    visited = tf.TensorArray(tf.int32, size=steps, element_shape=[None])
    _, _, visited = tf.while_loop(lambda time, *_: time >= 0, step_back, (steps - 1, 2 * label_lengths, visited))
    visited = tf.transpose(visited.stack())[:, :-1]  # (B, T)
    symbols = (visited % 2 == 1) & feasible(labels, label_lengths, lengths)[:, None]
    return tf.where(symbols, visited // 2, -1)
