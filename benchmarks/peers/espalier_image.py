"""Espalier's image networks and training step, as a system to compare; `espalier_step.py` has its arguments."""

import sys

import keras
import numpy as np
import tensorflow as tf

from apps.image.config import ImageConfig, ModelConfig
from apps.image.model import ImageClassifier
from apps.image.task import ImageTask
from benchmarks.peers.espalier_step import load, serve_steps
from benchmarks.peers.worker import read_case
from pipelines.config import OptimizerConfig


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(settings["precision"])
    model = ImageClassifier.from_settings(
        ModelConfig(**settings["model"]), settings["size"], settings["channels"], settings["classes"]
    )
    load(model, weights)
    labels = batches["label"]
    data = tf.data.Dataset.from_tensor_slices(
        {
            "image": batches["image"],
            "target": np.eye(settings["classes"], dtype="float32")[labels],
            "weight": np.ones(labels.shape, "float32"),
        }
    ).prefetch(tf.data.AUTOTUNE)
    optimizer = OptimizerConfig(average_decay=0.0, **settings["optimizer"])
    config = ImageConfig(label_smoothing=settings["label_smoothing"], optimizer=optimizer)
    task = ImageTask(config, run=None)  # only its loss and metrics are asked for, which need no run
    serve_steps(model, task, optimizer, data, sum(value.size for value in weights.values()))


if __name__ == "__main__":
    main()
