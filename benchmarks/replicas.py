"""A training step of the translate model (size tiny) on 1, 2 and 4 replicas of one machine, side by side.

    python benchmarks/replicas.py --rounds 10 --steps 5

The global batch is the same everywhere, so more replicas have fewer rows each. On one machine they share its cores:
this shows what distribution costs, not what more machines would gain. `all-reduce` is the share of a step spent
adding gradients up, waiting for the slowest replica included.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from cases.case import write_case
from cases.translate import BATCH, LENGTH, SETTINGS, make_batches, make_weights
from side_by_side import Comparison, System, SystemFailed, Workers, command_line, report

OURS = "1 replica"


def systems(case: Path) -> list[System]:
    def system(name, kind, count):
        threads = str(max(1, os.cpu_count() // count)) if kind == "multi_worker" else str(os.cpu_count())
        environment = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        command = [sys.executable, "-m", "benchmarks.peers.espalier_replicas", case, kind, count]
        return System(name, command, environment)

    return [
        system(OURS, "none", 1),
        system("2 mirrored devices", "mirrored", 2),
        system("2 workers", "multi_worker", 2),
        system("4 workers", "multi_worker", 4),
    ]


def main() -> None:
    options = command_line(__doc__, "training steps").parse_args()
    batches = make_batches(SETTINGS, options.steps)
    with tempfile.TemporaryDirectory() as directory:
        case = Path(directory) / "case"
        write_case(case, SETTINGS, batches, make_weights(SETTINGS))
        with Workers(systems(case)) as workers:
            versions = workers.versions
            answers = workers.interleave(options.rounds, options.steps)
    comparison = Comparison(
        work=f"translate tiny, one training step, global batch {BATCH} × {LENGTH}, XLA",
        answers=answers,
        ours=OURS,
        amount=np.count_nonzero(batches["target"]) / options.steps,
        unit="tokens",
        versions=versions,
        shares=("all_reduce",),
    )
    report("replicas", [comparison], options.output)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
