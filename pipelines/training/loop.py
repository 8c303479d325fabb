"""The training loop: epochs, steps, validation, checkpoints, and going on where a kill left off."""

import contextlib
import dataclasses
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from pipelines import config as configs
from pipelines.config import TrainConfig
from pipelines.errors import UserError
from pipelines.monitoring import Monitor, Speed
from pipelines.runs import Run
from pipelines.task import Report, Task
from pipelines.training.checkpoints import Checkpoints, Progress
from pipelines.training.history import History
from pipelines.training.step import TrainStep, make_optimizer


class Trainer:
    """Trains a task's model in a run directory.

    Args:
        task: A loaded task.
        model: Its built model.
        run: Directory for checkpoints, logs and history.
        config: Configuration with `auto` settings resolved.
        callbacks: Keras callbacks. They get `loss`, the task's metrics and, after a validation, the
            same with `val_` before them; `model.stop_training` is honoured.
        began: `time.time()` of the start of the process, from which `max_minutes` counts; default now.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        run: Run,
        config: TrainConfig,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        began: float | None = None,
    ):
        metric = config.early_stopping.metric
        if metric not in task.validation_metrics:
            raise UserError(f"--early-stopping.metric {metric}: validation gives {', '.join(task.validation_metrics)}")
        self.task = task
        self.model = model
        self.run = run
        self.config = config
        self.progress = Progress()
        self.checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints)
        self.optimizer = make_optimizer(config.optimizer, model, total_steps(task, config))
        spec = task.train_batches(epoch=0).element_spec
        self.step = TrainStep(model, task, self.optimizer, config.optimizer, spec, jit=config.jit == "on")
        # Without XLA: a forward pass gains less from it than its compilation takes.
        self._validation_sums = tf.function(
            lambda batch: task.sums(model(batch, training=False), batch),
            input_signature=[task.validation_batches().element_spec],
        )
        self._callbacks = [*task.callbacks(), *callbacks]
        self._clock_start = began or time.time()

    def choose_jit(self) -> TrainConfig:
        """Settles `--jit auto`: times the step with and without XLA, and takes what ends the training sooner.

        XLA compiles for every batch shape: on a short training, a step that is a little faster never pays
        for that. Call it before `fit`.

        Returns:
            The configuration with the choice in it.
        """
        batch = next(iter(self.task.train_batches(epoch=0)))
        _, plain = self.step.measure(False, batch)
        compiling, compiled = self.step.measure(True, batch)
        compiling *= self.task.batch_shapes
        self.step.jit = compiling < (plain - compiled) * total_steps(self.task, self.config)
        self.config = dataclasses.replace(self.config, jit="on" if self.step.jit else "off")
        print(
            f"jit {self.config.jit}: a step takes {1000 * compiled:.0f} ms with XLA and {1000 * plain:.0f} ms without, "
            f"compiling takes {compiling:.0f} s"
        )
        return self.config

    def variables(self):
        """Everything that a checkpoint holds, by kind."""
        return {
            "weights": [v.value for v in self.model.trainable_variables],
            "state": [v.value for v in self.model.non_trainable_variables],
            "optimizer": [v.value for v in self.optimizer.variables],
            "averages": self.step.averages,
        }

    def fit(self) -> dict[str, float]:
        """Trains to the end. Returns the metrics of the last validation.

        Raises:
            UserError: The loss became NaN or infinite, or a checkpoint could not be written.
        """
        restored = self.checkpoints.restore_newest(self.variables())
        if restored:
            self.progress = restored
            print(f"resumed from step {restored.step}")
        self._clock_start -= self.progress.seconds
        self.history = History(self.run.history_file, self.progress.step)
        self.monitor = Monitor(self.run.logs, self.config.profiled_steps())
        self.monitor.start(self.progress.step, configs.write_yaml(configs.to_dict(self.config)))
        self.callbacks = keras.callbacks.CallbackList(
            self._callbacks,
            add_progbar=True,
            model=self.model,
            verbose=1 if sys.stdout.isatty() else 2,  # a bar on a terminal, a line an epoch in a log
            epochs=self.config.epochs,
            steps=self._epoch_steps(),
        )
        self.model.stop_training = False
        try:
            with self._signals():
                self.callbacks.on_train_begin()
                if self.progress.epoch >= self.config.epochs or self._finished():
                    print(f"nothing left to train: this run is complete at step {self.progress.step}")
                while self.progress.epoch < self.config.epochs and not self._finished():
                    self._epoch()
                self.callbacks.on_train_end(self.progress.metrics)
        finally:
            self.monitor.close()
            self.history.close()
        return self.progress.metrics

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Lets the step in hand finish on Ctrl-C or SIGTERM, and then writes a checkpoint."""
        self._interrupted = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number, _frame):
            self._interrupted = True
            signal.signal(number, before[number])  # a second one ends at once

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._interrupted:
            raise KeyboardInterrupt(f"interrupted at step {self.progress.step}; go on with --run-dir {self.run.path}")

    def _epoch_steps(self) -> int:
        steps = self.task.steps_per_epoch()
        limit = self.config.max_steps
        return min(steps, limit) if limit else steps

    def _finished(self) -> bool:
        limit, minutes = self.config.max_steps, self.config.max_minutes
        return (
            self._interrupted
            or self.model.stop_training
            or self._stopped_early
            or bool(limit and self.progress.step >= limit)
            or bool(minutes and time.time() - self._clock_start > 60 * minutes)
        )

    @property
    def _stopped_early(self) -> bool:
        patience = self.config.early_stopping.patience
        return bool(patience) and self.progress.since_best >= patience

    def _epoch(self) -> None:
        """Trains to the end of the epoch, or until something says stop."""
        progress = self.progress
        epoch = progress.epoch
        self.callbacks.on_epoch_begin(epoch)
        self._speed = Speed()
        batches = iter(self.task.train_batches(epoch).skip(progress.batch))
        exhausted = False
        while not self._finished():
            with self._speed.waiting():
                batch = next(batches, None)
            if batch is None:
                exhausted = True
                break
            self._train_on(batch)
            if self._due(self.config.validate_every):
                self._validate()
                self._checkpoint()
            elif self._due(self.config.checkpoint_every):
                self._checkpoint()
        if self._interrupted:
            self._checkpoint()
            return
        # Without steps of its own, validation comes after each epoch; and always at the very end.
        at_the_end = self._finished() or (exhausted and epoch + 1 == self.config.epochs)
        if progress.validated != progress.step and (not self.config.validate_every or at_the_end):
            self._validate()
        logs = self._epoch_logs()
        validation = {f"val_{name}": value for name, value in progress.metrics.items()}
        self.callbacks.on_epoch_end(epoch, logs | validation)
        self.monitor.epoch(progress.step, logs)
        if exhausted:
            progress.epoch, progress.batch, progress.sums = epoch + 1, 0, {}
        self._checkpoint()

    def _due(self, every: int) -> bool:
        return bool(every) and self.progress.step % every == 0

    def _train_on(self, batch) -> None:
        progress = self.progress
        self.callbacks.on_train_batch_begin(progress.batch)
        if progress.step == 0:
            self.monitor.graph(self.step.graph)
        with self._speed.working():
            result = self.step(batch)
            sums = {name: (float(total), float(weight)) for name, (total, weight) in result["sums"].items()}
        progress.step += 1
        progress.batch += 1
        progress.seconds = time.time() - self._clock_start
        norm = float(result["gradient_norm"])
        metrics = {name: total / max(weight, 1.0) for name, (total, weight) in sums.items()}
        self._stop_unless_finite(metrics["loss"], norm)
        for name, pair in sums.items():
            progress.sums[name] = [a + b for a, b in zip(progress.sums.get(name, [0.0, 0.0]), pair, strict=True)]
        scalars = metrics | {
            "learning_rate": float(result["learning_rate"]),
            "gradient_norm": norm,
            f"{self.task.unit}_per_second": self._speed.count(sums["loss"][1]),
            "input_wait": self._speed.share_waiting,
        }
        self.history.write(step=progress.step, epoch=progress.epoch, **scalars, seconds=round(progress.seconds, 3))
        self.monitor.step(progress.step, scalars)
        shown = self._epoch_logs() | {f"{self.task.unit}/s": round(self._speed.mean)}
        self.callbacks.on_train_batch_end(progress.batch - 1, shown)

    def _stop_unless_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        kept = self.checkpoints.steps()
        where = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no checkpoint yet"
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
        raise UserError(
            f"step {self.progress.step}: {what}; {where}; try a new run with a lower --optimizer.learning-rate, "
            "a longer --optimizer.warmup-steps or a smaller --optimizer.clip-norm"
        )

    def _epoch_logs(self) -> dict[str, float]:
        return {name: total / max(weight, 1.0) for name, (total, weight) in self.progress.sums.items()}

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the averaged weights into the model for a while."""
        if not self.step.averages:
            yield
            return
        weights = [v.value for v in self.model.trainable_variables]
        saved = [tf.identity(v) for v in weights]
        for variable, average in zip(weights, self.step.averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(weights, saved, strict=True):
                variable.assign(value)

    def _validate(self) -> None:
        """Measures the averaged weights on the validation split."""
        progress = self.progress
        self.callbacks.on_test_begin()
        with self.averaged_weights():
            metrics = self._mean_sums()
            report = self.task.report(self.model)
        report = Report(metrics | report.metrics, report.texts, report.images)
        progress.metrics = report.metrics
        self.callbacks.on_test_end(report.metrics)
        values = {f"val_{name}": value for name, value in report.metrics.items()}
        seconds = round(time.time() - self._clock_start, 3)
        self.history.write(step=progress.step, epoch=progress.epoch, **values, seconds=seconds)
        self.monitor.validation(progress.step, report)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        print(f"{chr(10) if sys.stdout.isatty() else ''}validation at step {progress.step}: {shown}")
        progress.validated = progress.step
        self._compare_with_best()

    def _mean_sums(self) -> dict[str, float]:
        """Loss and metrics over the validation split, as means over its real tokens or rows."""
        totals: dict[str, list[float]] = {}
        for batch in self.task.validation_batches():
            for name, pair in self._validation_sums(batch).items():
                totals[name] = [a + float(b) for a, b in zip(totals.get(name, (0.0, 0.0)), pair, strict=True)]
        return {name: total / max(weight, 1.0) for name, (total, weight) in totals.items()}

    def _compare_with_best(self) -> None:
        stopping, progress = self.config.early_stopping, self.progress
        value = progress.metrics[stopping.metric]
        sign = 1 if stopping.metric in self.task.maximize else -1
        if progress.best is None or sign * value > sign * progress.best:
            progress.best, progress.best_step, progress.since_best = value, progress.step, 0
        else:
            progress.since_best += 1
        if self._stopped_early:
            print(f"{stopping.metric} has not improved for {progress.since_best} validations: stopped early")

    def _checkpoint(self) -> None:
        self.progress.seconds = time.time() - self._clock_start
        self.checkpoints.save(self.variables(), self.progress)


def total_steps(task: Task, config: TrainConfig) -> int:
    """Steps of the whole training, as far as they are known beforehand."""
    steps = task.steps_per_epoch() * config.epochs
    return min(steps, config.max_steps) if config.max_steps else steps
