"""The training loop: what it leaves behind, how it goes on, when it stops."""

import collections
import csv
import dataclasses
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.task import Report
from pipelines.training import history
from pipelines.training.loop import Trainer


def train(task, callbacks=(), config=None):
    keras.utils.set_random_seed(0)
    config = config or task.config
    trainer = Trainer(task, task.build_model(), task.run, config, callbacks)
    trainer.fit()
    return trainer


def losses(task):
    return {row["step"]: row["loss"] for row in history.read(task.run.history_file) if "loss" in row}


def test_trains_and_leaves_a_whole_run(make_task, line_config):
    task = make_task(line_config)
    trainer = train(task)
    rows = history.read(task.run.history_file)
    steps = [row for row in rows if "loss" in row]
    validations = [row for row in rows if "val_loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 25))
    assert [row["epoch"] for row in steps] == [0] * 8 + [1] * 8 + [2] * 8
    assert [row["step"] for row in validations] == [8, 16, 24]
    assert np.mean([row["loss"] for row in steps[-4:]]) < np.mean([row["loss"] for row in steps[:4]])
    assert {"learning_rate", "gradient_norm", "points_per_second", "input_wait", "seconds"} <= steps[0].keys()
    assert trainer.checkpoints.steps() == [16, 20, 24]
    assert trainer.progress.epoch == 3


@pytest.mark.parametrize("jit", ["off", "auto"])
def test_input_is_set_up_once(make_task, line_config, jit):
    task = make_task(dataclasses.replace(line_config, jit=jit))
    built = collections.Counter()
    train_batches, validation_batches = task.train_batches, task.validation_batches
    task.train_batches = lambda epoch: built.update([epoch]) or train_batches(epoch)
    task.validation_batches = lambda: built.update(["validation"]) or validation_batches()
    trainer = Trainer(task, task.build_model(), task.run, task.config)
    if jit == "auto":
        trainer.choose_jit()
    trainer.fit()
    assert built == {0: 1, 1: 1, 2: 1, "validation": 1}


def events(directory):
    """Tags of all events under a directory, with the kind of plugin that shows them."""
    found = {}
    for file in directory.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            if event.graph_def:
                found["graph"] = "graph"
            for value in event.summary.value:
                found[value.tag] = value.metadata.plugin_data.plugin_name
    return found


def test_tensorboard_holds_what_it_should(make_task, line_config):
    task = make_task(dataclasses.replace(line_config, profile="3:4", epochs=4))
    train(task)
    training, validation = events(task.run.logs / "train"), events(task.run.logs / "validation")
    for name in ("loss", "absolute_error", "learning_rate", "gradient_norm", "points_per_second", "input_wait"):
        assert training[name] == "scalars"
    assert training["configuration"] == "text" and training["graph"] == "graph"
    assert validation == {"loss": "scalars", "absolute_error": "scalars", "note": "text", "dot": "images"}
    assert list((task.run.logs / "train").glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("flag", ["7", "0:3", "5:4", "a:b"])
def test_wrong_profile(line_config, flag):
    with pytest.raises(UserError, match="--profile"):
        dataclasses.replace(line_config, profile=flag).check()


def test_profile_from_the_first_step_on(make_task, line_config):
    task = make_task(dataclasses.replace(line_config, profile="1:2", epochs=1))
    train(task)
    assert list((task.run.logs / "train").glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize("stop", [5, 8, 11])
@pytest.mark.parametrize("jit", ["off", "on"])
def test_resume_equals_an_uninterrupted_run(make_task, line_config, stop, jit, capsys):
    config = dataclasses.replace(line_config, jit=jit)
    whole = make_task(config, "whole")
    train(whole)
    parts = make_task(config, "parts")
    train(parts, config=dataclasses.replace(config, max_steps=stop))
    trainer = train(parts)
    assert f"resumed from step {stop}" in capsys.readouterr().out
    expected, found = losses(whole), losses(parts)
    assert list(found) == list(range(1, 25))
    np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-6)
    assert trainer.progress.epoch == 3


def rows_without_time(task):
    timed = "seconds", "points_per_second", "input_wait"
    return [
        {name: value for name, value in row.items() if name not in timed} for row in history.read(task.run.history_file)
    ]


@pytest.mark.parametrize("count", [3, 50])
def test_several_steps_in_a_call_leave_the_same_history(make_task, line_config, count):
    """Though neither epochs (of 8), nor validations, nor checkpoints come after as many; and a resume is in between."""
    config = dataclasses.replace(line_config, validate_every=7, max_steps=23)
    one, several = make_task(config, "one"), make_task(config, "several")
    train(one)
    together = dataclasses.replace(config, steps_per_call=count)
    train(several, config=dataclasses.replace(together, max_steps=10))
    trainer = train(several, config=together)
    expected, found = rows_without_time(one), [r for r in rows_without_time(several) if r.get("val_loss") is None]
    expected = [row for row in expected if "val_loss" not in row]
    assert [row["step"] for row in found] == list(range(1, 24))
    for row, other in zip(expected, found, strict=True):
        assert other == pytest.approx(row, rel=1e-5)
    assert [r["step"] for r in rows_without_time(several) if "val_loss" in r] == [7, 10, 14, 21, 23]
    assert trainer.progress.step == 23 and trainer.checkpoints.steps()[-3:] == [20, 21, 23]


def test_several_steps_in_a_call_stop_where_one_would(make_task, line_config):
    """At the step that is not a number, at a limit, and where pretrained weights begin to learn."""
    task = make_task(dataclasses.replace(line_config, steps_per_call=4))
    task.poison_step = 6
    with pytest.raises(UserError, match="^step 7: loss is nan; the checkpoint of step 5 is kept"):
        train(task)
    assert list(losses(task)) == list(range(1, 7))
    optimizer = dataclasses.replace(line_config.optimizer, frozen_steps=6)
    config = dataclasses.replace(line_config, steps_per_call=2, profile="4:5", max_steps=11, optimizer=optimizer)
    calls = []
    trainer = Trainer(task := make_task(config, "calls"), task.build_model(), task.run, config)
    several = trainer.step.several
    trainer.step.several = lambda batches, wishes: calls.append(len(batches)) or several(batches, wishes)
    trainer.fit()
    # 4 and 5 are profiled, 6 is the last one with frozen weights, 8 ends the epoch, 10 is a checkpoint, 11 the limit.
    assert calls == [2, 1, 2, 1, 2, 2, 1] and list(losses(task)) == list(range(1, 12))


def test_resume_undoes_steps_after_the_checkpoint(make_task, line_config):
    task = make_task(line_config)
    train(task, config=dataclasses.replace(line_config, max_steps=8))
    with open(task.run.history_file, "a") as file:
        file.write(json.dumps({"step": 9, "loss": 1.0}) + '\n{"step": 10, "lo')
    assert list(losses(task)) == list(range(1, 10))  # and a reader passes over half a line
    train(task)
    assert list(losses(task)) == list(range(1, 25))


def test_a_finished_run_has_nothing_left_to_do(make_task, line_config, capsys):
    task = make_task(line_config)
    train(task)
    before = task.run.history_file.read_text()
    train(task)
    printed = capsys.readouterr().out
    assert "resumed from step 24" in printed and "complete at step 24" in printed
    assert task.run.history_file.read_text() == before


def test_damaged_newest_checkpoint_falls_back_with_a_warning(make_task, line_config, capsys):
    whole = make_task(line_config, "whole")
    train(whole)
    task = make_task(line_config, "damaged")
    trainer = train(task, config=dataclasses.replace(line_config, max_steps=10))
    newest = trainer.checkpoints.path(10) / "state.data-00000-of-00001"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    newest.write_bytes(data)
    train(task)
    printed = capsys.readouterr()
    assert "00000010 is damaged" in printed.err and "falling back" in printed.err
    assert "resumed from step 8" in printed.out
    np.testing.assert_allclose([*losses(task).values()], [*losses(whole).values()], rtol=1e-6)


def test_not_a_number_stops_and_keeps_the_last_good_checkpoint(make_task, line_config):
    task = make_task(line_config)
    task.poison_step = 6
    with pytest.raises(UserError) as caught:
        train(task)
    assert str(caught.value).startswith("step 7: loss is nan; the checkpoint of step 5 is kept")
    assert "\n" not in str(caught.value)
    task.poison_step = None
    trainer = train(task)
    assert all(np.isfinite(v).all() for group in trainer.variables().values() for v in group)


def test_steps_that_overflow_leave_numbers_only(make_task, line_config, float16):
    task = make_task(dataclasses.replace(line_config, precision="mixed_float16", epochs=1))
    batches = task._batches
    # Errors in the thousands: their gradients, times the first loss scale, are beyond 65504.
    task._batches = lambda seed, count: batches(seed, count).map(lambda b: b | {"y": 1000 * b["y"]})
    train(task)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in task.run.history_file.read_text().splitlines()]
    skipped = [row for row in rows if "val_loss" not in row and "gradient_norm" not in row]
    assert 0 < len(skipped) < 8 and all(math.isfinite(value) for row in rows for value in row.values())


def test_a_validation_that_is_not_a_number_is_never_the_best(make_task, line_config):
    task = make_task(line_config)
    found = iter([float("nan"), 3.0, float("-inf")])
    task.report = lambda model: Report(metrics={"loss": next(found)})
    progress = train(task).progress
    assert (progress.best, progress.best_step, progress.since_best) == (3.0, 16, 1)
    validations = [row for row in history.read(task.run.history_file) if "val_absolute_error" in row]
    assert ["val_loss" in row for row in validations] == [False, True, False]  # JSON has no NaN


@pytest.fixture
def float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def test_early_stopping_survives_a_resume(make_task, line_config, capsys):
    # A learning rate of zero never improves: the first validation is the best one.
    optimizer = dataclasses.replace(line_config.optimizer, learning_rate=0.0)
    stopping = dataclasses.replace(line_config.early_stopping, patience=3)
    config = dataclasses.replace(line_config, optimizer=optimizer, early_stopping=stopping, epochs=20)
    task = make_task(config)
    train(task, config=dataclasses.replace(config, max_steps=16))
    trainer = train(task)
    assert trainer.progress.step == 32  # best at 8, then three validations without improvement
    assert "loss has not improved for 3 validations" in capsys.readouterr().out
    assert trainer.progress.best_step == 8 and 8 in trainer.checkpoints.steps()
    assert train(task).progress.step == 32  # and it stays stopped


def test_unknown_early_stopping_metric(make_task, line_config):
    stopping = dataclasses.replace(line_config.early_stopping, metric="bleu")
    with pytest.raises(UserError, match="validation gives loss, absolute_error"):
        train(make_task(dataclasses.replace(line_config, early_stopping=stopping)))


def test_validation_by_steps(make_task, line_config):
    task = make_task(dataclasses.replace(line_config, validate_every=5, epochs=2))
    train(task)
    steps = [row["step"] for row in history.read(task.run.history_file) if "val_loss" in row]
    assert steps == [5, 10, 15, 16]  # and at the very end


def test_time_limit(make_task, line_config):
    trainer = train(make_task(dataclasses.replace(line_config, max_minutes=1e-6)))
    assert trainer.progress.step <= 1


def test_keras_callbacks(make_task, line_config, tmp_path):
    seen = []
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch:02d}.weights.h5"), save_weights_only=True),
        keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: seen.append("begin"),
            on_epoch_end=lambda epoch, logs: seen.append((epoch, sorted(logs))),
            on_train_batch_end=lambda batch, logs: seen.append(batch),
            on_train_end=lambda logs: seen.append("end"),
        ),
    ]
    task = make_task(dataclasses.replace(line_config, epochs=5))
    trainer = train(task, callbacks)
    names = ["absolute_error", "loss", "val_absolute_error", "val_loss"]
    # The second epoch is no improvement of 1e9: EarlyStopping ends training there.
    assert seen == ["begin", *range(8), (0, names), *range(8), (1, names), "end"]
    with open(tmp_path / "log.csv") as file:
        logged = list(csv.DictReader(file))
    assert len(logged) == 2 and float(logged[1]["val_loss"]) > 0
    weights = trainer.model.get_weights()
    trainer.model.load_weights(tmp_path / "02.weights.h5")
    for saved, trained in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(saved, trained)


def test_validation_sees_the_averaged_weights(make_task, line_config):
    task = make_task(line_config)
    trainer = train(task)
    raw = [v.numpy() for v in trainer.model.trainable_variables]
    with trainer.averaged_weights():
        for variable, average in zip(trainer.model.trainable_variables, trainer.step.averages, strict=True):
            np.testing.assert_array_equal(variable.numpy(), average.numpy())
    for variable, value in zip(trainer.model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert any(np.abs(a.numpy() - b).max() > 1e-4 for a, b in zip(trainer.step.averages, raw, strict=True))
