"""The commands behind the command line, each from a configuration to what it leaves or prints."""

import contextlib
import dataclasses
import json
import math
import re
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf

from pipelines import inputs
from pipelines.cli import STARTED, App
from pipelines.config import TrainConfig, from_dict, to_dict
from pipelines.distribution import Distribution
from pipelines.errors import UserError
from pipelines.export import versions
from pipelines.export.check import check
from pipelines.export.servable import write
from pipelines.files import naming_full_disk, write_atomically
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions, RunOptions
from pipelines.runs import Run
from pipelines.task import Task
from pipelines.trained import prepare_keras, restore
from pipelines.training.loop import Trainer, total_steps


def train(app: App, config: TrainConfig) -> None:
    """Trains a new run, or goes on with the one in `config.run_dir`."""
    distribution = Distribution.start(config)
    with distribution.naming_lost_workers(), distribution.only_chief_speaks(), contextlib.ExitStack() as held:
        prepare_keras(config)
        run, config, task = prepare(app, config, distribution, held)
        task.load()
        with distribution.scope():
            model = task.build_model()
        trainer = Trainer(task, model, run, config, began=STARTED, distribution=distribution)
        if config.jit == "auto":
            config = trainer.choose_jit()
        if distribution.is_chief:
            run.write_config(app.name, config)
        print(f"run {run.path}: {_parameters(model)}, {total_steps(task, config):,} steps planned")
        print(_plan(distribution, config, task))
        with naming_full_disk(run.path):
            trainer.fit()
        minutes = (time.time() - STARTED) / 60
        where = "" if run.path.parts[:2] == ("runs", app.name) else f" --run-dir {run.path}"
        print(
            f"trained to step {trainer.progress.step} in {minutes:.1f} minutes; "
            f"now: python -m apps.{app.name} evaluate{where}"
        )


def prepare(
    app: App, config: TrainConfig, distribution: Distribution, held: contextlib.ExitStack
) -> tuple[Run, TrainConfig, Task]:
    """The run directory with its assets, made or found by the chief, and the whole configuration, equal on all workers.

    Args:
        held: keeps the chief's lock on the run; on leaving, a new run that never came to train is removed.
    """
    run = task = None

    def on_chief() -> dict:
        nonlocal run, task, config
        existing = config.run_dir is not None and Run.exists(config.run_dir)
        run = Run(config.run_dir) if existing else Run.new(app.name, config.run_dir)
        held.enter_context(run.lock())
        held.callback(run.discard_if_empty)  # while the lock is held: whoever does not get it discards nothing
        config = dataclasses.replace(config, strategy=distribution.kind)
        task = app.task()(config, run, distribution.shard)
        config.check_replicas(distribution.replicas)
        if not existing:
            config = task.prepare()
        return {"run": str(run.path.absolute()), "config": to_dict(dataclasses.replace(config, run_dir=None))}

    found = distribution.on_chief(on_chief)
    if not distribution.is_chief:
        run = Run(Path(found["run"]))
        if not run.path.is_dir():
            raise UserError(f"{run.path}: not on this machine; workers share the run directory, on a network disk")
        config = from_dict(app.config(), found["config"], str(run.path))
        task = app.task()(config, run, distribution.shard)
    return run, config, task


def _parameters(model: keras.Model) -> str:
    """How many there are, and where some are kept as they are how many are trained."""
    count = model.count_params()
    trained = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    some = f", {trained:,} of them trained ({trained / count:.2%})" if trained < count else ""
    return f"{count:,} parameters{some}"


def _plan(distribution: Distribution, config: TrainConfig, task: Task) -> str:
    """What is computed where, in one line."""
    rows = config.batch_size // (distribution.replicas * config.accumulate)
    parts = f", {config.accumulate} times {rows} rows" if config.accumulate > 1 else f", {rows} rows"
    shapes = task.batch_shapes
    compiled = f"; XLA compiles at most {shapes} times on each" if config.jit == "on" else ""
    return f"{distribution}{parts} a step on each, in {shapes} static shape{'s'[: shapes > 1]}{compiled}"


def evaluate(app: App, options: EvaluateOptions) -> None:
    """Measures a run on held-out data and writes `metrics.json`."""
    trained = restore(app, options)
    print(trained)
    if options.on_bad_example != "auto":
        trained.task.config = dataclasses.replace(trained.task.config, on_bad_example=options.on_bad_example)
    origin = {"step": trained.steps[-1], "options": _noted(options)}
    splits = {name: found | origin for name, found in trained.task.evaluate(trained.model, options).items()}
    name, first = next(iter(splits.items()))
    trained.run.write_metrics({"split": name} | first | {"splits": splits})


def predict(app: App, options: PredictOptions) -> None:
    """Answers inputs from the arguments, a file or standard input."""
    rows = inputs.read(options)
    trained = restore(app, options)
    rows = rows.open_folders() if trained.task.takes_files else rows
    alone = len(rows) == 1 and not rows.unreadable
    if trained.task.streams and alone and sys.stdout.isatty() and not options.json:
        for part in rows.good(trained.task.stream(trained.model, rows.texts[0], options), options):
            print(part.get("text", ""), end="", flush=True)
        print()
        return
    for answer in rows.good(trained.task.predict(trained.model, rows.texts, options), options):
        # A skipped row leaves an empty line, so that answers stay aligned with a file of inputs.
        if options.json:
            print(json.dumps(answer, ensure_ascii=False))
        else:
            print("\n".join([answer.get("text", ""), *(other["text"] for other in answer.get("others", ()))]))


def explain(app: App, options: ExplainOptions) -> None:
    """Draws for each input what the model's answer rests on."""
    rows = inputs.read(options)
    trained = restore(app, options)
    rows = rows.open_folders() if trained.task.takes_files else rows
    folder = options.output or trained.run.explain
    for answer in rows.good(trained.task.explain(trained.model, rows.texts, options), options):
        if "error" not in answer:
            file = folder / f"{answer['row']:04d}-{_slug(answer['source'])}.png"
            write_atomically(file, tf.io.encode_png(answer["picture"]).numpy())
            print(f"{answer['text']}\n{file}")
            if "page" in answer:
                write_atomically(file.with_suffix(".html"), answer["page"])
                print(file.with_suffix(".html"))


def _slug(text: str) -> str:
    """The beginning of a text as a part of a file's name."""
    return "-".join(re.findall(r"\w+", text.lower()))[:40].strip("-") or "input"


def export(app: App, options: ExportOptions) -> None:
    """Writes a SavedModel that takes raw inputs, checks it as a server would see it, and publishes it."""
    # Its answers are compared with those of another process, which are computed where every machine computes alike.
    tf.config.set_visible_devices([], "GPU")
    trained = restore(app, options)
    print(trained)
    base = options.output / app.name
    origin = {
        "app": app.name,
        "run": trained.run.path.absolute().name,
        "steps": trained.steps,
        "options": _noted(options),
    }
    with versions.publishing(base, options.version, options.keep) as made, naming_full_disk(base):
        print("writing and checking the SavedModel; this takes half a minute")
        servable = trained.task.servable(trained.model, options)
        write(made.directory, app.name, trained.model, servable, origin, options.quantize)
        try:
            print(check(made.directory))
        except UserError as error:
            raise UserError(f"the SavedModel is not published: {error}") from None
    published = base / str(made.version)
    size = sum(file.stat().st_size for file in published.rglob("*") if file.is_file())
    print(f"{published}: {size / 1e6:.1f} MB")


def _noted(options: RunOptions) -> dict:
    """The options to be kept with a result: all but where things are."""
    return {key: value for key, value in to_dict(options).items() if key not in ("run_dir", "output")}
