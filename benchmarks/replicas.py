"""A training step of every app on 1, 2 and 4 replicas of one machine, side by side, and what adding gradients up costs.

    python benchmarks/replicas.py --app translate speech --rounds 5 --steps 3

The global batch is the same everywhere, so more replicas have fewer rows each, and before anything is timed every way
has to give the same losses. On one machine replicas share its cores: this shows what distribution costs, not what more
machines would gain. `all-reduce` is the share of a step spent adding gradients up, waiting for the slowest replica
included; the last table says what that takes by itself, over this machine's own network, and what a step sends.
`reading` is no app: it times a worker of translate that reads and tokenises batches, alone and as one of eight, each of
which goes through all rows. `benchmarks/scaling_plan.py` reads the figures.
"""

import dataclasses
import os
import sys

import numpy as np
from rich.console import Console
from rich.table import Table
from side_by_side import Comparison, System, SystemFailed, Workers, command_line, report

APPS = ("translate", "image", "speech", "nlp", "language", "reading")
OURS = "1 replica"
PAIRS = 64  # in a batch that is read
TOLERANCE = 1e-4  # of losses, relative: a part of the rows takes other kernels, and steps add their rounding up


@dataclasses.dataclass(frozen=True)
class Replicas(Comparison):
    """A comparison whose systems also say what they add up, and how long that takes when nobody has to be waited for.

    Args:
        app: the one that trains.
    """

    app: str = ""

    def rows(self) -> list[dict]:
        return [row | {"app": self.app} | self._cost(row["system"]) for row in super().rows()]

    def _cost(self, system: str) -> dict:
        turns = self.answers[system]
        last = turns[-1]
        return {
            "replicas": int(system.split()[0]),
            "workers": int(system.split()[0]) if "worker" in system else 1,
            "parameters": last["parameters"],
            "reduced_bytes": last["reduced_bytes"],
            "reduce_ms": round(1000 * float(np.median([turn["sum_seconds"] for turn in turns])), 4),
            "message_ms": round(1000 * float(np.median([turn["message_seconds"] for turn in turns])), 4),
            "start_seconds": round(last["start_seconds"], 1),
        }


def costs(comparisons: list[Comparison]) -> Table:
    """What every step adds up, and how long that takes by itself."""
    table = Table(title="adding gradients up, by itself", title_justify="left")
    table.add_column("work")
    table.add_column("system")
    for column in ("parameters", "MB a step", "ms", "GB/s each way", "ms for one number"):
        table.add_column(column, justify="right")
    for comparison in comparisons:
        for row in comparison.rows():
            if row.get("replicas", 1) > 1:
                table.add_row(
                    row["app"], row["system"], f"{row['parameters']:,}", f"{row['reduced_bytes'] / 1e6:.2f}",
                    f"{row['reduce_ms']:.1f}", f"{ring_bandwidth(row):.2f}", f"{row['message_ms']:.2f}",
                )  # fmt: skip
    return table


def ring_bandwidth(row: dict) -> float:
    """GB/s that each replica sends (and receives) if gradients go round a ring: 2 (n - 1) / n of them, n replicas."""
    sent = 2 * (row["replicas"] - 1) / row["replicas"] * row["reduced_bytes"]
    return sent / (1e-3 * row["reduce_ms"]) / 1e9


def systems(app: str, workers: list[int], rows: int, steps: int, jit: str) -> list[System]:
    def system(name, kind, count):
        threads = str(max(1, os.cpu_count() // count)) if kind == "multi_worker" else str(os.cpu_count())
        environment = {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        command = [sys.executable, "-m", "benchmarks.peers.espalier_replicas", app, kind, count]
        return System(name, [*command, "--rows", rows, "--steps", steps, "--jit", jit], environment)

    return [
        system(OURS, "none", 1),
        system("2 mirrored devices", "mirrored", 2),
        *(system(f"{count} workers", "multi_worker", count) for count in workers),
    ]


def check(workers: Workers, app: str, steps: int) -> float:
    """Lets every system take the first steps from equal weights. Returns how far their losses are apart, relative.

    Raises:
        SystemFailed: too far.
    """
    losses = {name: np.array(answer["losses"]) for name, answer in workers.run(steps).items()}
    farthest = 0.0
    for name, values in losses.items():
        apart = float(np.max(np.abs(values / losses[OURS] - 1)))
        farthest = max(farthest, apart)
        if not apart <= TOLERANCE:
            shown = [", ".join(f"{loss:.6f}" for loss in each) for each in (values, losses[OURS])]
            raise SystemFailed(f"{app}, {name}: losses {shown[0]}; with {OURS} {shown[1]}")
    return farthest


def measure(app: str, options) -> tuple[Replicas, float]:
    """One app's figures, and how far the losses of its systems are apart."""
    with Workers(systems(app, options.workers, options.rows, options.steps, options.jit)) as workers:
        versions = workers.versions
        workers.common_size()
        apart = check(workers, app, options.steps)
        answers = workers.interleave(options.rounds, options.steps, warmup=1)
    about = answers[OURS][0]
    comparison = Replicas(
        work=f"{about['work']}, XLA {options.jit}",
        answers=answers,
        ours=OURS,
        amount=about["amount"],
        unit=about["unit"],
        versions=versions,
        shares=("all_reduce",),
        app=app,
    )
    return comparison, apart


def measure_reading(options) -> Comparison:
    """How long a worker takes for its rows of each batch, alone and where others take the rest."""
    ways = {"1 worker": (0, 1), "1 of 8 workers": (0, 8)}
    command = [sys.executable, "-m", "benchmarks.peers.espalier_input", str(PAIRS)]
    with Workers([System(name, [*command, *place]) for name, place in ways.items()]) as workers:
        # Long turns, since while it waits for one a worker reads some batches ahead.
        answers = workers.interleave(options.rounds, 100 * options.steps, warmup=1)
        versions = workers.versions
    work = f"reading, {PAIRS} pairs of translate's sample, checked, shuffled and tokenised"
    return Comparison(work, answers, next(iter(ways)), PAIRS, "rows", versions)


def main() -> None:
    parser = command_line(__doc__, "training steps", steps=3)
    parser.set_defaults(rounds=5)
    parser.add_argument("--app", nargs="+", choices=APPS, default=list(APPS), help="what to measure (all)")
    parser.add_argument("--workers", nargs="+", type=int, choices=[2, 4], default=[2, 4], help="processes (2 4)")
    parser.add_argument("--rows", type=int, default=0, help="of the global batch; 0 takes each app's own")
    parser.add_argument("--jit", choices=["on", "off"], default="off", help="XLA (%(default)s)")
    options = parser.parse_args()
    if options.steps < 2 or options.rounds < 1:
        parser.error("--steps takes a number from 2 on, --rounds from 1 on")
    if options.rows < 0 or options.rows % 4:
        parser.error(f"--rows {options.rows}: takes a multiple of 4, which all ways can divide")
    console, found = Console(), []
    for app in dict.fromkeys(options.app):
        if app == "reading":
            found.append(measure_reading(options))
            continue
        comparison, apart = measure(app, options)
        found.append(comparison)
        console.print(f"{app}: losses of {options.steps} steps agree to {apart:.1e}")
    report("replicas", found, options.output)
    if any(isinstance(comparison, Replicas) for comparison in found):
        console.print(costs(found))


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
