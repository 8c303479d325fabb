"""A language model of tinyshakespeare's characters, trained from beginning to end in Espalier and in PyTorch.

    python benchmarks/language_model.py --text DIR/tinyshakespeare/input.txt --torch-python PATH

Both train models of 4 layers, 128 wide, with 4 heads, on batches of 12 windows of 64 characters of the first nine
tenths of the text, PyTorch for 2,000 steps and ours for half as many (--steps, --our-steps), and measure the mean
loss of the whole last tenth in windows of 64. Each is a process that starts from nothing, and they take turns. Ours
is the app's own `train`, checkpoints and history included, with the recipe below; the peer is
`peers/torch_language_model.py` with the usual one. `seconds` are those of the whole process; those of the processor
say how much it computed, whatever else the machine had to do.
PATH is a Python that has PyTorch (see training_step.py).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cases.case import TORCH_THREADS
from rich.console import Console
from rich.table import Table
from side_by_side import RESULTS, ROOT, SystemFailed, machine

OURS, PEER = "Espalier", "PyTorch"
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
USUAL = {"learning_rate": 1e-3, "warmup_steps": 100, "weight_decay": 0.1}


def train_ours(folder: Path, files: list[Path], seed: int, steps: int) -> dict:
    run = folder / "run"
    settings = RECIPE | {
        "task": "generate", "units": "characters", "max-length": LENGTH, "batch-size": BATCH, "jit": "on", "seed": seed,
        "max-steps": steps, "validate-every": steps, "checkpoint-every": steps, "run-dir": run,
        "train": files[0], "validation": files[1],
    }  # fmt: skip
    flags = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    times, _ = _timed([sys.executable, "-m", "apps.nlp", "train", *flags], OURS, {})
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    (loss,) = [row["val_loss"] for row in rows if "val_loss" in row]
    return {"loss": loss, "training_seconds": rows[-2]["seconds"] - rows[0]["seconds"], **times}


def train_peer(python: Path, files: list[Path], seed: int, steps: int, compiled: bool) -> dict:
    settings = USUAL | {"length": LENGTH, "batch_size": BATCH, "steps": steps, "seed": seed, "compile": compiled}
    settings |= {"width": 128, "layers": 4, "heads": 4}
    command = [python, "-m", "benchmarks.peers.torch_language_model", *files, json.dumps(settings)]
    times, out = _timed(command, PEER, TORCH_THREADS)
    return json.loads(out.splitlines()[-1]) | times


def _timed(command: list, name: str, environment: dict) -> tuple[dict[str, float], str]:
    """The seconds that a process took, those of the processor in it, and what it printed.

    Raises:
        SystemFailed: it ended with an error.
    """
    begin, used = time.perf_counter(), _processor_seconds()
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **environment},
        capture_output=True,
        text=True,
    )
    times = {"seconds": time.perf_counter() - begin, "processor_seconds": _processor_seconds() - used}
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise SystemFailed(f"{name}: ended with exit code {done.returncode}: {said[-1]}")
    return times, done.stdout


def _processor_seconds() -> float:
    """What all processes that were started here and have ended used of the processor's time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="the text, one file")
    parser.add_argument("--torch-python", type=Path, required=True, help="a Python that has PyTorch")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each system (%(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of PyTorch's training (%(default)s)")
    parser.add_argument("--our-steps", type=int, default=OUR_STEPS, help="of ours (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="let PyTorch compile its model (needs a C++ compiler)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures")
    options = parser.parse_args()
    console = Console()
    text = options.text.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    found: dict[str, list[dict]] = {OURS: [], PEER: []}
    for seed in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            files = [folder / "train.txt", folder / "validation.txt"]
            for file, part in zip(files, (text[:cut], text[cut:]), strict=True):
                file.write_text(part, encoding="utf-8")
            found[OURS].append(train_ours(folder, files, seed, options.our_steps))
            found[PEER].append(train_peer(options.torch_python, files, seed, options.steps, options.compile))
        for name, rounds in found.items():
            last = rounds[-1]
            console.print(f"round {seed + 1}: {name}: loss {last['loss']:.4f}, {last['seconds']:.0f} s")
    report(console, found, options)


def report(console: Console, found: dict[str, list[dict]], options: argparse.Namespace) -> None:
    """Prints the medians and writes all figures into `language_model.json`."""
    steps = {OURS: options.our_steps, PEER: options.steps}
    title = f"Steps of {BATCH} windows of {LENGTH} characters: {options.rounds} rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("system")
    for column in ("steps", "validation loss", "seconds", "in the steps", "of the processor", "time / ours"):
        table.add_column(column, justify="right")
    ours = np.array([each["seconds"] for each in found[OURS]])
    for name, rounds in found.items():
        keys = "loss", "seconds", "training_seconds", "processor_seconds"
        loss, *times = (float(np.median([each[key] for each in rounds])) for key in keys)
        ratio = float(np.median(np.array([each["seconds"] for each in rounds]) / ours))
        table.add_row(name, f"{steps[name]}", f"{loss:.4f}", *(f"{seconds:.0f}" for seconds in times), f"{ratio:.2f}")
    console.print(table)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "language_model.json"
    content = {"machine": machine(), "recipe": RECIPE, "peer": USUAL, "steps": steps, "rounds": found}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"wrote {file}")


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
