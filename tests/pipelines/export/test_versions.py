"""Versions are published whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.export.versions import existing, publishing

ROOT = Path(__file__).parents[3]


def publish(base, content="x", **options):
    with publishing(base, **options) as (directory, version):
        (directory / "variables").mkdir()
        (directory / "variables" / "data").write_text(content)
        assert version not in existing(base)
    return version


def names(base):
    return sorted(found.name for found in base.iterdir())


def test_versions_count_up_and_old_ones_go(tmp_path):
    base = tmp_path / "models" / "m"
    assert [publish(base) for _ in range(3)] == [1, 2, 3]
    assert publish(base, version=20260101) == 20260101
    assert publish(base, keep=2) == 20260102
    assert names(base) == ["20260101", "20260102"]
    assert (base / "20260102" / "variables" / "data").read_text() == "x"


def test_a_version_that_exists_is_never_touched(tmp_path):
    publish(tmp_path, "old", version=7)
    with pytest.raises(UserError, match=r"7: exists; choose another --version"):
        publish(tmp_path, "new", version=7)
    with pytest.raises(UserError, match="exists"), publishing(tmp_path, version=8) as (directory, _):
        (directory / "mine").touch()
        shutil.copytree(tmp_path / "7", tmp_path / "8")  # another process was faster
    assert names(tmp_path) == ["7", "8"]
    assert [(tmp_path / v / "variables" / "data").read_text() for v in "78"] == ["old", "old"]


def test_a_failure_leaves_no_trace(tmp_path):
    base = tmp_path / "models" / "m"
    with pytest.raises(RuntimeError), publishing(base) as (directory, _):
        (directory / "half").write_text("of it")
        raise RuntimeError
    assert names(tmp_path) == []
    publish(base)
    with pytest.raises(KeyboardInterrupt), publishing(base, keep=1) as (directory, _):
        (directory / "half").write_text("of it")
        raise KeyboardInterrupt
    assert names(base) == ["1"]


def test_after_a_kill_nothing_is_visible_and_the_next_export_clears_up(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from pipelines.export.versions import publishing
with publishing(Path(sys.argv[1])) as (directory, _):
    (directory / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".") and not existing(tmp_path)
    still_made = tmp_path / f".9.{os.getpid()}"
    still_made.mkdir()
    publish(tmp_path)
    assert names(tmp_path) == [still_made.name, "1"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts need root")
def test_a_read_only_folder(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="Read-only"):
            publish(tmp_path / "m")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@given(st.lists(st.integers(1, 50), unique=True), st.integers(0, 5))
def test_any_versions_keep_the_newest(tmp_path_factory, versions, keep):
    base = tmp_path_factory.mktemp("models")
    for version in versions:
        publish(base, version=version)
    newest = publish(base, keep=keep)
    assert newest == max(versions, default=0) + 1
    assert existing(base) == sorted([*versions, newest])[-keep:]
