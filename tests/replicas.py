"""The same training under every strategy: one test for all apps.

    def test_replicas_train_alike(tmp_path):
        check_replicas("translate", FLAGS, tmp_path)

Strategies within one process are tried in the process of the test, where conftest.py has made two logical
CPUs; workers are real processes that `pipelines.launch` starts.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines import commands, config

ROOT = Path(__file__).parents[1]
STEPS = 20
STRATEGIES = {"none": ["--strategy=none"], "mirrored": ["--strategy=mirrored", "--devices=CPU:0,CPU:1"]}


def check_replicas(app: str, flags: Sequence[str], directory: Path, jits: Sequence[str] = ("off", "on")) -> None:
    """Trains an app for 20 steps on equal global batches in all ways, and compares the loss of every step.

    Args:
        app: its name.
        flags: of `train`, for a tiny configuration without dropout and BatchNormalization, whose batch size 4 divides.
        directory: for the runs.
        jits: settings of `--jit`; the losses of one setting agree to 1e-4, those of different ones to 1e-3.
    """
    flags = [*flags, f"--max-steps={STEPS}", "--checkpoint-every=1000", "--validate-every=1000"]
    found = {jit: _losses_of_all(app, [*flags, f"--jit={jit}"], directory / jit) for jit in jits}
    first = next(iter(found.values()))["none"]
    for jit, losses in found.items():
        np.testing.assert_allclose(losses["none"], first, rtol=1e-3, err_msg=f"jit {jit} against jit {jits[0]}")
        for name, values in losses.items():
            np.testing.assert_allclose(values, losses["none"], rtol=1e-4, err_msg=f"{name}, jit {jit}")


def _losses_of_all(app: str, flags: list[str], directory: Path) -> dict[str, list[float]]:
    """The losses of every step by strategy, `-2` after its name for two accumulated parts."""
    parts = {"": [], "-2": ["--accumulate=2"]}
    workers = {
        f"multi_worker{name}": _start_workers(app, [*flags, *more, f"--run-dir={directory / f'multi_worker{name}'}"])
        for name, more in parts.items()
    }
    for strategy, its_flags in STRATEGIES.items():
        for name, more in parts.items():
            _train_here(app, [*flags, *its_flags, *more], directory / f"{strategy}{name}")
    for name, process in workers.items():
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{name}: {errors}"
        assert "2 replicas on 2 workers" in output
        assert "differ" not in errors, errors  # what training says of workers whose weights are not equal
    ways = [f"{strategy}{name}" for strategy in (*STRATEGIES, "multi_worker") for name in parts]
    return {way: _losses(directory / way) for way in ways}


def _start_workers(app: str, flags: list[str]) -> subprocess.Popen:
    command = ["-m", "pipelines.launch", "--workers", "2", "--", "-m", f"apps.{app}", "train", *flags]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def _train_here(app: str, flags: list[str], run: Path) -> None:
    definition = importlib.import_module(f"apps.{app}.__main__").APP
    settings = config.resolve(definition.config, None, [*flags, f"--run-dir={run}"], "train")
    settings.check()
    commands.train(definition, settings)


def _losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == STEPS, f"{run.name}: {len(losses)} steps"
    return losses
