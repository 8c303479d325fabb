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
from pipelines.export.versions import _remove, existing, publishing
from pipelines.options import ExportOptions

ROOT = Path(__file__).parents[3]


def publish(base, content="x", **options):
    before = [*existing(base)]
    with publishing(base, **options) as made:
        (made.directory / "variables").mkdir()
        (made.directory / "variables" / "data").write_text(content)
        assert [*existing(base)] == before
    return made.version


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
    with pytest.raises(UserError, match="exists"), publishing(tmp_path, version=8) as made:
        (made.directory / "mine").touch()
        shutil.copytree(tmp_path / "7", tmp_path / "8")  # another process was faster
    assert names(tmp_path) == ["7", "8"]
    assert [(tmp_path / v / "variables" / "data").read_text() for v in "78"] == ["old", "old"]
    with publishing(tmp_path) as made:  # without a number of one's own there is always a next one
        shutil.copytree(tmp_path / "7", tmp_path / "9")
        (made.directory / "mine").touch()
    assert made.version == 10 and (tmp_path / "10" / "mine").exists()


def test_numbers_with_zeros_before_them(tmp_path):
    publish(tmp_path / "m", version=1)
    (tmp_path / "m" / "1").rename(tmp_path / "m" / "00000001")
    (tmp_path / "m" / "\u00b2").mkdir()  # a digit, but no number
    with pytest.raises(UserError, match="00000001: exists"):
        publish(tmp_path / "m", version=1)
    assert publish(tmp_path / "m", keep=1) == 2
    assert names(tmp_path / "m") == ["2", "\u00b2"]


def test_what_tensorflow_serving_does_not_read_as_a_number_is_no_version(tmp_path):
    for name in ("5", str(2**63), "9" * 200, "\u0667", "+6", "6.0"):
        (tmp_path / name).mkdir()
    assert existing(tmp_path) == {5: tmp_path / "5"}
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(UserError, match="no number comes after"):
        publish(tmp_path)


def test_such_a_number_is_refused_before_anything_is_exported():
    ExportOptions(version=2**63 - 1).check()
    with pytest.raises(UserError, match=f"--version {2**63}: takes a number up to {2**63 - 1}"):
        ExportOptions(version=2**63).check()


def test_a_file_in_the_place_of_a_version_is_named(tmp_path):
    (tmp_path / "1").touch()
    for version in (None, 1):
        with pytest.raises(UserError, match="1: a file that has the name of a version"):
            publish(tmp_path, version=version)
    with pytest.raises(UserError, match="2: a file"), publishing(tmp_path, version=2) as made:
        (made.directory / "mine").touch()
        (tmp_path / "2").touch()


def test_a_failure_leaves_no_trace(tmp_path):
    base = tmp_path / "models" / "m"
    with pytest.raises(RuntimeError), publishing(base) as made:
        (made.directory / "half").write_text("of it")
        raise RuntimeError
    assert names(tmp_path) == []
    publish(base)
    with pytest.raises(KeyboardInterrupt), publishing(base, keep=1) as made:
        (made.directory / "half").write_text("of it")
        raise KeyboardInterrupt
    assert names(base) == ["1"]


def test_after_a_kill_nothing_is_visible_and_the_next_export_clears_up(tmp_path):
    script = """
import os, signal, sys
from pathlib import Path
from pipelines.export.versions import publishing
with publishing(Path(sys.argv[1])) as made:
    (made.directory / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".") and not existing(tmp_path)
    with publishing(tmp_path) as still_made:
        publish(tmp_path)
        assert names(tmp_path) == [still_made.directory.name, "1"]
    assert names(tmp_path) == ["1", "2"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts need root")
def test_a_read_only_folder(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(OSError, match="Read-only"):
            publish(tmp_path / "m")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@given(st.lists(st.integers(1, 20), unique=True), st.integers(0, 5), st.none() | st.integers(21, 40))
def test_any_versions_keep_the_newest(tmp_path_factory, versions, keep, version):
    base = tmp_path_factory.mktemp("models")
    for each in versions:
        publish(base, version=each)
    newest = publish(base, keep=keep, version=version)
    assert newest == version or max(versions, default=0) + 1
    assert [*existing(base)] == sorted([*versions, newest])[-keep:]


def test_a_version_that_another_export_has_removed_is_gone(tmp_path):
    publish(tmp_path)
    publish(tmp_path)
    first = existing(tmp_path)[1]
    _remove(first)
    _remove(first)
    assert names(tmp_path) == ["2"]


def test_a_version_published_late_is_kept(tmp_path):
    publish(tmp_path, version=5)
    assert publish(tmp_path, version=3, keep=1) == 3
    assert names(tmp_path) == ["3", "5"]
