"""Where recordings come from: the embedded sample, public data sets, a JSONL manifest, or an LJSpeech-style table."""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apps.speech import digits, synthesis
from apps.speech.config import SpeechConfig
from pipelines.audio.clips import Clips, measure
from pipelines.downloads import CACHE_VARIABLE, cache, fetch, provided
from pipelines.errors import UserError

DATASETS = ("sample", "fsdd", "ljspeech")
SAMPLE_RATE = 16000  # of all that is not sampled more coarsely
LJSPEECH_URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
LJSPEECH_SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
LJSPEECH_PART = "ljspeech-part/LJSpeech-1.1-part.tar.gz"  # 270 clips of the 13,100, where it is provided
LJSPEECH_PART_SHA256 = "b8ffc2331477f79d58800c64985f98d3ba16de3e0ea353d2ecc184c8138668b2"
HELD_OUT = 500  # clips at most that are held out where there is no split for that


def splits(config: SpeechConfig) -> dict[str, Clips]:
    """The splits of the configured data: `train`, `validation`, and tests, the main one first.

    Headers have been read and nothing has been decoded yet.

    Raises:
        UserError: an unknown data set, a missing file, a bad row or clip that is not to be skipped.
    """
    if config.hold_out_speaker and (config.train or config.dataset != "fsdd"):
        raise UserError("--hold-out-speaker goes with --dataset fsdd")
    if config.train:
        return _own(config)
    if config.dataset == "sample":
        return {
            name: measure(texts, contents, source=f"sample {name}")
            for name, (texts, contents) in synthesis.splits().items()
        }
    if config.dataset == "fsdd":
        return digits.splits(config.hold_out_speaker)
    if config.dataset == "ljspeech":
        return _ljspeech()
    raise config.unknown_dataset(DATASETS)


def sample_rate(config: SpeechConfig) -> int:
    """The rate that suits the configured data, in Hz."""
    return digits.SAMPLE_RATE if config.dataset == "fsdd" and not config.train else SAMPLE_RATE


def _ljspeech() -> dict[str, Clips]:
    """One speaker reading books (Ito & Johnson 2017); a ninth is held out to test, as there is no official split."""
    if provided(LJSPEECH_PART):
        archive = fetch(LJSPEECH_PART, LJSPEECH_URL, LJSPEECH_PART_SHA256)
        folder = _unpacked(archive, LJSPEECH_PART_SHA256)
    else:
        archive = fetch("ljspeech/LJSpeech-1.1.tar.bz2", LJSPEECH_URL, LJSPEECH_SHA256)
        folder = _unpacked(archive, LJSPEECH_SHA256)
    train, test = _held_out(_read(folder / "LJSpeech-1.1" / "metadata.csv", None, "fail"), 1 / 9, seed=0)
    train, validation = _held_out(train, 1 / 10, seed=0)
    return {"train": train, "validation": validation, "test": test}


def _unpacked(archive: Path, sha256: str) -> Path:
    """The folder in the cache into which an archive has been unpacked; made where it is not there yet."""
    folder = cache() / "ljspeech" / sha256[:16]
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # another process has just finished
            raise UserError(
                f"{folder.parent}: cannot be written ({error.strerror}); name another directory in {CACHE_VARIABLE}"
            ) from error
    return folder


def _held_out(clips: Clips, share: float, seed: int) -> tuple[Clips, Clips]:
    """The clips without some, and those; both in their order."""
    count = min(HELD_OUT, max(1, round(share * len(clips))))
    if count >= len(clips):
        raise UserError(f"{clips.source}: too few clips to hold some out; give more, or --validation")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(clips))[:count])
    return clips.take(np.setdiff1d(np.arange(len(clips)), chosen)), clips.take(chosen)


def _own(config: SpeechConfig) -> dict[str, Clips]:
    """The user's manifests or tables."""
    found = {
        name: _read(_only(f"--{name}", paths), config.most_seconds, config.on_bad_example)
        for name, paths in config.own_files().items()
    }
    if "validation" not in found:
        train, validation = _held_out(found["train"], 1 / 10, config.seed)
        found = found | {"train": train, "validation": validation}
    return {name: found[name] for name in ("train", "validation", "test") if name in found}


def _only(flag: str, paths: Sequence[Path]) -> Path:
    if len(paths) != 1:
        raise UserError(f"{flag}: takes one file, a JSONL manifest or a metadata.csv, or the folder of a metadata.csv")
    return paths[0]


class Row(NamedTuple):
    """A line of a manifest or table."""

    number: int  # from 1 on
    file: Path | None = None
    text: str = ""
    complaint: str = ""  # what is wrong with it, if anything


def _read(path: Path, most_seconds: float | None, on_bad_example: str) -> Clips:
    """The clips that a file lists."""
    if path.is_dir():
        path = path / "metadata.csv"
    if path.suffix not in (".jsonl", ".json", ".csv"):
        raise UserError(f"{path}: takes a manifest named .jsonl, or a table named .csv")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    rows = list((_table if path.suffix == ".csv" else _manifest)(path, lines))
    if not rows:
        raise UserError(f"{path}: no rows; {_FORMS[path.suffix == '.csv']}")
    good = [row for row in rows if not row.complaint]
    return measure(
        [row.text for row in good],
        files=[str(row.file) for row in good],
        source=str(path),
        rows=[row.number for row in good],
        most_seconds=most_seconds,
        on_bad_example=on_bad_example,
        bad={row.number: row.complaint for row in rows if row.complaint},
    )


_FORMS = (
    'a line is such as {"audio_filepath": "a.wav", "text": "good morning"}',
    "a line is such as a|Good morning!|good morning, for wavs/a.wav",
)


def _manifest(path: Path, lines: Sequence[str]) -> Iterator[Row]:
    """Rows of one JSON object each. Relative paths start where the file lies; what else a row says is not used."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            yield Row(number, complaint=f"no JSON ({error}); {_FORMS[0]}")
            continue
        if not isinstance(found, dict):
            yield Row(number, complaint=f"no JSON object; {_FORMS[0]}")
        elif missing := [key for key in ("audio_filepath", "text") if not isinstance(found.get(key), str)]:
            yield Row(number, complaint=f"no text under '{missing[0]}'; {_FORMS[0]}")
        else:
            yield _row(number, path.parent / found["audio_filepath"], found["audio_filepath"], found["text"])


def _table(path: Path, lines: Sequence[str]) -> Iterator[Row]:
    """Rows of an id, its transcript and, where there is one, its normalised transcript."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *texts = line.rstrip("\r").split("|")
        if not texts:
            yield Row(number, complaint=f"no | in it; {_FORMS[1]}")
        else:
            normalised = next((text for text in reversed(texts[:2]) if text.strip()), "")
            yield _row(number, path.parent / "wavs" / f"{name}.wav", name, normalised)


def _row(number: int, file: Path, name: str, text: str) -> Row:
    if not name.strip():
        return Row(number, complaint="names no file")
    return Row(number, file, text.strip(), "" if text.strip() else "has an empty transcript")
