"""Memory does not grow with the corpus."""

import json

import pytest


@pytest.mark.slow
def test_a_gigabyte_takes_no_more_memory_than_its_hundredth(run_benchmark, tmp_path):
    done = run_benchmark("memory", "--megabytes=1000", f"--output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    part, whole = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert (part["megabytes"], whole["megabytes"]) == (10, 1000) and part["ratio"] == 1 < 1.2 > whole["ratio"]
