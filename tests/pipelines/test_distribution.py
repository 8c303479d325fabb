"""Replicas on two logical CPUs, and what is told to a user whose devices or workers are not there."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines import distribution as distributions
from pipelines.config import TrainConfig
from pipelines.distribution import Distribution
from pipelines.errors import UserError

ROOT = Path(__file__).parents[2]
TWO = TrainConfig(strategy="mirrored", devices="CPU:0,CPU:1")


@pytest.fixture(scope="module")
def mirrored():
    return Distribution.start(TWO)


def test_auto_follows_the_devices(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    kinds = {devices: Distribution.start(TrainConfig(devices=devices)) for devices in ("", "CPU:0", "cpu:0, cpu:1")}
    assert [(d.kind, d.replicas) for d in kinds.values()] == [("none", 1), ("none", 1), ("mirrored", 2)]
    assert [str(d) for d in kinds.values()] == ["1 replica", "1 replica", "2 replicas"]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"strategy": "none", "devices": "CPU:0,CPU:1"}, "--strategy none"),
        ({"devices": "GPU:7"}, "--devices GPU:7"),
        ({"devices": "TPU:0"}, "expected different devices"),
        ({"devices": "CPU:0,CPU:0"}, "expected different devices"),
        ({"devices": "CPU:0,CPU:5"}, "too late"),  # in this process TensorFlow has two
        ({"strategy": "multi_worker"}, "TF_CONFIG is not set"),
    ],
)
def test_what_is_not_there(settings, words, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    tf.config.list_logical_devices()  # TensorFlow has started
    with pytest.raises(UserError, match=words) as error:
        Distribution.start(TrainConfig(**settings))
    assert "\n" not in str(error.value)


def test_a_worker_takes_no_cpus_by_name(monkeypatch):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(UserError, match="--devices"):
        Distribution.start(TrainConfig(devices="CPU:0,CPU:1"))


@pytest.mark.parametrize(
    "names, seen, now",
    [
        (["GPU:1"], [1], ["GPU:0"]),
        (["GPU:2", "GPU:1"], [2, 1], ["GPU:0", "GPU:1"]),
        (["CPU:0"], [], ["CPU:0"]),
    ],
)
def test_gpus_that_are_not_named_are_hidden(monkeypatch, names, seen, now):
    visible = []
    there = {"GPU": ["first", "second", "third"]}
    monkeypatch.setattr(tf.config, "list_physical_devices", there.get)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda found, kind: visible.append((found, kind)))
    assert distributions._devices(names) == now
    assert visible == [([there["GPU"][number] for number in seen], "GPU")]
    assert distributions._devices([]) == ["GPU:0", "GPU:1", "GPU:2"] and len(visible) == 1


@pytest.mark.parametrize("parts", [1, 2])
def test_replicas_share_the_rows(mirrored, parts):
    batch = {"x": tf.reshape(tf.range(24), [8, 3]), "y": tf.range(8)}

    @tf.function
    def take(part):
        return mirrored.strategy.run(lambda: mirrored.rows(batch, part, parts))

    seen = []
    for part in range(parts):
        for replica in range(2):
            rows = {name: v.values[replica].numpy() for name, v in take(tf.constant(part)).items()}
            assert rows["x"].shape == (4 // parts, 3)
            np.testing.assert_array_equal(rows["x"][:, 0], 3 * rows["y"])
            seen.append((replica, part, rows["y"].tolist()))
    assert sum((rows for _, _, rows in sorted(seen)), []) == list(range(8))


@pytest.mark.parametrize("message_bytes", [1, 30, 1 << 20])
def test_sums_over_replicas_in_messages_of_any_size(mirrored, monkeypatch, message_bytes):
    monkeypatch.setattr(distributions, "MESSAGE_BYTES", message_bytes)
    shapes = [(2, 3), (), (5,), (1, 1, 4)]
    values = [tf.random.stateless_uniform(shape, [1, i]) for i, shape in enumerate(shapes)]

    @tf.function
    def add():
        def replica():
            weight = tf.cast(mirrored.replica() + 1, tf.float32)  # 1 and 2
            return mirrored.sum_replicas([weight * value for value in values])

        return mirrored.strategy.run(replica)

    for result, value in zip(add(), values, strict=True):
        for replica in (0, 1):
            np.testing.assert_allclose(result.values[replica], 3 * value, rtol=1e-6)


def test_messages_keep_order_and_size():
    tensors = [tf.zeros([n]) for n in (1, 2, 100, 3, 4, 5)]
    old, distributions.MESSAGE_BYTES = distributions.MESSAGE_BYTES, 40
    try:
        groups = [[t.shape[0] for t in group] for group in distributions._messages(tensors)]
    finally:
        distributions.MESSAGE_BYTES = old
    assert groups == [[1, 2], [100], [3, 4], [5]]


def test_drift_is_seen(mirrored):
    with mirrored.scope():
        variables = [tf.Variable(tf.ones([3])), tf.Variable(2.0)]
    assert mirrored.drifted(variables) == []
    variables[1].values[1].assign(2.0000002)
    assert mirrored.drifted(variables) == [1]


def test_alone_everyone_is_the_chief():
    alone = Distribution()
    assert alone.is_chief and alone.shard.count == 1
    assert alone.on_chief(lambda: {"a": 1}) == {"a": 1}
    np.testing.assert_array_equal(alone.sum_workers([1.5, 2.0]), [1.5, 2.0])
    with pytest.raises(tf.errors.UnavailableError), alone.naming_lost_workers():
        raise tf.errors.UnavailableError(None, None, "not a matter of workers")


WORKER = """
import sys
from pipelines.config import TrainConfig
from pipelines.distribution import Distribution
from pipelines.errors import UserError

distribution = Distribution.start(TrainConfig(strategy="multi_worker"))
with distribution.only_chief_speaks():
    print("the chief speaks")
    answer = distribution.on_chief(lambda: {"worker": distribution.worker, "text": "ä" * 3000})
    assert answer == {"worker": 0, "text": "ä" * 3000}
    total = distribution.sum_workers([1.0, 10.0 ** 9 + distribution.worker])
    assert total.tolist() == [2.0, 2 * 10.0 ** 9 + 1]
    assert distribution.shard == (distribution.worker, 2)

    def refuse():
        raise UserError("no such file")

    try:
        distribution.on_chief(refuse)
    except UserError as error:
        print(f"worker {distribution.worker}: {error}", file=sys.stderr)
    distribution.wait_for_all()
"""


def test_two_workers_talk(tmp_path):
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    launch = [sys.executable, "-m", "pipelines.launch", "--workers", "2", "--", str(program)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(launch, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the chief speaks") == 1
    assert "[1] worker 1 (localhost:" in done.stdout
    for worker in (0, 1):  # the chief's error reaches everyone
        assert f"[{worker}] worker {worker}: no such file" in done.stderr


def test_batches_that_replicas_cannot_share():
    config = dataclasses.replace(TWO, batch_size=10, accumulate=2)
    config.check_replicas(1)
    with pytest.raises(UserError, match="multiple of 4 .* such as 8"):
        config.check_replicas(2)
    with pytest.raises(UserError, match="such as 64"):
        config.check_replicas(32)
