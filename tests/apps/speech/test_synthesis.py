"""The sample's sentences by their properties, and a handful of them spoken by the real program."""

import io
import itertools
import wave
from collections import Counter

import numpy as np
import pytest

from apps.speech import synthesis
from apps.speech.synthesis import VOICES, Utterance
from pipelines.errors import UserError

HOMOPHONES = [
    {"two", "to", "too"}, {"four", "for"}, {"eight", "ate"}, {"one", "won"}, {"by", "buy"}, {"their", "there"},
    {"our", "hour"}, {"no", "know"}, {"hear", "here"}, {"meet", "meat"}, {"sun", "son"}, {"blue", "blew"},
]  # fmt: skip


@pytest.fixture(scope="module")
def spoken():
    return synthesis.utterances()


def sentences(found):
    return [sentence for one in found for sentence in one.text.split(". ")]


def words(found):
    return Counter(word for sentence in sentences(found) for word in sentence.split())


def samples(wav):
    with wave.open(io.BytesIO(wav)) as reader:
        assert reader.getparams()[:3] == (1, 2, 16000)
        return np.frombuffer(reader.readframes(-1), "<i2").astype(float)


def test_sentences(spoken):
    counts = {split: len(sentences(found)) for split, found in spoken.items()}
    assert counts == {"train": 1600, "validation": 150, "test": 200}
    joined = [one.text.count(". ") for one in spoken["train"]]
    assert set(joined) == {0, 1} and 0.15 < np.mean(joined) < 0.25
    assert spoken == synthesis.utterances()
    everything = [sentence for found in spoken.values() for sentence in sentences(found)]
    assert len(set(everything)) == len(everything)
    lengths = Counter(len(text.split()) for text in everything)
    assert set(lengths) == set(range(3, 9)) and min(lengths.values()) > 10
    assert set("".join(everything)) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_held_out_sentences_have_known_words(spoken):
    known = words(spoken["train"])
    assert len(known) > 150 and min(known.values()) >= 5
    for split in ("validation", "test"):
        assert all(known[word] >= 5 for word in words(spoken[split])) and len(words(spoken[split])) > 100


def test_what_sounds_alike_is_written_alike(spoken):
    known = set(words(spoken["train"]))
    assert all(len(group & known) <= 1 for group in HOMOPHONES)


def test_voices_are_those_of_one_split_alone(spoken):
    heard = {split: {one.voice.split("+")[1] for one in found} for split, found in spoken.items()}
    assert heard == {split: set(voices) for split, voices in VOICES.items()}
    assert sum(map(len, heard.values())) == len(set().union(*heard.values()))
    for found in spoken.values():
        assert len({one.voice.split("+")[0] for one in found}) == 8
        assert len({one.speed for one in found}) > 30 and len({one.pitch for one in found}) > 25


def test_speaking(monkeypatch):
    monkeypatch.setattr(synthesis, "SHARE", 3)
    text = "my clever sister washed seven purple blankets"
    asked = [Utterance(text, f"en-us+{v}", 170, 50, 1) for split in VOICES.values() for v in split]
    asked += [asked[0]._replace(speed=210), asked[0]._replace(pitch=65), asked[0]._replace(text="who hid my book")]
    found = synthesis.synthesise(asked, show=False)
    assert len(found) == len(asked) and len(set(found)) == len(found)  # each voice, speed and pitch is its own
    for wav in found:
        heard = samples(wav)
        assert 0.8 < len(heard) / 16000 < 4 and heard.std() > 500
    normal, fast, _, short = (len(samples(found[index])) for index in (0, -3, -2, -1))
    assert fast < 0.9 * normal and short < 0.6 * normal
    # Breathy voices too, whose noise espeak-ng draws by the clock if nobody gives it a seed.
    assert synthesis.synthesise(asked[:9], show=False) == found[:9]


def broken(monkeypatch, directory, source):
    """Puts another `espeakng_loader` before the installed one."""
    (directory / "espeakng_loader.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(directory))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("raise ImportError", "espeak-ng is not installed; pip install espeakng-loader"),
        ("get_library_path = lambda: __file__", "espeak-ng cannot be loaded .*; pip install --force-reinstall"),
        ("get_library_path = lambda: None", "espeak-ng cannot be loaded .*; pip install --force-reinstall"),
    ],
)
def test_without_the_library(monkeypatch, tmp_path, source, complaint):
    broken(monkeypatch, tmp_path, source)
    with pytest.raises(UserError, match=f"the sample cannot be spoken: {complaint}"):
        synthesis.synthesise([Utterance("good morning", "en+m1", 170, 50, 0)], show=False)


def test_an_unknown_voice():
    with pytest.raises(UserError, match="espeak-ng has no voice 'nobody'"):
        synthesis.synthesise([Utterance("good morning", "nobody", 170, 50, 0)], show=False)


def test_the_sample_is_spoken_once(monkeypatch, tmp_path):
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(synthesis, "COUNTS", {"train": 4})
    first = synthesis.splits(show=False)
    (archive,) = (tmp_path / "cache").rglob("*.*")
    texts, wavs = first["train"]
    assert (
        ". ".join(texts).count(". ") == 3 and len(wavs) == len(texts) and all(samples(wav).std() > 500 for wav in wavs)
    )

    with monkeypatch.context() as patched:  # nobody speaks now: this comes from the cache
        broken(patched, tmp_path, "raise ImportError")
        assert synthesis.splits(show=False) == first
        monkeypatch.setattr(synthesis, "COUNTS", {"train": 5})  # another sample, another file
        with pytest.raises(UserError, match="the sample cannot be spoken"):
            synthesis.splits(show=False)
    monkeypatch.setattr(synthesis, "COUNTS", {"train": 4})
    archive.write_bytes(archive.read_bytes()[:2000])  # cut off: it is made anew
    assert synthesis.splits(show=False) == first
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 1


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(synthesis, "COUNTS", {"train": 1})
    with pytest.raises(UserError, match="cannot be written .*; name another directory in ESPALIER_CACHE"):
        synthesis.splits(show=False)


@pytest.mark.slow
def test_the_whole_sample(monkeypatch, tmp_path):
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    found = synthesis.splits(show=False)
    assert {split: len(wavs) for split, (_, wavs) in found.items()} == {"train": 1348, "validation": 150, "test": 200}
    seconds = [len(samples(wav)) / 16000 for _, wavs in found.values() for wav in wavs]
    assert 0.8 < min(seconds) and max(seconds) < 10 and 1.1 < sum(seconds) / 3600 < 1.5
    texts = [text.replace(".", "") for texts, _ in found.values() for text in texts]
    steps = [len(text) + sum(a == b for a, b in itertools.pairwise(text)) for text in texts]  # that CTC needs
    assert max(n / s for n, s in zip(steps, seconds, strict=True)) < 25 / 1.1
    assert synthesis.splits(show=False) == found
