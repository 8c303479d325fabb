"""The plan's counts are those of real models, its formulas those that can be worked out by hand, and the documentation
has its tables."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MEASURED = {"app": "nlp", "work": "nlp", "unit": "ms", "parameters": 1000, "reduced_bytes": 4000}


@pytest.fixture
def formulas(benchmark):
    return benchmark("scaling_formulas")


@pytest.fixture
def plan(benchmark):
    return benchmark("scaling_plan")


@pytest.fixture
def replicas(tmp_path):
    """A file as replicas.py writes it: 10 ms a step alone; on 2 workers 4 ms more, of which 3 are adding up."""
    rows = [
        MEASURED | {"system": "1 replica", "replicas": 1, "workers": 1, "value": 10, "ratio": 1, "reduce_ms": 0.001}
        | {"message_ms": 0.001},
        MEASURED | {"system": "2 workers", "replicas": 2, "workers": 2, "value": 14, "ratio": 1.4, "reduce_ms": 3}
        | {"message_ms": 1},
        {"work": "reading", "system": "1 worker", "value": 1, "unit": "ms", "ratio": 1},
    ]  # fmt: skip
    file = tmp_path / "replicas.json"
    file.write_text(json.dumps({"machine": {"cpu": "a", "cores": 2}, "versions": {"x": "1"}, "rows": rows}))
    return file


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_translator_has_as_many_parameters_as_the_real_one(formulas, size):
    from apps.translate.config import ModelConfig, TranslateConfig
    from apps.translate.model import TranslationTransformer

    sizes = TranslateConfig.sizes[size]
    real = TranslationTransformer.from_settings(ModelConfig(**sizes), formulas.VOCABULARY, 2)
    counted = formulas.translator("", sizes)
    assert counted.parameters == real.count_params()
    # Nearly all of a model's weights are multiplied with each token, forward and twice on the way back.
    assert 6 * counted.parameters < counted.flops < 7 * counted.parameters


def test_all_reduce_by_hand(formulas):
    hardware = formulas.Hardware(within=100, between=10, latency=0, devices_per_node=4)
    size = 40e9
    assert formulas.all_reduce_seconds(size, 2, hardware) == pytest.approx(0.4)  # 2 · 1/2 of 40 GB at 100 GB/s
    assert formulas.all_reduce_seconds(size, 4, hardware) == pytest.approx(0.6)
    assert formulas.all_reduce_seconds(size, 8, hardware) == pytest.approx(0.6 + 4.0)
    assert formulas.all_reduce_seconds(size, 4000, hardware) < 0.6 + 8.0
    slow = formulas.Hardware(within=1e9, between=1e9, latency=1e6, devices_per_node=4)  # a second a hop
    two_messages = formulas.MESSAGE_BYTES + 1
    assert formulas.all_reduce_seconds(two_messages, 32, slow) == pytest.approx(2 * (6 + 6))  # 8 nodes
    ring = formulas.Hardware(within=1e9, between=1e9, latency=1e6, devices_per_node=4, ring=True)
    assert formulas.all_reduce_seconds(two_messages, 32, ring) == pytest.approx(2 * (6 + 14))


def test_the_checkpoint_interval_loses_least(formulas):
    write, failures, restart = 10.0, 7200.0, 300.0
    best = formulas.checkpoint_interval(write, failures)
    assert best == pytest.approx(math.sqrt(2 * write * failures), rel=0.05)
    lost = [formulas.lost_share(factor * best, write, failures, restart) for factor in (0.5, 0.98, 1, 1.02, 2)]
    assert min(lost) == pytest.approx(lost[2], rel=1e-3) and lost[0] > lost[2] < lost[4]
    # To first order: writing, what is computed twice, and starting anew.
    assert lost[2] == pytest.approx(write / best + best / 2 / failures + restart / failures, rel=0.1)


def test_batches_stop_at_the_critical_size(formulas):
    hardware = formulas.Hardware()
    for model in formulas.models(critical_batch=1e6):
        rows = [formulas.plan(model, devices, hardware, 16_384) for devices in (1, 8, 64, 256, 1000)]
        assert [row["tokens_per_device"] for row in rows[:2]] == [16_384, 16_384]
        for row in rows:
            assert row["tokens_per_device"] % model.length == 0
            assert row["batch_tokens"] <= max(1e6, row["devices"] * model.length)
            assert row["steps"] * row["batch_tokens"] == pytest.approx(row["tokens"])
            assert row["step_ms"] == pytest.approx(row["compute_ms"] + row["update_ms"] + row["all_reduce_ms"])
        # At the critical size twice the least is read.
        assert rows[-1]["tokens"] == pytest.approx(2 * model.tokens, rel=0.03)
        assert rows[0]["all_reduce_ms"] == 0


def test_measurements_stand_beside_the_formula(run_benchmark, replicas, tmp_path):
    done = run_benchmark("scaling_plan", "--replicas", replicas, "--output", tmp_path / "out", "--devices", 1, 16)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "scaling_plan.json").read_text())
    (here,) = content["measured"]
    assert (here["ratio"], here["ratio_by_formula"]) == (1.4, pytest.approx(1.3))
    assert here["latency_us"] == pytest.approx(500)  # 1 ms for the two hops of a ring of two
    assert here["gb_per_second"] == pytest.approx(4000 / 0.002 / 1e9)
    assert content["machine"] == {"cpu": "a", "cores": 2} and len(content["rows"]) == 2 * 3
    assert all(row.keys() >= {"work", "system", "value", "unit", "ratio"} for row in content["rows"])
    assert Image.open(tmp_path / "out" / "scaling_plan.png").width > 1000


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--replicas", "no/such/file.json"], "no/such/file.json: cannot be read"),
        (["--teraflops", "0"], "--teraflops 0: takes more than 0"),
        (["--devices", "8", "-1"], "--devices -1: takes more than 0"),
    ],
)
def test_what_cannot_be_planned_is_said(run_benchmark, replicas, tmp_path, arguments, part):
    done = run_benchmark("scaling_plan", "--replicas", replicas, "--output", tmp_path, *arguments)
    assert done.returncode and part in done.stderr.splitlines()[-1]


def test_the_documentation_has_the_tables(plan, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scaling_plan.py"])
    options, hardware = plan.parse()
    expected = [plan.cells(rows, columns) for rows in plan.plans(hardware, options).values()
                for columns in (plan.STEP, plan.FAILURES)]  # fmt: skip
    text = (ROOT / "docs" / "scaling.md").read_text()
    shown = re.search(r"<!-- python benchmarks/scaling_plan.py --markdown -->(.*)<!-- end -->", text, re.S)[1]
    tables = re.findall(r"(?:^\|.*\n)+", shown, re.M)
    assert [table.strip() for table in tables] == expected
    assert f"\n{plan.workers()}\n" in text and plan.workers().count("\n") > 5


def test_all_tables_are_printed_for_the_documentation(run_benchmark, plan, tmp_path):
    done = run_benchmark("scaling_plan", "--markdown", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert plan.workers() in done.stdout and done.stdout.count("\n| ---") == 7 and "┏" not in done.stdout
