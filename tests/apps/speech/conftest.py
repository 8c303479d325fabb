"""Recordings in files, with the manifest and the table that list them."""

import functools
import json

import numpy as np
import pytest

from tests.apps import command_line
from tests.pipelines.audio import wavs

TEXTS = {"a": "Good morning!", "b": "two tigers", "c": "who hid it", "d": "where is anna", "e": "yes"}


def recording(seconds=0.5, seed=0, rate=16000):
    """A WAV of noise that fades in and out."""
    count = round(seconds * rate)
    samples = np.random.default_rng(seed).normal(0, 0.1, count) * np.hanning(count)
    return wavs.by_scipy(np.round(samples * 2**15).astype(np.int16), rate)


def write_manifest(path, rows):
    """Writes a manifest of dicts, or of lines as they are. Returns its path."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path):
    """Folder with five recordings in wavs/, and the manifest.jsonl and the metadata.csv that list them."""
    (tmp_path / "wavs").mkdir()
    for number, name in enumerate(TEXTS):
        (tmp_path / "wavs" / f"{name}.wav").write_bytes(recording(0.2 + number / 10, number))
    rows = [{"audio_filepath": f"wavs/{name}.wav", "text": text, "duration": 0.3} for name, text in TEXTS.items()]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    (tmp_path / "metadata.csv").write_text("".join(f"{name}|{text}|{text.lower()}\n" for name, text in TEXTS.items()))
    return tmp_path


RATE = 8000
PITCHES = {"a": 400, "b": 700, "c": 1100, "d": 1600}  # Hz of the tone that stands for a letter


def say(text, seed=0):
    """Samples of a "language" that is learnt in seconds: a tone for each letter, a pause for a blank."""
    rng = np.random.default_rng(seed)
    pieces = [np.zeros(800)]
    for letter in text:
        time = np.arange(rng.integers(1000, 1400)) / RATE
        tone = np.sin(2 * np.pi * PITCHES[letter] * time) * np.hanning(len(time)) if letter != " " else 0 * time
        pieces += [0.3 * tone, np.zeros(400)]
    samples = np.concatenate([*pieces, np.zeros(400)])
    return samples + rng.normal(0, 0.003, len(samples))


def tone_wav(text, seed=0):
    return wavs.by_scipy(np.round(say(text, seed) * 2**15).astype(np.int16), RATE)


def words(rng, count):
    return " ".join("".join(rng.choice(list(PITCHES), rng.integers(1, 4))) for _ in range(count))


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """Folder with the manifests train.jsonl (96 clips), validation.jsonl and test.jsonl (12 each)."""
    directory = tmp_path_factory.mktemp("tones")
    for seed, (split, count) in enumerate({"train": 96, "validation": 12, "test": 12}.items()):
        rng = np.random.default_rng(seed)
        (directory / split).mkdir()
        rows = []
        for number in range(count):
            text = words(rng, int(rng.integers(1, 4)))
            (directory / split / f"{number}.wav").write_bytes(tone_wav(text, 1000 * seed + number))
            rows.append({"audio_filepath": f"{split}/{number}.wav", "text": text})
        write_manifest(directory / f"{split}.jsonl", rows)
    return directory


TINY = [
    "--sample-rate=8000",
    "--model.width=48",
    "--model.layers=1",
    "--model.bands=24",
    "--model.subsampling=4",
    "--model.dropout=0",
    "--spec-augment.frequency-masks=0",
    "--spec-augment.time-masks=0",
    "--batch-size=12",
    "--jit=off",
    "--optimizer.learning-rate=1e-2",
    "--optimizer.warmup-steps=20",
    "--optimizer.average-decay=0.9",
]


@pytest.fixture(scope="session")
def flags(tones):
    return [*(f"--{name}={tones / name}.jsonl" for name in ("train", "validation", "test")), *TINY]


@pytest.fixture(scope="session")
def command():
    """Runs `python -m apps.speech` with arguments: exit code, standard output, standard error."""
    return functools.partial(command_line.run, "speech")


@pytest.fixture(scope="session")
def trained(flags, command, tmp_path_factory):
    """A run that was trained by the command line, and what it printed."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    code, out, err = command("train", "--run-dir", directory, *flags, "--epochs=16", "--validate-every=64")
    assert code == 0, err
    return directory, out
