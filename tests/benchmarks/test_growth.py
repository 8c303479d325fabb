"""Exponents are those of the figures, series change one size, and runs of both measurements say what they saw."""

import importlib
import json
import math

import numpy as np
import pytest
from PIL import Image

from pipelines import config as configs


@pytest.fixture
def growth(benchmark):
    return benchmark("growth")


def test_exponents_are_those_of_the_figures(growth, tmp_path):
    found = growth.Growth("translate: tokens", [1, 10, 100], [0.002, 0.2, 20.0], [30.0, 300.0, 9000.0])
    assert found.exponent(found.seconds) == pytest.approx(2)
    assert found.exponent(found.megabytes) == pytest.approx(math.log10(300) / 2)
    assert found.last_exponent(found.megabytes) == pytest.approx(math.log10(30))
    rows = found.rows()
    assert [(row["system"], row["value"], row["unit"], row["ratio"], row["exponent"]) for row in rows[:3]] == [
        ("1", 2.0, "ms", 1, 2), ("10", 200, "ms", 100, 2), ("100", 20000, "ms", 10000, 2),
    ]  # fmt: skip
    growth.draw([found, found]).savefig(tmp_path / "chart.png")
    assert min(Image.open(tmp_path / "chart.png").size) > 500


def test_what_has_no_logarithm_is_not_fitted(growth):
    found = growth.Growth("speech: seconds", [1, 2], [0.1, 0.2], [0.0, 50.0])
    assert math.isnan(found.exponent(found.megabytes))
    assert [row["exponent"] for row in found.rows()] == [1, 1, None, None]
    json.dumps(found.rows(), allow_nan=False)
    # Less than 10 MB hides below what preparing data takes.
    found = growth.Growth("speech: seconds", [1, 2, 4, 8], [1, 2, 4, 8], [9.0, 20.0, 40.0, 80.0])
    assert found.rows()[0]["exponent"] == 1
    assert (found.rows()[-1]["exponent"], found.rows()[-1]["exponent_at_the_end"]) == (None, 1)


def test_a_series_changes_one_size(growth):
    model = growth.MODELS["language"]
    sizes = model.sizes("length")
    assert [each["length"] for each in sizes] == [32, 64, 256]
    assert all(each | {"length": 64} == model.usual for each in sizes)
    assert model.floor == {"batch": 1, "length": 32, "width": 64}
    # The usual size is in both series, and is trained once.
    assert len(growth.points(model, ["batch", "length"])) == 1 + 3 + 3 - 1


def test_flags_are_those_of_the_apps(growth):
    for model in growth.MODELS.values():
        app = importlib.import_module(f"apps.{model.app}.__main__").APP
        for sizes in (model.floor, {name: model.sizes(name)[-1][name] for name in model.series}):
            flags = [f"--batch-size={sizes['batch']}", *model.flags(sizes)]
            config = configs.resolve(app.config, None, flags, "train")
            config.check()
            assert config.batch_size == sizes["batch"]
            assert config.model.width == sizes.get("width", config.model.width)


def test_imports_are_added_up_by_package(growth):
    lines = """warning: something else
import time: self [us] | cumulative | imported package
import time:       250 |        250 |     keras.ops.numpy
import time:      1000 |       1250 |   keras.ops
import time:   2000000 |    2001250 | tensorflow"""
    found = growth.start_up.by_package(lines)
    assert found == pytest.approx({"tensorflow": 2.0, "keras": 0.00125})


def test_help_is_told_by_its_imports(growth):
    start = growth.start_up._help("translate")
    # Imports are timed in a run of their own, which may be the slower one; they never count for more than the whole.
    assert 0 < start.phases["imports"] <= start.seconds == pytest.approx(sum(start.phases.values()))
    assert "tensorflow" not in start.imports and "tyro" in start.imports


def test_phases_are_drawn_one_after_the_other(growth, tmp_path):
    begin = {"interpreter": 0.5, "imports": 4.0}
    training = {"data, vocabulary": 1.0, "model, optimizer": 1.0, "trying XLA": 3.0, "tracing": 4.0, "compilation": 5.0}
    found = [
        growth.start_up.Start("image train, first step", 20.0, begin | training | {"first step": 0.1}, {"scipy": 1.0}),
        growth.start_up.Start("image serve, available", 8.0, begin | {"loading": 1.0, "warm-up": 2.0}, {"scipy": 1.0}),
    ]
    growth.start_up.draw(found).savefig(tmp_path / "chart.png", dpi=120)
    pixels = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB"))
    data, grey = (np.all(pixels == colour, axis=-1).sum() for colour in ((31, 119, 180), (169, 169, 169)))
    assert 6 * data < grey < 9 * data  # 1 s in one bar, and 4 in both


@pytest.mark.slow
def test_a_larger_batch_takes_more(run_benchmark, tmp_path):
    done = run_benchmark("growth", "--model=classify", "--series=batch", "--steps=2", f"--output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    for unit in ("ms", "MB above the smallest"):
        values = [row["value"] for row in rows if row["unit"] == unit]
        assert values == sorted(values) and len(values) == 3


@pytest.mark.slow
def test_a_larger_corpus_is_trained_on(run_benchmark, tmp_path):
    done = run_benchmark(
        "growth", "--model=translate", "--series=corpus", "--corpus", "1000", "4000", f"--output={tmp_path}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert [row["size"] for row in rows] == [1000, 4000] * 2


@pytest.mark.slow
def test_a_start_is_told_by_its_phases(run_benchmark, tmp_path):
    done = run_benchmark("growth", "--start-up", "--app=image", f"--output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "start_up.json").read_text())["rows"]
    for command in ("train, first step", "serve, available"):
        whole, *phases = [row for row in rows if row["work"] == f"image {command}"]
        assert sum(row["ratio"] for row in phases) == pytest.approx(1, abs=0.01)
        # Inside and outside are two processes on a machine that is not quiet.
        assert 1 / 4 < sum(row["value"] for row in phases) / whole["value"] < 4
        assert "tensorflow" in whole["imports"]
    assert (tmp_path / "start_up.png").exists()
