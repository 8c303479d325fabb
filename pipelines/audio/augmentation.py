"""Random changes of training clips, on the data pipeline and reproducible.

    audio = augment(audio, seed, config)    # one clip, before it is batched: its length may change

What becomes of a clip depends on its own seed alone: not on what shares its batch, on threads or on the replica.
"""

import tensorflow as tf

from pipelines.audio.config import Augmentation
from pipelines.audio.resampling import resample

# Which of a clip's random numbers decides on what. The places are fixed, so that switching one change on leaves the
# others as they were, and that a run can be repeated: the fourth number decides on nothing any more.
_SPEED, _NOISE, _RATIO, _, _GAIN, _DRAWS = range(6)


@tf.autograph.experimental.do_not_convert  # nothing to convert, and tracing is much quicker
def augment(audio: tf.Tensor, seed: tf.Tensor, config: Augmentation) -> tf.Tensor:
    """Changes a clip as the configuration says.

    Args:
        audio: (n,) float32.
        seed: (2,) integers, one pair for each clip: from the run's seed, the epoch and the example.
        config: What is on.

    Returns:
        (n',) float32; n' is n but for a change of speed. It may exceed full scale, as nothing is cut off.
    """
    draws = tf.unstack(tf.random.stateless_uniform((_DRAWS,), seed))
    if config.speed:
        audio = change_speed(audio, draws[_SPEED], config.speed)
    if config.noise:
        ratio = config.least_snr + draws[_RATIO] * (config.most_snr - config.least_snr)

        def noisy():
            # From another seed than the draws, or it would begin with their numbers.
            noise = tf.random.stateless_normal(tf.shape(audio), seed + [0, 1 << 30])
            return add_noise(audio, noise, ratio)

        audio = tf.cond(draws[_NOISE] < config.noise, noisy, lambda: tf.identity(audio))
    if config.gain:
        audio *= decibels((2 * draws[_GAIN] - 1) * config.gain)
    return audio


def change_speed(audio: tf.Tensor, draw: tf.Tensor, most: float) -> tf.Tensor:
    """Plays (n,) float32 up to `most` faster or slower, by whole percents, as the draw from 0 to below 1 says."""
    percents = round(100 * most)
    change = tf.cast(tf.floor(draw * (2 * percents + 1)), tf.int32) - percents
    return resample(audio, 100 + change, 100)


def add_noise(audio: tf.Tensor, noise: tf.Tensor, ratio: tf.Tensor) -> tf.Tensor:
    """Adds noise to a clip, both (n,) float32, so that their powers are `ratio` decibels apart; to silence, none."""
    loudness = tf.math.divide_no_nan(_power(audio), _power(noise))
    return audio + noise * tf.sqrt(loudness) * decibels(-ratio)


def decibels(level: tf.Tensor) -> tf.Tensor:
    """What to multiply samples by to make them so much louder."""
    return tf.pow(10.0, level / 20)


def _power(audio: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.square(audio))
