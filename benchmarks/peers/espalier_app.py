"""An app seen from inside one process: how fast its input pipeline is, what a training step takes, where a start's time
goes. Arguments: `input|step|train|serve <JSON>`, what to do and with what; the last line printed is a JSON object.

Everything is made as `train` makes it: the configuration from flags, assets and data by the task's own `prepare`, the
step by `pipelines.training.loop.Trainer`.
"""

import time

BEGAN = time.time()  # before any other import: they are part of what is measured

import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from pipelines import config as configs  # noqa: E402
from pipelines.cli import App, import_tensorflow  # noqa: E402

SYMBOLS_PER_SECOND = 10  # of made-up speech, about as many as people utter


class Prepared:
    """A new run's configuration and task, in a folder that is gone afterwards: `with Prepared(app, flags) as task`.

    Args:
        app: what the command line knows of the app.
        flags: of `train`.
    """

    def __init__(self, app: App, flags: Sequence[str]):
        self.app, self.flags = app, flags
        self._held = contextlib.ExitStack()

    def __enter__(self):
        from pipelines import commands
        from pipelines.distribution import Distribution
        from pipelines.trained import prepare_keras

        folder = Path(self._held.enter_context(tempfile.TemporaryDirectory())) / "run"
        config = configs.resolve(self.app.config, None, self.flags, "train")
        config.check()
        distribution = Distribution.start(config)
        prepare_keras(config)
        config = dataclasses.replace(config, run_dir=folder)
        self.run, self.config, task = commands.prepare(self.app, config, distribution, self._held)
        task.load()
        return task

    def __exit__(self, *_):
        self._held.close()

    def trainer(self, task):
        """What trains the task, with a new model."""
        from pipelines.training.loop import Trainer

        return Trainer(task, task.build_model(), self.run, self.config)


def app_named(name: str) -> App:
    """An app's entry, and TensorFlow imported."""
    app = importlib.import_module(f"apps.{name}.__main__").APP
    import_tensorflow()
    return app


def contents(batch: dict, rate: int) -> tuple[float, float]:
    """How many examples a batch has, and of what they are made: tokens to learn from, or seconds of audio.

    Args:
        batch: a task's.
        rate: samples a second, where there are any.
    """
    found = {name: value.numpy() for name, value in batch.items() if name not in ("audio", "image")}
    if "audio_length" in found:
        return float(found["weight"].sum()), float((found["audio_length"] * found["weight"]).sum()) / rate
    if "weight" in found:
        real = found["weight"] > 0
        tokens = sum(np.count_nonzero(found[name][real]) for name in ("tokens", "others") if name in found)
        return float(real.sum()), float(tokens)
    targets = found["targets" if "targets" in found else "target"]
    return float(np.count_nonzero(targets.any(axis=1))), float(np.count_nonzero(targets))


def input_speed(name: str, flags: Sequence[str], epochs: int, seconds: float) -> dict:
    """Goes through a task's training data with nothing behind it.

    Args:
        name: of the app.
        flags: of `train`.
        epochs: after the first one.
        seconds: after which no further epoch begins.

    Returns:
        `epochs`, the first one and those after it: `seconds` of each; those until the `first` batch was there; those of
        the `processor`; how many `batches`, `examples` and, as `amount`, tokens or seconds of audio there were.
    """
    prepared = Prepared(app_named(name), flags)
    found = []
    with prepared as task:
        rate = getattr(prepared.config, "sample_rate", 0)
        due = time.perf_counter() + seconds
        for epoch in range(1 + epochs):
            if epoch > 1 and time.perf_counter() > due:
                break
            begin, used = time.perf_counter(), time.process_time()
            first = batches = examples = amount = 0
            for batch in task.train_batches(epoch):
                first = first or time.perf_counter() - begin
                rows, much = contents(batch, rate)
                batches, examples, amount = batches + 1, examples + rows, amount + much
            found.append(
                {
                    "seconds": time.perf_counter() - begin,
                    "first": first,
                    "processor": time.process_time() - used,
                    "batches": batches,
                    "examples": examples,
                    "amount": amount,
                }
            )
    return {"epochs": found}


def random_batch(task, length: float, rate: int) -> dict:
    """A batch as the task's are, with whole rows of something random.

    Args:
        task: a loaded task.
        length: of each row in tokens, or in seconds where it is a recording.
        rate: samples a second.
    """
    import tensorflow as tf

    rng = np.random.default_rng(1)
    spec = task.train_batches(epoch=0).element_spec
    samples, symbols = int(length * rate), max(1, int(length * SYMBOLS_PER_SECOND))
    widths = {"audio": samples, "labels": symbols}

    def fill(name: str, shape: list[int]) -> np.ndarray:
        if name == "weight":
            return np.ones(shape)
        if name in ("audio_length", "label_length"):
            return np.full(shape, samples if name == "audio_length" else symbols)
        if name in ("audio", "image"):
            return rng.normal(0, 0.1, shape)
        if name == "labels":  # CTC's empty symbol is 0
            return rng.integers(1, task.symbols.size, shape)
        if spec[name].dtype.is_floating:  # classes
            return np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
        return rng.integers(3, task.tokenizer.vocabulary_size, shape)

    def whole(name: str) -> list[int]:
        return [widths.get(name, int(length)) if size is None else size for size in spec[name].shape]

    return {name: tf.constant(fill(name, whole(name)), each.dtype) for name, each in spec.items()}


def step_seconds(name: str, flags: Sequence[str], length: float, steps: int) -> dict:
    """Trains on one random batch again and again. Returns the `seconds` of the fastest step, after one for warming up,
    and how many `parameters` there are."""
    prepared = Prepared(app_named(name), flags)
    with prepared as task:
        trainer = prepared.trainer(task)
        batch = random_batch(task, length, getattr(prepared.config, "sample_rate", 0))
        seconds = []
        for _ in range(1 + steps):
            begin = time.perf_counter()
            loss = float(trainer.step(batch)["sums"]["loss"][0])
            seconds.append(time.perf_counter() - begin)
        if not np.isfinite(loss):
            sys.exit(f"loss is {loss}")
        return {"seconds": min(seconds[1:]), "parameters": trainer.model.count_params()}


class Phases:
    """Seconds that follow one another, by name; the first are those from `spawned` until this program began."""

    def __init__(self, spawned: float):
        self.seconds = {"interpreter": BEGAN - spawned}
        self._last = BEGAN

    def end(self, name: str) -> float:
        """What has passed since the last one ended belongs to `name`. Returns it."""
        now = time.time()
        self.seconds[name] = now - self._last
        self._last = now
        return self.seconds[name]


def start_of_training(name: str, flags: Sequence[str], spawned: float) -> dict:
    """Does what `train` does until its first step is done. Returns the seconds of each phase.

    Args:
        name: of the app.
        flags: of `train`.
        spawned: `time.time()` when this process was asked for.
    """
    phases = Phases(spawned)
    app = app_named(name)
    app.task()  # imports what the app needs
    importlib.import_module("pipelines.training.loop")
    phases.end("imports")
    prepared = Prepared(app, flags)
    with prepared as task:
        batch = next(iter(task.train_batches(epoch=0)))
        phases.end("data, vocabulary")
        trainer = prepared.trainer(task)
        phases.end("model, optimizer")
        if prepared.config.jit == "auto":
            trainer.choose_jit()
            phases.end("trying XLA")
        _ = trainer.step.graph
        phases.end("tracing")
        step(trainer, batch)
        first = phases.end("compilation")
        step(trainer, batch)
        phases.seconds["first step"] = min(first, phases.end("first step"))
        phases.seconds["compilation"] = first - phases.seconds["first step"]
        return {"phases": phases.seconds, "jit": trainer.step.jit}


def step(trainer, batch: dict) -> float:
    return float(trainer.step(batch)["sums"]["loss"][0])


def start_of_serving(version: str, spawned: float) -> dict:
    """Does what a server does until a version answers. Returns the seconds of each phase."""
    phases = Phases(spawned)
    import_tensorflow()
    importlib.import_module("pipelines.serving.server")
    from pipelines.serving.model import SavedModel
    from pipelines.serving.warmup import warm_up

    phases.end("imports")
    saved = SavedModel(Path(version), 1)
    phases.end("loading")
    warm_up(saved, Path(version))
    phases.end("warm-up")
    return {"phases": phases.seconds}


def main() -> None:
    tasks = {
        "input": input_speed,
        "step": step_seconds,
        "train": start_of_training,
        "serve": start_of_serving,
    }
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(json.dumps(tasks[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
