"""The optimizer: Keras' AdamW, with TensorFlow's fused kernel in its innermost loop."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from pipelines.config import OptimizerConfig
from pipelines.training.schedules import learning_rate


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW whose moments and weights are updated in one pass over memory, not in a dozen.

    Args:
        pretrained: weights that are updated from step `frozen_steps` on, as if training had begun there, with the
            learning rate times `pretrained_rate`. Until then they are not to be among those applied.
        frozen_steps, pretrained_rate: see there.
        settings: of `keras.optimizers.AdamW`.

    References:
        Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization. https://arxiv.org/abs/1711.05101
    """

    def __init__(
        self,
        *,
        pretrained: Sequence[keras.Variable] = (),
        frozen_steps: int = 0,
        pretrained_rate: float = 1.0,
        **settings,
    ):
        super().__init__(**settings)
        self._pretrained = frozenset(map(id, pretrained))  # variables themselves would count as the optimizer's own
        self._frozen_steps = frozen_steps
        self._pretrained_rate = pretrained_rate

    def build(self, variables):
        super().build(variables)
        self._late = {self._get_variable_index(variable) for variable in variables if id(variable) in self._pretrained}

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        iterations = self.iterations.value
        if index in self._late:
            iterations = iterations - self._frozen_steps
            learning_rate = learning_rate * self._pretrained_rate
        step = tf.cast(iterations + 1, variable.dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, variable.dtype), tf.cast(self.beta_2, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )


def make_optimizer(
    config: OptimizerConfig, model: keras.Model, total_steps: int, pretrained: Sequence[keras.Variable] = ()
) -> keras.Optimizer:
    """AdamW with decay on matrices that are not pretrained only, built for the model's weights."""
    optimizer = AdamW(
        pretrained=pretrained,
        frozen_steps=config.frozen_steps,
        pretrained_rate=config.pretrained_rate,
        learning_rate=learning_rate(config, total_steps),
        weight_decay=config.weight_decay,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=1e-9,
    )
    spared = [v for v in model.trainable_variables if len(v.shape) < 2 or "embedding" in v.path]
    optimizer.exclude_from_weight_decay(var_list=[*spared, *pretrained])
    optimizer.build(model.trainable_variables)
    return optimizer
