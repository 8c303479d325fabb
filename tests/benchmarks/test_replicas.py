"""Every app's step gives the same losses however it is divided, a run says so and what it cost, and one whose losses
differ is stopped."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.espalier_replicas import TimedDistribution, make_turn
from benchmarks.peers.replica_work import WORK
from pipelines.config import TrainConfig

ROOT = Path(__file__).parents[2]
SMALL = {
    "translate": {"rows": 4, "length": 6},
    "image": {"rows": 16, "size": 8},
    "speech": {"rows": 4, "seconds": 0.3},
    "nlp": {"rows": 4, "length": 6},
    "language": {"rows": 4, "length": 8},
}
QUICK = ("image", "nlp")  # the others take as long to trace as they do at full size

# A system that answers with the losses it was told.
SCRIPT = """
import json, sys
from benchmarks.peers.worker import serve
serve(lambda steps: (0.1, {"losses": json.loads(sys.argv[1])}), parameters=7, versions={})
"""


@pytest.fixture
def replicas(benchmark):
    return benchmark("replicas")


def turn(app, kind, devices=""):
    """A turn of three steps: its model, seconds, and figures."""
    distribution = TimedDistribution.start(TrainConfig(strategy=kind, devices=devices))
    model, train = make_turn(WORK[app](3, **SMALL[app]), distribution, jit=False)
    return model, *train(3)


@pytest.mark.parametrize("app", [pytest.param(app, marks=[pytest.mark.slow] * (app not in QUICK)) for app in WORK])
def test_losses_do_not_depend_on_how_a_batch_is_divided(app):
    model, _, alone = turn(app, "none")
    _, seconds, mirrored = turn(app, "mirrored", "CPU:0,CPU:1")
    np.testing.assert_allclose(mirrored["losses"], alone["losses"], rtol=1e-5)
    assert len(set(alone["losses"])) == 3 and np.isfinite(alone["losses"]).all()
    weights = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    # Besides gradients a step adds up moving statistics, sums of loss and metrics, and two wishes.
    statistics = sum(math.prod(v.shape) for v in model.non_trainable_variables if "moving" in v.path)
    assert 4 * (weights + statistics + 4) <= mirrored["reduced_bytes"] <= 4 * (weights + statistics + 8)
    assert alone["all_reduce"] == 0 < mirrored["all_reduce"] < 1
    # By itself it takes some of the step's time, and a single number less than everything.
    assert 0 < mirrored["message_seconds"] < seconds


def test_steps_change_the_loss():
    """What is compared would notice gradients that are not added up."""
    distribution = TimedDistribution.start(TrainConfig(strategy="none"))
    _, train = make_turn(WORK["nlp"](3, **SMALL["nlp"]), distribution, jit=False)
    first, later = (np.array(train(3)[1]["losses"]) for _ in range(2))
    assert np.abs(later / first - 1).min() > 1e-4


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([2.0, 1.0002], "nlp, 2 workers: losses 2.000000, 1.000200; with 1 replica 2.000000, 1.000000"),
        ([2.0, math.nan], "nlp, 2 workers: losses 2.000000, nan; with 1 replica 2.000000, 1.000000"),
        ([2.0, 1.000001], None),
    ],
)
def test_losses_that_differ_are_named(replicas, losses, message):
    told = {replicas.OURS: [2.0, 1.0], "2 workers": losses}
    systems = [replicas.System(name, [sys.executable, "-c", SCRIPT, json.dumps(each)]) for name, each in told.items()]
    with replicas.Workers(systems) as workers:
        if message is None:
            assert replicas.check(workers, "nlp", 2) == pytest.approx(1e-6)
            return
        with pytest.raises(replicas.SystemFailed) as error:
            replicas.check(workers, "nlp", 2)
    assert str(error.value) == message


def test_batches_that_cannot_be_divided_are_refused(run_benchmark):
    done = run_benchmark("replicas", "--rows", 6)
    assert done.returncode == 2 and "--rows 6: takes a multiple of 4" in done.stderr


@pytest.mark.slow
def test_workers_are_measured(run_benchmark, tmp_path):
    flags = "--workers=2", "--rounds=1", "--steps=2", "--rows=4", f"--output={tmp_path}"
    done = run_benchmark("replicas", "--app", "language", "reading", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "language: losses of 2 steps agree to" in done.stdout
    *rows, alone, of_eight = json.loads((tmp_path / "replicas.json").read_text())["rows"]
    assert [row["system"] for row in rows] == ["1 replica", "2 mirrored devices", "2 workers"]
    assert [(row["replicas"], row["workers"]) for row in rows] == [(1, 1), (2, 1), (2, 2)]
    assert len({row["reduced_bytes"] for row in rows}) == len({row["parameters"] for row in rows}) == 1
    assert rows[2]["reduce_ms"] > rows[2]["message_ms"] > 0 and 0 < rows[2]["all_reduce"] < 1
    assert alone["rows_per_second"] > 0 and of_eight["ratio"] > 0.3  # an eighth of the rows is no eighth of the work
    assert (tmp_path / "replicas.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_comparison(tmp_path):
    """Every process imports a module that is not there."""
    (tmp_path / "keras.py").write_text("raise SystemExit('keras is out of order')\n")
    done = subprocess.run(
        [sys.executable, "benchmarks/replicas.py", "--app=nlp", "--rounds=1", f"--output={tmp_path}"], cwd=ROOT,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1 and "1 replica: ended with exit code 1: keras is out of order" in done.stderr
    assert not (tmp_path / "replicas.json").exists()
