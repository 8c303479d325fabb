"""Spoken digits: the recordings of the Free Spoken Digit Dataset (Jackson et al.), single and joined to strings.

Six speakers say each digit fifty times. As its authors split it, index 0 to 4 are the test; of the rest, 45 to 49 are
kept for validation here. A string is put together from recordings of one speaker and one split, with pauses; so no
sound of a test string is ever trained on.
"""

import hashlib
import io
import random
import tarfile
import wave
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.audio.clips import Clips, measure
from pipelines.audio.writing import write_wav
from pipelines.config import nearest
from pipelines.downloads import fetch, provided
from pipelines.errors import UserError

SAMPLE_RATE = 8000
PROVIDED = "fsdd/recordings.tar.gz"
REVISION = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
URL = f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/{REVISION}"
ZIP_SHA256 = "beaca4fb849cad13103b2cffba913b3d7fdb5f15222da4ddd07187b3c38a757a"
# Of all recordings, however they are packed: the names in order, each with the digest of its bytes.
CONTENT_SHA256 = "0fbe6612aaa20a80ef4371894a46e060038337a518fe3d4728cb7eee7caa013c"

WORDS = "zero one two three four five six seven eight nine".split()
SHORTEST, LONGEST = 3, 7  # digits of a string
PAUSES = (50, 300)  # milliseconds
STRINGS = {"train": 2400, "validation": 150, "test": 300}


class Recording(NamedTuple):
    """A digit, said once."""

    digit: int
    speaker: str
    index: int  # 0 to 49
    samples: np.ndarray  # (n,) int16
    contents: bytes


def splits(hold_out_speaker: str = "") -> dict[str, Clips]:
    """Connected strings to train on, with all single digits besides, to validate and to test; `test_single`.

    Args:
        hold_out_speaker: whose recordings, all of them, are the tests and nothing else; empty: the official split.

    Raises:
        UserError: an unknown speaker, or files that are not those of the data set.
    """
    found = _recordings()
    speakers = sorted({one.speaker for one in found})
    if hold_out_speaker and hold_out_speaker not in speakers:
        raise UserError(f"--hold-out-speaker {hold_out_speaker}: unknown{nearest(hold_out_speaker, speakers)}")

    def part(of: Callable[[Recording], bool]) -> list[Recording]:
        return [one for one in found if of(one)]

    def known(one: Recording) -> bool:
        return one.speaker != hold_out_speaker

    train = part(lambda one: 5 <= one.index < 45 and known(one))
    validation = part(lambda one: one.index >= 45 and known(one))
    test = part(lambda one: not known(one) if hold_out_speaker else one.index < 5)
    rng = random.Random(0)
    strings = list(_strings(train, STRINGS["train"], rng))
    return {
        "train": _clips("train", strings + _singles(train)),
        "validation": _clips("validation", list(_strings(validation, STRINGS["validation"], rng))),
        "test": _clips("test", list(_strings(test, STRINGS["test"], rng))),
        "test_single": _clips("test_single", _singles(test)),
    }


def _clips(split: str, found: Sequence[tuple[str, bytes]]) -> Clips:
    texts, contents = zip(*found, strict=True)
    return measure(texts, contents, source=f"fsdd {split}")


def _singles(recordings: Sequence[Recording]) -> list[tuple[str, bytes]]:
    return [(WORDS[one.digit], one.contents) for one in recordings]


def _strings(recordings: Sequence[Recording], count: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """So many strings, equally many of each speaker, in which all recordings are about equally often."""
    speakers = sorted({one.speaker for one in recordings})
    for speaker in speakers:
        mine = [one for one in recordings if one.speaker == speaker]
        ahead: list[Recording] = []
        for _ in range(count // len(speakers)):
            length = rng.randint(SHORTEST, LONGEST)
            while len(ahead) < length:
                ahead += rng.sample(mine, len(mine))
            chosen, ahead = ahead[:length], ahead[length:]
            parts = [chosen[0].samples]
            for one in chosen[1:]:
                parts += [np.zeros(rng.randint(*PAUSES) * SAMPLE_RATE // 1000, np.int16), one.samples]
            yield " ".join(WORDS[one.digit] for one in chosen), write_wav(np.concatenate(parts), SAMPLE_RATE)


def _recordings() -> list[Recording]:
    if archive := provided(PROVIDED):
        files = _untarred(archive)
    else:
        archive = fetch(f"fsdd/{REVISION}.zip", URL, ZIP_SHA256)
        files = _unzipped(archive)
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    if digest.hexdigest() != CONTENT_SHA256:
        raise UserError(f"{archive}: not the expected recordings; remove it to have them downloaded")
    return [_recording(name, contents) for name, contents in sorted(files.items())]


def _untarred(archive: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as tar:
            return {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.name.endswith(".wav")}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive}: not readable ({error}); remove it to have the recordings downloaded") from None


def _unzipped(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as found:
        return {Path(name).name: found.read(name) for name in found.namelist() if name.endswith(".wav")}


def _recording(name: str, contents: bytes) -> Recording:
    digit, speaker, index = name.removesuffix(".wav").split("_")
    with wave.open(io.BytesIO(contents)) as reader:
        samples = np.frombuffer(reader.readframes(-1), "<i2")
    return Recording(int(digit), speaker, int(index), samples, contents)
