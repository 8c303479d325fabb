"""Writes the tables of README.md and docs/benchmarks.md anew from benchmarks/results/.

    python benchmarks/tables.py           # after a benchmark was run
    python benchmarks/tables.py --check   # exits with 1 where a table is not what the results say

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, NAME being one of `TABLES`. None of its figures is
typed.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from side_by_side import RESULTS, ROOT

PAGES = ("README.md", "docs/benchmarks.md")
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STEPS = ("training_step", "training_step_image", "training_step_speech", "training_step_nlp")


def works(*names: str) -> list[tuple[str, list[dict]]]:
    """The rows of some results by the work they are about, in their order."""
    rows = [row for name in names for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]]
    return [(work, list(rows)) for work, rows in groupby(rows, lambda row: row["work"])]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, whose first column is words and all others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(row: dict) -> str:
    """The time over ours, with the lowest and the highest round."""
    low, high = row["ratio_range"]
    return f"{row['ratio']:.2f}" if low == high else f"{row['ratio']:.2f} ({low:.2f}–{high:.2f})"


def sections(*names: str) -> str:
    """A table a work: milliseconds, and time over ours."""
    parts = []
    for work, rows in works(*names):
        figures = [(row["system"], digits(row["value"]), ratio(row)) for row in rows]
        parts.append(f"{work[0].upper()}{work[1:]}:\n\n{markdown(('', 'ms', 'time over ours'), figures)}")
    return "\n\n".join(parts)


def training_steps() -> str:
    """A line a model: the faster of ours, and times over that."""
    lines = []
    for work, rows in works(*STEPS):
        systems = {row["system"]: row for row in rows}
        ours, keras = (min((r for r in rows if name in r["system"]), key=time) for name in ("espalier", "Keras"))
        others = (keras, systems["PyTorch, eager"], systems["PyTorch, torch.compile"])
        over = [f"{row['ratio'] / ours['ratio']:.2f}" for row in others]
        jit = "no" if "no XLA" in ours["system"] else "yes"
        lines.append((work.replace(", one training step", ""), digits(ours["value"]), jit, *over))
    peers = "best of stock Keras `fit`", "PyTorch, eager", "`torch.compile`"
    return markdown(("a training step of", "ours, ms", "XLA", *(f"{name}, times ours" for name in peers)), lines)


def time(row: dict) -> float:
    return row["value"]


def decoding() -> str:
    """A line a system, a column a combination: tokens a second, and time over ours."""
    found = works("decoding")
    head = ["tokens/s; time over ours", *(", ".join(work.split(", ")[1:3]) for work, _ in found)]
    systems = zip(*(rows for _, rows in found), strict=True)
    return markdown(
        head, [[row[0]["system"], *(f"{r['tokens_per_second']:,}; {ratio(r)}" for r in row)] for row in systems]
    )


def replicas() -> str:
    """A line an app, a column a way of dividing: time over one replica, and the share in all-reduce."""
    found = [(work, rows) for work, rows in works("replicas") if "all_reduce" in rows[0]]
    head = ["time over one replica; share in all-reduce", "ms of one", *(row["system"] for row in found[0][1][1:])]
    lines = []
    for work, (alone, *others) in found:
        shares = [f"{row['ratio']:.2f}; {row['all_reduce']:.0%}" for row in others]
        lines.append([work, digits(alone["value"]), *shares])
    return markdown(head, lines)


def input_pipeline() -> str:
    """A line an app: examples a second of input alone and of training, and what a step waits."""
    lines = []
    for work, (_, later, training) in works("input_pipeline"):
        speeds = [f"{row['value']:,.0f}" for row in (later, training)]
        start = f"{later['start_seconds']:.2f} s, {later['start_share_of_an_epoch']:.1%}"
        waits = f"{training['input_wait']:.1%}"
        lines.append([work, *speeds, f"{later['ratio']:.1f}", waits, f"{later['share_of_the_cores']:.1%}", start])
    speeds = "input alone, examples/s", "training, examples/s", "ratio"
    return markdown(["", *speeds, "a step waits", "of the cores", "an epoch's start"], lines)


def growth() -> str:
    """A line a series and figure: values at each size, and the exponents."""
    lines = []
    for work, rows in works("growth"):
        for unit, points in groupby(rows, lambda row: row["unit"]):
            points = list(points)
            pairs = ", ".join(f"{digits(row['size'])}: {digits(row['value'])}" for row in points)
            slopes = (points[0][name] for name in ("exponent", "exponent_at_the_end"))
            lines.append([work, unit, pairs, *("–" if slope is None else f"{slope:.2f}" for slope in slopes)])
    return markdown(["", "", "size: value", "exponent", "between the last two"], lines)


def start_up() -> str:
    """A line a command: seconds as seen from outside, and its phases."""
    lines = []
    for work, (outside, *phases) in works("start_up"):
        parts = ", ".join(f"{row['system']} {row['value']:.1f}" for row in phases)
        lines.append([work, f"{outside['value']:.1f}", parts])
    return markdown(["", "seconds", "from inside"], lines)


def time_to_quality() -> str:
    """A line a set: minutes until a validation reached the target, minutes in all, and the test quality as stated."""
    lines = []
    for work, (to_target, in_all, test) in works("time_to_quality"):
        name, command = work.split(": ", 1)
        goal = f"{to_target['metric']} {to_target['target']:g}"
        minutes = "never" if to_target["value"] is None else f"{to_target['value']:.1f}"
        stated = "–" if test["stated"] is None else f"{test['stated']:.4g}"
        flags = command.split("train", 1)[1].strip()
        lines.append([f"{name}<br>`{flags}`" if flags else name, goal, minutes, f"{in_all['value']:.1f}", stated])
    return markdown(["", "target on validation", "minutes to it", "in all", "test"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "training_steps": training_steps,
    "all_training_steps": lambda: sections(*STEPS),
    "recurrent": lambda: sections("recurrent"),
    "decoding": decoding,
    "replicas": replicas,
    "input_pipeline": input_pipeline,
    "growth": growth,
    "start_up": start_up,
    "time_to_quality": time_to_quality,
}


def written(text: str) -> str:
    """A page with all its tables anew."""
    return PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is not as it should be")
    options = parser.parse_args()
    for page in (ROOT / name for name in PAGES):
        before = page.read_text(encoding="utf-8")
        after = written(before)
        if options.check and after != before:
            sys.exit(f"{page.name}: tables are not what the results say; run python benchmarks/tables.py")
        Path(page).write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
