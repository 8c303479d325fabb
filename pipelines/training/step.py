"""One training step: a pure function that XLA may compile, and the update of the variables around it.

XLA sees tensors only. It gets the weights and a batch, and returns sums, gradients and the new
non-trainable values; variables are read and assigned outside. That is what lets the same step run
under any `tf.distribute` strategy, where XLA cannot follow variables from one device to another.
"""

import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from pipelines.config import OptimizerConfig
from pipelines.task import Task
from pipelines.training.schedules import learning_rate

Batch = Mapping[str, tf.Tensor]


def make_optimizer(config: OptimizerConfig, model: keras.Model, total_steps: int) -> keras.Optimizer:
    """AdamW with decay on matrices only, built for the model's weights."""
    optimizer = keras.optimizers.AdamW(
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


class TrainStep:
    """Forward, backward and update for one batch.

    Args:
        model: A built model.
        task: Gives loss and metrics.
        optimizer: Built for the model's weights; its gradients are clipped here, not there, because
            the global norm is only known once replicas have added their gradients up.
        config: Clipping and averaging.
        spec: What batches look like, lengths that vary as None: one trace serves all of them. XLA still
            sees the static shape of each batch when it compiles.
        jit: Whether XLA compiles the pure function.
    """

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        optimizer: keras.Optimizer,
        config: OptimizerConfig,
        spec: Mapping[str, tf.TensorSpec],
        jit: bool,
    ):
        self.model = model
        self.task = task
        self.optimizer = optimizer
        self.config = config
        self.jit = jit
        self.averages = []
        if config.average_decay:
            self.averages = [tf.Variable(v.value, trainable=False) for v in model.trainable_variables]
        values = [[tf.TensorSpec(v.shape, v.dtype) for v in group] for group in self._variables()]
        signature = [*values, dict(spec), tf.TensorSpec([], tf.float32)]
        self._pure = {
            jit: tf.function(self._forward_backward, input_signature=signature, jit_compile=jit)
            for jit in (False, True)
        }
        self._run = tf.function(self._step, input_signature=[dict(spec)])

    def _forward_backward(self, trainable, non_trainable, batch, weight):
        """The pure function: (weights, state, batch, weight of the batch) -> (sums, gradients, new state)."""
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs, new = self.model.stateless_call(trainable, non_trainable, batch, training=True)
            sums = self.task.sums(outputs, batch)
            # Divided by the weight of the whole batch, so that partial gradients add up to the mean's.
            loss = sums["loss"][0] / weight
        gradients = tape.gradient(loss, trainable)
        return sums, [tf.convert_to_tensor(g) for g in gradients], new

    def _variables(self):
        return [v.value for v in self.model.trainable_variables], [v.value for v in self.model.non_trainable_variables]

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Trains on one batch. Returns `sums`, `gradient_norm` (before clipping) and `learning_rate`."""
        return self._run(batch)

    @property
    def graph(self) -> tf.Graph:
        """The graph of a step, for TensorBoard."""
        return self._run.get_concrete_function().graph

    def _step(self, batch):
        trainable, non_trainable = self._variables()
        weight = tf.maximum(self.task.weight(batch), 1.0)
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        values = [[tf.convert_to_tensor(v) for v in group] for group in (trainable, non_trainable)]
        sums, gradients, new = self._pure[self.jit](*values, batch, weight)
        norm = tf.linalg.global_norm(gradients)
        if self.config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm, use_norm=norm)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        for variable, value in zip(non_trainable, new, strict=True):
            variable.assign(value)
        self._average(trainable)
        return {"sums": sums, "gradient_norm": norm, "learning_rate": rate}

    def _average(self, trainable):
        """Moves the averages towards the weights; faster at first, so that the initial weights are forgotten."""
        if not self.averages:
            return
        t = tf.cast(self.optimizer.iterations.value, tf.float32)
        decay = tf.minimum(self.config.average_decay, (1.0 + t) / (10.0 + t))
        for average, variable in zip(self.averages, trainable, strict=True):
            average.assign_add((1.0 - decay) * (variable - average))

    def measure(self, jit: bool, batch: Batch, repeats: int = 3) -> tuple[float, float]:
        """Times the pure function with or without XLA on a batch. Changes no variable.

        Returns:
            Seconds that XLA or TensorFlow took to compile it for this shape, and that one call takes.
        """
        values = [[tf.convert_to_tensor(v) for v in group] for group in self._variables()]
        weight = tf.maximum(self.task.weight(batch), 1.0)
        self._pure[jit].get_concrete_function()  # traced once, whatever the shapes: not part of the comparison
        seconds = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            self._pure[jit](*values, batch, weight)[0]["loss"][0].numpy()
            seconds.append(time.perf_counter() - begin)
        best = min(seconds[1:])
        return seconds[0] - best, best
