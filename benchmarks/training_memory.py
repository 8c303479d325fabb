"""Peak memory and speed of training a larger translate model: as it is, and by each way of saving memory.

    python benchmarks/training_memory.py

Each way is a process of its own that trains some steps on random tokens. `activations` is its peak resident memory
above that of a process that trained the same model on one row of four tokens: weights, optimizer and TensorFlow itself
need that much anyway. Speed is that of the fastest step, since the machine may be busy.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from processes import SystemFailed, run
from results_files import RESULTS, bars, refuse_to_lose, save, versions
from rich.console import Console
from rich.progress import track
from rich.table import Table

WAYS = {
    "plain": {},
    "--remat": {"remat": True},
    "--accumulate 4": {"accumulate": 4},
    "--remat --accumulate 4": {"remat": True, "accumulate": 4},
    "--precision mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "--precision mixed_bfloat16 --remat": {"precision": "mixed_bfloat16", "remat": True},
}
VOCABULARY = 4000
NAME = "training_memory"


def train(way: str, jit: bool, layers: int, batch_size: int, length: int, steps: int) -> dict:
    """Trains in this process. Returns its peak memory in MB and the seconds of the fastest step."""
    import keras
    import tensorflow as tf

    from apps.translate.config import ModelConfig, TranslateConfig
    from apps.translate.model import TranslationTransformer
    from apps.translate.task import TranslateTask
    from pipelines.training.optimizer import make_optimizer
    from pipelines.training.step import TrainStep

    settings = WAYS[way]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(settings.get("precision", "float32"))
    config = TranslateConfig()
    sizes = TranslateConfig.sizes["small"] | {"encoder_layers": layers, "decoder_layers": layers}
    remat = settings.get("remat", False)
    model = TranslationTransformer.from_settings(ModelConfig(**sizes), VOCABULARY, 2, remat)
    batch = {
        name: tf.random.stateless_uniform([batch_size, length], [1, seed], 3, VOCABULARY, tf.int32)
        for seed, name in enumerate(("source", "target"))
    }
    spec = {name: tf.TensorSpec([batch_size, None], tf.int32) for name in batch}
    optimizer = make_optimizer(config.optimizer, model, 100)
    accumulate = settings.get("accumulate", 1)
    task = TranslateTask(config, run=None)  # only its loss and metrics are asked for
    step = TrainStep(model, task, optimizer, config.optimizer, spec, jit, accumulate=accumulate)
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        loss = float(step(batch)["sums"]["loss"][0])
        seconds.append(time.perf_counter() - begin)
    assert loss > 0
    return {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": min(seconds[1:], default=seconds[0]),
        "parameters": model.count_params(),
    }


def measure(*arguments) -> dict:
    """`train` in a process of its own.

    Raises:
        SystemFailed: it ended with an error.
    """
    return run(__file__, "--one", json.dumps(arguments), name=str(arguments)).answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6, help="of encoder and of decoder, 256 wide (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences (%(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens of source and target (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="training steps of each way (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(*json.loads(options.one))))
        return

    console, rows = Console(), []
    work = f"translate, {options.layers}+{options.layers} layers of 256, batch {options.batch_size} × {options.length}"
    refuse_to_lose(NAME, [work], options.output)
    pairs = [(jit, way) for jit in (False, True) for way in WAYS]
    floors = {jit: measure("plain", jit, options.layers, 1, 4, 2) for jit in (False, True)}
    table = Table(title=f"{work}, {floors[True]['parameters']:,} parameters", title_justify="left")
    for column in ("XLA", "way", "peak MB", "activations MB", "of plain", "tokens/s", "of plain"):
        table.add_column(column, justify="left" if column in ("XLA", "way") else "right")
    plain = {}
    for jit, way in track(pairs, "training", console=Console(stderr=True)):
        found = measure(way, jit, options.layers, options.batch_size, options.length, options.steps)
        activations = found["peak"] - floors[jit]["peak"]
        speed = options.batch_size * options.length / found["seconds"]
        plain.setdefault(jit, (activations, speed))
        ratios = activations / plain[jit][0], speed / plain[jit][1]
        system = f"{way}, {'XLA' if jit else 'no XLA'}"
        rows += [
            {"work": work, "system": system, "value": round(found["peak"]), "unit": "MB peak", "ratio": None},
            {
                "work": work,
                "system": system,
                "value": round(activations),
                "unit": "MB of activations",
                "ratio": round(ratios[0], 3),
            },
            {"work": work, "system": system, "value": round(speed), "unit": "tokens/s", "ratio": round(ratios[1], 3)},
        ]
        figures = (
            f"{found['peak']:,.0f}",
            f"{activations:,.0f}",
            f"{ratios[0]:.2f}",
            f"{speed:,.0f}",
            f"{ratios[1]:.2f}",
        )
        table.add_row("on" if jit else "off", way, *figures)
    console.print(table)
    save(NAME, rows, options.output, versions(), bars(rows), steps=options.steps)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
