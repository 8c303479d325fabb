"""The switches that save memory do save it, measured in processes of their own."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--remat", "--accumulate 4"])
def test_less_memory(way, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sys.modules.pop("training_memory", None)
    from training_memory import measure

    shape = (False, 2, 16, 256, 2)  # no XLA; 2 + 2 layers; batch; tokens; steps
    floor, plain, saving = (
        measure(*case)["peak"] for case in (("plain", False, 2, 1, 4, 2), ("plain", *shape), (way, *shape))
    )
    assert saving - floor < 0.8 * (plain - floor)
