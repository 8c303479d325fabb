"""Memory that grows is told from memory that only goes up and down, in processes that are watched while they run."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

# Holds 64 MB, and takes some more ten times a second.
HOLDER = """
import sys, time
held = [bytearray(b"x" * (64 << 20))]
while True:
    held.append(bytearray(b"x" * (int(sys.argv[1]) << 20)))
    time.sleep(0.1)
"""


@pytest.fixture
def endurance(benchmark):
    return benchmark("endurance")


def test_a_leak_is_told_from_a_warm_up_and_from_a_sawtooth(endurance):
    minutes = np.linspace(0, 30, 361)
    rng = np.random.default_rng(1)
    waves = 1000 + 100 * (minutes % 1.5) / 1.5 + rng.normal(0, 2, minutes.size) - 400 * (minutes < 4)
    steady, leaking = (endurance.trend(minutes, waves + slope * minutes / 60) for slope in (0, 300))
    assert abs(steady["growth"]) < 2 < 8 < leaking["growth"]
    assert abs(steady["per_hour"]) < 3 * steady["standard_error"]
    assert abs(leaking["per_hour"] - 300) < 3 * leaking["standard_error"] < 150


@pytest.mark.parametrize("megabytes", [0, 1])
def test_a_process_that_takes_ever_more_is_noticed(endurance, megabytes):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(megabytes)])
    try:
        samples = endurance.watch(process, minutes=0.1, every=0.1, why=lambda: "")
    finally:
        process.kill()
        process.wait()
    minutes = [each["minutes"] for each in samples]
    found = endurance.trend(minutes, [each["private memory"] for each in samples])
    assert found["late"] > 64
    assert found["growth"] > 10 if megabytes else abs(found["growth"]) < 1


def test_a_process_that_ends_is_named(endurance):
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(endurance.SystemFailed, match=r"^ended with exit code 3 after 0.\d minutes: no more room$"):
        endurance.watch(process, minutes=1, every=0.1, why=lambda: "no more room")


def export(folder, answers=0):
    """How long texts are; after so many rows, where that is not 0, each is refused."""
    model = tf.Module()
    model.rows = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def lengths(text):
        if answers:
            tf.debugging.assert_less(model.rows.assign_add(tf.size(text, tf.int64)), tf.constant(answers, tf.int64))
        return {"length": tf.strings.length(text)}

    tf.saved_model.save(model, str(folder / "1"), signatures=lengths)


def test_a_server_under_load(run_benchmark, tmp_path):
    export(tmp_path / "model")
    flags = "--export", tmp_path / "model", "--output", tmp_path, "--minutes=0.1", "--every=0.2", "--limit=50"
    done = run_benchmark("endurance", "serve", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "endurance_serve.json").read_text())
    assert found["requests"] > 500 and not found["failed"]
    assert 0.02 < found["refused_as_expected"] / found["requests"] < 0.1  # one in twenty is a number for a text
    units = {row["system"]: row["unit"] for row in found["rows"]}
    assert units == {"resident memory": "MB", "private memory": "MB", "open files": "files", "threads": "threads"}
    assert all(0 < row["value"] < 5000 for row in found["rows"])
    assert len(found["curves"]["minutes"]) == len(found["curves"]["private memory"]) >= 10
    assert Image.open(tmp_path / "endurance_serve.png").size[0] > 1000


@pytest.mark.slow
def test_a_server_that_changes_its_answers_breaks_the_promise(run_benchmark, tmp_path):
    export(tmp_path / "model", answers=1500)
    flags = "--export", tmp_path / "model", "--output", tmp_path, "--minutes=0.1", "--every=0.2", "--limit=50"
    done = run_benchmark("endurance", "serve", *flags)
    assert done.returncode == 1 and "answered otherwise than before the load" in done.stdout, done.stdout + done.stderr
    assert json.loads((tmp_path / "endurance_serve.json").read_text())["failed"]


@pytest.mark.slow
def test_a_training_is_watched_and_stopped(run_benchmark, tmp_path):
    flags = "--app=image", "--output", tmp_path, "--minutes=0.1", "--every=0.2"
    done = run_benchmark("endurance", "train", *flags, "--limit=-100")  # any memory at all is too much
    assert done.returncode == 1 and "allowed -100 %" in done.stdout, done.stdout + done.stderr
    found = json.loads((tmp_path / "endurance_train.json").read_text())
    assert found["steps"] > 10
    (resident,) = [row for row in found["rows"] if row["system"] == "resident memory"]
    assert resident["value"] > 200 and resident["ratio"] == pytest.approx(
        resident["value"] / resident["early"], abs=1e-3
    )


def test_a_server_that_cannot_start_is_one_line(run_benchmark, tmp_path):
    done = run_benchmark(
        "endurance", "serve", "--export", tmp_path / "nothing", "--output", tmp_path, "--minutes=0.1", "--every=0.2"
    )
    assert done.returncode == 1 and "nothing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
