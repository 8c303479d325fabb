"""What a new run takes over from an earlier one: symbols, weights to begin with, a teacher's answers."""

import functools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from apps.nlp.app import APP
from apps.nlp.tasks.inheritance import begin, encoder_of, weights_file
from pipelines.options import RunOptions
from pipelines.runs import Run
from pipelines.trained import restore
from tests.apps import command_line

command = functools.partial(command_line.run, "nlp")

TINY = [
    "--epochs=1", "--batch-size=16", "--max-length=16", "--jit=off",
    "--model.width=16", "--model.layers=1", "--model.heads=2", "--model.feedforward=32",
]  # fmt: skip
WORDS = {"good": "fine lovely superb", "bad": "poor dreadful awful"}
THINGS = "film meal hotel concert tour book song game play walk".split()


def reviews(seed: int, count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(seed)
    labels = random.choice(list(WORDS), count)
    return [
        (f"The {random.choice(THINGS)} was {random.choice(WORDS[label].split())}, he said {number}.", label)
        for number, label in enumerate(labels)
    ]


def test_a_run_with_a_checkpoint_takes_its_weights_from_there(tmp_path):
    run, layer = Run(tmp_path), keras.layers.Dense(2)
    layer.build((None, 3))
    run.assets.mkdir()
    np.savez(weights_file(run), np.ones((3, 2)), np.ones(2))
    (run.checkpoints / "00000001").mkdir(parents=True)
    begin(layer, run)
    assert not np.any(layer.bias)
    (run.checkpoints / "00000001").rmdir()
    begin(layer, run)
    assert np.all(layer.bias == 1) and np.all(layer.kernel == 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("".join(f"{text}\n" for text, _ in reviews(0, 160)))
    for seed, (name, count) in enumerate({"train": 160, "validation": 32, "test": 32}.items()):
        rows = reviews(seed, count)
        lines = ["text\tlabel", *("\t".join(row) for row in rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        pairs = ["text_a\ttext_b\tscore"]
        pairs += [f"{a}\t{b}\t{float(one == other)}" for (a, one), (b, other) in zip(rows, rows[::-1], strict=True)]
        (folder / f"{name}-pairs.tsv").write_text("\n".join(pairs) + "\n")
    return folder


def given(folder, task):
    if task in ("generate", "pretrain"):
        return [f"--task={task}", f"--train={folder / 'text.txt'}"]
    end = {"classify": ".tsv", "similarity": "-pairs.tsv"}[task]
    return [f"--task={task}", *(f"--{name}={folder / name}{end}" for name in ("train", "validation", "test"))]


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
    """A run of each task that others begin with."""
    folder = tmp_path_factory.mktemp("runs")
    for task in ("pretrain", "generate", "classify", "similarity"):
        code, _, err = command("train", "--run-dir", folder / task, *given(files, task), *TINY)
        assert code == 0, err
    return folder


def begun(runs, files, tmp_path, task, source, *more):
    directory = tmp_path / f"{task}-from-{source}"
    arguments = [*given(files, task), *TINY, f"--init-from={runs / source}", *more]
    code, out, err = command("train", "--run-dir", directory, *arguments)
    assert code == 0, err
    return directory, out


def model_of(directory):
    return restore(APP, RunOptions(run_dir=directory)).model


@pytest.mark.parametrize(
    ("task", "source"),
    [
        ("classify", "pretrain"),
        pytest.param("classify", "generate", marks=pytest.mark.slow),
        pytest.param("similarity", "pretrain", marks=pytest.mark.slow),
        ("generate", "generate"),
    ],
)
def test_a_run_begins_with_the_encoder_of_another(task, source, runs, files, tmp_path):
    # Training that changes nothing shows what it began with.
    still = ["--optimizer.learning-rate=0", "--optimizer.average-decay=0"]
    directory, out = begun(runs, files, tmp_path, task, source, *still, "--model.width=64")
    assert f"begins with the transformer of run {runs / source}" in out
    earlier, later = (encoder_of(model_of(path)).weights for path in (runs / source, directory))
    assert len(earlier) == len(later) > 10
    for one, other in zip(earlier, later, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert (directory / "assets" / "sentencepiece.model").read_bytes() == (
        runs / source / "assets" / "sentencepiece.model"
    ).read_bytes()


def test_a_run_needs_the_one_it_began_with_no_longer(runs, files, tmp_path):
    shutil.copytree(runs / "pretrain", tmp_path / "earlier")
    directory, _ = begun(tmp_path, files, tmp_path, "classify", "earlier")
    shutil.rmtree(tmp_path / "earlier")
    for arguments in (["evaluate"], ["train", "--epochs=2"]):
        code, _, err = command(*arguments, "--run-dir", directory)
        assert code == 0, err


def _name(weight):
    return weight.path.split("/", 1)[1]  # without the model's, which Keras numbers


def test_adapters_alone_learn(runs, files, tmp_path):
    directory, out = begun(runs, files, tmp_path, "generate", "generate", "--lora=2", "--optimizer.learning-rate=0.01")
    trained = model_of(directory)
    assert "of them trained" in out
    adapters = [v for v in trained.trainable_weights if "lora" in v.path]
    assert len(adapters) == len(trained.trainable_weights) > 0
    assert any(np.abs(v.numpy()).max() > 0 for v in adapters if v.path.endswith("_b"))
    earlier = {_name(weight): weight.numpy() for weight in model_of(runs / "generate").weights}
    for weight in trained.weights:
        if "lora" not in weight.path:
            np.testing.assert_array_equal(weight.numpy(), earlier[_name(weight)])
    assert command("predict", "--run-dir", directory, "The film", "--max-tokens=4")[0] == 0
    code, _, err = command("train", *given(files, "generate"), *TINY, f"--init-from={directory}")
    assert code == 2 and "has adapters" in err


@pytest.mark.parametrize("task", ["classify", "similarity"])
def test_a_teacher_is_asked_once_and_learnt_from(task, runs, files, tmp_path):
    directory = tmp_path / "student"
    arguments = [*given(files, task), *TINY, f"--teacher={runs / task}", "--distillation.share=1"]
    code, out, err = command("train", "--run-dir", directory, *arguments)
    assert code == 0, err
    assert "asks the teacher about 160" in out
    kept = np.load(directory / "assets" / "teacher.npy")
    found = restore(APP, RunOptions(run_dir=runs / task))
    np.testing.assert_allclose(kept, found.task.outputs(found.model, found.task._splits["train"], 7), atol=1e-5)
    # A student that says what its teacher says has nothing left to learn, whatever the labels are.
    student = restore(APP, RunOptions(run_dir=directory)).task
    batch = {key: value[:8] for key, value in next(iter(student.train_batches(0))).items()}
    total, weight = student.sums(tf.constant(batch["teacher"]), batch)["loss"]
    assert float(total / weight) == pytest.approx(0, abs=1e-6)
    assert "teacher" not in next(iter(student.validation_batches()))


def test_a_language_model_learns_from_another(runs, files, tmp_path):
    directory = tmp_path / "student"
    arguments = [*given(files, "generate"), *TINY, f"--teacher={runs / 'generate'}", "--distillation.share=1"]
    code, _, err = command("train", "--run-dir", directory, *arguments, "--model.width=8")
    assert code == 0, err
    student, teacher = (restore(APP, RunOptions(run_dir=path)) for path in (directory, runs / "generate"))
    assert student.model.count_params() < teacher.model.count_params()
    batch = next(iter(student.task.train_batches(0)))
    logits = teacher.model({"tokens": batch["tokens"]})
    sums = student.task.sums(logits, batch)
    assert float(sums["loss"][0]) == pytest.approx(0, abs=1e-3)
    assert float(sums["bits_per_character"][0]) > 1  # which is measured against the text all the same


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task=generate", "--init-from=RUNS/pretrain"], "learnt to pretrain"),
        (["--task=classify", "--teacher=RUNS/similarity"], "learnt to similarity"),
        (["--task=classify", "--init-from=RUNS/nowhere"], "no run here"),
        (["--task=classify", "--lora=4"], "--lora adapts what was trained before"),
        (["--task=pretrain", "--teacher=RUNS/pretrain"], "--teacher goes with"),
        (["--task=classify", "--teacher=RUNS/classify", "--dataset=sample"], "has other classes (bad, good)"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(arguments, said, runs, files):
    task = arguments[0].removeprefix("--task=")
    data = [] if "--dataset=sample" in arguments else given(files, task)[1:]
    code, _, err = command("train", *(each.replace("RUNS", str(runs)) for each in arguments), *data, *TINY)
    assert code == 2 and err.count("\n") == 1 and said in err
