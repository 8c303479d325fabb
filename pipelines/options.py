"""Options of the commands that use a trained run, shared by every app. An app may subclass them."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from pipelines.config import TrainConfig, require_at_least, require_at_most
from pipelines.errors import UserError
from pipelines.export import versions


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Which model of which run."""

    # Directory of the run; default is the newest one.
    run_dir: Path | None = None
    # Checkpoint to use: the best one, the newest one, or a step number; auto is the best, and the newest to average.
    checkpoint: str = "auto"
    # Use the mean of the weights of this many checkpoints: the one above and those before it.
    average: int = 1
    # Round large weights to int8, with a scale a channel; an export then keeps them so, in a quarter of the space.
    quantize: Literal["none", "int8"] = "none"

    def check(self) -> None:
        """Refuses values out of range, those of an app's nested options too."""
        require_at_least(1, self, "average")
        for field in dataclasses.fields(self):
            if dataclasses.is_dataclass(nested := getattr(self, field.name)):
                nested.check()

    def check_run(self, config: TrainConfig) -> None:
        """Refuses values that mean nothing to a run, given what it was trained with."""


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(RunOptions):
    """What `evaluate` needs in every app."""

    # Split to evaluate; `all` takes every test split of the data set.
    split: str = "test"
    # Examples in a batch.
    batch_size: int = 64
    # What to do with a malformed example: stop with its row number, or count it, name it and go on; auto is what
    # training did.
    on_bad_example: Literal["auto", "fail", "skip"] = "auto"

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "batch_size")


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """Inputs to answer."""

    # Inputs; without any, they are read from --file or, a line each, from standard input.
    inputs: tyro.conf.Positional[tuple[str, ...]] = ()
    # File with an input a line.
    file: Path | None = None
    # What to do with an input that cannot be used: stop with its row number, or count it, name it and go on.
    on_bad_example: Literal["fail", "skip"] = "fail"


@dataclasses.dataclass(frozen=True)
class PredictOptions(InputOptions, RunOptions):
    """What `predict` needs in every app."""

    # Print one JSON object a line.
    json: bool = False
    # Inputs in a batch.
    batch_size: int = 64

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "batch_size")


@dataclasses.dataclass(frozen=True)
class ExplainOptions(InputOptions, RunOptions):
    """What `explain` needs in every app."""

    # Folder for the pictures; default is `explain` in the run.
    output: Path | None = None


@dataclasses.dataclass(frozen=True)
class ExportOptions(RunOptions):
    """What `export` needs in every app."""

    # Folder that models are exported to, each under its app's name.
    output: Path = Path("saved_models")
    # Version of the export, a number; default is the one after the newest.
    version: int | None = None
    # Keep this many of the newest versions and remove older ones; 0 keeps all.
    keep: int = 0

    def check(self) -> None:
        super().check()
        require_at_least(0, self, "keep")
        if self.version is not None:
            require_at_least(1, self, "version")
            require_at_most(versions.MOST_VERSION, self, "version")


@dataclasses.dataclass(frozen=True)
class QueryOptions(InputOptions):
    """Ask a model server: this project's, or TensorFlow Serving. Rows that are JSON objects name several inputs; for an
    input whose name ends in _bytes, a row is the path of a file whose bytes are sent."""

    # API to use.
    api: Literal["rest", "grpc"] = "rest"
    # The server; default is http://127.0.0.1:8501, for grpc 127.0.0.1:8500. Also https://..., for grpc unix:/path.
    url: str = ""
    # Name of the model; default is the app's.
    model: str = ""
    # Version of the model; default is the newest.
    version: int | None = None
    # Label of the version, instead of its number.
    label: str = ""
    # Which of the model's functions to call.
    signature: str = "serving_default"
    # Seconds that one attempt may take.
    timeout: float = 30.0
    # How often a request is sent again when the server is not there or not ready.
    retries: int = 3
    # Inputs in a request.
    batch_size: int = 64
    # Print one JSON object a line, with all outputs.
    json: bool = False
    # Measure the server: send N requests of one input each, the inputs over and over; 0 prints answers instead.
    load: int = 0
    # Requests under way at a time, with --load.
    concurrency: int = 16

    def check(self) -> None:
        """Refuses values out of range."""
        require_at_least(1, self, "batch_size", "concurrency")
        require_at_least(0, self, "retries", "load")
        require_at_least(0.001, self, "timeout")
        if self.version is not None:
            require_at_least(0, self, "version")
            require_at_most(versions.MOST_VERSION, self, "version")
            if self.label:
                raise UserError("give --version or --label, not both")
