"""One training step: a pure function that XLA may compile, and the update of the variables around it.

The pure function gets the weights and a batch, and returns sums, gradients and what changed of the other variables;
variables are read and assigned outside. That is what lets the same step run under any `tf.distribute` strategy,
where XLA cannot follow variables from one device to another. Without one it can, and compiles the update too.

    strategy.run: each replica its rows, in --accumulate parts:  pure(weights, state, rows) -> sums, gradients, changes
                  added up over the replicas in one message
    strategy.run: clip, optimizer
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from pipelines.config import OptimizerConfig
from pipelines.distribution import Distribution
from pipelines.task import Task
from pipelines.training.loss_scale import LossScale

Batch = Mapping[str, tf.Tensor]
SEED_STRIDE = 1_000_003  # keeps the random numbers of replicas apart


class TrainStep:
    """Forward, backward and update for one batch.

    Make it, its model and its optimizer within `distribution.scope()`.

    Args:
        model: A built model.
        task: Gives loss and metrics.
        optimizer: Any of Keras', built for the model's weights; its gradients are clipped here, not there,
            because the global norm is only known once replicas have added their gradients up.
        config: Clipping and averaging.
        spec: What a worker's batches look like, lengths that vary as None: one trace serves all of them. XLA
            still sees the static shape of each batch when it compiles.
        jit: Whether XLA compiles the pure function, and where one replica is all there is, the whole step.
        distribution: Where it runs.
        accumulate: Parts in which a replica computes its rows, one after the other.
        scale_loss: Whether small gradients need help to survive (float16).
        pretrained: Those of the model's weights that stay as they are as long as `frozen` is set. No gradient is
            computed for them then.
    """

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        optimizer: keras.Optimizer,
        config: OptimizerConfig,
        spec: Mapping[str, tf.TensorSpec],
        jit: bool,
        distribution: Distribution | None = None,
        accumulate: int = 1,
        scale_loss: bool = False,
        pretrained: Sequence[keras.Variable] = (),
    ):
        self.model = model
        self.task = task
        self.optimizer = optimizer
        # Keras would add gradients up over the replicas once more.
        self.optimizer._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
        self.config = config
        self.jit = jit
        self.distribution = distribution or Distribution()
        self.accumulate = accumulate
        self.loss_scale = LossScale() if scale_loss else None
        self.frozen = False
        late = {id(variable) for variable in pretrained}
        self._pretrained = [id(variable) in late for variable in model.trainable_variables]
        self.averages = []
        if config.average_decay:
            self.averages = [tf.Variable(v.value, trainable=False) for v in model.trainable_variables]
        parts = self.distribution.local_replicas * accumulate
        self._rows = {name: tf.TensorSpec([s.shape[0] // parts, *s.shape[1:]], s.dtype) for name, s in spec.items()}
        self._signature = [dict(spec), tf.TensorSpec([2], tf.float32)]
        # By what tracing reads: whether XLA compiles, `frozen`, and how many steps.
        self._traced, self._whole, self._several = {}, {}, {}

    def _learning(self) -> list[bool]:
        """Of each weight, whether it is updated."""
        return [not (self.frozen and pretrained) for pretrained in self._pretrained]

    def _pure(self, jit):
        """The pure function for one replica's rows. Its first call must come from outside of strategies."""
        key = jit, self.frozen
        if key not in self._traced:
            values = [[tf.TensorSpec(v.shape, v.dtype) for v in group] for group in self._variables()]
            signature = [*values, self._rows, tf.TensorSpec([], tf.float32)]
            function = tf.function(self._forward_backward, input_signature=signature, jit_compile=jit)
            self._traced[key] = function.get_concrete_function()
        return self._traced[key]

    def _forward_backward(self, trainable, state, batch, scale):
        """What is pure: (weights, state, rows, loss scale) -> (sums, gradients of the summed loss, changes of state).

        Gradients are those of the weights that learn; changes are new values by their place in the state. The weights
        beneath adapters are state that never changes: they are neither copied nor sent to other replicas.
        """
        learning = list(itertools.compress(trainable, self._learning()))
        with tf.GradientTape() as tape:
            tape.watch(learning)
            outputs, after = self.model.stateless_call(trainable, state, batch, training=True)
            sums = self.task.sums(outputs, batch)
            loss = tf.cast(sums["loss"][0], tf.float32) * scale
        gradients = tape.gradient(loss, learning, unconnected_gradients="zero")
        sums = tf.nest.map_structure(lambda value: tf.cast(value, tf.float32), sums)
        # A sparse gradient has lost its shape when it becomes dense.
        dense = [tf.ensure_shape(tf.convert_to_tensor(g), w.shape) for g, w in zip(gradients, learning, strict=True)]
        return sums, dense, {i: new for i, (old, new) in enumerate(zip(state, after, strict=True)) if new is not old}

    def _variables(self):
        return [v.value for v in self.model.trainable_variables], [v.value for v in self.model.non_trainable_variables]

    def __call__(self, batch: Batch, wishes: tuple[bool, bool] = (False, False)) -> dict[str, Any]:
        """Trains on one batch.

        Args:
            batch: This worker's rows.
            wishes: Two things that this worker may want the others to know. They travel with the gradients.

        Returns:
            `sums` over all rows; `gradient_norm` before clipping; `learning_rate`; `wishes`, how many workers'
            replicas have each; `applied`, whether the weights were changed (float16 skips steps that overflow).
        """
        return self._run()(batch, tf.constant(wishes, tf.float32))

    def several(self, batches: Sequence[Batch], wishes: tuple[bool, bool] = (False, False)) -> list[dict[str, Any]]:
        """Trains on one batch after the other without a return to Python in between: the same steps as one by one.

        Args:
            batches: This worker's rows for each step. Each number of batches is traced by itself.
            wishes: As of a single step; every step carries them.

        Returns:
            What a single step returns, for each of them.
        """
        if len(batches) == 1:
            return [self(batches[0], wishes)]
        return self._run_several(len(batches))(list(batches), tf.constant(wishes, tf.float32))

    def _run_several(self, count):
        key = self.jit, self.frozen, count
        if key not in self._several:
            self._run()
            batch, wishes = self._signature
            self._several[key] = tf.function(self._steps, input_signature=[[batch] * count, wishes])
        return self._several[key]

    def _steps(self, batches, wishes):
        return [self._run()(batch, wishes) for batch in batches]

    def _run(self):
        """The whole step."""
        key = self.jit, self.frozen
        if key not in self._whole:
            self._pure(self.jit)
            jit = self.jit and self.distribution.kind == "none"
            self._whole[key] = tf.function(self._step, input_signature=self._signature, jit_compile=jit)
        return self._whole[key]

    @property
    def graph(self) -> tf.Graph:
        """The graph of a step, for TensorBoard."""
        return self._run().get_concrete_function().graph

    def _step(self, batch, wishes):
        strategy = self.distribution.strategy
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        sums, gradients, norm, changes, wishes = strategy.run(self._gradients, args=(batch, wishes))
        norm = self.distribution.first(norm)
        applied = tf.constant(True)
        if self.loss_scale:
            applied = tf.math.is_finite(norm)
            tf.cond(applied, lambda: self._update(gradients, changes), lambda: None)
            self.loss_scale.follow(applied)
        else:
            self._update(gradients, changes)
        sums, wishes = self.distribution.first((sums, wishes))
        return {"sums": sums, "gradient_norm": norm, "learning_rate": rate, "wishes": wishes, "applied": applied}

    def _gradients(self, batch, wishes):
        """One replica's sums, gradients of the mean loss, their norm and changes, added up with the other replicas'."""
        distribution = self.distribution
        values = [[tf.convert_to_tensor(v) for v in group] for group in self._variables()]
        scale = tf.convert_to_tensor(self.loss_scale.value) if self.loss_scale else tf.constant(1.0)
        sums, gradients, changes = self._accumulated(batch, *values, scale)

        statistics = [i for i, value in changes.items() if value.dtype.is_floating]
        averaged = [tf.cast(changes[i], tf.float32) / distribution.replicas for i in statistics]
        flat_sums = tf.nest.flatten(sums)
        found = distribution.sum_replicas([*gradients, *averaged, *flat_sums, wishes])
        gradients, rest = found[: len(gradients)], found[len(gradients) :]
        for i, value in zip(statistics, rest, strict=False):
            changes[i] = tf.cast(value, changes[i].dtype)
        sums = tf.nest.pack_sequence_as(sums, rest[len(statistics) : -1])
        wishes = rest[-1]

        # Of the sum over all tokens or rows, which adds up; now of the mean.
        shrink = 1.0 / (scale * tf.maximum(sums["loss"][1], 1.0))
        norm = tf.linalg.global_norm(gradients) * shrink
        if self.config.clip_norm:
            shrink *= tf.minimum(1.0, self.config.clip_norm / tf.maximum(norm, 1e-12))
        return sums, [gradient * shrink for gradient in gradients], norm, changes, wishes

    def _accumulated(self, batch, trainable, state, scale):
        """Runs the pure function on this replica's rows, part after part."""
        pure = self._pure(self.jit)
        # Equal seeds would give all replicas equal dropout masks.
        shift = [self._seed_shift(v) for v in self.model.non_trainable_variables]
        state = [value if by is None else value + by for value, by in zip(state, shift, strict=True)]

        def part(i, changes):
            rows = self.distribution.rows(batch, i, self.accumulate)
            return pure(trainable, [changes.get(n, value) for n, value in enumerate(state)], rows, scale)

        sums, gradients, changes = part(0, {})
        if self.accumulate > 1:

            def body(i, totals, changes):
                sums, gradients, changes = part(i, changes)
                return i + 1, tf.nest.map_structure(tf.add, totals, (sums, gradients)), changes

            _, (sums, gradients), changes = tf.while_loop(
                lambda i, *_: i < self.accumulate,
                body,
                [tf.constant(1), (sums, gradients), changes],
                parallel_iterations=1,
            )
        return sums, gradients, {i: value if shift[i] is None else value - shift[i] for i, value in changes.items()}

    def _seed_shift(self, variable):
        if self.distribution.replicas == 1 or not variable.path.endswith("seed_generator_state"):
            return None
        replica = tf.cast(self.distribution.replica(), variable.value.dtype)
        return tf.stack([replica * SEED_STRIDE, tf.zeros_like(replica)])

    def _update(self, gradients, changes):
        extended = self.distribution.strategy.extended
        learning = list(itertools.compress(self.model.trainable_variables, self._learning()))
        self.distribution.strategy.run(lambda gradients: self.optimizer.apply(gradients, learning), args=(gradients,))
        trainable, non_trainable = self._variables()
        for i, value in changes.items():
            extended.update(non_trainable[i], lambda v, x: v.assign(x), args=(value,), group=False)
        if self.averages:
            # Faster at first, so that the initial weights are forgotten.
            t = tf.cast(self.optimizer.iterations.value, tf.float32)
            rate = 1.0 - tf.minimum(self.config.average_decay, (1.0 + t) / (10.0 + t))
            for average, variable in zip(self.averages, trainable, strict=True):
                extended.update(average, lambda a, v: a.assign_add(rate * (v - a)), args=(variable,), group=False)

    def measure(self, jit: bool, batch: Batch, repeats: int = 3) -> tuple[float, float]:
        """Times the pure function with or without XLA on one replica's rows. Changes no variable.

        Returns:
            Seconds that XLA or TensorFlow took to compile it for this shape, and that a step's calls take.
        """
        values = [[tf.convert_to_tensor(v) for v in group] for group in self._variables()]
        rows = {name: value[: self._rows[name].shape[0]] for name, value in batch.items()}
        pure = self._pure(jit)  # traced once, whatever the shapes: not part of the comparison
        seconds = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            pure(*values, rows, tf.constant(1.0))[0]["loss"][0].numpy()
            seconds.append(time.perf_counter() - begin)
        best = min(seconds[1:])
        return seconds[0] - best, best * self.accumulate
