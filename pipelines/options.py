"""Options of the commands that use a trained run, shared by every app. An app may subclass them."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from pipelines.config import require_at_least


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What `evaluate` needs in every app."""

    # Directory of the run; default is the newest one.
    run_dir: Path | None = None
    # Checkpoint to use: the best one, the newest one, or a step number.
    checkpoint: str = "best"
    # Split to evaluate; `all` takes every test split of the data set.
    split: str = "test"
    # Examples in a batch.
    batch_size: int = 64
    # What to do with a malformed example: stop with its row number, or count it, name it and go on.
    on_bad_example: Literal["fail", "skip"] = "fail"

    def check(self) -> None:
        require_at_least(1, self, "batch_size")


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What `predict` needs in every app."""

    # Inputs; without any, they are read from --file or, a line each, from standard input.
    inputs: tyro.conf.Positional[tuple[str, ...]] = ()
    # File with an input a line.
    file: Path | None = None
    # Print one JSON object a line.
    json: bool = False
    # Directory of the run; default is the newest one.
    run_dir: Path | None = None
    # Checkpoint to use: the best one, the newest one, or a step number.
    checkpoint: str = "best"
    # Inputs in a batch.
    batch_size: int = 64
    # What to do with an input that cannot be used: stop with its row number, or count it, name it and go on.
    on_bad_example: Literal["fail", "skip"] = "fail"

    def check(self) -> None:
        require_at_least(1, self, "batch_size")
