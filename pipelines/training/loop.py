"""The training loop: epochs, steps, validation, checkpoints, and going on where a kill left off."""

import contextlib
import dataclasses
import itertools
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from pipelines import config as configs
from pipelines.config import TrainConfig
from pipelines.distribution import Distribution
from pipelines.errors import UserError
from pipelines.monitoring import Monitor, Silence, Speed
from pipelines.runs import Run
from pipelines.task import Report, Task
from pipelines.training.checkpoints import Checkpoints, Progress
from pipelines.training.epochs import AHEAD, Epochs
from pipelines.training.history import History
from pipelines.training.optimizer import make_optimizer
from pipelines.training.step import TrainStep


class Trainer:
    """Trains a task's model in a run directory.

    Args:
        task: A loaded task.
        model: Its built model.
        run: Directory for checkpoints, logs and history.
        config: Configuration with `auto` settings resolved.
        callbacks: Keras callbacks. They get `loss`, the task's metrics and, after a validation, the
            same with `val_` before them; `model.stop_training` is honoured. Those of batches come once a call,
            with the number of its last batch, where `steps_per_call` are more.
        began: `time.time()` of the start of the process, from which `max_minutes` counts; default now.
        distribution: Where it runs; the model was built within its scope.

    Raises:
        UserError: A metric to watch that there is none of, a batch that replicas cannot share evenly.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        run: Run,
        config: TrainConfig,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        began: float | None = None,
        distribution: Distribution | None = None,
    ):
        metric = config.early_stopping.metric
        if metric not in task.validation_metrics:
            raise UserError(f"--early-stopping.metric {metric}: validation gives {', '.join(task.validation_metrics)}")
        self.distribution = distribution or Distribution()
        config.check_replicas(self.distribution.replicas)
        self.task = task
        self.model = model
        self.run = run
        self.config = config
        self.progress = Progress()
        self.checkpoints = Checkpoints(run.checkpoints, config.keep_checkpoints)
        # Built once: that may take as long as many steps.
        self._first_epoch = task.train_batches(epoch=0)
        self._validation_batches = task.validation_batches()
        with self.distribution.scope():
            pretrained = task.pretrained(model)
            self.optimizer = make_optimizer(config.optimizer, model, total_steps(task, config), pretrained)
            self.step = TrainStep(
                model,
                task,
                self.optimizer,
                config.optimizer,
                self._first_epoch.element_spec,
                jit=config.jit == "on",
                distribution=self.distribution,
                accumulate=config.accumulate,
                scale_loss=config.precision == "mixed_float16",
                pretrained=pretrained,
            )
        # Without XLA: a forward pass gains less from it than its compilation takes.
        self._validation_sums = tf.function(
            self._sums_of_worker, input_signature=[self._validation_batches.element_spec]
        )
        self._signalled = self._interrupted = False
        self._wishes_of_all = (False, False)
        self._steps_of_an_epoch = task.steps_per_epoch()
        self._callbacks = [*task.callbacks(), *callbacks]
        self._clock_start = began or time.time()

    def choose_jit(self) -> TrainConfig:
        """Settles `--jit auto`: times the step with and without XLA, and takes what ends the training sooner.

        XLA compiles for every batch shape: on a short training, a step that is a little faster never pays
        for that. Call it before `fit`.

        Returns:
            The configuration with the choice in it.
        """
        self.step.jit = self.distribution.on_chief(self._is_jit_faster)
        self.config = dataclasses.replace(self.config, jit="on" if self.step.jit else "off")
        return self.config

    def _is_jit_faster(self) -> bool:
        batch = next(iter(self._first_epoch))
        _, plain = self.step.measure(False, batch)
        compiling, compiled = self.step.measure(True, batch)
        compiling *= self.task.batch_shapes
        faster = compiling < (plain - compiled) * total_steps(self.task, self.config)
        print(
            f"jit {'on' if faster else 'off'}: gradients take {1000 * compiled:.0f} ms with XLA and "
            f"{1000 * plain:.0f} ms without, compiling takes {compiling:.0f} s"
        )
        return faster

    def variables(self):
        """Everything that a checkpoint holds, by kind."""
        return {
            "weights": [v.value for v in self.model.trainable_variables],
            "state": [v.value for v in self.model.non_trainable_variables],
            "optimizer": [v.value for v in self.optimizer.variables],
            "averages": self.step.averages,
            "loss_scale": self.step.loss_scale.variables if self.step.loss_scale else [],
        }

    def fit(self) -> dict[str, float]:
        """Trains to the end. Returns the metrics of the last validation.

        Raises:
            UserError: The loss became NaN or infinite, or a checkpoint could not be written.
        """
        self._restore()
        self._clock_start -= self.progress.seconds
        chief = self.distribution.is_chief
        self.history = History(self.run.history_file, self.progress.step) if chief else Silence()
        self.monitor = Monitor(self.run.logs, self.config.profiled_steps()) if chief else Silence()
        self.monitor.start(self.progress.step, configs.write_yaml(configs.to_dict(self.config)))
        self.callbacks = keras.callbacks.CallbackList(
            self._callbacks,
            add_progbar=chief,
            model=self.model,
            verbose=1 if sys.stdout.isatty() else 2,  # a bar on a terminal, a line an epoch in a log
            epochs=self.config.epochs,
            steps=min(self._steps_of_an_epoch, self.config.max_steps or self._steps_of_an_epoch),
        )
        self._epochs = Epochs(self._train_batches)
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
            self._epochs.close()
            self.monitor.close()
            self.history.close()
        self.distribution.wait_for_all()  # the chief is still writing when the others are done
        return self.progress.metrics

    def _restore(self) -> None:
        """Goes on from the newest sound checkpoint, the same one on every worker."""

        def newest() -> int | None:
            restored = self.checkpoints.restore_newest(self.variables())
            self.progress = restored or self.progress
            return restored.step if restored else None

        step = self.distribution.on_chief(newest)
        if step is None:
            return
        if not self.distribution.is_chief:
            self.progress = self.checkpoints.restore(self.variables(), step)
        print(f"resumed from step {step}")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Lets the step in hand finish on Ctrl-C or SIGTERM, and then writes a checkpoint."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number, _frame):
            self._signalled = True
            signal.signal(number, before[number])  # a second one ends at once

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._interrupted:
            raise KeyboardInterrupt(f"interrupted at step {self.progress.step}; go on with --run-dir {self.run.path}")

    def _wishes(self) -> tuple[bool, bool]:
        """Whether this worker would end the training, and whether it was interrupted."""
        minutes = self.config.max_minutes
        late = bool(minutes) and time.time() - self._clock_start > 60 * minutes
        return bool(self.model.stop_training) or late, self._signalled

    def _finished(self) -> bool:
        # Several workers must stop after the same step: they heed what all of them wished during the last one.
        stop, self._interrupted = self._wishes() if self.distribution.workers == 1 else self._wishes_of_all
        limit = self.config.max_steps
        return stop or self._interrupted or self._stopped_early or bool(limit and self.progress.step >= limit)

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
        with self._speed.waiting():
            batches = self._epochs.batches(epoch, skip=progress.batch)
        exhausted = False
        while not self._finished():
            with self._speed.waiting():
                taken = list(itertools.islice(batches, self._steps_until_due()))
            if not taken:
                exhausted = True
                break
            self._train_on(taken)
            soon = AHEAD + self.config.steps_per_call  # the next look is only after the next call
            if progress.batch + soon > self._steps_of_an_epoch and epoch + 1 < self.config.epochs:
                self._epochs.look_ahead(epoch + 1)
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

    def _train_batches(self, epoch: int) -> tf.data.Dataset:
        return self.task.train_batches(epoch) if epoch else self._first_epoch

    def _due(self, every: int) -> bool:
        return bool(every) and self.progress.step % every == 0

    def _steps_until_due(self) -> int:
        """How many steps to take in one call: none beyond the next one after which something is due."""
        step, config = self.progress.step, self.config
        first, last = config.profiled_steps()
        left = [every - step % every for every in (config.validate_every, config.checkpoint_every) if every]
        left += [end - step for end in (config.max_steps, first - 1, last)] + [self._frozen_updates]
        return min(config.steps_per_call, *(steps for steps in left if steps > 0))

    @property
    def _frozen_updates(self) -> int:
        """How many are left with pretrained weights frozen. To the optimizer a step that float16 skipped is none."""
        frozen = self.config.optimizer.frozen_steps
        return frozen and max(0, frozen - int(self.optimizer.iterations.numpy()))

    def _train_on(self, batches) -> None:
        """Takes a step on each batch, in one call where they are as many as usual."""
        progress = self.progress
        self.callbacks.on_train_batch_begin(progress.batch)
        if progress.step == 0:
            self.monitor.graph(self.step.graph)
        with self._speed.working():
            self.step.frozen = self._frozen_updates > 0
            # Fewer, before something is due, are not worth a trace of their own.
            whole = len(batches) == self.config.steps_per_call
            calls = [batches] if whole else [[batch] for batch in batches]
            results = [result for call in calls for result in self.step.several(call, self._wishes())]
            self._wishes_of_all = tuple(bool(count > 0) for count in results[-1]["wishes"])
            sums = [
                {name: (float(total), float(weight)) for name, (total, weight) in result["sums"].items()}
                for result in results
            ]
        progress.seconds = time.time() - self._clock_start
        speed = self._speed.count(sum(each["loss"][1] for each in sums))
        for each in zip(results, sums, strict=True):
            self._record(*each, speed)
        shown = self._epoch_logs() | {f"{self.task.unit}/s": round(self._speed.mean)}
        self.callbacks.on_train_batch_end(progress.batch - 1, shown)

    def _record(self, result, sums, speed) -> None:
        """Notes one step."""
        progress = self.progress
        progress.step += 1
        progress.batch += 1
        norm = float(result["gradient_norm"])
        metrics = {name: total / max(weight, 1.0) for name, (total, weight) in sums.items()}
        if result["applied"]:
            self._stop_unless_finite(metrics["loss"], norm)
            for name, pair in sums.items():
                progress.sums[name] = [a + b for a, b in zip(progress.sums.get(name, [0.0, 0.0]), pair, strict=True)]
        else:
            self._skipped()
        scalars = metrics | {
            "learning_rate": float(result["learning_rate"]),
            "gradient_norm": norm,
            f"{self.task.unit}_per_second": speed,
            "input_wait": self._speed.share_waiting,
        }
        scalars = _finite(scalars)  # a skipped step has some that are not
        self.history.write(step=progress.step, epoch=progress.epoch, **scalars, seconds=round(progress.seconds, 3))
        self.monitor.step(progress.step, scalars)

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

    def _skipped(self) -> None:
        """A step overflowed in float16 and was left out; the loss scale has been halved."""
        scale = float(self.step.loss_scale.value)
        if scale < 2.0**-10:
            raise UserError(
                f"step {self.progress.step}: float16 overflows however small the loss is scaled ({scale:.3g}); "
                "train with --precision mixed_bfloat16 or float32"
            )
        print(f"step {self.progress.step}: overflow in float16, skipped; loss scale now {scale:g}")

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
        self._warn_of_drift()
        self.callbacks.on_test_begin()
        with self.averaged_weights():
            metrics = self._mean_sums()
            metrics |= self.task.derived(metrics)
            report = Report()

            def look() -> dict[str, float]:
                nonlocal report
                report = self.task.report(self.model)
                return report.metrics

            metrics |= self.distribution.on_chief(look)
        report = dataclasses.replace(report, metrics=metrics)
        progress.metrics = report.metrics
        self.callbacks.on_test_end(report.metrics)
        values = _finite({f"val_{name}": value for name, value in report.metrics.items()})
        seconds = round(time.time() - self._clock_start, 3)
        self.history.write(step=progress.step, epoch=progress.epoch, **values, seconds=seconds)
        self.monitor.validation(progress.step, report)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        print(f"{chr(10) if sys.stdout.isatty() else ''}validation at step {progress.step}: {shown}")
        progress.validated = progress.step
        self._compare_with_best()

    def _warn_of_drift(self) -> None:
        if self.distribution.replicas == 1:
            return
        drifted = self.distribution.drifted([v.value for v in self.model.trainable_variables])
        if drifted and self.distribution.is_chief:
            which = ", ".join(map(str, drifted))
            print(
                f"warning: step {self.progress.step}: the weights of replica {which} differ from those of replica 0; "
                "is a processor or its memory at fault?",
                file=sys.stderr,
            )

    def _mean_sums(self) -> dict[str, float]:
        """Loss and metrics over the validation split, as means over its real tokens or rows."""
        totals: dict[str, list[float]] = {}
        for batch in self._validation_batches:
            for name, pair in self._validation_sums(batch).items():
                totals[name] = [a + float(b) for a, b in zip(totals.get(name, (0.0, 0.0)), pair, strict=True)]
        names = sorted(totals)
        pairs = self.distribution.sum_workers([x for name in names for x in totals[name]]).reshape(-1, 2)
        return {name: float(total / max(weight, 1.0)) for name, (total, weight) in zip(names, pairs, strict=True)}

    def _sums_of_worker(self, batch):
        def replica(batch):
            rows = self.distribution.rows(batch)
            return self.task.sums(self.model(rows, training=False), rows)

        return self.distribution.sum_local(self.distribution.strategy.run(replica, args=(batch,)))

    def _compare_with_best(self) -> None:
        stopping, progress = self.config.early_stopping, self.progress
        value = progress.metrics[stopping.metric]
        sign = 1 if stopping.metric in self.task.maximize else -1
        # Against NaN every comparison fails: as the best value it would stay that for ever.
        if math.isfinite(value) and (progress.best is None or sign * value > sign * progress.best):
            progress.best, progress.best_step, progress.since_best = value, progress.step, 0
        else:
            progress.since_best += 1
        if self._stopped_early:
            print(f"{stopping.metric} has not improved for {progress.since_best} validations: stopped early")

    def _checkpoint(self) -> None:
        self.progress.seconds = time.time() - self._clock_start
        if not self.distribution.is_chief:
            return
        self.checkpoints.save(self.variables(), self.progress)


def total_steps(task: Task, config: TrainConfig) -> int:
    """Steps of the whole training, as far as they are known beforehand."""
    steps = task.steps_per_epoch() * config.epochs
    return min(steps, config.max_steps) if config.max_steps else steps


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Without those that neither JSON nor a curve can hold."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
