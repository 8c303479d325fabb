"""TensorBoard: one writer for training and one for validation, so that their curves lie over one another."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from pipelines.task import Report

EVERY = 10  # steps between two points of a training curve


class Monitor:
    """Writes a run's TensorBoard logs.

    Args:
        logs: Directory that gets `train/` and `validation/`.
        profile: First and last step to profile; (0, 0) for none.
    """

    def __init__(self, logs: Path, profile: tuple[int, int] = (0, 0)):
        self._train_directory = str(logs / "train")
        self._train = tf.summary.create_file_writer(self._train_directory)
        self._validation = tf.summary.create_file_writer(str(logs / "validation"))
        self._profile = profile
        self._profiling = False

    def start(self, step: int, configuration: str) -> None:
        """Call it before the first step; `step` are done already."""
        with self._train.as_default(step=step):
            tf.summary.text("configuration", f"```yaml\n{configuration}\n```")
        self._follow_profile(step + 1)

    def graph(self, graph: tf.Graph) -> None:
        with self._train.as_default(step=0):
            tf.summary.graph(graph)

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records one training step. Call it after the step."""
        if step % EVERY == 0:
            with self._train.as_default(step=step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)
        self._follow_profile(step + 1)

    def _follow_profile(self, next_step: int) -> None:
        first, last = self._profile
        if first <= next_step <= last and not self._profiling:
            tf.profiler.experimental.start(self._train_directory)
            self._profiling = True
        elif next_step > last and self._profiling:
            self._stop_profile()

    def _stop_profile(self) -> None:
        tf.profiler.experimental.stop()
        self._profiling = False
        print(f"profile of steps {self._profile[0]} to {self._profile[1]} in {self._train_directory}/plugins/profile")

    def epoch(self, step: int, scalars: Mapping[str, float]) -> None:
        with self._train.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(f"epoch/{name}", value)

    def validation(self, step: int, report: Report) -> None:
        """Records what a validation found, under the same names as the training curves."""
        with self._validation.as_default(step=step):
            for name, value in report.metrics.items():
                tf.summary.scalar(name, value)
            for name, text in report.texts.items():
                tf.summary.text(name, text)
            for name, image in report.images.items():
                tf.summary.image(name, image[None])
            for name, (samples, rate) in report.audio.items():
                tf.summary.audio(name, samples[None, :, None], rate)
        self._validation.flush()
        self._train.flush()

    def close(self) -> None:
        if self._profiling:
            self._stop_profile()
        self._train.close()
        self._validation.close()


class Silence:
    """Takes the place of a monitor or a history on workers that keep none: every method does nothing."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


class Speed:
    """How fast an epoch goes, and how much of its time is spent waiting for input.

    `share_waiting` is the share of the last call's time that went into waiting for its batches.
    """

    def __init__(self):
        self._waited = self._worked = self.share_waiting = 0.0
        self._seconds = self._count = 0.0

    @contextlib.contextmanager
    def waiting(self):
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin  # an epoch's first step waits for its input to be set up, too

    @contextlib.contextmanager
    def working(self):
        begin = time.perf_counter()
        yield
        self._worked = time.perf_counter() - begin

    def count(self, weight: float) -> float:
        """Adds the steps just done. Returns their tokens or rows a second."""
        seconds = self._waited + self._worked
        self.share_waiting = self._waited / seconds
        self._waited = 0.0
        self._seconds += seconds
        self._count += weight
        return weight / seconds

    @property
    def mean(self) -> float:
        """Tokens or rows a second since the epoch began, validation and checkpoints not counted."""
        return self._count / self._seconds
