"""What the systems that train in Espalier's step have in common: loading a case's weights, and taking a turn."""

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from pipelines.training.step import TrainStep


def load(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """Assigns weights by their paths in the model; those of an encoder within it go without its name."""
    for variable in model.trainable_variables:
        _, path = variable.path.split("/", 1)
        variable.assign(weights[path.removeprefix("encoder/").replace("/", ".")])


def timed(step: TrainStep, data: tf.data.Dataset) -> Callable[[int], tuple[float, dict]]:
    """What `serve` takes: trains on so many batches, and gives the seconds and the mean loss, and the accuracy where
    the task has one."""

    def train(steps):
        iterator = iter(data)
        loss = hits = weights = 0.0
        begin = time.perf_counter()
        for _ in range(steps):
            sums = step(next(iterator))["sums"]
            total, weight = map(float, sums["loss"])
            loss, weights = loss + total / weight / steps, weights + weight
            if "accuracy" in sums:
                hits += float(sums["accuracy"][0])
        seconds = time.perf_counter() - begin
        return seconds, {"loss": loss} | ({"accuracy": hits / weights} if "accuracy" in sums else {})

    return train
