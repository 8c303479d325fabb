"""The systems' side of a comparison: reads the case, waits for turns, answers with figures.

Every system of `side_by_side.py` runs it, whatever its framework and interpreter: it needs NumPy and nothing
else. The conversation is one JSON object a line on standard output: a greeting, then an answer to each
line `run <steps>` on standard input.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def read_case(directory: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What all systems are given alike: settings, initial weights by name, batches (steps, ...) by name."""
    folder = Path(directory)
    weights, batches = (dict(np.load(folder / f"{name}.npz")) for name in ("weights", "batches"))
    return json.loads((folder / "settings.json").read_text()), weights, batches


def serve(run: Callable[[int], tuple[float, dict]], parameters: int, versions: dict[str, str]) -> None:
    """Greets, and then takes as many steps as each line asks for, until standard input ends.

    Args:
        run: takes a number of steps and works on that many first batches. Returns the seconds this took,
            and further figures to answer with.
        parameters: how many the model has.
        versions: of the software in use.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer

    def answer(content: dict) -> None:
        print(json.dumps(content), file=answers, flush=True)

    answer({"parameters": parameters, "versions": versions})
    for line in sys.stdin:
        seconds, figures = run(int(line.removeprefix("run ")))
        answer({"seconds": seconds, **figures})
