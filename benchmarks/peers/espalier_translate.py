"""Espalier's translate model and training step, as a system to compare; `espalier_step.py` has its arguments."""

import sys

import keras
import numpy as np
import tensorflow as tf

from apps.translate.config import ModelConfig, TranslateConfig
from apps.translate.model import TranslationTransformer
from apps.translate.task import TranslateTask
from benchmarks.peers.espalier_step import serve_steps
from benchmarks.peers.worker import read_case
from pipelines.config import OptimizerConfig


def load(model: TranslationTransformer, weights: dict[str, np.ndarray]) -> None:
    parts = {"embedding": model.embedding, "encoder_norm": model.encoder_norm, "decoder_norm": model.decoder_norm}
    parts |= {f"encoder.{i}": block for i, block in enumerate(model.encoder)}
    parts |= {f"decoder.{i}": block for i, block in enumerate(model.decoder)}
    for prefix, part in parts.items():
        values = [value for name, value in weights.items() if name.startswith(prefix + ".")]
        for variable, value in zip(part.trainable_variables, values, strict=True):
            variable.assign(value)


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    model = TranslationTransformer.from_settings(
        ModelConfig(**settings["model"]), settings["vocabulary_size"], settings["start_id"]
    )
    load(model, weights)
    data = tf.data.Dataset.from_tensor_slices(batches).prefetch(tf.data.AUTOTUNE)
    optimizer = OptimizerConfig(average_decay=0.0, **settings["optimizer"])
    config = TranslateConfig(label_smoothing=settings["label_smoothing"], optimizer=optimizer)
    task = TranslateTask(config, run=None)  # only its loss and metrics are asked for, which need no run
    serve_steps(model, task, optimizer, data, model.count_params())


if __name__ == "__main__":
    main()
