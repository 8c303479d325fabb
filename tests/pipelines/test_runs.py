"""Run directories: found, made, kept apart."""

import contextlib
import os
from pathlib import Path

import pytest

from apps.translate.__main__ import APP
from apps.translate.config import TranslateConfig
from pipelines import runs
from pipelines.commands import prepare
from pipelines.distribution import Distribution
from pipelines.errors import UserError
from pipelines.files import write_atomically
from pipelines.runs import Run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(name, trained=True):
    run = Run.new("translate", None if name is None else f"runs/translate/{name}")
    run.write_config("translate", TranslateConfig())
    if trained:
        run.checkpoints.mkdir()
    return run


def test_new_runs_never_share_a_directory():
    assert len({make(None).path for _ in range(3)}) == 3


def test_not_even_those_that_begin_in_the_same_second(monkeypatch):
    monkeypatch.setattr(runs.time, "strftime", lambda form: "now")
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as each finds it that looks before the other makes it
    assert [make(None).path.name for _ in range(3)] == ["now", "now-1", "now-2"]


def test_who_does_not_get_the_lock_discards_nothing(tmp_path, monkeypatch):
    def refuse(run):
        raise UserError("another process is training")

    monkeypatch.setattr(Run, "lock", refuse)
    config = TranslateConfig(run_dir=tmp_path / "theirs")
    with pytest.raises(UserError, match="another process"), contextlib.ExitStack() as held:
        prepare(APP, config, Distribution(), held)
    assert config.run_dir.is_dir()


def test_the_newest_trained_run_is_found():
    old, new = make("b"), make("a")
    make("c", trained=False)
    os.utime(old.checkpoints, (1, 1))
    assert Run.find("translate", None).path == new.path


def test_none_yet():
    with pytest.raises(UserError, match="no trained run under runs/translate; start with: python -m apps.translate"):
        Run.find("translate", None)
    with pytest.raises(UserError, match="no run here"):
        Run.find("translate", "elsewhere")


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="it is no run"):
        Run.new("translate", tmp_path / "notes")
    with pytest.raises(UserError, match="is a file"):
        Run.new("translate", tmp_path / "notes" / "diary.txt")


def test_configuration_round_trip_and_owner():
    run = make("a")
    assert run.read_config(APP) == TranslateConfig()
    run.write_config("image", TranslateConfig())
    with pytest.raises(UserError, match="is a run of the app 'image', not of 'translate'"):
        run.read_config(APP)


def test_one_training_at_a_time():
    run = make("a")
    with run.lock(), pytest.raises(UserError, match="another process is training"):
        Run(run.path).lock()
    with run.lock():
        pass


def test_metrics_of_splits_are_merged():
    run = make("a")
    run.write_metrics({"bleu": 1.0, "splits": {"x": {"bleu": 1.0}}})
    run.write_metrics({"bleu": 2.0, "splits": {"y": {"bleu": 2.0}}})
    import json

    assert json.loads(run.metrics_file.read_text()) == {
        "bleu": 2.0,
        "splits": {"x": {"bleu": 1.0}, "y": {"bleu": 2.0}},
    }


def test_atomic_write_leaves_nothing_behind(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", "text")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "a" / "b.txt", "\udcff")
    assert (tmp_path / "a" / "b.txt").read_text() == "text"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failed_start_removes_only_what_it_made(tmp_path):
    fresh = Run.new("translate", tmp_path / "fresh")
    fresh.discard_if_empty()
    assert not fresh.path.exists()
    (tmp_path / "mine" / "assets").mkdir(parents=True)
    Run.new("translate", tmp_path / "mine").discard_if_empty()
    assert (tmp_path / "mine" / "assets").is_dir()
