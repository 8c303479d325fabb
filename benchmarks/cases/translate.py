"""The translate model (size tiny): its settings, random weights and random token ids."""

import numpy as np
from cases.case import Case, peers

SETTINGS = {
    "model": {
        "encoder_layers": 4,
        "decoder_layers": 4,
        "width": 128,
        "feedforward": 256,
        "heads": 4,
        "dropout": 0.1,
    },
    "vocabulary_size": 8000,
    "start_id": 2,
    "label_smoothing": 0.1,
    "optimizer": {
        "learning_rate": 2e-3,
        "warmup_steps": 400,
        "weight_decay": 0.01,
        "beta_1": 0.9,
        "beta_2": 0.98,
        "clip_norm": 1.0,
    },
}
BATCH, LENGTH, SHORTEST = 64, 20, 10  # sentences; tokens of the longest and of the shortest: a quarter is padding


def make_weights(settings: dict) -> dict[str, np.ndarray]:
    """Random initial weights by name, in the order and the layout of Espalier's model."""
    rng = np.random.default_rng(1)
    sizes = settings["model"]
    width, hidden = sizes["width"], sizes["feedforward"]
    weights = {}

    def embedding(name):
        weights[f"{name}.embeddings"] = rng.normal(0, width**-0.5, (settings["vocabulary_size"], width))

    def norm(name):
        weights[f"{name}.gamma"] = rng.normal(1, 0.02, width)
        weights[f"{name}.beta"] = rng.normal(0, 0.02, width)

    def dense(name, rows, columns):
        limit = (6 / (rows + columns)) ** 0.5  # Glorot & Bengio 2010
        weights[f"{name}.kernel"] = rng.uniform(-limit, limit, (rows, columns))
        weights[f"{name}.bias"] = rng.normal(0, 0.02, columns)

    embedding("embedding")
    for stack in ("encoder", "decoder"):
        for i in range(sizes[f"{stack}_layers"]):
            block = f"{stack}.{i}"
            norm(f"{block}.self_attention_norm")
            dense(f"{block}.self_attention.query_key_value", width, 3 * width)
            dense(f"{block}.self_attention.output", width, width)
            norm(f"{block}.feedforward_norm")
            dense(f"{block}.feedforward.hidden", width, hidden)
            dense(f"{block}.feedforward.output", hidden, width)
            if stack == "decoder":
                norm(f"{block}.memory_attention_norm")
                dense(f"{block}.memory_attention.query", width, width)
                dense(f"{block}.memory_attention.key_value", width, 2 * width)
                dense(f"{block}.memory_attention.output", width, width)
        norm(f"{stack}_norm")
    return {name: value.astype("float32") for name, value in weights.items()}


def make_batches(settings: dict, steps: int) -> dict[str, np.ndarray]:
    """Random token ids with padding (0) at the end: source and target, int32 (steps, batch, length)."""
    rng = np.random.default_rng(2)
    batches = {}
    for side in ("source", "target"):
        ids = rng.integers(3, settings["vocabulary_size"], (steps, BATCH, LENGTH))
        lengths = rng.integers(SHORTEST, LENGTH + 1, (steps, BATCH, 1))
        batches[side] = np.where(np.arange(LENGTH) < lengths, ids, 0).astype("int32")
    return batches


CASES = {
    "translate": Case(
        work=f"translate tiny, one training step, batch {BATCH} × {LENGTH}",
        results="training_step",
        settings=SETTINGS,
        calm={"model.dropout": 0.0, "optimizer.warmup_steps": 2},
        make_weights=make_weights,
        make_batches=make_batches,
        amount=lambda batches: np.count_nonzero(batches["target"]),
        unit="tokens",
        peers=peers("translate", with_xla_first=True),
    )
}
