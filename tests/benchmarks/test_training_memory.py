"""The switches that save memory do save it, measured in processes of their own."""

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--remat", "--accumulate 4"])
def test_less_memory(way, benchmark):
    measure = benchmark("training_memory").measure
    shape = (False, 2, 16, 256, 2)  # no XLA; 2 + 2 layers; batch; tokens; steps
    floor, plain, saving = (
        measure(*case)["peak"] for case in (("plain", False, 2, 1, 4, 2), ("plain", *shape), (way, *shape))
    )
    assert saving - floor < 0.8 * (plain - floor)
