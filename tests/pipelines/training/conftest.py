"""A task small enough to train in milliseconds, on the real engine: a line fitted to points."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pipelines.config import EarlyStoppingConfig, OptimizerConfig, TrainConfig
from pipelines.export.servable import Servable
from pipelines.runs import Run
from pipelines.task import Report, Task


class LineTask(Task):
    """y = 2 x - 1 with dropout in between, so that the random state matters too. 8 batches an epoch."""

    unit = "points"
    validation_metrics = ("loss", "absolute_error")
    dropout = 0.2
    normalised = False  # by BatchNormalization
    poison_step = None  # from this batch on, x is not a number

    def prepare(self):
        return self.config

    def load(self):
        pass

    def build_model(self):
        inputs = {"x": keras.Input((4,), name="x"), "y": keras.Input((1,), name="y")}
        x = keras.layers.Dense(8, activation="tanh")(inputs["x"])
        x = keras.layers.Dropout(self.dropout, seed=3)(x)
        if self.normalised:
            x = keras.layers.BatchNormalization()(x)
        return keras.Model(inputs, keras.layers.Dense(1)(x))

    def _batches(self, seed, count):
        x = np.random.default_rng(seed).normal(size=(count, self.config.batch_size, 4)).astype("float32")
        y = 2 * x.sum(-1, keepdims=True) - 1
        if self.poison_step is not None:
            x[self.poison_step :] = np.nan
        rows = self.shard.rows(self.config.batch_size)
        return tf.data.Dataset.from_tensor_slices({"x": x[:, rows], "y": y[:, rows]})

    def train_batches(self, epoch):
        return self._batches((self.config.seed, epoch), 8)

    def validation_batches(self):
        poison, self.poison_step = self.poison_step, None
        batches = self._batches(999, 2)
        self.poison_step = poison
        return batches

    def steps_per_epoch(self):
        return 8

    def sums(self, outputs, batch):
        error = ops.cast(outputs, "float32") - batch["y"]
        weight = ops.cast(ops.shape(batch["x"])[0], "float32")
        return {"loss": (ops.sum(error**2), weight), "absolute_error": (ops.sum(ops.abs(error)), weight)}

    def report(self, model):
        return Report(texts={"note": "a | b"}, images={"dot": np.zeros((4, 4, 3), np.uint8)})

    def evaluate(self, model, options):
        return {}

    def predict(self, model, rows, options):
        return []

    def explain(self, model, rows, options):
        return []

    def servable(self, model, options):
        return Servable({}, {})


@pytest.fixture
def line_config():
    return TrainConfig(
        epochs=3,
        batch_size=16,
        checkpoint_every=5,
        jit="off",
        optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=4, average_decay=0.9),
        early_stopping=EarlyStoppingConfig(metric="loss"),
    )


@pytest.fixture
def make_task(tmp_path):
    """Makes a LineTask in a fresh run directory (or in the one named)."""

    def make(config, name="run"):
        run = Run(tmp_path / name)
        run.path.mkdir(exist_ok=True)
        return LineTask(config, run)

    return make
