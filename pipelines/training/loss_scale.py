"""Dynamic loss scaling for float16, whose smallest numbers are larger than many gradients."""

import tensorflow as tf


class LossScale:
    """A factor on the loss that keeps gradients within float16's range.

    It doubles after `growth_steps` steps without an overflow and halves at each overflow, whose step is skipped.
    The gradients are those of a sum over a batch, thousands of times those of its mean; hence the small start.

    Args:
        initial: the factor to begin with.
        growth_steps: steps without an overflow after which it doubles.

    References:
        Micikevicius et al. 2018, Mixed Precision Training, section 3.2. https://arxiv.org/abs/1710.03740
    """

    def __init__(self, initial: float = 2.0**5, growth_steps: int = 2000):
        self.growth_steps = growth_steps
        self.value = tf.Variable(initial, trainable=False, dtype=tf.float32)
        self.good_steps = tf.Variable(0, trainable=False, dtype=tf.int64)

    @property
    def variables(self) -> list[tf.Variable]:
        return [self.value, self.good_steps]

    def follow(self, finite: tf.Tensor) -> None:
        """Notes whether a step's gradients were finite. Call it outside of replicas."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = tf.equal(good, self.growth_steps)
        self.value.assign(self.value * tf.where(grown, 2.0, tf.where(finite, 1.0, 0.5)))
        self.good_steps.assign(tf.where(grown, tf.zeros_like(good), good))
