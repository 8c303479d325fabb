"""What a benchmark leaves behind: `<name>.json` and a chart `<name>.png` beside it, in one format for all of them.

    {"machine": ..., "versions": ..., ..., "rows": [{"work": ..., "system": ..., "value": 1.5, "unit": "ms",
                                                    "ratio": ..., ...}, ...]}

`ratio` is null where there is nothing to compare with, `ratio_range` its lowest and highest round, and what else a row
has is the benchmark's own. `tables.py` makes the tables of the documentation from these files.
"""

import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure
from processes import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict:
    """What kind of machine this is. Says nothing of whose it is or what it is called."""
    cpu = platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1] if found else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system()}


def versions(*more: str) -> dict[str, str]:
    """Of Python, TensorFlow, Keras and further packages, known without importing them."""
    packages = ("tensorflow", "keras", "tensorflow-text", *more)
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def refuse_to_lose(name: str, works: Sequence[str], directory: Path) -> None:
    """Ends the program where `<name>.json` in benchmarks/results/ is about more than these works.

    `save` asks this too; asking before anything is measured saves the time.

    Raises:
        SystemExit: with one line that names what would be lost.
    """
    file = directory / f"{name}.json"
    if directory.resolve() != RESULTS.resolve() or not file.exists():
        return
    lost = {row["work"]: None for row in json.loads(file.read_text(encoding="utf-8"))["rows"]}
    lost = [work for work in lost if work not in works]
    if lost:
        others = f" and {len(lost) - 1} more" if lost[1:] else ""
        sys.exit(f"{file.name}: this run would lose {lost[0]}{others}; run everything, or give --output FOLDER")


def save(
    name: str,
    rows: Sequence[Mapping],
    directory: Path,
    versions: Mapping[str, str],
    figure: Figure,
    *,
    coming: Sequence[str] = (),
    **more,
) -> list[Path]:
    """Writes `<name>.json` and `<name>.png`, and says where they are. Returns the two files.

    Args:
        name: of the files.
        rows: as above.
        directory: is made if it is not there.
        versions: of the software that was measured.
        figure: the chart. Gets the kind of machine as its title, unless it has one.
        coming: works that this run has yet to measure.
        more: further parts of the file; `machine` where it is not this one.

    Raises:
        SystemExit: a file in benchmarks/results/ would lose works.
    """
    refuse_to_lose(name, [*(row["work"] for row in rows), *coming], directory)
    content = {"machine": machine(), "versions": dict(versions)} | more | {"rows": list(rows)}
    if not figure.get_suptitle():
        about = content["machine"]
        figure.suptitle(f"{about['cpu']}, {about['cores']} cores", x=0.01, ha="left", fontsize=10)
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / f"{name}.{kind}" for kind in ("json", "png")]
    files[0].write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    figure.savefig(files[1], dpi=120)
    for file in files:
        print(f"wrote {file}")
    return files


def bars(rows: Sequence[Mapping]) -> Figure:
    """A panel for each work and unit, and in it a bar a system, for benchmarks without a chart of their own."""
    panels = [
        (about, [row for row in rows if (row["work"], row["unit"]) == about and row["value"] is not None])
        for about in dict.fromkeys((row["work"], row["unit"]) for row in rows)
    ]
    heights = [1.2 + 0.35 * len(found) for _, found in panels]
    figure = Figure(figsize=(9, 0.4 + sum(heights)), layout="constrained")
    axes_of = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for ((work, unit), found), axes in zip(panels, axes_of, strict=True):
        for index, row in enumerate(found):
            axes.barh(index, row["value"], color="tab:gray" if index else "tab:green")
            axes.text(max(0, row["value"]), index, f"  {digits(row['value'])}{_compared(row)}", va="center", fontsize=9)
        axes.set_yticks(range(len(found)), [row["system"] for row in found])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * max([row["value"] for row in found], default=0) or 1)
        axes.set_title(work, loc="left", fontsize=10)
        axes.set_xlabel(unit, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _compared(row: Mapping) -> str:
    return "" if row["ratio"] in (None, 1) else f", {ratio(row)} ×"


def digits(value: float) -> str:
    """Three digits, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(row: Mapping) -> str:
    """With the lowest and the highest round, where rounds were compared."""
    low, high = row.get("ratio_range", (row["ratio"], row["ratio"]))
    return f"{row['ratio']:.2f}" if low == high else f"{row['ratio']:.2f} ({low:.2f}–{high:.2f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words, so many, and all others are figures."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def works(*names: str) -> list[tuple[str, list[dict]]]:
    """The rows of some results by the work they are about, in their order; of what was not measured, none."""
    files = [file for name in names if (file := RESULTS / f"{name}.json").exists()]
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]
    return [(work, list(rows)) for work, rows in groupby(rows, lambda row: row["work"])]
