"""The default training learns the sample's grammar, which no dictionary and no look-up does."""

import json
import re

import pytest


@pytest.mark.slow
def test_the_sample_is_learnt(command, tmp_path):
    directory = tmp_path / "run"
    code, _, err = command("train", "--run-dir", directory)
    assert code == 0, err
    code, out, err = command("evaluate", "--run-dir", directory)
    assert code == 0, err
    assert json.loads((directory / "metrics.json").read_text())["bleu"] >= 95
    baselines = re.findall(r"(?:dictionary|sentence) +│ +([\d.]+)", out)
    assert len(baselines) == 2 and all(float(bleu) <= 60 for bleu in baselines)
