"""Every combination of strategy, jit, precision, accumulation and steps in a call trains, validates and saves."""

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from pipelines.config import OptimizerConfig, TrainConfig
from pipelines.distribution import Distribution
from pipelines.runs import Run
from pipelines.training.loop import Trainer
from tests.pipelines.training.conftest import LineTask

ROOT = Path(__file__).parents[3]
COMBINATIONS = list(itertools.product(("off", "on"), ("float32", "mixed_bfloat16", "mixed_float16"), (1, 2)))
STEPS = 6
CONFIG = TrainConfig(max_steps=STEPS, batch_size=16, optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=1))


def train(directory: Path, distribution: Distribution, jit: str, precision: str, parts: int) -> dict:
    """Trains some steps on the real engine. Returns the last validation's metrics."""
    config = dataclasses.replace(CONFIG, jit=jit, precision=precision, accumulate=parts, steps_per_call=parts)
    run = Run(directory / f"{jit}-{precision}-{parts}")
    if distribution.is_chief:
        run.path.mkdir(parents=True)
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(1)
    try:
        task = LineTask(config, run, distribution.shard)
        task.normalised = True
        with distribution.scope():
            model = task.build_model()
        trainer = Trainer(task, model, run, config, distribution=distribution)
        metrics = trainer.fit()
    finally:
        keras.config.set_dtype_policy("float32")
    assert trainer.progress.step == STEPS
    assert distribution.drifted([v.value for v in model.variables]) == []
    return metrics


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Validation after training on one replica in float32."""
    return train(tmp_path_factory.mktemp("alone"), Distribution(), "off", "float32", 1)


def compare(metrics: dict, alone: dict) -> None:
    """Dropout, normalisation and rounding differ; but all have learnt the same line."""
    assert metrics.keys() == alone.keys()
    assert metrics["loss"] == pytest.approx(alone["loss"], rel=0.1)


@pytest.mark.parametrize("strategy", ["none", "mirrored"])
@pytest.mark.parametrize("jit, precision, parts", COMBINATIONS)
def test_combinations(tmp_path, alone, strategy, jit, precision, parts):
    devices = "CPU:0,CPU:1" if strategy == "mirrored" else ""
    distribution = Distribution.start(TrainConfig(strategy=strategy, devices=devices))
    compare(train(tmp_path, distribution, jit, precision, parts), alone)


@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_xla_on_a_device_that_was_named(tmp_path, alone, strategy):
    distribution = Distribution.start(TrainConfig(strategy=strategy, devices="CPU:0"))
    compare(train(tmp_path, distribution, "on", "float32", 2), alone)


@pytest.mark.slow
def test_combinations_on_two_workers(tmp_path, alone):
    program = ["-m", "tests.pipelines.training.test_strategies", str(tmp_path)]
    launch = [sys.executable, "-m", "pipelines.launch", "--workers", "2", "--", *program]
    done = subprocess.run(launch, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert len(found) == len(COMBINATIONS)
    for metrics in found:
        compare(metrics, alone)


def _be_a_worker() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    distribution = Distribution.start(TrainConfig(strategy="multi_worker"))
    found = [train(directory, distribution, *combination) for combination in COMBINATIONS]
    if distribution.is_chief:
        (directory / "metrics.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _be_a_worker()
