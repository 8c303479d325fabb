"""The run directory: everything that one training leaves behind, under fixed names.

runs/<app>/<name>/config.yaml     the whole configuration, `auto` settings resolved
                  assets/         what the model needs besides its weights (vocabulary, labels ...)
                  checkpoints/    see pipelines/training/checkpoints.py
                  logs/           TensorBoard: train, validation
                  history.jsonl   one object a step and one a validation
                  metrics.json    what `evaluate` found
                  explain/        pictures that `explain` drew
"""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines import config
from pipelines.errors import UserError
from pipelines.files import write_atomically


class Run:
    """One run directory.

    Args:
        path: The directory; it need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.assets = self.path / "assets"
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.history_file = self.path / "history.jsonl"
        self.explain = self.path / "explain"
        self.metrics_file = self.path / "metrics.json"
        self.made_here = False  # by `new`

    @staticmethod
    def exists(path: Path) -> bool:
        return (Path(path) / "config.yaml").exists()

    @classmethod
    def new(cls, app_name: str, path: Path | None) -> "Run":
        """A run in `path`, by default `runs/<app>/<time>`.

        Raises:
            UserError: The directory holds something else.
        """
        if path is None:
            run = cls(_made(Path("runs") / app_name / time.strftime("%Y-%m-%d_%H-%M-%S")))
            run.made_here = True
            run.assets.mkdir()
            return run
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise UserError(f"{path}: is a file; --run-dir takes a directory")
        if run.path.is_dir() and any(p.name != "assets" and p.name[0] != "." for p in run.path.iterdir()):
            raise UserError(f"{path}: holds files but no config.yaml, so it is no run; choose an empty --run-dir")
        run.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            run.path.mkdir()
            run.made_here = True
        run.assets.mkdir(exist_ok=True)
        return run

    @classmethod
    def find(cls, app_name: str, path: Path | None) -> "Run":
        """The run in `path`, by default the one that was trained last.

        Raises:
            UserError: There is none.
        """
        if path is not None:
            if not cls.exists(path):
                raise UserError(f"{path}: no run here (no config.yaml); train one with --run-dir {path}")
            return cls(path)
        runs = [cls(p.parent) for p in Path("runs", app_name).glob("*/config.yaml")]
        runs = [run for run in runs if run.checkpoints.is_dir()]
        if not runs:
            raise UserError(f"no trained run under runs/{app_name}; start with: python -m apps.{app_name} train")
        return max(runs, key=lambda run: run.checkpoints.stat().st_mtime)

    def discard_if_empty(self) -> None:
        """Removes a directory that `new` made, if preparing the run failed before anything worth keeping."""
        if self.made_here and not self.config_file.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def lock(self):
        """Keeps a second training out of this directory for as long as the returned file stays open."""
        file = open(self.path / ".lock", "w")  # noqa: SIM115  (held open on purpose)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another process is training in this run; wait for it or stop it") from None
        return file

    def write_config(self, app_name: str, settings: config.TrainConfig) -> None:
        values = config.to_dict(dataclasses.replace(settings, run_dir=None))
        write_atomically(self.config_file, config.write_yaml({"app": app_name} | values))

    def read_config(self, app) -> config.TrainConfig:
        """The saved configuration of a run of this app.

        Raises:
            UserError: It belongs to another app or was damaged.
        """
        values = config.read_yaml(self.config_file)
        owner = values.pop("app", None)
        if owner != app.name:
            raise UserError(f"{self.path}: is a run of the app '{owner}', not of '{app.name}'")
        values.pop("run_dir", None)
        return config.from_dict(app.config(), values, str(self.config_file))

    def write_metrics(self, metrics: Mapping) -> None:
        """Writes `metrics.json`. `splits` are added to those measured before; the rest is replaced."""
        known = json.loads(self.metrics_file.read_text("utf-8")) if self.metrics_file.exists() else {}
        values = dict(metrics) | {"splits": known.get("splits", {}) | metrics.get("splits", {})}
        write_atomically(self.metrics_file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _made(stem: Path) -> Path:
    """A new directory of that name, or of the first free one with a number after it."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        path = Path(f"{stem}-{number}" if number else stem)
        with contextlib.suppress(FileExistsError):  # another training may have begun in this very second
            path.mkdir()
            return path
