"""Checkpoints: whole or not there, damaged ones passed over, a full disk answered."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.training.checkpoints import Checkpoints, Progress


def variables(value, size=1000):
    return {"weights": [tf.Variable(tf.fill([size], float(value)))], "state": [tf.Variable(int(value))]}


def test_round_trip(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    progress = Progress(step=7, epoch=1, batch=2, sums={"loss": [1.5, 2.0]}, validated=7, best=0.5, best_step=7)
    checkpoints.save(variables(3), progress)
    fresh = variables(0)
    assert checkpoints.restore_newest(fresh) == progress
    np.testing.assert_array_equal(fresh["weights"][0], np.full(1000, 3.0))
    assert int(fresh["state"][0]) == 3


def test_keeps_the_newest_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        checkpoints.save(variables(step), Progress(step=step, best_step=2 if step > 1 else 1))
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.resolve("best") == 2 and checkpoints.resolve("newest") == 6 and checkpoints.resolve("5") == 5
    with pytest.raises(UserError, match="there is best, newest, 2, 5, 6"):
        checkpoints.resolve("4")


def test_the_mean_of_several(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=4)
    for step in (10, 20, 30, 40):
        checkpoints.save(variables(step), Progress(step=step))
    found = variables(0)
    assert checkpoints.restore_mean(found, 30, 3) == [10, 20, 30]
    np.testing.assert_allclose(found["weights"][0], np.full(1000, 20.0))
    assert int(found["state"][0]) == 30  # counters have no mean
    assert checkpoints.restore_mean(found, 40, 1) == [40]
    np.testing.assert_array_equal(found["weights"][0], np.full(1000, 40.0))
    with pytest.raises(UserError, match="--average 5: .* holds 4 checkpoints up to step 40; .* --keep-checkpoints 5"):
        checkpoints.restore_mean(found, 40, 5)


def test_nothing_there(tmp_path):
    assert Checkpoints(tmp_path / "none").restore_newest(variables(0)) is None
    with pytest.raises(UserError, match="no checkpoint yet"):
        Checkpoints(tmp_path / "none").resolve("best")


def damage(path, how):
    data, index, progress = (path / n for n in ("state.data-00000-of-00001", "state.index", "progress.json"))
    if how == "flipped byte":
        content = bytearray(data.read_bytes())
        content[100] ^= 1
        data.write_bytes(content)
    elif how == "truncated data":
        os.truncate(data, 50)
    elif how == "empty index":
        os.truncate(index, 0)
    elif how == "garbled index":
        index.write_bytes(b"x" * 300)
    elif how == "missing data":
        data.unlink()
    else:
        progress.write_text('{"step": ')


@pytest.mark.parametrize(
    "how", ["flipped byte", "truncated data", "empty index", "garbled index", "missing data", "half progress"]
)
def test_damage_falls_back(tmp_path, how, capsys):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(variables(step), Progress(step=step))
    damage(checkpoints.path(2), how)
    fresh = variables(0)
    assert checkpoints.restore_newest(fresh).step == 1
    np.testing.assert_array_equal(fresh["weights"][0], np.ones(1000))
    assert capsys.readouterr().err.count("\n") == 1
    assert checkpoints.steps() == [1]
    damage(checkpoints.path(1), how)
    with pytest.raises(UserError, match="no checkpoint can be read"):
        checkpoints.restore_newest(fresh)


def test_a_kill_while_replacing_loses_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(variables(1), Progress(step=1))
    checkpoints._hide(1, "replaced")  # where a kill may strike: the old one put away, the new one not yet in place
    (tmp_path / ".writing-00000001").mkdir()
    assert checkpoints.restore_newest(variables(0)).step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for batch in (7, 0):
        checkpoints.save(variables(1), Progress(step=5, batch=batch))
    assert [p.name for p in tmp_path.iterdir()] == ["00000005"]
    assert checkpoints.restore_newest(variables(0)).batch == 0


def test_best_is_found_though_the_newest_is_damaged(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(variables(step), Progress(step=step, best_step=1))
    damage(checkpoints.path(3), "half progress")
    assert checkpoints.resolve("best") == 1


def test_another_model_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(variables(1, size=10), Progress(step=1))
    with pytest.raises(UserError, match="damaged"):
        checkpoints.restore(variables(0, size=11), 1)


def test_leftovers_of_a_kill_are_never_seen_and_go(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(variables(1), Progress(step=1))
    half = tmp_path / ".writing-00000002"
    half.mkdir()
    (half / "state.index").write_text("half")
    assert checkpoints.steps() == [1]
    checkpoints.save(variables(3), Progress(step=3))
    assert not half.exists() and checkpoints.steps() == [1, 3]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        checkpoints = Checkpoints(disk / "checkpoints")
        checkpoints.save(variables(1), Progress(step=1))
        with pytest.raises(UserError) as caught:
            checkpoints.save(variables(2, size=500_000), Progress(step=2))
        assert "no space left to write the checkpoint of step 2" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert sorted(p.name for p in (disk / "checkpoints").iterdir()) == ["00000001"]
        assert checkpoints.restore_newest(variables(0)).step == 1
    finally:
        subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk)
