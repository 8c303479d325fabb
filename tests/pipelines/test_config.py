"""Configuration: where values come from, which one wins, and how mistakes are answered."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import config
from pipelines.errors import UserError

PROGRAM = "python -m apps.example train"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model."""

    # Width.
    width: int = 8
    # Dropout.
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class ExampleConfig(config.TrainConfig):
    """An app's configuration."""

    sizes: ClassVar[Mapping] = {"tiny": {"width": 8}, "small": {"width": 16}}
    recipes: ClassVar[Mapping] = {"sample": {"epochs": 2, "model": {"dropout": 0.0}}}

    model: ModelConfig = ModelConfig()


def resolve(*flags, file=None):
    return config.resolve(ExampleConfig, file, flags, PROGRAM)


def test_later_sources_win(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 5\nbatch_size: 32\nmodel: {width: 12}\n")
    assert resolve().epochs == 2  # recipe over dataclass
    assert resolve("--dataset", "other").epochs == config.TrainConfig().epochs  # another data set, no recipe
    assert resolve("--train", "a.tsv").epochs == config.TrainConfig().epochs  # own files, no recipe
    assert resolve("--size", "small").model == ModelConfig(width=16, dropout=0.0)  # size and recipe
    assert resolve(file=file).epochs == 5  # file over recipe
    assert resolve("--size", "small", file=file).model.width == 12  # file over size
    assert resolve("--epochs", "7", file=file) == dataclasses.replace(resolve(file=file), epochs=7)  # flag over file


def test_a_file_may_name_the_data_set_and_the_size(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("dataset: other\nsize: small\n")
    found = resolve(file=file)
    assert (found.dataset, found.epochs, found.model.width) == ("other", config.TrainConfig().epochs, 16)


def test_printed_configuration_loads_to_the_same(tmp_path):
    asked = resolve("--jit", "on", "--train", "a.tsv", "b.tsv", "--model.dropout", "0.3", "--run-dir", "runs/x")
    file = tmp_path / "c.yaml"
    file.write_text(config.write_yaml(config.to_dict(asked)))
    assert resolve(file=file) == asked
    assert asked.train == (Path("a.tsv"), Path("b.tsv"))


@pytest.mark.parametrize("word, value", [("on", "on"), ("off", "off"), ("auto", "auto"), ("'on'", "on")])
def test_yaml_booleans_are_read_as_the_words_they_were(tmp_path, word, value):
    file = tmp_path / "c.yaml"
    file.write_text(f"jit: {word}\n")
    assert resolve(file=file).jit == value


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--epoch", "3"], "unknown argument --epoch (did you mean --epochs?)"),
        (["--model.widht=3"], "unknown argument --model.widht (did you mean --model.width?)"),
        (["--epochs", "many"], "Error parsing --epochs: invalid literal for int() with base 10: 'many'"),
        (["--jit", "maybe"], "invalid choice 'maybe' for argument '--jit'"),
        (["stray"], "unknown argument stray"),
    ],
)
def test_wrong_flags_get_one_line(flags, message):
    with pytest.raises(UserError) as caught:
        resolve(*flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and "│" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("epoch: 3\n", "c.yaml: unknown key 'epoch' (did you mean epochs?)"),
        ("model: {widht: 3}\n", "c.yaml: unknown key 'model.widht' (did you mean width?)"),
        ("model: 3\n", "c.yaml: 'model' takes keys of its own (width, dropout)"),
        ("epochs: many\n", "c.yaml: Error parsing --epochs"),
        ("- 3\n", "c.yaml: expected lines such as 'epochs: 3', found list"),
        ("a: [\n", "c.yaml: not readable as YAML"),
    ],
)
def test_wrong_files_get_one_line(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(file=file)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file or directory; write one with"):
        resolve(file=tmp_path / "none.yaml")


def resume(saved, *flags):
    return config.resume(saved, None, flags, PROGRAM, "runs/x")


def test_resume_takes_what_was_saved_and_harmless_changes():
    saved = resolve("--jit", "on", "--batch-size", "8")
    assert resume(saved) == saved
    assert resume(saved, "--batch-size", "8", "--epochs", "9") == dataclasses.replace(saved, epochs=9)
    assert resume(saved, "--jit", "auto") == saved  # what auto had chosen stays chosen


def test_resume_refuses_zeros_too():
    with pytest.raises(UserError, match="--seed 0 .the run has 5.; --model.dropout 0.0 .the run has 0.3."):
        resume(resolve("--seed", "5", "--model.dropout", "0.3"), "--seed", "0", "--model.dropout", "0")


def test_resume_does_not_stretch_a_cosine():
    with pytest.raises(UserError, match="--epochs 9"):
        resume(resolve("--optimizer.schedule", "cosine"), "--epochs", "9")


def test_lengths_ascend():
    for lengths in ((), (8,), (4, 8)):
        config.require_ascending(dataclasses.make_dataclass("C", [("buckets", tuple)])(lengths), "buckets", 8)
    for lengths in ((8, 4), (4, 4), (0, 4), (4, 9)):
        found = dataclasses.make_dataclass("C", [("buckets", tuple)])(lengths)
        with pytest.raises(UserError, match=f"--buckets {lengths[0]} {lengths[1]}: takes ascending lengths .*up to 8"):
            config.require_ascending(found, "buckets", 8)


@pytest.mark.parametrize(
    "flag", ["--epochs=0", "--batch-size=-1", "--seed=-1", "--seed=4294967296", "--max-steps=-1", "--profile=7"]
)
def test_values_out_of_range(flag):
    with pytest.raises(UserError, match=flag.split("=")[0]):
        resolve(flag).check()


@pytest.mark.parametrize(
    "flag",
    [
        "--optimizer.learning-rate=-0.001",
        "--optimizer.warmup-steps=-1",
        "--optimizer.weight-decay=-0.1",
        "--optimizer.clip-norm=-1",
        "--optimizer.frozen-steps=-1",
        "--optimizer.pretrained-rate=-1",
        "--optimizer.beta-1=1",
        "--optimizer.beta-2=-0.1",
        "--optimizer.average-decay=1",
        "--early-stopping.patience=-1",
    ],
)
def test_an_optimizer_out_of_range(flag):
    with pytest.raises(UserError, match=f"^{flag.split('=')[0]} .*: takes a (number|share) from 0"):
        resolve(flag).check()
    resolve(f"{flag.split('=')[0]}=0").check()


def test_each_flag_has_a_help_text_of_its_own(capsys):
    with pytest.raises(SystemExit):
        resolve("--help")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--optimizer.beta-1 FLOAT Decay of the first moment. (default" in shown


def test_resume_refuses_another_configuration():
    with pytest.raises(UserError) as caught:
        resume(resolve("--batch-size", "8"), "--batch-size", "16", "--model.width", "4")
    assert "--batch-size 16 (the run has 8); --model.width 4 (the run has 8)" in str(caught.value)


@given(st.builds(ModelConfig, st.integers(-5, 5), st.floats(0, 1)), st.integers(0, 10**6), st.booleans())
def test_any_configuration_survives_its_flags(model, seed, with_file):
    asked = ExampleConfig(model=model, seed=seed, train=(Path("a b"), Path("c")) if with_file else ())
    flags = config.to_flags({k: v for k, v in config.to_dict(asked).items() if k != "run_dir"}, ExampleConfig())
    assert config.parse(ExampleConfig(), flags, PROGRAM) == asked
