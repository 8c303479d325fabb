"""The task's own methods: what it refuses before it trains, and what it reads of its run."""

import locale

import pytest

from apps.translate.config import ModelConfig, TranslateConfig
from apps.translate.task import TranslateTask
from pipelines.errors import UserError
from pipelines.runs import Run

NETWORK = ModelConfig(width=8, heads=2, encoder_layers=1, decoder_layers=1, feedforward=16)
PAIRS = [(f"the dog sees cat number {i}", f"der Hund sieht Katze Nummer {i}") for i in range(20)]
LONG = ("the dog sees a cat " * 20, "der Hund sieht eine Katze " * 20)


def write(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return (path,)


def a_task(directory, train=PAIRS, validation=PAIRS, name="train"):
    files = {
        "train": write(directory / f"{name}.tsv", train),
        "validation": write(directory / "validation.tsv", validation),
    }
    return TranslateTask(TranslateConfig(max_length=32, model=NETWORK, **files), Run(directory / "run"))


def test_a_validation_text_without_a_pair_that_is_short_enough_is_refused(tmp_path):
    with pytest.raises(UserError, match="all validation pairs are longer than .* pieces; raise --max-length"):
        a_task(tmp_path, validation=[LONG, LONG]).prepare()


def test_the_first_pairs_that_are_short_enough_are_translated_at_a_validation(tmp_path, monkeypatch):
    monkeypatch.setattr("apps.translate.task.VALIDATION_DECODED", 1)
    monkeypatch.setattr("apps.translate.task.PICTURED", 0)
    task = a_task(tmp_path, validation=[LONG, PAIRS[0], PAIRS[1]])
    task.config = task.prepare()
    task.load()
    found = task.report(task.build_model())
    assert PAIRS[0][0] in found.texts["translations"] and PAIRS[1][0] not in found.texts["translations"]


def test_what_a_run_wrote_is_read_as_utf_8(tmp_path):
    task = a_task(tmp_path, train=[("ein Vogel", "größer"), *PAIRS], name="größer")
    task.config = task.prepare()
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C")  # whose encoding is ASCII
        task.load()
        next(iter(task.train_batches(0)))
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
