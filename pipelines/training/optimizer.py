"""The optimizer: Keras' AdamW, with TensorFlow's fused kernel in its innermost loop."""

import keras
import tensorflow as tf

from pipelines.config import OptimizerConfig
from pipelines.training.schedules import learning_rate


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW whose moments and weights are updated in one pass over memory, not in a dozen.

    References:
        Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization. https://arxiv.org/abs/1711.05101
    """

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
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


def make_optimizer(config: OptimizerConfig, model: keras.Model, total_steps: int) -> keras.Optimizer:
    """AdamW with decay on matrices only, built for the model's weights."""
    optimizer = AdamW(
        learning_rate=learning_rate(config, total_steps),
        weight_decay=config.weight_decay,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=1e-9,
    )
    spared = [v for v in model.trainable_variables if len(v.shape) < 2 or "embedding" in v.path]
    optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.build(model.trainable_variables)
    return optimizer
