"""What tests of benchmarks have in common: a benchmark is imported, or run, as the script that it is."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """Imports one by its name: as a script it finds its neighbours by their plain names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def run_benchmark():
    """Runs one by its name, with its arguments, to its end."""

    def run(name, *arguments):
        command = [sys.executable, f"benchmarks/{name}.py", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)

    return run
