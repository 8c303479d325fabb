"""Tiny runs of the tasks that read: texts that are learnt in seconds, flags of a small network, an export's answers."""

import contextlib
import csv
import functools

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  the operations of an export that writes pieces

from apps.nlp.app import APP
from apps.nlp.config import ModelConfig, NlpPredictOptions
from pipelines.trained import restore
from tests.apps import command_line

TINY = [  # learns little, but does everything
    "--batch-size=8", "--max-length=32", "--jit=off", "--model.width=16", "--model.layers=1",
    "--model.heads=2", "--model.feedforward=32", "--optimizer.warmup-steps=10", "--optimizer.learning-rate=1e-2",
    "--optimizer.average-decay=0.9",
]  # fmt: skip
NETWORK = ModelConfig(width=16, layers=1, heads=2, feedforward=32)
SIZES = {"train": 64, "validation": 12, "test": 13}
ADJECTIVES = {"negative": ("awful", "dull", "poor"), "positive": ("fine", "lovely", "superb")}
THINGS = ("film", "book", "meal", "song")

command = functools.partial(command_line.run, "nlp")


def review(rng):
    """A text and its class."""
    label = str(rng.choice(list(ADJECTIVES)))
    return f"the {rng.choice(THINGS)} was {rng.choice(ADJECTIVES[label])}, I say", label


def write_table(path, *rows):
    """Writes CSV, the first row with the names of columns. Returns its path."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def write_splits(directory, columns, example):
    """Writes tables of what `example` makes of a random generator. Returns the flags that name them."""
    for seed, (name, count) in enumerate(SIZES.items()):
        rng = np.random.default_rng(seed)
        write_table(directory / f"{name}.csv", columns, *(example(rng) for _ in range(count)))
    return [f"--{name}={directory / name}.csv" for name in SIZES]


def restored(directory):
    """The task of a run, and its model."""
    found = restore(APP, NlpPredictOptions(run_dir=directory))
    return found.task, found.model


@contextlib.contextmanager
def served(directory):
    """Asks signatures of an exported model through the session loader, as TensorFlow Serving does."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(directory / "nlp" / "1")).signature_def

        def ask(signature, **inputs):
            fetches = {name: tensor.name for name, tensor in loaded[signature].outputs.items()}
            given = {loaded[signature].inputs[name].name: np.array(x, object) for name, x in inputs.items()}
            return session.run(fetches, given)

        yield ask


def is_png(file):
    """Whether a file is a picture with something in it."""
    picture = tf.io.decode_png(file.read_bytes()).numpy()
    return picture.shape[2] == 3 and len(np.unique(picture)) > 2
