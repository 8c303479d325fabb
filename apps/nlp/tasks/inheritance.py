"""What a new run takes over from an earlier one: its symbols, and its weights to begin with.

All of it is copied into the new run's assets, which then needs the earlier one no longer.
"""

import io
import shutil
from pathlib import Path

import keras
import numpy as np

from apps.nlp.app import APP
from apps.nlp.config import NlpConfig
from apps.nlp.tasks.common import vocabulary_file
from pipelines.config import override
from pipelines.errors import UserError
from pipelines.files import write_atomically
from pipelines.options import RunOptions
from pipelines.runs import Run
from pipelines.trained import Trained, restore
from pipelines.training.checkpoints import Checkpoints

# What says how an encoder's weights are laid out. How much is dropped from it may change.
SHAPE = ("encoder", "width", "layers", "heads", "kv_heads", "feedforward", "kernel_size")


def weights_file(run: Run) -> Path:
    return run.assets / "beginning.npz"


def earlier(path: Path) -> Trained:
    """The best model of an earlier run of this app.

    Raises:
        UserError: there is none.
    """
    return restore(APP, RunOptions(run_dir=path), beside=True)


def take_vocabulary(config: NlpConfig, run: Run, path: Path) -> NlpConfig:
    """Copies the symbols of an earlier run. Returns the configuration with their kind and number."""
    other = Run.find(APP.name, path)
    source = other.read_config(APP)
    if source.model.backbone:
        raise UserError(f"{path}: has the vocabulary of {source.model.backbone}; give a run without --model.backbone")
    config = override(config, {"units": source.units, "vocabulary_size": source.vocabulary_size})
    shutil.copyfile(vocabulary_file(source, other), vocabulary_file(config, run))
    return config


def same_vocabulary(one: Trained, config: NlpConfig, run: Run) -> bool:
    return vocabulary_file(one.task.config, one.run).read_bytes() == vocabulary_file(config, run).read_bytes()


def take_encoder(config: NlpConfig, run: Run) -> NlpConfig:
    """Copies the symbols and the encoder of the run that `--init-from` names, of a language model all of it.

    Returns:
        The configuration with the encoder's shape.

    Raises:
        UserError: there is no such run, or its weights do not go with this task.
    """
    other = earlier(config.init_from)
    source = other.task.config
    if config.task == "generate" and source.task != "generate":
        raise UserError(f"--init-from {config.init_from}: learnt to {source.task}; a language model begins with one")
    if source.lora:
        raise UserError(f"--init-from {config.init_from}: has adapters (--lora); give a run that trained all weights")
    config = take_vocabulary(config, run, config.init_from)
    config = override(config, {f"model.{name}": getattr(source.model, name) for name in SHAPE})
    file = io.BytesIO()
    np.savez(file, *(variable.numpy() for variable in encoder_of(other.model).weights))
    write_atomically(weights_file(run), file.getvalue())
    print(f"begins with the {source.model.encoder} of {other}, {source.model.width} wide, {source.model.layers} layers")
    return config


def encoder_of(model: keras.Model) -> keras.layers.Layer:
    """What reads: a language model does with all that it has."""
    return getattr(model, "encoder", model)


def begin(layer: keras.layers.Layer, run: Run) -> None:
    """Gives an encoder or a language model the weights that `take_encoder` found, if it was asked to.

    A run with a checkpoint has all weights in it, and takes them from there.
    """
    if not weights_file(run).exists() or Checkpoints(run.checkpoints).steps():
        return
    with np.load(weights_file(run)) as saved:
        for variable, name in zip(layer.weights, saved.files, strict=True):
            variable.assign(saved[name])
