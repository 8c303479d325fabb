"""Where training runs: on one device, mirrored over several, or over several processes.

Everything that differs between `tf.distribute` strategies is here, so that the training step and the loop
are written once. A batch is cut twice: each worker's input pipeline gives it its share of the rows
(`batching.Shard`), and each of its replicas takes a share of those.
"""

import contextlib
import functools
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.batching import Shard
from pipelines.cluster import Cluster
from pipelines.config import TrainConfig
from pipelines.errors import UserError, WorkerLost

MESSAGE_BYTES = 32 << 20  # gradients travel in messages of about this size


class Distribution:
    """A strategy, and this process' place in it.

    Args:
        strategy: default is TensorFlow's own default strategy: one replica, where TensorFlow puts it.
        cluster: the workers, where there are several.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, cluster: Cluster | None = None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.cluster = cluster
        self.workers = cluster.count if cluster else 1
        self.worker = cluster.index if cluster else 0
        self.replicas = self.strategy.num_replicas_in_sync
        self.local_replicas = self.replicas // self.workers

    @classmethod
    def start(cls, config: TrainConfig) -> "Distribution":
        """The strategy that the configuration asks for. Call it before TensorFlow computes anything.

        With several workers it returns once all of them are there.

        Raises:
            UserError: a device that is not there, a wrong TF_CONFIG, a port in use.
        """
        devices = config.device_names()
        cluster = Cluster.from_environment() if config.strategy in ("auto", "multi_worker") else None
        if config.strategy == "multi_worker" and cluster is None:
            raise UserError(
                "--strategy multi_worker: TF_CONFIG is not set; for workers on this machine: "
                "python -m pipelines.launch --workers 2 -- -m apps.<app> train ..."
            )
        if cluster:
            return cls._of_workers(cluster, devices, config.rendezvous_seconds)
        found = _devices(devices)
        if config.strategy == "mirrored" or (config.strategy == "auto" and len(found) > 1):
            return cls(_mirrored(tuple(found)))
        if len(found) > 1 and devices:
            raise UserError(f"--strategy none: takes one device; --devices names {len(found)}")
        return cls(tf.distribute.OneDeviceStrategy(found[0]) if devices else None)

    @classmethod
    def _of_workers(cls, cluster: Cluster, devices: Sequence[str], patience: float) -> "Distribution":
        if any(name.startswith("CPU") for name in devices):
            raise UserError("--devices: a worker has one CPU replica, or its GPUs; start more workers instead")
        if devices:
            _only(_present(devices))
        with cluster.rendezvous(patience):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return cls(strategy, cluster)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.worker == 0

    @property
    def kind(self) -> str:
        """The value of `--strategy` that it is."""
        if self.cluster:
            return "multi_worker"
        return "mirrored" if isinstance(self.strategy, tf.distribute.MirroredStrategy) else "none"

    @property
    def shard(self) -> Shard:
        return Shard(self.worker, self.workers)

    def __str__(self) -> str:
        if self.replicas == 1:
            return "1 replica"
        return f"{self.replicas} replicas" + (f" on {self.workers} workers" if self.workers > 1 else "")

    def scope(self):
        """Within it, variables are made for every replica."""
        return self.strategy.scope()

    # Inside a replica

    def replica(self) -> tf.Tensor:
        """Number of the replica that is being computed, among those of all workers. Call it inside `strategy.run`."""
        return tf.convert_to_tensor(tf.distribute.get_replica_context().replica_id_in_sync_group)

    def rows(self, batch: dict[str, tf.Tensor], part: int | tf.Tensor = 0, parts: int = 1) -> dict[str, tf.Tensor]:
        """This replica's rows of its worker's batch, or one of several equal parts of them."""
        if self.local_replicas * parts == 1:
            return batch
        first = self.replica() - self.worker * self.local_replicas
        with tf.device("CPU:0"):  # where the batch is: only the rows taken travel to an accelerator
            return {name: self._cut(rows, first * parts + part, parts) for name, rows in batch.items()}

    def _cut(self, rows, index, parts):
        size = rows.shape[0] // (self.local_replicas * parts)
        rest = [0] * (rows.shape.rank - 1)
        return tf.slice(rows, [index * size, *rest], [size, *(-1 for _ in rest)])

    def sum_replicas(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Adds float32 tensors up over all replicas; every replica gets the sums. Call it inside `strategy.run`.

        They travel as few long vectors, not one by one: each message costs its latency.
        """
        if self.replicas == 1:
            return list(tensors)
        context = tf.distribute.get_replica_context()
        sums = []
        for group in _messages(tensors):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in group], axis=0)
            flat = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
            parts = tf.split(flat, [tensor.shape.num_elements() for tensor in group])
            sums += [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, group, strict=True)]
        return sums

    # Outside of replicas

    def first(self, values: Any) -> Any:
        """The first local replica's part of what `strategy.run` returned."""
        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], values)

    def sum_local(self, values: Any) -> Any:
        """Sum over this worker's replicas of what `strategy.run` returned."""
        return tf.nest.map_structure(
            lambda value: tf.add_n(list(self.strategy.experimental_local_results(value))), values
        )

    def sum_workers(self, values: Sequence[float]) -> np.ndarray:
        """Adds numbers up over the workers; each gets the sums."""
        if self.workers == 1:
            return np.asarray(values, np.float64)
        return self._sum_workers(tf.constant(values, tf.float64)).numpy()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
    def _sum_workers(self, values):
        def add(values):
            # Every replica takes part, the first of each worker with its values.
            counts = tf.cast(tf.equal(self.replica() % self.local_replicas, 0), tf.float64)
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values * counts)

        return self.first(self.strategy.run(add, args=(values,)))

    def on_chief(self, work: Callable[[], Any]) -> Any:
        """Does something once, on the chief, and gives every worker the result.

        Args:
            work: returns something that JSON can hold.

        Raises:
            UserError: `work` raised it; every worker gets it.
        """
        if self.workers == 1:
            return work()
        message = {}
        if self.is_chief:
            try:
                message = {"result": work()}
            except UserError as error:
                message = {"error": str(error)}
        message = json.loads(self._broadcast(json.dumps(message).encode()))
        if "error" in message:
            raise UserError(message["error"])
        return message["result"]

    def _broadcast(self, data: bytes) -> bytes:
        """The chief's bytes, on every worker."""
        length = int(self.sum_workers([len(data) if self.is_chief else 0])[0])
        mine = np.frombuffer(data, np.uint8) if self.is_chief else np.zeros(length, np.uint8)
        return self.sum_workers(mine).astype(np.uint8).tobytes()

    def wait_for_all(self) -> None:
        """Returns when every worker has come here."""
        self.sum_workers([0.0])

    def drifted(self, variables: Sequence[tf.Variable]) -> list[int]:
        """Replicas whose variables are not equal, to the bit, to those of the first replica.

        Each replica updates its own copy, by the same arithmetic. A fault that lets them drift apart would spoil
        the training without a sound.
        """
        checksums = np.zeros(self.replicas)
        for local in range(self.local_replicas):
            checksum = 0
            for variable in variables:
                value = self.strategy.experimental_local_results(variable)[local]
                checksum = zlib.crc32(value.numpy().tobytes(), checksum)
            checksums[self.worker * self.local_replicas + local] = checksum
        checksums = self.sum_workers(checksums)  # each worker had zeros in the others' places
        return np.flatnonzero(checksums != checksums[0]).tolist()

    @contextlib.contextmanager
    def only_chief_speaks(self) -> Iterator[None]:
        """Keeps the other workers from repeating on standard output what the chief says."""
        if self.is_chief:
            yield
            return
        print(f"{self.cluster.name(self.worker)} of {self.workers} is ready; the chief reports")
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            yield

    @contextlib.contextmanager
    def naming_lost_workers(self) -> Iterator[None]:
        """Turns what TensorFlow makes of a worker that died into WorkerLost."""
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if self.workers == 1:
                raise
            lost = self.cluster.unreachable() or _tasks_named(str(error)) - {self.worker}
            names = ", ".join(map(self.cluster.name, sorted(lost))) or "another worker"
            raise WorkerLost(
                f"{names} ended or cannot be reached, so this worker ends too; "
                "give all workers the same command again, and training goes on from the last checkpoint"
            ) from None


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy for a set of devices: TensorFlow mistakes the messages of a second one for those of the first."""
    return tf.distribute.MirroredStrategy(devices or None)


def _tasks_named(message: str) -> set[int]:
    return {int(number) for number in re.findall(r"/task:(\d+)", message)}


def _messages(tensors: Sequence[tf.Tensor]) -> Iterator[list[tf.Tensor]]:
    """Groups tensors, in order, into messages of at most MESSAGE_BYTES, or of one tensor that is larger."""
    group, size = [], 0
    for tensor in tensors:
        bytes_ = tensor.shape.num_elements() * tensor.dtype.size
        if group and size + bytes_ > MESSAGE_BYTES:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += bytes_
    if group:
        yield group


def _devices(names: Sequence[str]) -> list[str]:
    """The devices named, which must exist; without names, all GPUs. CPUs are made by cutting the one there is."""
    if not names:
        return [f"GPU:{number}" for number in range(len(tf.config.list_physical_devices("GPU")))]
    cpus = 1 + max((_number(name) for name in names if name.startswith("CPU")), default=0)
    if cpus > 1:
        physical = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(physical, [tf.config.LogicalDeviceConfiguration()] * cpus)
        except RuntimeError:  # TensorFlow has started; then they must be there
            if len(tf.config.list_logical_devices("CPU")) < cpus:
                raise UserError(f"--devices {','.join(names)}: too late to make {cpus} logical CPUs") from None
    try:
        return _only(_present(names))
    except RuntimeError:  # TensorFlow has started, with every GPU in view
        return list(names)


def _only(names: Sequence[str]) -> list[str]:
    """Hides all GPUs but those named: TensorFlow would take their memory too, and compute on the first of them.

    Returns:
        The names that the devices have now: GPUs are numbered anew.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices([gpus[_number(name)] for name in names if name.startswith("GPU")], "GPU")
    numbers = itertools.count()
    return [f"GPU:{next(numbers)}" if name.startswith("GPU") else name for name in names]


def _present(names: Sequence[str]) -> list[str]:
    gpus = len(tf.config.list_physical_devices("GPU"))
    for name in names:
        if name.startswith("GPU") and _number(name) >= gpus:
            raise UserError(f"--devices {name}: this machine shows TensorFlow {gpus} GPUs; take CPU:0, or fewer GPUs")
    return list(names)


def _number(name: str) -> int:
    return int(name.split(":")[1])
