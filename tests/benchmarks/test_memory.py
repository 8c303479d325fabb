"""Memory does not grow with the corpus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_gigabyte_takes_no_more_memory_than_its_hundredth():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "benchmarks/memory.py", "--megabytes=1000"], cwd=root, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
