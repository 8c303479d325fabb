"""Espalier's translate step on several replicas, as a system to compare: arguments `<case directory> KIND COUNT`.

KIND is `none`, `mirrored` (COUNT logical CPUs in this process) or `multi_worker` (this process, and COUNT - 1 that it
starts). Each turn is answered with the share of its time that went into adding up gradients, waiting for the
slowest replica included.
"""

import os
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from apps.translate.config import ModelConfig
from apps.translate.model import TranslationTransformer
from benchmarks.peers.espalier_translate import load, make_step
from benchmarks.peers.worker import read_case, serve
from pipelines.config import TrainConfig
from pipelines.distribution import Distribution
from pipelines.launch import free_addresses, worker_environment


class TimedDistribution(Distribution):
    """Notes how long each replica spends in `sum_replicas`."""

    spent = 0.0

    def sum_replicas(self, tensors):
        begin = _timestamp_after(tensors)
        with tf.control_dependencies([begin]):
            tensors = [tf.identity(tensor) for tensor in tensors]
        sums = super().sum_replicas(tensors)
        noted = tf.numpy_function(self._note, [_timestamp_after(sums) - begin], [])
        with tf.control_dependencies([noted]):
            return [tf.identity(tensor) for tensor in sums]

    def _note(self, seconds):
        self.spent += float(seconds) / self.local_replicas


def _timestamp_after(tensors):
    with tf.control_dependencies(tensors):
        return tf.timestamp()


def start_others(count: int) -> None:
    """Makes this process worker 0, and starts the other workers, which end with it."""
    addresses = free_addresses(count)
    for index in range(1, count):
        command = [sys.executable, "-m", "benchmarks.peers.espalier_replicas", *sys.argv[1:]]
        subprocess.Popen(command, env=worker_environment(addresses, index))
    os.environ.update(worker_environment(addresses, 0))


def main() -> None:
    folder, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if kind == "multi_worker" and "TF_CONFIG" not in os.environ:
        start_others(count)
    devices = ",".join(f"CPU:{i}" for i in range(count)) if kind == "mirrored" else ""
    distribution = TimedDistribution.start(TrainConfig(strategy=kind, devices=devices))
    settings, weights, batches = read_case(folder)
    keras.utils.set_random_seed(0)
    with distribution.scope():
        model = TranslationTransformer.from_settings(
            ModelConfig(**settings["model"]), settings["vocabulary_size"], settings["start_id"]
        )
        load(model, weights)
        rows = distribution.shard.rows(batches["source"].shape[1])
        data = tf.data.Dataset.from_tensor_slices({name: ids[:, rows] for name, ids in batches.items()})
        step = make_step(settings, model, data.element_spec, jit=True, distribution=distribution)
    batches = list(data)

    def train(steps):
        distribution.on_chief(lambda: None)  # all begin together
        distribution.spent = 0.0
        losses = []
        begin = time.perf_counter()
        for batch in batches[:steps]:
            total, weight = map(float, step(batch)["sums"]["loss"])
            losses.append(total / weight)
        seconds = time.perf_counter() - begin
        return seconds, {"loss": float(np.mean(losses)), "all_reduce": distribution.spent / seconds}

    if distribution.is_chief:
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        serve(lambda steps: train(distribution.on_chief(lambda: steps)), model.count_params(), versions)
    else:
        while True:
            train(distribution.on_chief(lambda: None))


if __name__ == "__main__":
    main()
