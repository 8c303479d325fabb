"""Band-limited resampling in the graph, between rates that are known only when a file has been read.

    audio = resample(samples, rate, 16000)     # (n,) float32 -> (ceil(n * 16000 / rate),)

Output n lies at n * M / L input samples, where L / M is the ratio of the rates in lowest terms, and is a weighted sum
of the inputs around it: a sinc within a Kaiser window. Its weights depend on n mod L alone. So the outputs are cut
into blocks; those that begin at the same phase share a matrix of weights, and all is one product of matrices.
"""

import numpy as np
import tensorflow as tf

from pipelines.graph import rarely

# The filter reaches over so many of its zero crossings on each side. Together with a stop band of 80 dB that begins
# half the lower rate up, this leaves a pass band up to 0.85 of it (Kaiser's formulas).
_CROSSINGS = 32
_BETA = 7.857
_CUTOFF = 0.924
# Points of the filter's table between two zero crossings; linear interpolation is then right to 115 dB.
_POINTS = 512
# Outputs of a block at least. Larger ones make fewer copies of the input, and multiply more by zeros.
_BLOCK = 64


def _table() -> np.ndarray:
    """The filter from its middle to its end, and two zeros beyond, between which all that is further away is put."""
    u = np.arange(_CROSSINGS * _POINTS + 1) / _POINTS
    filter_ = _CUTOFF * np.sinc(_CUTOFF * u) * np.i0(_BETA * np.sqrt(1 - (u / _CROSSINGS) ** 2)) / np.i0(_BETA)
    return np.append(filter_, [0, 0]).astype(np.float32)


_FILTER = _table()


@tf.autograph.experimental.do_not_convert
def resample(audio: tf.Tensor, from_rate: int | tf.Tensor, to_rate: int | tf.Tensor) -> tf.Tensor:
    """Brings audio to another rate.

    Up to 0.85 of half the lower rate it is right to more than 60 dB; what lies above that half, and would come back as
    other tones, is 60 dB down. Beyond both ends lies silence: in the first and last 35 samples at the lower rate, a
    part of a longer recording differs from the whole. From 44.1 kHz to 16 kHz it takes some 60 bytes of memory for
    each output, half a gigabyte for ten minutes; longer recordings come in parts (`headers.parts`).

    Args:
        audio: (n,) float32.
        from_rate: of the audio, an integer or a scalar integer tensor, more than 0.
        to_rate: of the result likewise. Only their ratio counts: to play a clip 10 % faster, (110, 100).

    Returns:
        (ceil(n * to_rate / from_rate),) float32; the very same samples where the rates are equal.
    """
    from_rate, to_rate = tf.cast(from_rate, tf.int64), tf.cast(to_rate, tf.int64)
    return tf.cond(from_rate == to_rate, lambda: tf.identity(audio), lambda: _resampled(audio, from_rate, to_rate))


@rarely
def _resampled(audio: tf.Tensor, from_rate: tf.Tensor, to_rate: tf.Tensor) -> tf.Tensor:
    divisor = _greatest_common_divisor(from_rate, to_rate)
    down, up = from_rate // divisor, to_rate // divisor  # M, L
    outputs = _ceil(tf.size(audio, tf.int64) * up, down)
    cycle = up * _ceil(tf.constant(_BLOCK, tf.int64), up)  # outputs after which all repeats
    block = _ceil(cycle, _ceil(cycle, _BLOCK))
    blocks = _ceil(tf.clip_by_value(outputs, 1, cycle), block)  # of a cycle
    cycles = _ceil(outputs, cycle)

    half = _ceil(_CROSSINGS * tf.maximum(up, down), up)  # inputs on each side
    width = _ceil((block - 1) * down, up) + 2 * half + 1  # inputs that a block sees
    starts = tf.range(blocks) * block * down  # in 1 / L of an input
    weights = _weights(starts % up, block, width, half, up, down)  # (blocks, width, block)

    starts = starts // up
    end = (cycles - 1) * (cycle * down // up) + starts[-1] + width
    audio = tf.pad(audio, [[half, tf.maximum(end - half - tf.size(audio, tf.int64), 0)]])
    places = starts[:, None] + tf.range(cycles) * (cycle * down // up)  # (blocks, cycles)
    places = tf.cast(places, tf.int32)[..., None] + tf.range(tf.cast(width, tf.int32))
    found = tf.matmul(tf.gather(audio, places), weights)  # (blocks, cycles, block)
    found = tf.reshape(tf.transpose(found, (1, 0, 2)), (cycles, blocks * block))
    return tf.reshape(found[:, :cycle], (-1,))[:outputs]


def _weights(phases, block, width, half, up, down) -> tf.Tensor:
    """What each input of a block counts for each of its outputs, (blocks, width, block) float32.

    Args:
        phases: how far behind an input, in 1 / L of one, the first output of each block lies, (blocks,).
    """
    output = phases[:, None, None] + tf.range(block) * down  # (blocks, 1, block)
    distance = tf.abs(output - (tf.range(width) - half)[:, None] * up)  # in 1 / L of an input
    lower = tf.maximum(up, down)
    # In zero crossings, times the points between two.
    place = tf.cast(distance, tf.float32) * tf.cast(_POINTS / lower, tf.float32)
    place = tf.minimum(place, float(_CROSSINGS * _POINTS + 1))
    index = tf.cast(place, tf.int32)
    here, beyond = tf.gather(_FILTER, index), tf.gather(_FILTER, index + 1)
    gain = tf.minimum(tf.cast(up / down, tf.float32), 1.0)  # a wider filter has more weights
    return (here + (beyond - here) * (place - tf.cast(index, tf.float32))) * gain


def _greatest_common_divisor(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda a, b: b > 0, lambda a, b: (b, a % b), (a, b))[0]


def _ceil(a, b):
    return -(-a // b)
