"""Speed of a training step of the translate model (size tiny) in Espalier, stock Keras and PyTorch.

    python benchmarks/training_step.py --rounds 10 --steps 5 --torch-python PATH

All systems start from the same weights and see the same batches; all clip gradients by their global norm, warm up,
decay matrices only, and report loss and token accuracy after each step. None averages its weights. Before
anything is timed, three steps without dropout must give the same loss in all of them (--no-check leaves that
out). PATH is a Python that has PyTorch, for example that of a virtual environment of its own:

    python -m venv peer && peer/bin/pip install torch==2.13.0 numpy --index-url https://download.pytorch.org/whl/cpu
"""

import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from side_by_side import Comparison, System, SystemFailed, Workers, command_line, report

OURS = "espalier, XLA"
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
# How often an idle thread of PyTorch looks for work before it sleeps. By default it does so for milliseconds, which
# on a busy machine can cost PyTorch nine tenths of its speed; to sleep at once (OMP_WAIT_POLICY=passive) costs it a
# fifth on a quiet one. This is as fast as the default on a quiet machine, and hurt far less on a busy one.
TORCH_THREADS = {"GOMP_SPINCOUNT": "10000"}
CHECKED_STEPS = 3
TOLERANCE = 1e-4  # of the loss, relative


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


def write_case(folder: Path, settings: dict, batches: dict, weights: dict) -> None:
    """What `worker.read_case` reads."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    np.savez(folder / "batches.npz", **batches)
    np.savez(folder / "weights.npz", **weights)


def systems(case: Path, torch_python: Path | None) -> list[System]:
    """Everything that is compared, on the case in that folder."""

    def system(name, module, choice, python=sys.executable, environment=None):
        return System(name, [python, "-m", f"benchmarks.peers.{module}", case, choice], environment or {})

    found = [
        system(OURS, "espalier_translate", "on"),
        system("espalier, no XLA", "espalier_translate", "off"),
        system("stock Keras fit, XLA", "keras_translate", "on"),
        system("stock Keras fit, no XLA", "keras_translate", "off"),
    ]
    if torch_python:
        found += [
            system("PyTorch, eager", "torch_translate", "eager", torch_python, TORCH_THREADS),
            system("PyTorch, torch.compile", "torch_translate", "compile", torch_python, TORCH_THREADS),
        ]
    return found


def check(case: Path, torch_python: Path | None) -> str:
    """Trains a few steps without dropout in all systems. Returns what was found.

    Raises:
        SystemFailed: losses differ, or the numbers of parameters.
    """
    with Workers(systems(case, torch_python)) as workers:
        parameters = workers.common_size()
        losses = {name: answer["loss"] for name, answer in workers.run(CHECKED_STEPS).items()}
    for name, loss in losses.items():
        if not abs(loss - losses[OURS]) < TOLERANCE * losses[OURS]:
            raise SystemFailed(f"{name}: mean loss of {CHECKED_STEPS} steps is {loss}, {OURS} has {losses[OURS]}")
    apart = max(losses.values()) - min(losses.values())
    return (
        f"checked: {parameters:,} parameters in every system; without dropout the mean loss of the first "
        f"{CHECKED_STEPS} steps is {losses[OURS]:.5f}, and {apart:.1e} apart at most"
    )


def main() -> None:
    parser = command_line(__doc__, "training steps")
    parser.add_argument("--torch-python", type=Path, help="a Python that has PyTorch; without it PyTorch is left out")
    parser.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help="compare losses first")
    options = parser.parse_args()
    console = Console()
    if options.torch_python is None:
        console.print("no --torch-python given: PyTorch is left out")

    weights = make_weights(SETTINGS)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if options.check:
            settings = copy.deepcopy(SETTINGS) | {"steps": CHECKED_STEPS}
            settings["model"]["dropout"] = 0.0
            settings["optimizer"]["warmup_steps"] = 2  # so that updates are large enough to show in the loss
            write_case(folder / "check", settings, make_batches(settings, CHECKED_STEPS), weights)
            console.print(check(folder / "check", options.torch_python))
        batches = make_batches(SETTINGS, options.steps)
        write_case(folder / "timed", SETTINGS | {"steps": options.steps}, batches, weights)
        with Workers(systems(folder / "timed", options.torch_python)) as workers:
            versions = workers.versions
            answers = workers.interleave(options.rounds, options.steps)
    comparison = Comparison(
        work=f"translate tiny, one training step, batch {BATCH} × {LENGTH}",
        answers=answers,
        ours=OURS,
        amount=np.count_nonzero(batches["target"]) / options.steps,
        unit="tokens",
        versions=versions,
    )
    report("training_step", [comparison], options.output)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
