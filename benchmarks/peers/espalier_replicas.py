"""A training step of one app on several replicas, as a system to compare.

Arguments: APP KIND COUNT. KIND is `none`, `mirrored` (COUNT logical CPUs in this process) or `multi_worker` (this
process, and COUNT - 1 that it starts). Each turn is answered with the loss of every step, with the share of the time
that went into adding up gradients, waiting for the slowest replica included, and with the seconds that adding up takes
by itself, when nobody has to be waited for: of as much as a step adds up, and of a single number.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time

BEGAN = time.time()  # before TensorFlow's import, which is part of what a start takes

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from benchmarks.peers.replica_work import WORK, Work  # noqa: E402
from benchmarks.peers.worker import serve  # noqa: E402
from pipelines.config import OptimizerConfig, TrainConfig  # noqa: E402
from pipelines.distribution import Distribution  # noqa: E402
from pipelines.launch import free_addresses, worker_environment  # noqa: E402
from pipelines.training.optimizer import make_optimizer  # noqa: E402
from pipelines.training.step import TrainStep  # noqa: E402

# Updates large enough from the second step on to show in the loss of those that follow.
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=2)
ALONE = 5  # times that adding up is timed by itself in each turn
START_SECONDS = 120  # for all workers to be there


class TimedDistribution(Distribution):
    """Notes how long each replica spends in `sum_replicas`, and how many bytes it brings there."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.spans = []  # seconds; replicas are threads, and appending needs no lock
        self.shapes = []  # of what a step adds up

    def sum_replicas(self, tensors):
        self.shapes = [tensor.shape for tensor in tensors]
        if self.replicas == 1:
            return super().sum_replicas(tensors)
        begin = _timestamp_after(tensors)
        with tf.control_dependencies([begin]):
            tensors = [tf.identity(tensor) for tensor in tensors]
        sums = super().sum_replicas(tensors)
        noted = tf.numpy_function(
            lambda seconds: self.spans.append(float(seconds)), [_timestamp_after(sums) - begin], []
        )
        with tf.control_dependencies([noted]):
            return [tf.identity(tensor) for tensor in sums]

    def alone(self, shapes):
        """A function that adds up zeros of these shapes over all replicas, and returns the seconds that took."""

        @tf.function
        def add():
            def replica():
                sums = super(TimedDistribution, self).sum_replicas([tf.zeros(shape) for shape in shapes])
                return tf.add_n([tf.reduce_max(tensor) for tensor in sums])

            return self.first(self.strategy.run(replica))

        def seconds():
            begin = time.perf_counter()
            add().numpy()
            return time.perf_counter() - begin

        return seconds


def _timestamp_after(tensors):
    # A call is inlined, and what waits for the call itself then waits for nothing: so wait for copies of its results.
    with tf.control_dependencies([tf.identity(tensor) for tensor in tensors]):
        return tf.timestamp()


def make_turn(work: Work, distribution: TimedDistribution, jit: bool):
    """The model, and the function that takes a number of steps with it: (seconds, figures)."""
    keras.utils.set_random_seed(0)
    with distribution.scope():
        model = work.build()
        optimizer = make_optimizer(OPTIMIZER, model, 10**6)
        rows = distribution.shard.rows(next(iter(work.batches.values())).shape[1])
        data = tf.data.Dataset.from_tensor_slices({name: array[:, rows] for name, array in work.batches.items()})
        step = TrainStep(model, work.task, optimizer, OPTIMIZER, data.element_spec, jit, distribution)
    batches = list(data)
    timed = {}
    began = {}

    def train(steps):
        distribution.on_chief(lambda: None)  # all begin together
        distribution.spans.clear()
        losses = []
        begin = time.perf_counter()
        for batch in batches[:steps]:
            total, weight = map(float, step(batch)["sums"]["loss"])
            began.setdefault("seconds", time.time() - BEGAN)
            losses.append(total / weight)
        seconds = time.perf_counter() - begin
        spent = sum(distribution.spans) / distribution.local_replicas
        if not timed:
            timed["sum"], timed["message"] = distribution.alone(distribution.shapes), distribution.alone([[1]])
        alone = {name: statistics.median([call() for _ in range(ALONE)]) for name, call in timed.items()}
        return seconds, {
            "work": work.name,
            "unit": work.task.unit,
            "amount": work.amount,
            "losses": losses,
            "all_reduce": spent / seconds,
            "parameters": model.count_params(),
            "reduced_bytes": 4 * sum(shape.num_elements() for shape in distribution.shapes),
            "sum_seconds": alone["sum"],
            "message_seconds": alone["message"],
            "start_seconds": began["seconds"],
        }

    return model, train


def start_others(count: int) -> None:
    """Makes this process worker 0, and starts the other workers, which end with it."""
    addresses = free_addresses(count)
    for index in range(1, count):
        command = [sys.executable, "-m", "benchmarks.peers.espalier_replicas", *sys.argv[1:]]
        # Their standard input ends when this process does, however it ends.
        subprocess.Popen(command, env=worker_environment(addresses, index), stdin=subprocess.PIPE)
    os.environ.update(worker_environment(addresses, 0))


def end_with_the_first() -> None:
    def wait():
        with contextlib.suppress(OSError):
            os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("app", choices=list(WORK))
    parser.add_argument("kind", choices=["none", "mirrored", "multi_worker"])
    parser.add_argument("count", type=int)
    parser.add_argument("--steps", type=int, required=True, help="batches to make")
    parser.add_argument("--rows", type=int, default=0, help="of the global batch; 0 takes the app's own")
    parser.add_argument("--jit", choices=["on", "off"], default="off")
    options = parser.parse_args()
    if options.kind == "multi_worker":
        if "TF_CONFIG" in os.environ:
            end_with_the_first()
        else:
            start_others(options.count)
    devices = ",".join(f"CPU:{i}" for i in range(options.count)) if options.kind == "mirrored" else ""
    config = TrainConfig(strategy=options.kind, devices=devices, rendezvous_seconds=START_SECONDS)
    distribution = TimedDistribution.start(config)
    work = WORK[options.app](options.steps, **({"rows": options.rows} if options.rows else {}))
    with distribution.naming_lost_workers():
        model, train = make_turn(work, distribution, options.jit == "on")
        if distribution.is_chief:
            versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
            serve(lambda steps: train(distribution.on_chief(lambda: steps)), model.count_params(), versions)
        else:
            while True:
                train(distribution.on_chief(lambda: None))


if __name__ == "__main__":
    main()
