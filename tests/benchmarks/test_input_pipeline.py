"""What an app's input holds is counted as it is, figures follow from what was seen, and a run of it says both."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from apps.nlp.app import APP as NLP
from benchmarks.peers.espalier_app import Prepared, contents, random_batch


@pytest.fixture
def input_pipeline(benchmark):
    return benchmark("input_pipeline")


@pytest.fixture
def texts(tmp_path):
    """A file of seven texts of two classes, of two words each but for the last one."""
    file = tmp_path / "texts.tsv"
    rows = [f"word{n % 2} more\t{'ab'[n % 2]}" for n in range(6)] + ["word0\ta"]
    file.write_text("text\tlabel\n" + "".join(f"{row}\n" for row in rows))
    return file


def test_an_epoch_has_every_example_once(texts):
    flags = [f"--train={texts}", f"--validation={texts}", "--batch-size=4", "--units=characters", "--buckets=16"]
    with Prepared(NLP, flags) as task:
        found = [contents(batch, rate=0) for batch in task.train_batches(epoch=0)]
        random = random_batch(task, length=9, rate=0)
    letters = 6 * len("word0 more") + len("word0")
    assert np.sum(found, axis=0).tolist() == [7, letters + 7]  # each ends with an end of its own
    # What fills the last batch up is not counted, and a random batch has nothing to fill up.
    assert len(found) == 2 and {name: value.shape.as_list() for name, value in random.items()} == {
        "tokens": [4, 9], "target": [4, 2], "weight": [4],
    }  # fmt: skip
    assert contents(random, rate=0) == (4, 36)


def test_seconds_of_audio_are_counted():
    batch = {"audio": np.zeros((3, 9)), "audio_length": [8, 4, 4], "label_length": [1, 1, 1], "weight": [1.0, 1.0, 0.0]}
    assert contents({name: tf.constant(value) for name, value in batch.items()}, rate=4) == (2, 3)


def test_rows_of_padding_are_no_examples():
    batch = {"source": [[5, 2], [0, 0]], "target": [[5, 0], [0, 0]]}
    assert contents({name: tf.constant(value) for name, value in batch.items()}, rate=0) == (1, 1)


def test_figures_follow_from_what_was_seen(input_pipeline):
    epoch = {"seconds": 2.0, "first": 1.0, "processor": 3.0, "batches": 4, "examples": 40, "amount": 400}
    figures = input_pipeline.of_input([epoch | {"seconds": 8.0}, epoch, epoch | {"seconds": 1.5}, epoch])
    assert (figures["cold"], figures["warm"], figures["amount"]) == (5, 20, 200)
    assert figures["begun"] == 30  # three batches of ten in the second after the first one
    # Ten steps that do not count; then one of a second among those of a tenth, as when XLA compiles.
    times = np.cumsum([9] * 10 + [0.1] * 10 + [1.0] + [0.1] * 5)
    waits = [0.9] * 10 + [0.02] * 16
    waits[14] = waits[22] = 0.5  # of the first steps of two epochs
    history = [
        {"seconds": t, "input_wait": wait, "epoch": (i >= 14) + (i >= 22)}
        for i, (t, wait) in enumerate(zip(times, waits, strict=True))
    ]
    figures |= input_pipeline.of_training(history, batch_size=3)
    assert figures["training"] == pytest.approx(30) and figures["waiting"] == 0.02
    assert figures["waited_at_start"] == pytest.approx(0.1)  # as long as a step's work
    assert input_pipeline.start(figures) == "1.00 s, waits 0.100 s"
    assert input_pipeline.core_share(figures) == pytest.approx(3 / 40 * 30 / os.cpu_count())


def test_a_training_that_fails_is_named(input_pipeline, tmp_path):
    with pytest.raises(
        input_pipeline.SystemFailed, match="^image train: ended with exit code 2: error: missing: no such file"
    ):
        input_pipeline.train("image", ["--train", "missing"], 1, tmp_path / "run")


@pytest.mark.slow
def test_input_and_training_are_measured(run_benchmark, tmp_path):
    flags = "--app=image", "--steps=20", "--epochs=1", "--limit=1", f"--output={tmp_path}"
    done = run_benchmark("input_pipeline", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    cold, warm, training = json.loads((tmp_path / "input_pipeline.json").read_text())["rows"]
    assert warm["ratio"] == pytest.approx(warm["value"] / training["value"], rel=0.02)
    assert cold["value"] < warm["once_begun"] and 0 <= training["input_wait"] < 1
    assert (tmp_path / "input_pipeline.png").stat().st_size > 10_000
