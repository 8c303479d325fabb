"""The command line that every app shares: `python -m apps.<name> <command> [flags]`.

TensorFlow is imported only once the arguments are understood, so that help and typing errors are
answered at once.
"""

import argparse
import dataclasses
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro

from pipelines import config
from pipelines.errors import UserError
from pipelines.runs import Run


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


@dataclasses.dataclass(frozen=True)
class App:
    """What an app tells the command line.

    Args:
        name: Name of the app, which is also its folder under `runs/`.
        summary: One line for the help text.
        config: Configuration class of `train`.
        task: Returns the app's `pipelines.task.Task` class. A function, because its import takes TensorFlow along.
        evaluate: Options class of `evaluate`.
        predict: Options class of `predict`.
    """

    name: str
    summary: str
    config: type[config.TrainConfig]
    task: Callable[[], type]
    evaluate: type[EvaluateOptions] = EvaluateOptions
    predict: type[PredictOptions] = PredictOptions


COMMANDS = {
    "train": "train a model, or go on with a run that was interrupted",
    "evaluate": "measure a run on held-out data",
    "predict": "answer inputs with a run's model",
}


def main(app: App, arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 when done, 2 after a user's mistake, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # A line at a time even into a file, so that a log can be followed and a kill loses nothing.
    sys.stdout.reconfigure(line_buffering=True)
    try:
        _dispatch(app, arguments)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of our output has gone, as in `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        _fail(f"{error.filename or 'writing'}: {error.strerror.lower()}; free some space or choose another directory")
    except KeyboardInterrupt as stop:
        print(stop if stop.args else "interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _dispatch(app: App, arguments: list[str]) -> None:
    program = f"python -m apps.{app.name}"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program} COMMAND [FLAGS]\n\n{app.summary}\n\ncommands:")
        for name, summary in COMMANDS.items():
            print(f"  {name:10} {summary}")
        print(f"\nThe flags of a command: {program} COMMAND --help")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(f"unknown command '{command}'{config.nearest(command, list(COMMANDS))}")
    program = f"{program} {command}"
    if command == "train":
        settings = _train_config(app, rest, program)
        if settings is None:
            return
    else:
        settings = config.parse(getattr(app, command)(), rest, program)

    _import_tensorflow()
    from pipelines import commands

    getattr(commands, command)(app, settings)


def _import_tensorflow() -> None:
    """Imports TensorFlow without the dozen lines it prints about processors and missing GPUs.

    They come before any log level is read, so the stream itself is turned away. With
    TF_CPP_MIN_LOG_LEVEL set, everything that level lets through is shown.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        except BaseException:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _train_config(app: App, arguments: list[str], program: str) -> config.TrainConfig | None:
    """The whole configuration of `train`, or None when it only had to be printed."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    early.add_argument("--print-config", action="store_true")
    early.add_argument("--run-dir", type=Path)
    if {"-h", "--help"} & set(arguments):
        print("--config F.yaml loads settings that flags override; --print-config prints all of them as such a file.\n")
    try:
        found, rest = early.parse_known_args(arguments)
    except SystemExit:
        raise UserError("--config and --run-dir take a path") from None

    if found.run_dir and Run.exists(found.run_dir):
        run = Run(found.run_dir)
        settings = config.resume(run.read_config(app), found.config, rest, program, str(run.path))
    else:
        settings = config.resolve(app.config, found.config, rest, program)
    settings.check()
    if found.print_config:
        print(config.write_yaml(config.to_dict(settings)), end="")
        return None
    return dataclasses.replace(settings, run_dir=found.run_dir)
