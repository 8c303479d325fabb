import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_pages_say_what_the_results_say():
    done = subprocess.run(
        [sys.executable, "benchmarks/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    readme, page = (ROOT / name for name in ("README.md", "docs/benchmarks.md"))
    assert "<!-- table: training_steps -->\n| a training step of" in readme.read_text()
    assert page.read_text().count("<!-- table: ") == page.read_text().count("<!-- end -->") > 4


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
