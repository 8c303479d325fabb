"""What makes a large language model fit and what that costs: memory, speed, quality and size of each means, in a table.

    python benchmarks/large_models.py --text FILE --size small --steps 40
    python benchmarks/large_models.py --text FILE --size base --steps 8 --batch-size 4 --held-out 4000

Each row is a process of the app's own `train` on the same text and as many steps, which alone is changed in one thing.
`memory` is the most that the process held; `tokens/s` is the median over the second half of the steps; `loss` is that
on the held-out end of the text. A model is then exported as it is and with --quantize int8: the loss again, the size of
the SavedModel, and the time of a request for 64 tokens, the two in turns.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path

from processes import SystemFailed, run
from results_files import RESULTS, bars, save, versions
from rich.console import Console
from rich.table import Table

REQUESTS = 5  # of each export, after one that is not counted
TRAINING, EXPORT = "language model {}: a training", "language model {}: an export"

# Each row's name, and what it changes.
MEANS = {
    "float32": [],
    "bfloat16": ["--precision=mixed_bfloat16"],
    "remat": ["--remat"],
    "4 gradients a step": ["--accumulate=4"],
    "all of these": ["--precision=mixed_bfloat16", "--remat", "--accumulate=4"],
    "LoRA, rank 8": ["--lora=8", "--init-from=FIRST"],
    "tiny": ["--size=tiny"],
    "tiny with a teacher": ["--size=tiny", "--teacher=FIRST"],
}

ASK = """
import json, sys, time
import tensorflow as tf, tensorflow_text
models = [tf.saved_model.load(folder) for folder in sys.argv[2:]]
def ask(model):
    begin = time.perf_counter()
    model.signatures["generate"](
        prompt=tf.constant(["The "]), max_tokens=tf.constant([64]), temperature=tf.constant([0.8]),
        seed=tf.constant([0], tf.int64))
    return time.perf_counter() - begin
[ask(model) for model in models]
print(json.dumps([[ask(model) for model in models] for _ in range(int(sys.argv[1]))]))
"""


def train(folder: Path, name: str, settings: dict, changes: list[str]) -> dict:
    """Trains one row's model. Returns its figures."""
    flags = [f"--{key}={value}" for key, value in settings.items()]
    changes = [change.replace("FIRST", str(folder / "float32")) for change in changes]
    directory = folder / name.replace(" ", "-")
    done = run("-m", "apps.nlp", "train", "--run-dir", directory, *flags, *changes)
    (count, trained) = re.search(r"([\d,]+) parameters(?:, ([\d,]+) of them trained)?", done.out).groups()
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    return {
        "parameters": int(count.replace(",", "")),
        "trained": int((trained or count).replace(",", "")),
        "memory_gib": done.megabytes / 1024,
        "tokens_per_second": statistics.median(speeds[len(speeds) // 2 :]),
        "loss": [row["val_loss"] for row in rows if "val_loss" in row][-1],
        "seconds": done.seconds,
    }


def export(folder: Path, kind: str) -> dict:
    """Writes the first row's model with weights of a kind. Returns the size, and the loss of such a model."""
    run_dir = folder / "float32"
    run("-m", "apps.nlp", "export", "--run-dir", run_dir, "--output", folder / kind, "--quantize", kind)
    run("-m", "apps.nlp", "evaluate", "--run-dir", run_dir, "--split", "validation", "--quantize", kind)
    files = (folder / kind).rglob("*")
    return {
        "megabytes": sum(file.stat().st_size for file in files if file.is_file()) / 1e6,
        "loss": json.loads((run_dir / "metrics.json").read_text())["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="the text, one file")
    parser.add_argument("--size", default="small", help="of the model (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="of each training (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="windows in a step (%(default)s)")
    parser.add_argument("--length", type=int, default=64, help="characters in a window (%(default)s)")
    parser.add_argument("--held-out", type=int, default=16_000, help="characters to measure on (%(default)s)")
    parser.add_argument("--rows", nargs="+", choices=list(MEANS), default=list(MEANS), help="which means")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    console = Console()
    text = options.text.read_text(encoding="utf-8")
    found, exports = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        files = {"train": folder / "train.txt", "validation": folder / "validation.txt"}
        for file, part in zip(files.values(), (text[: -options.held_out], text[-options.held_out :]), strict=True):
            file.write_text(part, encoding="utf-8")
        steps = options.steps
        settings = {
            "task": "generate", "units": "characters", "size": options.size, "jit": "on", "max-length": options.length,
            "batch-size": options.batch_size, "max-steps": steps, "validate-every": steps, "checkpoint-every": steps,
            "keep-checkpoints": 1, "model.dropout": 0, "optimizer.average-decay": 0, "optimizer.schedule": "cosine",
            "optimizer.learning-rate": 1e-3, "optimizer.warmup-steps": max(1, steps // 10), **files,
        }  # fmt: skip
        for name in dict.fromkeys(["float32", *options.rows]):
            found[name] = train(folder, name, settings, MEANS[name])
            console.print(f"{name}: {found[name]}")
        for kind in ("none", "int8"):
            exports[kind] = export(folder, kind)
        models = [folder / kind / "nlp" / "1" for kind in exports]
        pairs = run("-c", ASK, REQUESTS, *models, name="requests").answer
        for kind, seconds in zip(exports, zip(*pairs, strict=True), strict=True):
            exports[kind]["milliseconds"] = 1000 * statistics.median(seconds)
    settings = {name: getattr(options, name) for name in ("steps", "batch_size", "length", "held_out")}
    report(console, found, exports, options.size, settings, versions(), options.output)


def rows_of(size: str, found: dict[str, dict], exports: dict[str, dict]) -> list[dict]:
    """Three figures of each training, and of each export; `ratio` is that to the first."""
    rows = []
    kinds = {"none": "float32", "int8": "int8 weights"}
    for work, systems, units in (
        (TRAINING, found, {"memory_gib": "GiB", "tokens_per_second": "tokens/s", "loss": "nats a character"}),
        (EXPORT, {kinds[kind]: each for kind, each in exports.items()},
         {"megabytes": "MB", "loss": "nats a character", "milliseconds": "ms for 64 tokens"}),
    ):  # fmt: skip
        first = next(iter(systems.values()))
        for name, figures in systems.items():
            more = {key: figures[key] for key in ("parameters", "trained", "seconds") if key in figures}
            rows += [
                {"work": work.format(size), "system": name, "value": round(figures[key], 5), "unit": unit}
                | {"ratio": round(figures[key] / first[key], 3)}
                | more
                for key, unit in units.items()
            ]
    return rows


def report(
    console: Console, found: dict, exports: dict, size: str, settings: dict, versions: dict, directory: Path
) -> None:
    """Prints the tables, writes all figures into `large_models_SIZE.json` and draws them."""
    title = "{}: {steps} steps of {batch_size} windows of {length} characters".format(size, **settings)
    table = Table("", title=title, title_justify="left")
    for column in ("parameters", "trained", "memory, GiB", "tokens/s", "loss"):
        table.add_column(column, justify="right")
    for name, row in found.items():
        figures = f"{row['memory_gib']:.2f}", f"{row['tokens_per_second']:,.0f}", f"{row['loss']:.3f}"
        table.add_row(name, f"{row['parameters']:,}", f"{row['trained']:,}", *figures)
    console.print(table)
    table = Table("export", title="the first of them, exported", title_justify="left")
    for column in ("MB", "loss", "ms for 64 tokens"):
        table.add_column(column, justify="right")
    for kind, row in exports.items():
        name = {"none": "float32", "int8": "int8 weights"}[kind]
        table.add_row(name, f"{row['megabytes']:.1f}", f"{row['loss']:.4f}", f"{row['milliseconds']:.0f}")
    console.print(table)
    rows = rows_of(size, found, exports)
    save(f"large_models_{size}", rows, directory, versions, bars(rows), **settings)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
