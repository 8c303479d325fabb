"""Speed of LSTM and GRU in Espalier, stock Keras and PyTorch: forward, and forward with all gradients.

    python benchmarks/recurrent.py --rounds 10 --steps 5 --torch-python PATH

All systems have the same weights and see the same batches, none of them padded, of three shapes; the loss is the mean
square of the outputs of all steps, and the gradients are those of weights and inputs. Before anything is timed, loss
and gradients' norms must be equal in all of them. PATH is a Python that has PyTorch (docs/benchmarks.md).
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
from cases.case import TORCH_THREADS, write_case
from rich.console import Console
from side_by_side import Comparison, System, SystemFailed, Workers, command_line, report

OURS = "espalier"
SHAPES = [(32, 200, 256), (64, 50, 128), (8, 1000, 256)]  # rows, steps, units; inputs are as wide as units
GATES = {"LSTM": 4, "GRU": 3}
TOLERANCE = 1e-4  # of losses and norms, relative


def make_case(folder: Path, layer: str, shape: tuple[int, int, int], backward: bool, steps: int) -> None:
    """Writes weights, in Keras' layout, and inputs."""
    rng = np.random.default_rng(1)
    rows, length, units = shape
    width = GATES[layer] * units
    limit = (3 / units) ** 0.5
    weights = {name: rng.uniform(-limit, limit, (units, width)) for name in ("kernel", "recurrent_kernel")}
    weights["bias"] = rng.normal(0, 0.1, (2, width) if layer == "GRU" else width)
    inputs = rng.normal(size=(steps, rows, length, units)).astype("float32")
    settings = {"layer": layer, "units": units, "backward": backward}
    write_case(folder, settings, {"inputs": inputs}, {name: each.astype("float32") for name, each in weights.items()})


def systems(case: Path, torch_python: Path | None) -> list[System]:
    """Everything that is compared, on the case in that folder."""

    def tensorflow(name, *arguments):
        return System(name, [sys.executable, "-m", "benchmarks.peers.recurrent_tensorflow", case, *arguments])

    found = [
        tensorflow(OURS, "espalier", "off"),
        tensorflow("espalier, XLA", "espalier", "on"),
        tensorflow("stock Keras", "keras", "off"),
        tensorflow("stock Keras, XLA", "keras", "on"),
    ]
    if torch_python:
        found.append(System("PyTorch", [torch_python, "-m", "benchmarks.peers.recurrent_torch", case], TORCH_THREADS))
    return found


def check(workers: Workers) -> None:
    """Takes a step in each system.

    Raises:
        SystemFailed: loss or a gradient's norm differs.
    """
    answers = workers.run(1)
    expected = [answers[OURS]["loss"], *answers[OURS]["norms"]]
    for name, answer in answers.items():
        found = [answer["loss"], *answer["norms"]]
        if not np.allclose(found, expected, rtol=TOLERANCE):
            raise SystemFailed(f"{name}: loss and norms of the gradients are {found}, {OURS} has {expected}")


def main() -> None:
    parser = command_line(__doc__, "passes")
    parser.add_argument("--torch-python", type=Path, help="a Python that has PyTorch; without it PyTorch is left out")
    options = parser.parse_args()
    if options.torch_python is None:
        Console().print("no --torch-python given: PyTorch is left out")
    comparisons = []
    with tempfile.TemporaryDirectory() as directory:
        for number, (layer, shape, backward) in enumerate(itertools.product(GATES, SHAPES, (False, True))):
            case = Path(directory) / str(number)
            make_case(case, layer, shape, backward, options.steps)
            with Workers(systems(case, options.torch_python)) as workers:
                check(workers)
                answers = workers.interleave(options.rounds, options.steps)
                versions = workers.versions
            rows, length, units = shape
            passes = "forward and backward" if backward else "forward"
            comparisons.append(
                Comparison(
                    work=f"{layer}, {rows} × {length} steps × {units} units, {passes}",
                    answers=answers,
                    ours=OURS,
                    amount=rows * length,
                    unit="steps",
                    versions=versions,
                )
            )
    report("recurrent", comparisons, options.output)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
