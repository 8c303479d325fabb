"""The same training under every strategy: one test for all apps.

    def test_replicas_train_alike(tmp_path):
        check_replicas("translate", FLAGS, tmp_path)

One device and two mirrored ones are tried in the process of the test, where conftest.py has made two logical
CPUs; two workers are real processes, which `pipelines.launch` starts with this file as their program.
"""

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines import commands, config
from pipelines.distribution import Distribution
from pipelines.training.loop import Trainer

ROOT = Path(__file__).parents[1]
STEPS = 20
PARTS = (1, 2)  # settings of --accumulate


def check_replicas(app: str, flags: Sequence[str], directory: Path, jits: Sequence[str] = ("off",)) -> None:
    """Trains an app for 20 steps on equal global batches in all ways, and compares the loss of every step.

    Args:
        app: its name.
        flags: of `train`, for a tiny configuration without dropout and BatchNormalization, whose batch size 4 divides.
        directory: for the runs.
        jits: settings of `--jit`; the losses of one setting agree to 1e-4, those of different ones to 1e-3.
    """
    workers = _start_workers(app, flags, directory, jits)
    try:
        losses = {"none": _train(app, flags, directory / "none", Distribution(), jits)}
        mirrored = Distribution.start(_settings(app, ["--strategy=mirrored", "--devices=CPU:0,CPU:1"]))
        assert mirrored.replicas == 2
        losses["mirrored"] = _train(app, flags, directory / "mirrored", mirrored, jits)
        output, errors = workers.communicate(timeout=300)
    finally:
        workers.kill()
    assert workers.returncode == 0, output + errors
    losses["multi_worker"] = json.loads((directory / "multi_worker.json").read_text())
    first = next(iter(losses["none"].values()))
    for way, (jit, parts) in itertools.product(losses, itertools.product(jits, PARTS)):
        values, one_jit = losses[way][f"{jit}/{parts}"], losses["none"][f"{jit}/1"]
        assert len(values) == STEPS
        message = f"{way}, jit {jit}, {parts} parts"
        np.testing.assert_allclose(values, one_jit, rtol=1e-4, err_msg=message)
        np.testing.assert_allclose(values, first, rtol=1e-3, err_msg=f"{message}, against jit {jits[0]}")


def _settings(app: str, flags: Sequence[str]) -> config.TrainConfig:
    return config.resolve(_definition(app).config, None, flags, "train")


def _definition(app: str):
    return importlib.import_module(f"apps.{app}.__main__").APP


def _train(
    app: str, flags: Sequence[str], directory: Path, distribution: Distribution, jits: Sequence[str]
) -> dict[str, list[float]]:
    """The losses of every step under one strategy, by jit and parts."""
    losses = {}
    for jit, parts in itertools.product(jits, PARTS):
        settings = _settings(app, [*flags, f"--jit={jit}", f"--accumulate={parts}"])
        settings = dataclasses.replace(settings, run_dir=directory / f"{jit}-{parts}")
        losses[f"{jit}/{parts}"] = _losses(_definition(app), settings, distribution)
    return losses


def _losses(app, settings: config.TrainConfig, distribution: Distribution) -> list[float]:
    commands.prepare_keras(settings)
    with contextlib.ExitStack() as held:
        run, settings, task = commands.prepare(app, settings, distribution, held)
        task.load()
        with distribution.scope():
            model = task.build_model()
        step = Trainer(task, model, run, settings, distribution=distribution).step
        batches = itertools.chain.from_iterable(task.train_batches(epoch) for epoch in itertools.count())
        pairs = [step(batch)["sums"]["loss"] for batch in itertools.islice(batches, STEPS)]
    assert distribution.drifted([v.value for v in model.trainable_variables]) == []
    return [float(total / weight) for total, weight in pairs]


def _start_workers(app: str, flags: Sequence[str], directory: Path, jits: Sequence[str]) -> subprocess.Popen:
    program = ["-m", "tests.replicas", "--app", app, "--directory", directory, "--jits", *jits, "--", *flags]
    command = [sys.executable, "-m", "pipelines.launch", "--workers", "2", "--", *program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def _be_a_worker() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--app")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--jits", nargs="+")
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()
    distribution = Distribution.start(_settings(options.app, ["--strategy=multi_worker"]))
    assert distribution.workers == distribution.replicas == 2
    losses = _train(options.app, options.flags, options.directory / "multi_worker", distribution, options.jits)
    if distribution.is_chief:
        (options.directory / "multi_worker.json").write_text(json.dumps(losses))
    distribution.wait_for_all()


if __name__ == "__main__":
    _be_a_worker()
