"""What `espalier_replicas.py` trains: of each app its smallest model, random batches, and the app's own loss.

Nothing in it is random while it trains, and every share of a batch of pictures has the same ones: so the losses are the
same numbers however a batch is divided. An app is imported only where it is asked for: each takes seconds and memory.
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from pipelines.task import Task

PIECES, CHARACTERS, CLASSES = 8000, 96, 10  # ids of subwords and of characters, padding included; kinds of picture
SHARES = 4  # a batch of pictures is so many times the same ones
RATE = 16_000  # samples a second


@dataclasses.dataclass(frozen=True)
class Work:
    """A model and what it is trained on.

    Args:
        name: the model and its batch, in words.
        task: gives the loss; it has no run and no data.
        build: makes the model.
        batches: arrays by name, with steps as their first axis and rows as their second.
        amount: how much a batch holds of `task.unit`.
    """

    name: str
    task: Task
    build: Callable[[], keras.Model]
    batches: dict[str, np.ndarray]
    amount: float


def ids(rng: np.random.Generator, shape: tuple[int, ...], symbols: int, first: int = 1) -> np.ndarray:
    """Random ids from `first` on, each row filled up with zeros from somewhere in its second half."""
    length = shape[-1]
    real = rng.integers((length + 1) // 2, length + 1, (*shape[:-1], 1))
    return np.where(np.arange(length) < real, rng.integers(first, symbols, shape), 0).astype("int32")


def translate(steps: int, rows: int = 64, length: int = 20) -> Work:
    from apps.translate.config import ModelConfig, TranslateConfig
    from apps.translate.model import TranslationTransformer
    from apps.translate.task import TranslateTask

    rng = np.random.default_rng(0)
    sizes = ModelConfig(**TranslateConfig.sizes["tiny"], dropout=0.0)
    batches = {side: ids(rng, (steps, rows, length), PIECES, 3) for side in ("source", "target")}
    return Work(
        f"translate tiny, {rows} pairs of {length} tokens",
        TranslateTask(TranslateConfig(model=sizes), run=None),
        lambda: TranslationTransformer.from_settings(sizes, PIECES, 2),
        batches,
        np.count_nonzero(batches["target"]) / steps,
    )


def image(steps: int, rows: int = 128, size: int = 28) -> Work:
    from apps.image.config import ImageConfig, ModelConfig
    from apps.image.model import ImageClassifier
    from apps.image.task import ImageTask

    rng = np.random.default_rng(0)
    sizes = ModelConfig(**ImageConfig.sizes["tiny"])
    # BatchNormalization takes the statistics of the rows on a replica: with the same pictures in every share of a
    # batch they are those of the whole batch.
    pictures = rng.normal(size=(steps, rows // SHARES, size, size, 1)).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=(steps, rows // SHARES))]
    batches = {name: np.concatenate([part] * SHARES, 1) for name, part in (("image", pictures), ("target", targets))}
    return Work(
        f"image tiny, {rows} pictures of {size} × {size}",
        ImageTask(ImageConfig(model=sizes), run=None),
        lambda: ImageClassifier.from_settings(sizes, size, 1, CLASSES),
        batches | {"weight": np.ones((steps, rows), "float32")},
        rows,
    )


def speech(steps: int, rows: int = 16, seconds: float = 2.0, symbols: int = 30) -> Work:
    from apps.speech.config import ModelConfig, SpecAugmentConfig, SpeechConfig
    from apps.speech.model import SpeechRecognizer
    from apps.speech.task import SpeechTask

    rng = np.random.default_rng(0)
    sizes = ModelConfig(**SpeechConfig.sizes["tiny"], dropout=0.0)
    config = SpeechConfig(model=sizes, spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0))
    samples, most = round(seconds * RATE), math.ceil(6 * seconds)  # so many letters are said, and there is time for
    labels = ids(rng, (steps, rows, most), symbols)
    batches = {
        "audio": rng.normal(0, 0.1, (steps, rows, samples)).astype("float32"),
        "audio_length": np.full((steps, rows), samples, "int32"),
        "labels": labels,
        "label_length": np.count_nonzero(labels, axis=-1).astype("int32"),
        "weight": np.ones((steps, rows), "float32"),
    }
    return Work(
        f"speech tiny, {rows} clips of {seconds:g} s",
        SpeechTask(config, run=None),
        lambda: SpeechRecognizer.from_settings(sizes, config.spec_augment, RATE, symbols),
        batches,
        np.count_nonzero(labels) / steps,
    )


def nlp(steps: int, rows: int = 32, length: int = 32, classes: int = 2) -> Work:
    from apps.nlp.config import ModelConfig, NlpConfig
    from apps.nlp.encoders import TextEncoder
    from apps.nlp.model import TextClassifier
    from apps.nlp.tasks.classify import ClassifyTask

    rng = np.random.default_rng(0)
    # As `train` does on its own sample: LSTMs, one layer.
    sizes = ModelConfig(encoder="rnn", layers=1, dropout=0.0)
    task = ClassifyTask(NlpConfig(model=sizes), run=None)
    task.class_weights = np.ones(classes, "float32")
    evidence = rng.normal(0, 0.1, (PIECES, classes)).astype("float32")
    batches = {
        "tokens": ids(rng, (steps, rows, length), PIECES),
        "target": np.eye(classes, dtype="float32")[rng.integers(classes, size=(steps, rows))],
        "weight": np.ones((steps, rows), "float32"),
    }

    def build():
        encoder = TextEncoder.from_settings(sizes, PIECES)
        model = TextClassifier(encoder, evidence, sizes.dropout, sizes.word_dropout)
        model({"tokens": np.ones((1, 2), "int32")})
        return model

    return Work(f"nlp classifier tiny, {rows} texts of {length} tokens", task, build, batches, rows)


def language(steps: int, rows: int = 32, length: int = 64) -> Work:
    from apps.nlp.config import ModelConfig, NlpConfig
    from apps.nlp.language_model import LanguageModel
    from apps.nlp.tasks.generate import GenerateTask

    rng = np.random.default_rng(0)
    sizes = ModelConfig(**NlpConfig.generator_sizes["tiny"], dropout=0.0)
    task = GenerateTask(NlpConfig(task="generate", model=sizes), run=None)
    task._characters = tf.ones([CHARACTERS])  # how long each symbol is, which `load` takes from a vocabulary
    batches = {name: rng.integers(1, CHARACTERS, (steps, rows, length), "int32") for name in ("tokens", "targets")}
    return Work(
        f"language model tiny, {rows} windows of {length} characters",
        task,
        lambda: LanguageModel.from_settings(sizes, CHARACTERS, length),
        batches,
        rows * length,
    )


WORK = {"translate": translate, "image": image, "speech": speech, "nlp": nlp, "language": language}
