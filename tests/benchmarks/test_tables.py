import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_pages_say_what_the_results_say():
    done = subprocess.run(
        [sys.executable, "benchmarks/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    readme, page = (ROOT / name for name in ("README.md", "docs/benchmarks.md"))
    assert "<!-- table: training_steps -->\n| a training step of" in readme.read_text()
    assert page.read_text().count("<!-- table: ") == page.read_text().count("<!-- end -->") > 4


@pytest.fixture
def tables(benchmark):
    return benchmark("tables")


def test_ratios_to_the_faster_of_ours_are_taken_within_rounds(tables):
    base = {"ratio": 0.5, "ratio_range": [0.4, 0.6], "rounds": [10.0, 20.0, 10.0]}
    row = {"ratio": 1.0, "ratio_range": [1.0, 1.0], "rounds": [20.0, 50.0, 30.0]}
    assert tables.divided(row, base) == "2.50 (2.00–3.00)"  # the ratio of the medians would be 3
    # Older results have no rounds: a spread is known of ratios to the system that all are compared with.
    old, old_base = ({name: each[name] for name in ("ratio", "ratio_range")} for each in (row, base))
    assert (tables.divided(old, old_base), tables.divided(old_base, old)) == ("2.00", "0.50 (0.40–0.60)")


def test_a_quality_found_with_other_options_is_marked(tables, monkeypatch):
    def rows(as_stated):
        test = {"value": 0.8151, "stated": 0.826, "evaluated_as_stated": as_stated}
        return [{"metric": "accuracy", "target": 0.8, "value": 2.0}, {"value": 3.0}, test]

    found = [("sst2: python -m apps.nlp train --dataset sst2", rows(as_stated=True))]
    monkeypatch.setattr(tables, "works", lambda *_: found)
    assert re.search(r"\| 2\.0 \| 3\.0 \| \d+ \| 0\.8151 \|", tables.time_to_quality())
    assert "*" not in tables.time_to_quality()
    found.append(("stsb: python -m apps.nlp train", rows(as_stated=False)))
    assert "| 0.8151 * |" in tables.time_to_quality() and "other options" in tables.time_to_quality().splitlines()[-1]


def test_long_runs_have_a_table_when_there_are_any(tables, monkeypatch):
    row = {"system": "resident memory", "unit": "MB", "early": 900.0, "value": 1000.0, "growth_percent": 11.1}
    monkeypatch.setattr(tables, "works", lambda *_: [])
    assert "|" not in tables.endurance().replace("train|serve", "")
    monkeypatch.setattr(tables, "works", lambda *_: [("translate train", [row | {"minutes": 30.0}])])
    assert "| translate train, 30 minutes | resident memory | 900 MB | 1,000 MB | +11.10 % |" in tables.endurance()


def test_a_changed_figure_is_found(tmp_path):
    for name in ("benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "README.md").write_text("<!-- table: decoding -->\n| nothing |\n<!-- end -->\n")
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import tables
tables.ROOT, tables.PAGES = pathlib.Path({str(tmp_path)!r}), ["README.md"]
tables.main()
"""

    def run(*flags):
        return subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)

    assert "tables are not what the results say" in run("--check").stderr
    assert run().returncode == 0
    assert "CTranslate2" in (tmp_path / "README.md").read_text()
    assert run("--check").returncode == 0
