"""Espalier's text classifier and language model and their training step, as a system to compare;
`espalier_step.py` has its arguments.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from apps.nlp.config import ModelConfig, NlpConfig
from apps.nlp.encoders import TextEncoder
from apps.nlp.language_model import LanguageModel
from apps.nlp.model import TextClassifier
from apps.nlp.tasks.classify import ClassifyTask
from apps.nlp.tasks.generate import GenerateTask
from benchmarks.peers.espalier_step import load, serve_steps
from benchmarks.peers.worker import read_case
from pipelines.config import OptimizerConfig
from pipelines.task import Task


def build(settings: dict) -> keras.Model:
    """The model that the settings ask for, as its task builds it."""
    sizes, size = ModelConfig(**settings["model"]), settings["vocabulary_size"]
    if settings["task"] == "generate":
        return LanguageModel.from_settings(sizes, size, context=settings["length"])
    evidence = np.zeros((size, settings["classes"]), "float32")
    model = TextClassifier(TextEncoder.from_settings(sizes, size), evidence, sizes.dropout, sizes.word_dropout)
    model({"tokens": ops.ones((1, 2), "int32")})
    return model


def make_task(settings: dict, optimizer: OptimizerConfig) -> Task:
    """For its loss and metrics alone, which need no run."""
    config = NlpConfig(task=settings["task"], optimizer=optimizer)
    if settings["task"] == "generate":
        task = GenerateTask(config, run=None)
        task._characters = np.ones(settings["vocabulary_size"], "float32")  # what `load` finds for such a vocabulary
        return task
    task = ClassifyTask(config, run=None)
    task.class_weights = np.ones(settings["classes"], "float32")
    return task


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    model = build(settings)
    load(model, weights)
    if settings["task"] == "classify":
        labels = batches.pop("label")
        batches["target"] = np.eye(settings["classes"], dtype="float32")[labels]
        batches["weight"] = np.ones(labels.shape, "float32")
    data = tf.data.Dataset.from_tensor_slices(batches).prefetch(tf.data.AUTOTUNE)
    optimizer = OptimizerConfig(average_decay=0.0, **settings["optimizer"])
    task = make_task(settings, optimizer)
    serve_steps(model, task, optimizer, data, model.count_params())


if __name__ == "__main__":
    main()
