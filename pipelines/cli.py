"""The command line that every app shares: `python -m apps.<name> <command> [flags]`.

TensorFlow is imported only once the arguments are understood, so that help and typing errors are
answered at once.
"""

import argparse
import contextlib
import dataclasses
import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.cluster import Cluster
from pipelines.errors import UserError, WorkerLost
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions, QueryOptions
from pipelines.runs import Run
from pipelines.serving import settings as serving

# A worker that left at once would itself be taken for the lost one by those who find out later: TensorFlow waits
# 10 seconds for a sign of life.
LINGER_SECONDS = 12.0
STARTED = time.time()  # before TensorFlow's import, which is part of the time a user waits


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that one app alone has.

    Args:
        summary: One line for the help text.
        parse: (flags, the command to name in the help text) -> options. It imports nothing that takes long.
        run: Does what the options ask for.
    """

    summary: str
    parse: Callable[[Sequence[str], str], Any]
    run: Callable[[Any], None]


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
        explain: Options class of `explain`.
        export: Options class of `export`.
        query: Options class of `query`.
        commands: Commands that only this app has, by name.
    """

    name: str
    summary: str
    config: type[config.TrainConfig]
    task: Callable[[], type]
    evaluate: type[EvaluateOptions] = EvaluateOptions
    predict: type[PredictOptions] = PredictOptions
    explain: type[ExplainOptions] = ExplainOptions
    export: type[ExportOptions] = ExportOptions
    query: type[QueryOptions] = QueryOptions
    commands: Mapping[str, Command] = dataclasses.field(default_factory=dict)


COMMANDS = {
    "train": "train a model, or go on with a run that was interrupted",
    "evaluate": "measure a run on held-out data",
    "predict": "answer inputs with a run's model",
    "explain": "draw what the answers to inputs rest on",
    "export": "write a SavedModel for TensorFlow Serving",
    "serve": "serve the newest export on TensorFlow Serving's APIs",
    "query": "have a model server answer inputs, or measure it",
}


# What to do about what the operating system refuses.
REMEDIES = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some space and give the same command again",
    errno.EACCES: "choose a path that you may use",
    errno.EPERM: "choose a path that you may use",
    errno.EROFS: "choose a path that can be written",
    errno.ENOTDIR: "choose another path",
    errno.EISDIR: "choose another path",
}


def main(app: App, arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 when done, 1 when another worker was lost, 2 after a user's mistake, 130 when
    interrupted."""
    with exiting():
        _dispatch(app, list(sys.argv[1:] if arguments is None else arguments))


@contextlib.contextmanager
def exiting() -> Iterator[None]:
    """Surrounds a program: errors that a user can mend become one line and an exit code."""
    # A line at a time even into a file, so that a log can be followed and a kill loses nothing.
    sys.stdout.reconfigure(line_buffering=True)
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of our output has gone, as in `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        remedy = REMEDIES.get(error.errno)
        if not remedy:
            raise
        _fail(f"{error.filename or 'writing'}: {error.strerror.lower()}; {remedy}")
    except WorkerLost as lost:
        print(f"error: {lost}", file=sys.stderr, flush=True)
        time.sleep(LINGER_SECONDS)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(stop if stop.args else "interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _dispatch(app: App, arguments: list[str]) -> None:
    program = f"python -m apps.{app.name}"
    summaries = COMMANDS | {name: own.summary for name, own in app.commands.items()}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program} COMMAND [FLAGS]\n\n{app.summary}\n\ncommands:")
        for name, summary in summaries.items():
            print(f"  {name:10} {summary}")
        print(f"\nThe flags of a command: {program} COMMAND --help")
        return
    command, *rest = arguments
    if command not in summaries:
        raise UserError(f"unknown command '{command}'{config.nearest(command, list(summaries))}")
    program = f"{program} {command}"
    if own := app.commands.get(command):
        return own.run(own.parse(rest, program))
    if command == "train":
        settings = _train_config(app, rest, program)
        if settings is None:
            return
        _check_cluster(settings)
    elif command == "serve":
        settings = serving.parse(rest, program, app.name)
    else:
        settings = config.parse(getattr(app, command)(), rest, program)
        settings.check()
    if command == "query":  # answers sooner than TensorFlow could be imported
        from pipelines.serving.client.query import query

        return query(app, settings)

    import_tensorflow()
    if command == "serve":
        from pipelines.serving import server

        return server.run(settings)
    from pipelines import commands

    getattr(commands, command)(app, settings)


def _check_cluster(settings: config.TrainConfig) -> None:
    """Finds a wrong TF_CONFIG and a port in use before TensorFlow's import takes its seconds."""
    cluster = Cluster.from_environment() if settings.strategy in ("auto", "multi_worker") else None
    if cluster:
        cluster.check_port()


def import_tensorflow() -> None:
    """Imports TensorFlow without the dozen lines it prints about processors and missing GPUs.

    They come before any log level is read, so the stream itself is turned away. With
    TF_CPP_MIN_LOG_LEVEL set, everything that level lets through is shown.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    # Of a lost worker TensorFlow's own threads have more to say than the one line that names it.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3" if os.environ.get("TF_CONFIG") else "2"
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
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--config", type=Path)
    early.add_argument("--print-config", "--print_config", action="store_true")
    early.add_argument("--run-dir", "--run_dir", type=Path)
    if {"-h", "--help"} & set(arguments):
        print("--config F.yaml loads settings that flags override; --print-config prints all of them as such a file.\n")
    try:
        found, rest = early.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None

    run_dir = found.run_dir
    if run_dir is None and found.config:
        named = config.read_yaml(found.config).get("run_dir")
        run_dir = Path(named) if named else None
    if run_dir and Run.exists(run_dir):
        run = Run(run_dir)
        settings = config.resume(run.read_config(app), found.config, rest, program, str(run.path))
    else:
        settings = config.resolve(app.config, found.config, rest, program)
    settings = dataclasses.replace(settings, run_dir=run_dir)
    settings.check()
    if found.print_config:
        print(config.write_yaml(config.to_dict(settings)), end="")
        return None
    return settings
