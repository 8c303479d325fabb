"""Writes the tables of README.md, docs/benchmarks.md and docs/scaling.md anew from benchmarks/results/.

    python benchmarks/tables.py                      # after a benchmark was run
    python benchmarks/tables.py docs/benchmarks.md   # of this page alone
    python benchmarks/tables.py --check              # exits with 1 where a table is not what the results say

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, NAME being one of `TABLES`. None of its figures is
typed.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import groupby

import scaling_plan
from processes import ROOT
from results_files import RESULTS, digits, markdown, ratio, works

PAGES = ("README.md", "docs/benchmarks.md", "docs/scaling.md")
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
STEPS = ("training_step", "training_step_image", "training_step_speech", "training_step_nlp")
NOT_YET = "Not measured yet: `{}`."


def over(rows: Sequence[dict]) -> str:
    """What the rows' ratios are to: the system whose ratio is 1 in every round."""
    return next(row["system"] for row in rows if row["ratio_range"] == [1, 1])


def sections(*names: str) -> str:
    """A table a work: milliseconds, and time over that of one system."""
    parts = []
    for work, rows in works(*names):
        figures = [(row["system"], digits(row["value"]), ratio(row)) for row in rows]
        parts.append(titled(work, markdown(("", "ms", f"time over {over(rows)}"), figures)))
    return "\n\n".join(parts)


def titled(work: str, table: str) -> str:
    return f"{work[0].upper()}{work[1:]}:\n\n{table}"


def training_steps() -> str:
    """A line a model: the faster of ours, and times over that; and over the faster of those in one call."""
    lines = []
    for work, rows in works(*STEPS):
        systems = {row["system"]: row for row in rows}
        one_call = [row for row in rows if row["system"].endswith("one call")]
        ours = min((row for row in rows if "espalier" in row["system"] and row not in one_call), key=time)
        keras = min((row for row in rows if "Keras" in row["system"]), key=time)
        others = (keras, systems["PyTorch, eager"], systems["PyTorch, torch.compile"])
        jit = "no" if "no XLA" in ours["system"] else "yes"
        figures = [divided(row, ours) for row in others] + [divided(keras, min(one_call, key=time))]
        lines.append((work.replace(", one training step", ""), digits(ours["value"]), jit, *figures))
    peers = "best of stock Keras `fit`", "PyTorch, eager", "`torch.compile`"
    columns = [f"{name}, times ours" for name in peers] + ["`fit`, times ours, five steps in a call each"]
    return markdown(("a training step of", "ours, ms", "XLA", *columns), lines)


def divided(row: dict, base: dict) -> str:
    """Time over that of another row, within each round; of results that have no rounds, what they have."""
    if "rounds" in row and "rounds" in base:
        ratios = [a / b for a, b in zip(row["rounds"], base["rounds"], strict=True)]
        return ratio({"ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]})
    if base["ratio_range"] == [1, 1]:  # what all ratios are to
        return ratio(row)
    return f"{row['ratio'] / base['ratio']:.2f}"


def time(row: dict) -> float:
    return row["value"]


def decoding() -> str:
    """A line a system, a column a combination: tokens a second, and time over that of one system."""
    found = works("decoding")
    head = [f"tokens/s; time over {over(found[0][1])}", *(", ".join(work.split(", ")[1:3]) for work, _ in found)]
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
        shares = [f"{ratio(row)}; {row['all_reduce']:.0%}" for row in others]
        lines.append([work, digits(alone["value"]), *shares])
    return markdown(head, lines)


def input_pipeline() -> str:
    """A line an app: examples a second of input alone and of training, and what a step waits."""
    lines = []
    for work, (_, later, training) in works("input_pipeline"):
        speeds = [f"{row['value']:,.0f}" for row in (later, training)]
        waited = training.get("waited_seconds_at_an_epochs_start")
        start = f"{later['start_seconds']:.2f} s", "–" if waited is None else f"{waited:.3f} s"
        waits = f"{training['input_wait']:.1%}"
        lines.append([work, *speeds, f"{later['ratio']:.1f}", waits, f"{later['share_of_the_cores']:.1%}", *start])
    speeds = "input alone, examples/s", "training, examples/s", "ratio"
    return markdown(["", *speeds, "a step waits", "of the cores", "an epoch's start", "of which waited for"], lines)


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
    """A line a set: minutes until a validation reached the target, minutes in all, and the quality on the test split,
    marked where it was evaluated with other options than the README's figure."""
    lines, marked = [], False
    validations = json.loads((RESULTS / "time_to_quality.json").read_text("utf-8"))["validations"]
    for work, (to_target, in_all, test) in works("time_to_quality"):
        name, command = work.split(": ", 1)
        goal = f"{to_target['metric']} {to_target['target']:g}"
        minutes = "never" if to_target["value"] is None else f"{to_target['value']:.1f}"
        quality = "–" if test["value"] is None else f"{test['value']:.4g}"
        if test["value"] is not None and not test["evaluated_as_stated"]:
            quality, marked = f"{quality} *", True
        flags = command.split("train", 1)[1].strip()
        name_and_flags = f"{name}<br>`{flags}`" if flags else name
        lines.append([name_and_flags, goal, minutes, f"{in_all['value']:.1f}", str(len(validations[name])), quality])
    note = "\n\n\\* evaluated with other options than the README's figure of that set." if marked else ""
    return markdown(["", "target on validation", "minutes to it", "in all", "validations", "test"], lines) + note


def endurance() -> str:
    """A line a measure of the training and of the server under load."""
    lines = []
    for work, rows in works("endurance_train", "endurance_serve"):
        about = f"{work}, {rows[0]['minutes']:.3g} minutes"
        for row in rows:
            unit = " MB" if row["unit"] == "MB" else ""
            figures = (f"{digits(row[key])}{unit}" for key in ("early", "value"))
            lines.append([about, row["system"], *figures, f"{row['growth_percent']:+.2f} %"])
    head = ["work", "measure", "after a fifth", "at the end", "growth"]
    return markdown(head, lines, words=2) if lines else NOT_YET.format("python benchmarks/endurance.py train|serve")


def training_memory() -> str:
    """A line a way of saving memory, with and without XLA."""
    parts = []
    for work, rows in works("training_memory"):
        lines = []
        for system, figures in groupby(rows, lambda row: row["system"]):
            peak, activations, speed = figures
            way, jit = system.rsplit(", ", 1)
            name = f"`{way}`" if way.startswith("--") else way
            compared = (f"{digits(row['value'])}; {row['ratio']:.2f}" for row in (activations, speed))
            lines.append([name, jit, digits(peak["value"]), *compared])
        head = ["", "", "peak MB", "of it activations; over plain", "tokens/s; over plain"]
        parts.append(titled(work, markdown(head, lines, words=2)))
    return "\n\n".join(parts)


def serving() -> str:
    """What a request costs, what batches gain, and what clients see when things change or go wrong."""
    parts = []
    for work, rows in works("serving_latency"):
        lines = []
        for row in rows:
            low, high = row["more_ms_range"]
            more = f"{row['more_ms']:.2f} ({low:.2f}–{high:.2f})" if high > 0 else "–"
            lines.append([row["system"], f"{row['value']:.2f}", more])
        parts.append(titled(work, markdown(["", "median, ms", "more than in the process, ms"], lines)))
    lines = []
    for work, rows in works("serving_batching"):
        for row in rows:
            latencies = (digits(row[key]) for key in ("p50_ms", "p99_ms"))
            lines.append([work, row["system"], digits(row["value"]), *latencies, ratio(row)])
    if lines:
        head = ["", "server", "requests/s", "median, ms", "99 of 100 within, ms", "requests/s over one by one"]
        parts.append(markdown(head, lines, words=2))
    lines = []
    for work, rows in works("serving_switch", "serving_kill", "serving_memory"):
        if rows[0]["unit"] == "requests":
            found = ", ".join(f"{row['value']:,} {row['system']}" for row in rows)
        else:
            found = ", ".join(f"{row['value']:,.1f} MB {row['system']}" for row in (rows[0], rows[-1]))
        lines.append([work, found])
    if lines:
        parts.append(markdown(["", "requests, or resident memory"], lines, words=2))
    return "\n\n".join(parts)


def large_models() -> str:
    """A line a means of training, and a line an export, of each size that was measured."""
    parts = []
    for work, rows in works("large_models_small", "large_models_base"):
        lines = []
        for system, figures in groupby(rows, lambda row: row["system"]):
            figures = list(figures)
            values = [f"{r['value']:.3f}" if r["unit"].startswith("nats") else digits(r["value"]) for r in figures]
            first = figures[0]
            counts = [f"{first[key]:,}" for key in ("parameters", "trained") if key in first]
            lines.append([system, *counts, *values])
        counted = ["parameters", "trained"] if "parameters" in rows[0] else []
        parts.append(titled(work, markdown(["", *counted, *(row["unit"] for row in rows[:3])], lines)))
    return "\n\n".join(parts)


def language_model() -> str:
    """A line a system: what it reached, and what that took."""
    parts = []
    for work, rows in works("language_model"):
        by_system = {name: [row for row in rows if row["system"] == name] for name in {r["system"]: 0 for r in rows}}
        lines = []
        for name, (loss, *times) in by_system.items():
            spread = [f"{loss['value']:.3f} ({loss['range'][0]:.3f}–{loss['range'][1]:.3f})"]
            spread += [f"{digits(r['value'])} ({digits(r['range'][0])}–{digits(r['range'][1])})" for r in times]
            lines.append([name, *spread, ratio(times[0])])
        first = next(iter(by_system.values()))
        head = ["", *(row["unit"] for row in first), f"s over {first[0]['system']}"]
        parts.append(titled(work, markdown(head, lines)))
    return "\n\n".join(parts)


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
    "endurance": endurance,
    "training_memory": training_memory,
    "serving": serving,
    "large_models": large_models,
    "language_model": language_model,
    "workers": scaling_plan.workers,
}


def written(text: str) -> str:
    """A page with all its tables anew."""
    return PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is not as it should be")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)} (all)")
    options = parser.parse_args()
    if unknown := set(options.pages) - set(PAGES):
        parser.error(f"no tables in {', '.join(sorted(unknown))}; they are in {', '.join(PAGES)}")
    for page in (ROOT / name for name in options.pages or PAGES):
        before = page.read_text(encoding="utf-8")
        after = written(before)
        if options.check and after != before:
            sys.exit(f"{page.name}: tables are not what the results say; run python benchmarks/tables.py")
        if after != before:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
