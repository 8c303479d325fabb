"""The image networks on pictures the size of Fashion-MNIST's: their settings, random weights and random pictures."""

import math

import numpy as np
from cases.case import Case, peers

BATCH = 128  # pictures
OPTIMIZER = {
    "learning_rate": 4e-3,
    "warmup_steps": 300,
    "weight_decay": 0.05,
    "beta_1": 0.9,
    "beta_2": 0.98,
    "clip_norm": 1.0,
}
EXPANSION = 6  # of the inverted residuals


def make_settings(architecture: str, precision: str = "float32") -> dict:
    return {
        "model": {"architecture": architecture, "width": 32, "blocks": [1, 1, 1]},
        "size": 28,
        "channels": 1,
        "classes": 10,
        "label_smoothing": 0.1,
        "precision": precision,
        "optimizer": OPTIMIZER,
    }


def make_weights(settings: dict) -> dict[str, np.ndarray]:
    """Random initial weights under the names and in the layout of Espalier's model."""
    rng = np.random.default_rng(1)
    sizes = settings["model"]
    weights = {}

    def kernel(name, *shape, seen):
        weights[f"{name}.kernel"] = rng.normal(0, (2 / seen) ** 0.5, shape)  # He et al. 2015

    def bias(name, outputs):
        weights[f"{name}.bias"] = rng.normal(0, 0.02, outputs)

    def convolution(name, window, channels, filters):
        kernel(name, window, window, channels, filters, seen=window**2 * channels)

    def dense(name, rows, columns):
        kernel(name, rows, columns, seen=rows)
        bias(name, columns)

    def norm(name, channels):
        weights[f"{name}.gamma"] = rng.normal(1, 0.02, channels)
        weights[f"{name}.beta"] = rng.normal(0, 0.02, channels)

    def residual(name, channels, filters):
        norm(f"{name}.norm_1", channels)
        convolution(f"{name}.conv_1", 3, channels, filters)
        norm(f"{name}.norm_2", filters)
        convolution(f"{name}.conv_2", 3, filters, filters)
        if channels != filters:
            convolution(f"{name}.shortcut", 1, channels, filters)

    def inverted_residual(name, channels, filters):
        wide = EXPANSION * channels
        convolution(f"{name}.expand", 1, channels, wide)
        norm(f"{name}.expand_norm", wide)
        kernel(f"{name}.depthwise", 3, 3, wide, 1, seen=9)
        norm(f"{name}.depthwise_norm", wide)
        convolution(f"{name}.contract", 1, wide, filters)
        norm(f"{name}.contract_norm", filters)

    if sizes["architecture"] == "cnn":
        for number, channels, filters in ((1, settings["channels"], 32), (2, 32, 64)):
            convolution(f"conv_{number}", 3, channels, filters)
            bias(f"conv_{number}", filters)
        dense("dense", (settings["size"] // 4) ** 2 * 64, 128)
        channels = 128
    else:
        block = {"resnet": residual, "mobile": inverted_residual}[sizes["architecture"]]
        channels = sizes["width"]
        convolution("stem", 3, settings["channels"], channels)
        for stage, count in enumerate(sizes["blocks"]):
            for number in range(count):
                filters = sizes["width"] * 2**stage
                block(f"stage_{stage + 1}_{number + 1}", channels, filters)
                channels = filters
        norm("norm", channels)
    dense("logits", channels, settings["classes"])
    return {name: value.astype("float32") for name, value in weights.items()}


def make_batches(settings: dict, steps: int) -> dict[str, np.ndarray]:
    """Random pictures, float32 (steps, batch, size, size, channels), and labels, int32 (steps, batch)."""
    rng = np.random.default_rng(2)
    image = rng.normal(size=(steps, BATCH, settings["size"], settings["size"], settings["channels"]))
    label = rng.integers(settings["classes"], size=(steps, BATCH))
    return {"image": image.astype("float32"), "label": label.astype("int32")}


def make_case(name: str, architecture: str, precision: str = "float32", tolerance: float = 1e-4) -> Case:
    return Case(
        work=f"image {name}, one training step, batch {BATCH} × 28 × 28 × 1, {precision}",
        results="training_step_image",
        settings=make_settings(architecture, precision),
        calm={"optimizer.warmup_steps": 2},
        make_weights=make_weights,
        make_batches=make_batches,
        amount=lambda batches: math.prod(batches["label"].shape),
        unit="images",
        peers=peers("image"),
        tolerance=tolerance,
    )


CASES = {
    "resnet": make_case("resnet tiny", "resnet"),
    "resnet-bfloat16": make_case("resnet tiny", "resnet", "mixed_bfloat16", tolerance=1e-2),
    "cnn": make_case("cnn", "cnn"),
    "mobile": make_case("mobile tiny", "mobile"),
}
