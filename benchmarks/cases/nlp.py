"""The nlp app's models: the classifier as the sample's recipe has it, and the language model of tinyshakespeare's
characters. Their settings, random weights and random token ids."""

import functools

import numpy as np
from cases.case import Case, peers
from cases.speech import lstm

ADAM = {"warmup_steps": 100, "learning_rate": 3e-3, "beta_1": 0.9, "clip_norm": 1.0}
CLASSIFIER = {
    "task": "classify",
    "model": {"encoder": "rnn", "width": 128, "layers": 1, "dropout": 0.1, "word_dropout": 0.0},
    "vocabulary_size": 149,
    "classes": 2,
    "optimizer": ADAM | {"weight_decay": 0.01, "beta_2": 0.98},
}
LANGUAGE_MODEL = {
    "task": "generate",
    "model": {"width": 128, "layers": 4, "heads": 4, "kv_heads": 2, "feedforward": 512, "dropout": 0.0},
    "vocabulary_size": 69,
    "length": 64,
    "optimizer": ADAM | {"weight_decay": 0.1, "beta_2": 0.99},
}
FIRST_ID = 3  # after those of padding and marks
TEXTS, LONGEST, SHORTEST = 32, 28, 21  # a batch of texts; tokens of the longest and of the shortest
WINDOWS = 12


class Weights(dict):
    """Random initial weights by name, which is filled layer by layer."""

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def embedding(self, name: str, size: int, width: int) -> None:
        self[f"{name}.embeddings"] = self.rng.normal(0, width**-0.5, (size, width))

    def norm(self, name: str, width: int) -> None:
        self[f"{name}.gamma"] = self.rng.normal(1, 0.02, width)
        self[f"{name}.beta"] = self.rng.normal(0, 0.02, width)

    def dense(self, name: str, rows: int, columns: int) -> None:
        limit = (6 / (rows + columns)) ** 0.5  # Glorot & Bengio 2010
        self[f"{name}.kernel"] = self.rng.uniform(-limit, limit, (rows, columns))
        self[f"{name}.bias"] = self.rng.normal(0, 0.02, columns)

    def floats(self) -> dict[str, np.ndarray]:
        return {name: value.astype("float32") for name, value in self.items()}


def classifier_weights(settings: dict) -> dict[str, np.ndarray]:
    """Under the names and in the layout of Espalier's model, the encoder's without its name."""
    weights, width = Weights(), settings["model"]["width"]
    weights["evidence"] = weights.rng.normal(0, 0.3, (settings["vocabulary_size"], settings["classes"]))
    weights.embedding("embedding", settings["vocabulary_size"], width)
    for number in range(settings["model"]["layers"]):
        block = f"block_{number}"
        weights.norm(f"{block}.norm", width)
        for direction in ("forward", "backward_forward"):
            lstm(weights, weights.rng, f"{block}.recurrent.{direction}", width, width // 2)
    weights.norm("norm", width)
    weights.dense("logits", 2 * width, settings["classes"])
    return weights.floats()


def language_model_weights(settings: dict) -> dict[str, np.ndarray]:
    """Under the names and in the layout of Espalier's model."""
    weights, sizes = Weights(), settings["model"]
    width, hidden = sizes["width"], sizes["feedforward"]
    projected = width + 2 * sizes["kv_heads"] * width // sizes["heads"]
    weights.embedding("embedding", settings["vocabulary_size"], width)
    for number in range(sizes["layers"]):
        block = f"block_{number}"
        weights.norm(f"{block}.self_attention_norm", width)
        weights.dense(f"{block}.self_attention.query_key_value", width, projected)
        weights.dense(f"{block}.self_attention.output", width, width)
        weights.norm(f"{block}.feedforward_norm", width)
        weights.dense(f"{block}.feedforward.hidden", width, hidden)
        weights.dense(f"{block}.feedforward.output", hidden, width)
    weights.norm("norm", width)
    return weights.floats()


def labelled_texts(settings: dict, steps: int) -> dict[str, np.ndarray]:
    """Random `tokens`, int32 (steps, batch, length), with padding (0) at the end, and `label`, int32 (steps, batch)."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(FIRST_ID, settings["vocabulary_size"], (steps, TEXTS, LONGEST))
    lengths = rng.integers(SHORTEST, LONGEST + 1, (steps, TEXTS, 1))
    labels = rng.integers(settings["classes"], size=(steps, TEXTS))
    tokens = np.where(np.arange(LONGEST) < lengths, tokens, 0)
    return {"tokens": tokens.astype("int32"), "label": labels.astype("int32")}


def windows(settings: dict, steps: int) -> dict[str, np.ndarray]:
    """Random `tokens` and the `targets` that follow them, both int32 (steps, batch, length)."""
    shape = steps, WINDOWS, settings["length"] + 1
    ids = np.random.default_rng(2).integers(FIRST_ID, settings["vocabulary_size"], shape).astype("int32")
    return {"tokens": ids[:, :, :-1], "targets": ids[:, :, 1:]}


make_case = functools.partial(
    Case,
    results="training_step_nlp",
    amount=lambda batches: np.count_nonzero(batches["tokens"]),
    unit="tokens",
    peers=peers("nlp"),
)
CASES = {
    "nlp": make_case(
        work=f"nlp classifier tiny, one training step, batch {TEXTS} × {LONGEST}",
        settings=CLASSIFIER,
        # Nothing is clipped: a token that stands in several places has several gradients in Keras' global norm, not
        # their sum.
        calm={"model.dropout": 0.0, "optimizer.warmup_steps": 2, "optimizer.clip_norm": 1e6},
        make_weights=classifier_weights,
        make_batches=labelled_texts,
    ),
    "language": make_case(
        work=f"language model tiny, one training step, batch {WINDOWS} × {LANGUAGE_MODEL['length']}",
        settings=LANGUAGE_MODEL,
        calm={"optimizer.warmup_steps": 2},
        make_weights=language_model_weights,
        make_batches=windows,
    ),
}
