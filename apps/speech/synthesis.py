"""The sample that the speech app trains on by default: sentences of a grammar of its own, spoken by espeak-ng.

Training hears each sentence once, from one of some thirty voices in one of eight accents of English, at a speed and a
pitch of its own; some of them two in a row, so that a model learns to go on after a pause. Held-out sentences are new
combinations of known words, spoken by voices that training never hears; so the sample measures whether a model has
learnt words from sounds, whoever speaks them.

The recordings are made once, in a program of its own (`apps/speech/espeak.py`), and kept in the cache.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from pipelines.downloads import CACHE_VARIABLE, cache
from pipelines.errors import UserError
from pipelines.files import write_atomically

COUNTS = {"train": 1600, "validation": 150, "test": 200}  # sentences
JOINED = 0.2  # share of the training clips that are two sentences
SEED = 23
SHORTEST, LONGEST = 3, 8  # words
SEEN_AT_LEAST = 5  # how often training holds each word of a held-out sentence
# A program's recordings depend on those before, as noises go on where they were; so its share is fixed.
SHARE = 100

ACCENTS = (
    "en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc",
)  # fmt: skip
# espeak-ng's variants, of formants and timbre of their own: what makes a speaker.
VOICES = {
    "train": (
        "m1", "m2", "m4", "m5", "m6", "m8", "f1", "f2", "f5", "Alex", "Annie", "Denis", "Hugo", "Lee", "Mario",
        "Michael", "Mike", "Nguyen", "adam", "aunty", "boris", "grandma", "john", "linda", "max", "miguel", "pablo",
        "quincy", "rob", "shelby", "victor",
    ),
    "validation": ("f3", "m7", "ed"),
    "test": ("m3", "f4", "Andy", "belinda", "marcelo"),
}  # fmt: skip
# Words a minute. CTC then needs at most 22 steps a second: fewer than the 25 of a network that joins four frames of
# 10 ms, even where training plays clips a tenth faster.
SPEEDS = (110, 150)
PITCHES = (35, 65)  # on espeak-ng's scale from 0 to 100

# No two words sound alike, as two and to do: the sound says what is to be written.
NAMES = "anna peter maria thomas oliver emma".split()
PEOPLE = "teacher farmer doctor driver baker sister brother mother uncle singer student painter".split()
ANIMALS = "dog cat horse bird rabbit duck tiger monkey".split()
THINGS = (
    "apple basket bottle book letter picture table window candle hammer jacket kettle ladder lemon orange pencil "
    "blanket bicycle"
).split()
OF_BEINGS = "small large old young happy quiet clever hungry".split()
OF_THINGS = "small large old yellow green purple silver heavy empty broken".split()
NUMBERS = "two three four five six seven nine ten eleven twenty".split()
BASE_AND_PAST = (
    ("find", "found"), ("carry", "carried"), ("paint", "painted"), ("wash", "washed"), ("drop", "dropped"),
    ("move", "moved"), ("borrow", "borrowed"), ("hide", "hid"), ("watch", "watched"), ("hold", "held"),
)  # fmt: skip
INTRANSITIVE = "slept waited danced listened stopped jumped played".split()
PREPOSITIONS = "under behind near beside".split()
PLACES = "kitchen river bridge market village forest station mountain church school garden island".split()
PAST_TIMES = ("yesterday", "last summer", "today", "in the morning", "on monday", "before lunch", "after dinner")
COMING_TIMES = ("tomorrow", "next winter", "today", "in the morning", "on monday", "before lunch", "after dinner")


class Utterance(NamedTuple):
    """A sentence and how it is spoken."""

    text: str  # sentences, with a full stop between them
    voice: str  # accent+variant, as espeak-ng names them
    speed: int  # words a minute
    pitch: int  # 0 to 100
    seed: int  # of the noise in breathy voices


class Grammar:
    """Sentences by chance: statements, questions and requests of 3 to 8 words."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.forms = (
            self._deed, self._deed, self._deed, self._rest, self._rest, self._flock, self._where, self._who,
            self._future, self._past, self._request, self._demand,
        )  # fmt: skip

    def sentence(self) -> str:
        while True:
            found = " ".join(self.rng.choice(self.forms)().split())
            if SHORTEST <= len(found.split()) <= LONGEST:
                return found

    def _deed(self):
        return f"{self._person()} {self._verb()[1]} {self._thing()} {self._maybe(self._where_or_when)}"

    def _rest(self):
        being = self._person() if self.rng.random() < 0.5 else f"the {self._of_beings()} {self._one(ANIMALS)}"
        return f"{being} {self._one(INTRANSITIVE)} {self._where_or_when()}"

    def _flock(self):
        return (
            f"{self._one(NUMBERS)} {self._of_beings()} {self._one(ANIMALS)}s {self._one(INTRANSITIVE)} "
            f"{self._maybe(self._where_or_when)}"
        )

    def _where(self):
        return f"where is {self._thing()}"

    def _who(self):
        return f"who {self._verb()[1]} {self._thing()} {self._maybe(self._when)}"

    def _future(self):
        return f"will {self._person()} {self._verb()[0]} {self._thing()} {self._maybe(self._soon)}"

    def _past(self):
        return f"did {self._person()} {self._verb()[0]} {self._thing()} {self._maybe(self._when)}"

    def _request(self):
        return f"{self._one(('please', 'do not'))} {self._verb()[0]} {self._thing()} {self._maybe(self._soon)}"

    def _demand(self):
        return f"bring me {self._one(NUMBERS)} {self._of_things()} {self._one(THINGS)}s {self._maybe(self._soon)}"

    def _person(self):
        if self.rng.random() < 0.35:
            return self._one(NAMES)
        return f"{self._one(('the', 'my', 'this'))} {self._of_beings()} {self._one(PEOPLE)}"

    def _thing(self):
        if self.rng.random() < 0.25:
            return f"{self._one(NUMBERS)} {self._of_things()} {self._one(THINGS)}s"
        return f"{self._one(('the', 'my', 'this'))} {self._of_things()} {self._one(THINGS)}"

    def _where_or_when(self):
        return f"{self._one(PREPOSITIONS)} the {self._one(PLACES)}" if self.rng.random() < 0.6 else self._when()

    def _when(self):
        return self._one(PAST_TIMES)

    def _soon(self):
        return self._one(COMING_TIMES)

    def _verb(self):
        return self._one(BASE_AND_PAST)

    def _of_beings(self):
        return self._one(OF_BEINGS) if self.rng.random() < 0.5 else ""

    def _of_things(self):
        return self._one(OF_THINGS) if self.rng.random() < 0.5 else ""

    def _maybe(self, part):
        return part() if self.rng.random() < 0.4 else ""

    def _one(self, words):
        return self.rng.choice(words)


def utterances() -> dict[str, list[Utterance]]:
    """What is spoken in each split; the same everywhere.

    No sentence is in two splits or twice in one. Each word of a held-out one is `SEEN_AT_LEAST` times in training, and
    its voice never.
    """
    rng = random.Random(SEED)
    grammar = Grammar(rng)
    sentences: dict[str, None] = {}  # a set in order

    def new() -> str:
        while (found := grammar.sentence()) in sentences:
            pass
        sentences[found] = None
        return found

    known = Counter()
    spoken = {}
    for split, count in COUNTS.items():
        texts = []
        while len(texts) < count:
            text = new()
            if split == "train" or all(known[word] >= SEEN_AT_LEAST for word in text.split()):
                texts.append(text)
        if split == "train":
            known.update(" ".join(texts).split())
            texts = _joined(texts, rng)
        spoken[split] = [
            Utterance(
                text,
                f"{rng.choice(ACCENTS)}+{rng.choice(VOICES[split])}",
                rng.randint(*SPEEDS),
                rng.randint(*PITCHES),
                rng.randrange(2**31),
            )
            for text in texts
        ]
    return spoken


def _joined(sentences: Sequence[str], rng: random.Random) -> list[str]:
    """The sentences in their order, some of them two in one text."""
    ahead, texts = list(sentences), []
    while ahead:
        count = 2 if rng.random() < JOINED else 1
        texts.append(". ".join(ahead[:count]))
        del ahead[:count]
    return texts


def splits(show: bool = True) -> dict[str, tuple[list[str], list[bytes]]]:
    """The sample: the sentences of each split and their recordings, WAVs of 16 kHz.

    They are synthesised once and then kept in the user's cache, in a file that appears when it is complete.

    Raises:
        UserError: espeak-ng is not installed or cannot be loaded, or the cache cannot be written.
    """
    spoken = utterances()
    archive = _archive(spoken)
    names = [f"{split}/{number:04}.wav" for split, found in spoken.items() for number in range(len(found))]
    contents = _read(archive, names)
    if contents is None:
        contents = synthesise([one for found in spoken.values() for one in found], show)
        _write(archive, names, contents)
    recordings = iter(contents)
    return {split: ([one.text for one in found], [next(recordings) for _ in found]) for split, found in spoken.items()}


def synthesise(spoken: Sequence[Utterance], show: bool = True) -> list[bytes]:
    """Speaks sentences, on all cores. Returns their WAVs; the same for the same sentences in the same order."""
    shares = [spoken[start : start + SHARE] for start in range(0, len(spoken), SHARE)]
    console = Console(stderr=True)
    shown = show and console.is_terminal
    if show and not shown:
        print(f"speaking {len(spoken)} sentences with espeak-ng", file=sys.stderr)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = track(
            pool.map(_speak, shares),
            "speaking with espeak-ng",
            len(shares),
            console=console,
            transient=True,
            disable=not shown,
        )
        return [wav for share in found for wav in share]


def _speak(share: Sequence[Utterance]) -> list[bytes]:
    requests = "".join(json.dumps(one._asdict()) + "\n" for one in share)
    done = subprocess.run([sys.executable, "-m", "apps.speech.espeak"], input=requests.encode(), capture_output=True)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"ended with code {done.returncode}"]
        raise UserError(f"the sample cannot be spoken: {lines[-1]}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return [tar.extractfile(member).read() for member in tar]


def _archive(spoken: dict[str, list[Utterance]]) -> Path:
    """Where the sample is kept: a name of its own for everything that goes into it."""
    try:
        version = importlib.metadata.version("espeakng-loader")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "the sample is spoken by espeak-ng, which is not installed; pip install espeakng-loader, "
            "or train on your own recordings with --train"
        ) from None
    program = Path(__file__).with_name("espeak.py").read_text(encoding="utf-8")
    key = hashlib.sha256(json.dumps([spoken, SHARE, version, program]).encode()).hexdigest()[:16]
    return cache() / "speech-sample" / f"{key}.tar"


def _read(archive: Path, names: Sequence[str]) -> list[bytes] | None:
    """The recordings of the cache; None where it does not hold them."""
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            return [tar.extractfile(m).read() for m in members] if [m.name for m in members] == list(names) else None
    except (OSError, tarfile.TarError):
        return None


def _write(archive: Path, names: Sequence[str], contents: Sequence[bytes]) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, wav in zip(names, contents, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(wav)
            tar.addfile(member, io.BytesIO(wav))
    try:
        write_atomically(archive, file.getvalue())
    except OSError as error:
        raise UserError(
            f"{archive.parent}: cannot be written ({error.strerror}); name another directory in {CACHE_VARIABLE}"
        ) from error
