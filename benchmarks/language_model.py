"""A language model of tinyshakespeare's characters, trained from beginning to end in Espalier and in PyTorch.

    python benchmarks/language_model.py --text DIR/tinyshakespeare/input.txt --torch-python PATH

Both train models of 4 layers, 128 wide, with 4 heads, on batches of 12 windows of 64 characters of the first nine
tenths of the text, PyTorch for 2,000 steps and ours for half as many (--steps, --our-steps), and measure the mean
loss of the whole last tenth in windows of 64. Each is a process that starts from nothing, and they take turns. Ours
is the app's own `train`, checkpoints and history included, with XLA and the recipe below, whose learning rate is 3e-3.
The peer is `peers/torch_language_model.py` with the usual recipe, eager unless --compile is given, its learning rate
1e-3 unless --torch-learning-rate says otherwise. Both recipes stand in the result. `seconds` are those of the whole
process; those of the processor say how much it computed, whatever else the machine had to do. PATH is a Python that
has PyTorch (docs/benchmarks.md).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from cases.case import TORCH_THREADS
from processes import Done, SystemFailed, run
from results_files import RESULTS, bars, digits, ratio, refuse_to_lose, save, versions
from rich.console import Console
from rich.table import Table

OURS, PEER, COMPILED = "espalier, XLA", "PyTorch, eager", "PyTorch, torch.compile"
STEPS, OUR_STEPS, LENGTH, BATCH = 2000, 1000, 64, 12
RECIPE = {
    "model.dropout": 0,
    "optimizer.learning-rate": 3e-3,
    "optimizer.schedule": "cosine",
    "optimizer.warmup-steps": 100,
    "optimizer.beta-2": 0.99,
    "optimizer.weight-decay": 0.1,
    "optimizer.average-decay": 0,
}
USUAL = {"warmup_steps": 100, "weight_decay": 0.1}
NAME, WORK = "language_model", "tinyshakespeare, 4 layers of 128, from start to end"
# What is measured of each training, and its unit.
FIGURES = {
    "loss": "nats a character on validation",
    "seconds": "s",
    "training_seconds": "s in the steps",
    "processor_seconds": "s of the processor",
}


def train_ours(folder: Path, files: list[Path], seed: int, steps: int) -> dict:
    directory = folder / "run"
    settings = RECIPE | {
        "task": "generate", "units": "characters", "max-length": LENGTH, "batch-size": BATCH, "jit": "on", "seed": seed,
        "max-steps": steps, "validate-every": steps, "checkpoint-every": steps, "run-dir": directory,
        "train": files[0], "validation": files[1],
    }  # fmt: skip
    flags = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    done = run("-m", "apps.nlp", "train", *flags, name=OURS)
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    (loss,) = [row["val_loss"] for row in rows if "val_loss" in row]
    return {"loss": loss, "training_seconds": rows[-2]["seconds"] - rows[0]["seconds"], **_times(done)}


def train_peer(python: Path, files: list[Path], settings: dict) -> dict:
    settings = settings | {"length": LENGTH, "batch_size": BATCH, "width": 128, "layers": 4, "heads": 4}
    command = "-m", "benchmarks.peers.torch_language_model", *files, json.dumps(settings)
    done = run(*command, name=PEER, python=python, environment=TORCH_THREADS)
    return done.answer | _times(done)


def _times(done: Done) -> dict[str, float]:
    """The seconds that a process took, and those of the processor in it."""
    return {"seconds": done.seconds, "processor_seconds": done.processor_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="the text, one file")
    parser.add_argument("--torch-python", type=Path, required=True, help="a Python that has PyTorch")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each system (%(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of PyTorch's training (%(default)s)")
    parser.add_argument("--our-steps", type=int, default=OUR_STEPS, help="of ours (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="let PyTorch compile its model (needs a C++ compiler)")
    words = "of PyTorch, at its peak (%(default)s, which such recipes have)"
    parser.add_argument("--torch-learning-rate", type=float, default=1e-3, help=words)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    refuse_to_lose(NAME, [WORK], options.output)
    console, peer = Console(), COMPILED if options.compile else PEER
    recipe = USUAL | {"learning_rate": options.torch_learning_rate, "steps": options.steps, "compile": options.compile}
    text = options.text.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    found: dict[str, list[dict]] = {OURS: [], peer: []}
    for seed in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            files = [folder / "train.txt", folder / "validation.txt"]
            for file, part in zip(files, (text[:cut], text[cut:]), strict=True):
                file.write_text(part, encoding="utf-8")
            found[OURS].append(train_ours(folder, files, seed, options.our_steps))
            found[peer].append(train_peer(options.torch_python, files, recipe | {"seed": seed}))
        for name, rounds in found.items():
            last = rounds[-1]
            console.print(f"round {seed + 1}: {name}: loss {last['loss']:.4f}, {last['seconds']:.0f} s")
    settings = {"recipe": RECIPE | {"jit": "on"}, "peer": recipe}
    settings["steps"] = {OURS: options.our_steps, peer: options.steps}
    report(console, found, settings, versions() | {"torch": found[peer][0]["version"]}, options.output)


def rows_of(found: dict[str, list[dict]]) -> list[dict]:
    """Four figures a system: medians over the rounds; `ratio` is that to ours, taken within each round."""
    rows = []
    for key, unit in FIGURES.items():
        ours = np.array([each[key] for each in next(iter(found.values()))])
        for name, rounds in found.items():
            values = np.array([each[key] for each in rounds])
            ratios = values / ours
            rows.append(
                {"work": WORK, "system": name, "value": round(float(np.median(values)), 4), "unit": unit}
                | {"ratio": round(float(np.median(ratios)), 3)}
                | {"ratio_range": [round(float(ratios.min()), 3), round(float(ratios.max()), 3)]}
                | {"range": [round(float(values.min()), 4), round(float(values.max()), 4)]}
                | {"rounds": [round(float(value), 4) for value in values]}
            )
    return rows


def report(console: Console, found: dict[str, list[dict]], settings: dict, versions: dict, directory: Path) -> None:
    """Prints the medians, writes all figures and draws them."""
    rows = rows_of(found)
    title = f"Steps of {BATCH} windows of {LENGTH} characters: {len(found[OURS])} rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("system")
    for column in ("steps", *FIGURES.values(), f"time / {OURS}"):
        table.add_column(column, justify="right")
    for name in found:
        figures = {row["unit"]: row for row in rows if row["system"] == name}
        values = [digits(row["value"]) for row in figures.values()]
        table.add_row(name, f"{settings['steps'][name]:,}", *values, ratio(figures[FIGURES["seconds"]]))
    console.print(table)
    save(NAME, rows, directory, versions, bars(rows), **settings)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
