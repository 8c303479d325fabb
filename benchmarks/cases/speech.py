"""The speech model as the sample's recipe has it, behind its spectrogram: its settings, random weights and random
features with labels."""

import numpy as np
from cases.case import Case, peers

SETTINGS = {
    "model": {"encoder": "rnn", "width": 128, "layers": 2, "bands": 64, "subsampling": 4, "dropout": 0.1},
    "symbols": 27,  # with the blank
    "optimizer": {
        "learning_rate": 3e-3,
        "warmup_steps": 400,
        "weight_decay": 0.01,
        "beta_1": 0.9,
        "beta_2": 0.98,
        "clip_norm": 1.0,
    },
}
BATCH, FRAMES, FEWEST = 16, 320, 240  # clips; frames of 10 ms in the longest and in the shortest
FRAMES_A_SYMBOL = 8


def make_weights(settings: dict) -> dict[str, np.ndarray]:
    """Random initial weights under the names and in the layout of Espalier's model."""
    rng = np.random.default_rng(1)
    width = settings["model"]["width"]
    weights = {}

    def kernel(name, *shape):
        limit = (6 / (np.prod(shape[:-1]) + shape[-1])) ** 0.5  # Glorot & Bengio 2010
        weights[name] = rng.uniform(-limit, limit, shape)

    def dense(name, *shape):
        kernel(f"{name}.kernel", *shape)
        weights[f"{name}.bias"] = rng.normal(0, 0.02, shape[-1])

    def norm(name):
        weights[f"{name}.gamma"] = rng.normal(1, 0.02, width)
        weights[f"{name}.beta"] = rng.normal(0, 0.02, width)

    channels = settings["model"]["bands"]
    for number in range(1, settings["model"]["subsampling"].bit_length()):
        dense(f"convolution_{number}", 3, channels, width)
        channels = width
    dense("projection", width, width)
    for number in range(1, settings["model"]["layers"] + 1):
        block = f"block_{number}"
        norm(f"{block}.norm")
        for direction in ("forward", "backward_forward"):
            lstm(weights, rng, f"{block}.recurrent.{direction}", width, width)
        dense(f"{block}.output", 2 * width, width)
    norm("norm")
    dense("logits", width, settings["symbols"])
    return {name: value.astype("float32") for name, value in weights.items()}


def lstm(weights: dict, rng: np.random.Generator, name: str, inputs: int, units: int) -> None:
    """Adds an LSTM's weights, gates in the order i f g o; the bias of f is near 1."""
    limit = (6 / (inputs + 4 * units)) ** 0.5
    weights[f"{name}.kernel"] = rng.uniform(-limit, limit, (inputs, 4 * units))
    # As large as an orthogonal one.
    weights[f"{name}.recurrent_kernel"] = rng.normal(0, (4 * units) ** -0.5, (units, 4 * units))
    weights[f"{name}.bias"] = np.repeat([0, 1, 0, 0], units) + rng.normal(0, 0.02, 4 * units)


def make_batches(settings: dict, steps: int) -> dict[str, np.ndarray]:
    """Random clips.

    Returns:
        `features`, float32 (steps, batch, frames, bands), of which the first `frames`, int32 (steps, batch), are real
        and the others zero; `labels`, int32 (steps, batch, symbols), 0 after their end, which `label_length`, int32
        (steps, batch), tells.
    """
    rng = np.random.default_rng(2)
    frames = rng.integers(FEWEST, FRAMES + 1, (steps, BATCH))
    label_length = frames // FRAMES_A_SYMBOL
    features = rng.normal(size=(steps, BATCH, FRAMES, settings["model"]["bands"]))
    labels = rng.integers(1, settings["symbols"], (steps, BATCH, FRAMES // FRAMES_A_SYMBOL))
    return {
        "features": np.where(np.arange(FRAMES)[:, None] < frames[..., None, None], features, 0.0).astype("float32"),
        "frames": frames.astype("int32"),
        "labels": np.where(np.arange(labels.shape[-1]) < label_length[..., None], labels, 0).astype("int32"),
        "label_length": label_length.astype("int32"),
    }


CASES = {
    "speech": Case(
        work=f"speech tiny, one training step, batch {BATCH} × {FRAMES} frames",
        results="training_step_speech",
        settings=SETTINGS,
        calm={"model.dropout": 0.0, "optimizer.warmup_steps": 2},
        make_weights=make_weights,
        make_batches=make_batches,
        amount=lambda batches: batches["frames"].sum(),
        unit="frames",
        peers=peers("speech"),
    )
}
