"""Learning rate as a function of the step."""

import keras
from keras import ops

from pipelines.config import OptimizerConfig


@keras.saving.register_keras_serializable(package="espalier")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a fall with the square root of the step (Vaswani et al. 2017, section 5.3).

    rate(t) = peak * min(t / warmup, sqrt(warmup / t)),  t = step + 1

    Args:
        peak: Highest rate, reached at the end of the warm-up.
        warmup_steps: Steps of the warm-up, at least 1.
    """

    def __init__(self, peak: float, warmup_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        t = ops.cast(step, "float32") + 1.0
        warmup = float(max(self.warmup_steps, 1))
        return self.peak * ops.minimum(t / warmup, ops.sqrt(warmup / t))

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="espalier")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant: rate(t) = peak * min(1, t / warmup),  t = step + 1.

    Args:
        peak: Rate from the end of the warm-up on.
        warmup_steps: Steps of the warm-up.
    """

    def __init__(self, peak: float, warmup_steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        t = ops.cast(step, "float32") + 1.0
        return self.peak * ops.minimum(t / float(max(self.warmup_steps, 1)), 1.0)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


def learning_rate(config: OptimizerConfig, total_steps: int):
    """The schedule that a configuration names.

    Args:
        config: Optimizer settings.
        total_steps: Length of the training; the cosine reaches zero there.
    """
    warmup = min(config.warmup_steps, total_steps)
    if config.schedule == "inverse_sqrt":
        return InverseSquareRoot(config.learning_rate, config.warmup_steps)
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=max(total_steps - warmup, 1),
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    return WarmUp(config.learning_rate, config.warmup_steps)
