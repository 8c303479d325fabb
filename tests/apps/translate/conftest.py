"""A tiny corpus in files and the flags of a model that trains on it in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TINY = [  # learns little, but does everything
    "--epochs=4", "--batch-size=16", "--vocabulary-size=300", "--jit=off", "--checkpoint-every=5",
    "--model.encoder-layers=1", "--model.decoder-layers=1", "--model.width=16", "--model.feedforward=32",
    "--model.heads=2", "--model.dropout=0.1", "--optimizer.warmup-steps=10",
]  # fmt: skip


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Directory with train.tsv (160 pairs), validation.tsv and test.tsv (24 each)."""
    from apps.translate import sample

    directory = tmp_path_factory.mktemp("corpus")
    pairs = sample.generate(208, seed=5)
    for name, part in {"train": pairs[:160], "validation": pairs[160:184], "test": pairs[184:]}.items():
        (directory / f"{name}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in part))
    return directory


@pytest.fixture(scope="session")
def flags(corpus):
    """Flags of `train` for the tiny model on the tiny corpus."""
    return [*(f"--{name}={corpus / name}.tsv" for name in ("train", "validation", "test")), *TINY]


@pytest.fixture(scope="session")
def start():
    """Starts `python -m apps.translate ...` as a process of its own."""

    def start(*arguments, stdin=subprocess.DEVNULL):
        return subprocess.Popen(
            [sys.executable, "-m", "apps.translate", *(a if isinstance(a, bytes) else str(a) for a in arguments)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        )

    return start


@pytest.fixture(scope="session")
def command(start):
    """Runs a command to its end. Returns the exit code, standard output and standard error."""

    def run(*arguments, stdin=""):
        process = start(*arguments, stdin=subprocess.PIPE)
        out, err = process.communicate(stdin if isinstance(stdin, bytes) else stdin.encode())
        return process.returncode, out.decode(), err.decode()

    return run


@pytest.fixture(scope="session")
def trained(flags, command, tmp_path_factory):
    """A run that was trained by the command line, and what it printed."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    code, out, err = command("train", "--run-dir", directory, *flags)
    assert code == 0, err
    return directory, out
