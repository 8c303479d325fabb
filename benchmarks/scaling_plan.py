"""A plan, computed and not measured: what training would take on 1 to 1000 accelerators, by data parallelism.

    python benchmarks/scaling_plan.py --teraflops 312 --utilisation 0.4 --within 300 --between 25 --latency 20

First what was measured on one machine (`results/replicas.json`, written by replicas.py), beside what the formula makes
of it. Then, for three models, steps, hours, memory and failures by `scaling_formulas.py`, for hardware that the flags
describe: all of that is assumed. docs/scaling.md explains the columns.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure
from results_files import RESULTS, markdown, save
from rich.console import Console
from rich.table import Table
from scaling_formulas import Hardware, models, plan


def plans(hardware: Hardware, options: argparse.Namespace) -> dict[str, list[dict]]:
    """The rows of each model, with how they compare with one device."""
    found = {}
    for model in models(options.critical_batch):
        alone, *rows = (
            plan(model, devices, hardware, options.tokens_per_device) for devices in (1, *sorted(set(options.devices)))
        )
        found[model.name] = rows
        for row in rows:
            row["efficiency"] = row["tokens_per_second"] / (row["devices"] * alone["tokens_per_second"])
            row["speed_up"] = alone["hours"] / row["hours"]
    return found


def measured(file: Path) -> tuple[dict, list[dict]]:
    """What `replicas.py` wrote, and of each measurement with several workers what the formula makes of it.

    On one machine computing is not divided: n workers share its cores. So a step on them should take as long as on one
    replica, and adding up gradients besides.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows = [row for row in content["rows"] if "reduce_ms" in row]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{file}: cannot be read ({error}); make it with: python benchmarks/replicas.py")
    alone = {row["app"]: row["value"] for row in rows if row["replicas"] == 1}
    found = []
    for row in rows:
        n = row["workers"]
        if n > 1 and row["app"] in alone:
            travelling = max(row["reduce_ms"] - row["message_ms"], 1e-3) / 1000
            found.append(
                {
                    "app": row["app"],
                    "workers": n,
                    "parameters": row["parameters"],
                    "reduced_bytes": row["reduced_bytes"],
                    "reduce_ms": row["reduce_ms"],
                    "latency_us": 1000 * row["message_ms"] / (2 * (n - 1)),
                    "gb_per_second": 2 * (n - 1) / n * row["reduced_bytes"] / travelling / 1e9,
                    "ratio": row["ratio"],
                    "ratio_by_formula": 1 + row["reduce_ms"] / alone[row["app"]],
                }
            )
    if not found:
        sys.exit(f"{file}: has no figures of several workers; make it anew with: python benchmarks/replicas.py")
    return content, found


def table(title: str, rows: list[dict], columns: dict[str, tuple[str, str]]) -> Table:
    """Rows for a terminal; columns: a field, its heading and its format."""
    made = Table(title=title, title_justify="left")
    for heading, _ in columns.values():
        made.add_column(heading, justify="right")
    for row in rows:
        made.add_row(*(format(row[field], how) for field, (_, how) in columns.items()))
    return made


def cells(rows: list[dict], columns: dict[str, tuple[str, str]]) -> str:
    """The same for a page of documentation."""
    lines = [[format(row[field], how) for field, (_, how) in columns.items()] for row in rows]
    return markdown([heading for heading, _ in columns.values()], lines, words=int("app" in columns))


def workers() -> str:
    """The measured part of docs/scaling.md."""
    return cells(measured(RESULTS / "replicas.json")[1], MEASURED)


STEP = {
    "devices": ("devices", ","), "batch_tokens": ("batch, tokens", ",.0f"), "tokens_per_device": ("of each", ",.0f"),
    "compute_ms": ("compute ms", ",.1f"), "update_ms": ("update ms", ",.1f"),
    "all_reduce_ms": ("all-reduce ms", ",.1f"), "step_ms": ("step ms", ",.1f"), "efficiency": ("efficiency", ".0%"),
    "rows_per_second": ("rows/s read", ",.0f"), "steps": ("steps", ",.0f"), "hours": ("hours", ",.1f"),
    "speed_up": ("speed-up", ",.1f"),
}  # fmt: skip
FAILURES = {
    "devices": ("devices", ","), "state_gb": ("GB of state on each", ",.2f"),
    "state_gb_sharded": ("optimizer sharded", ",.2f"), "hours_between_failures": ("hours to a failure", ",.0f"),
    "checkpoint_gb": ("checkpoint GB", ",.2f"), "checkpoint_write_seconds": ("s to write", ",.1f"),
    "checkpoint_read_seconds": ("all read it, s", ",.0f"),
    "checkpoint_interval_minutes": ("one every, min", ",.1f"), "lost": ("time lost", ".2%"),
}  # fmt: skip
MEASURED = {
    "app": ("app", ""), "workers": ("workers", ""), "parameters": ("parameters", ","),
    "reduced_bytes": ("bytes a step", ","), "reduce_ms": ("all-reduce ms", ",.1f"), "latency_us": ("µs a hop", ",.0f"),
    "gb_per_second": ("GB/s", ",.2f"), "ratio_by_formula": ("time / 1 replica: formula", ".2f"),
    "ratio": ("measured", ".2f"),
}  # fmt: skip


def draw(found: dict[str, list[dict]], hardware: Hardware) -> Figure:
    """Where the time of a step goes, and how much sooner training ends."""
    figure = Figure(figsize=(11, 2.6 * len(found) + 0.8), layout="constrained")
    for (bars, lines), (name, rows) in zip(figure.subplots(len(found), 2, squeeze=False), found.items(), strict=True):
        labels, left = [f"{row['devices']:,}" for row in rows], [0.0] * len(rows)
        for field, colour in (("compute_ms", "tab:green"), ("update_ms", "tab:olive"), ("all_reduce_ms", "tab:red")):
            share = [row[field] / row["step_ms"] for row in rows]
            bars.barh(labels, share, left=left, color=colour, label=field.removesuffix("_ms").replace("_", "-"))
            left = [a + b for a, b in zip(left, share, strict=True)]
        for index, row in enumerate(rows):
            bars.text(1.01, index, f"{row['step_ms']:,.0f} ms", va="center", fontsize=9)
        bars.invert_yaxis()
        bars.set_xlim(0, 1.2)
        bars.set_xticks([0, 0.25, 0.5, 0.75, 1])
        bars.set_title(f"{name}: share of a step", loc="left", fontsize=10)
        bars.set_ylabel("devices")
        devices = [row["devices"] for row in rows]
        lines.plot(devices, devices, color="lightgray", label="ideal")
        speeds = [row["devices"] * row["efficiency"] for row in rows]
        lines.plot(devices, speeds, "o-", color="tab:blue", label="tokens a second")
        lines.plot(devices, [row["speed_up"] for row in rows], "s-", color="tab:orange", label="to the same loss")
        lines.set(xscale="log", yscale="log", ylabel="times one device")
        lines.set_title(f"{name}: speed-up", loc="left", fontsize=10)
        for axes in (bars, lines):
            axes.spines[["top", "right"]].set_visible(False)
    bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=9)
    lines.legend(frameon=False, fontsize=9)
    lines.set_xlabel("devices")
    about = (
        f"{hardware.teraflops:g} teraflops at {hardware.utilisation:.0%}, {hardware.devices_per_node} devices a node, "
        f"{hardware.within:g} GB/s within and {hardware.between:g} between nodes, {hardware.latency:g} µs a hop"
    )
    figure.suptitle(f"computed, not measured: {about}", x=0.01, ha="left", fontsize=10)
    return figure


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 8, 64, 256, 1000], help="how many (%(default)s)")
    parser.add_argument("--tokens-per-device", type=float, default=16_384, help="in a step, at most (%(default)s)")
    parser.add_argument("--critical-batch", type=float, default=0, help="tokens; 0 takes each model's own assumption")
    for field in dataclasses.fields(Hardware):
        flag, words = f"--{field.name.replace('_', '-')}", f"{field.metadata['help']} (%(default)s)"
        kind = {"action": "store_true"} if field.type is bool else {"type": field.type}
        parser.add_argument(flag, default=field.default, help=words, **kind)
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown, as in docs/scaling.md")
    parser.add_argument("--replicas", type=Path, default=RESULTS / "replicas.json", help="what replicas.py wrote")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    return parser


def parse() -> tuple[argparse.Namespace, Hardware]:
    """The options, and of them the hardware; a value that no plan can be made of ends the program with one line."""
    parser = command_line()
    options = parser.parse_args()
    hardware = Hardware(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Hardware)})
    for name, value in vars(options).items():
        least = min(value) if isinstance(value, list) else value
        if isinstance(least, Path | bool):
            continue
        if least < 0 or (least == 0 and name not in ("critical_batch", "latency", "startup")):
            parser.error(f"--{name.replace('_', '-')} {least:g}: takes more than 0")
    return options, hardware


def main() -> None:
    options, hardware = parse()
    content, here = measured(options.replicas)
    console = Console()
    cpu = f"{content['machine']['cpu']}, {content['machine']['cores']} cores"
    show(console, f"measured: workers on one machine ({cpu}), over its loopback", here, MEASURED, options.markdown)
    found = plans(hardware, options)
    for model in models(options.critical_batch):
        title = f"computed: {model.name}, {model.parameters:,} parameters, {model.flops / 1e9:.2f} GFLOPs a token"
        for words, columns in ((f"{title}, {model.tokens:.2g} tokens", STEP), ("memory and failures", FAILURES)):
            show(console, words, found[model.name], columns, options.markdown)
    write(content, here, found, hardware, options)


def show(console: Console, title: str, rows: list[dict], columns: dict[str, tuple[str, str]], marked: bool) -> None:
    """Prints a table, as Markdown where that is asked for."""
    if marked:
        print(f"\n{title}\n\n{cells(rows, columns)}")
    else:
        console.print(table(title, rows, columns))


def write(
    content: dict, here: list[dict], found: dict[str, list[dict]], hardware: Hardware, options: argparse.Namespace
) -> None:
    """Writes `scaling_plan.json` and `scaling_plan.png`."""
    rows = [
        {"work": name, "system": f"{row['devices']} devices", "value": row["step_ms"], "unit": "ms"}
        | {"ratio": row["speed_up"], "kind": "computed"}
        | row
        for name, rows in found.items()
        for row in rows
    ]
    more = {
        "machine": content["machine"],
        "assumed": dataclasses.asdict(hardware) | {"tokens_per_device": options.tokens_per_device},
        "models": [dataclasses.asdict(model) for model in models(options.critical_batch)],
        "measured": here,
    }
    save("scaling_plan", rows, options.output, content["versions"], draw(found, hardware), **more)


if __name__ == "__main__":
    main()
