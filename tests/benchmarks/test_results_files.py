"""What benchmarks write has one format, and a run of a part never takes the place of the whole."""

import json

import pytest
from PIL import Image

ROWS = [
    {"work": "sorting", "system": "ours", "value": 1.5, "unit": "ms", "ratio": 1.0, "ratio_range": [1.0, 1.0]},
    {"work": "sorting", "system": "theirs", "value": 3.0, "unit": "ms", "ratio": 2.0, "ratio_range": [1.5, 2.5]},
    {"work": "sorting", "system": "nobody", "value": None, "unit": "ms", "ratio": None},
    {"work": "searching", "system": "ours", "value": 0, "unit": "MB", "ratio": None},
]


@pytest.fixture
def files(benchmark, monkeypatch, tmp_path):
    """The module, whose results are in a folder of their own."""
    module = benchmark("results_files")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def test_rows_and_their_chart_lie_side_by_side(files, tmp_path, capsys):
    written = files.save("both", ROWS, tmp_path / "new" / "folder", {"python": "3"}, files.bars(ROWS), limit=5)
    assert [file.name for file in written] == ["both.json", "both.png"]
    content = json.loads(written[0].read_text())
    assert content["rows"] == ROWS and content["versions"] == {"python": "3"} and content["limit"] == 5
    assert content["machine"] == files.machine()
    assert Image.open(written[1]).width > 1000
    assert capsys.readouterr().out.splitlines() == [f"wrote {file}" for file in written]


def test_the_chart_says_what_machine_it_was_unless_it_has_a_title(files, tmp_path):
    figures = [files.bars(ROWS) for _ in range(2)]
    figures[1].suptitle("computed")
    for figure in figures:
        files.save("both", ROWS, tmp_path, {}, figure, machine={"cpu": "abacus", "cores": 7})
    assert [figure.get_suptitle() for figure in figures] == ["abacus, 7 cores", "computed"]
    assert json.loads((tmp_path / "both.json").read_text())["machine"] == {"cpu": "abacus", "cores": 7}


def test_a_part_does_not_take_the_place_of_the_whole(files, tmp_path):
    whole = files.save("both", ROWS, files.RESULTS, {}, files.bars(ROWS))
    before = [file.read_bytes() for file in whole]
    part = ROWS[:2]
    message = "^both.json: this run would lose searching; run everything, or give --output FOLDER$"
    with pytest.raises(SystemExit, match=message):
        files.refuse_to_lose("both", ["sorting"], files.RESULTS)
    with pytest.raises(SystemExit, match=message):
        files.save("both", part, files.RESULTS, {}, files.bars(part))
    assert [file.read_bytes() for file in whole] == before
    # Elsewhere, or where the rest is still to come, it may; and the whole may be measured anew.
    files.save("both", part, tmp_path / "elsewhere", {}, files.bars(part))
    files.save("both", part, tmp_path / "elsewhere", {}, files.bars(part))
    files.save("both", ROWS, files.RESULTS, {}, files.bars(ROWS))
    files.save("both", part, files.RESULTS, {}, files.bars(part), coming=["searching"])
    assert len(json.loads(whole[0].read_text())["rows"]) == 2


def test_all_results_have_the_format(benchmark):
    results = benchmark("results_files").RESULTS
    names = {file.stem for file in results.iterdir()}
    assert len(names) > 15
    for name in names:
        content = json.loads((results / f"{name}.json").read_text())
        assert content["machine"].keys() == {"cpu", "cores", "system"} and content["versions"], name
        for row in content["rows"]:
            assert row.keys() >= {"work", "system", "value", "unit", "ratio"}, name
            assert row["value"] is None or isinstance(row["value"], int | float), name
            assert row["ratio"] is None or isinstance(row["ratio"], int | float), name
        assert (results / f"{name}.png").exists(), name
