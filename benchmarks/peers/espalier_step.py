"""What the systems that train in Espalier's step have in common: loading a case's weights, and taking a turn.

Their arguments are `<case directory> on|off [together]`: the second for XLA, the third for all steps of a turn in one
call. The moving average of the weights is off, since no other system keeps one.
"""

import itertools
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.worker import serve
from pipelines.config import OptimizerConfig
from pipelines.task import Task
from pipelines.training.optimizer import make_optimizer
from pipelines.training.step import TrainStep


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Assigns weights by their paths in the model; those of an encoder within it go without its name."""
    for variable in model.trainable_variables:
        _, path = variable.path.split("/", 1)
        variable.assign(weights[path.removeprefix("encoder/").replace("/", ".")])


def serve_steps(
    model: keras.Model, task: Task, config: OptimizerConfig, data: tf.data.Dataset, parameters: int
) -> None:
    """Trains the model in turns, as the arguments say."""
    optimizer = make_optimizer(config, model, 10**6)
    step = TrainStep(model, task, optimizer, config, data.element_spec, jit=sys.argv[2] == "on")
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    serve(_timed(step, data, "together" in sys.argv), parameters, versions)


def _timed(step: TrainStep, data: tf.data.Dataset, together: bool) -> Callable[[int], tuple[float, dict]]:
    """What `serve` takes: trains on so many batches, in one call or one by one, and gives the seconds and the mean
    loss, and the accuracy where the task has one."""

    def train(steps):
        batches = itertools.islice(iter(data), steps)
        loss = hits = weights = 0.0
        begin = time.perf_counter()
        results = step.several(list(batches)) if together else map(step, batches)
        for sums in (result["sums"] for result in results):
            total, weight = map(float, sums["loss"])
            loss, weights = loss + total / weight / steps, weights + weight
            if "accuracy" in sums:
                hits += float(sums["accuracy"][0])
        seconds = time.perf_counter() - begin
        return seconds, {"loss": loss} | ({"accuracy": hits / weights} if "accuracy" in sums else {})

    return train
