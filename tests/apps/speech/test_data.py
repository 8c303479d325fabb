"""Manifests and tables, good and bad, and the public sets where they are present."""

import io
import os
import wave
import zipfile
from collections import Counter

import numpy as np
import pytest

from apps.speech import data, digits, synthesis
from apps.speech.config import SpeechConfig
from pipelines.audio.clips import decode
from pipelines.errors import UserError
from tests.apps.speech.conftest import TEXTS, recording, write_manifest
from tests.pipelines.audio import wavs

PUBLIC = pytest.mark.skipif("ESPALIER_DATA" not in os.environ, reason="needs the public data sets")
GOOD = {"audio_filepath": "wavs/a.wav", "text": "good"}


def own(on_bad_example="fail", most_seconds=30.0, **paths):
    given = {name: (path,) for name, path in paths.items()}
    return data.splits(SpeechConfig(on_bad_example=on_bad_example, most_seconds=most_seconds, **given))


def everything(found):
    return {text for split in found.values() for text in split.texts}


def test_a_manifest(folder):
    found = own(train=folder / "manifest.jsonl", validation=folder / "manifest.jsonl", test=folder / "manifest.jsonl")
    assert list(found) == ["train", "validation", "test"]
    train = found["train"]
    assert train.texts == tuple(TEXTS.values())
    # What the header says counts, not the manifest.
    np.testing.assert_allclose(train.seconds, [0.2, 0.3, 0.4, 0.5, 0.6])
    assert train.encoded(1) == (folder / "wavs" / "b.wav").read_bytes() and train.name(1).endswith("wavs/b.wav")
    assert decode(train, 8000, 30.0, "fail").samples.lengths.tolist() == [1600, 2400, 3200, 4000, 4800]


def test_paths_of_a_manifest_may_be_absolute_and_its_lines_odd(folder, tmp_path_factory):
    manifest = tmp_path_factory.mktemp("elsewhere") / "some.json"
    row = {"audio_filepath": str(folder / "wavs" / "a.wav"), "text": "  Grüße \u2028 an alle ", "speaker": 3}
    manifest.write_text("\ufeff")
    with manifest.open("a", encoding="utf-8", newline="") as file:
        file.write(f'{{"audio_filepath": "{row["audio_filepath"]}", "text": "{row["text"]}"}}\r\n\n')
    found = own(train=manifest, validation=manifest)
    assert found["train"].texts == ("Grüße \u2028 an alle",) and found["train"].rows.tolist() == [1]


def test_a_table(folder):
    found = own(train=folder / "metadata.csv", validation=folder)
    assert found["train"].texts == found["validation"].texts == tuple(text.lower() for text in TEXTS.values())
    (folder / "metadata.csv").write_text('a|The "first"\r\nb|Second, 2nd|\nc|3|third\n')
    assert own(train=folder, validation=folder)["train"].texts == ('The "first"', "Second, 2nd", "third")


def test_validation_is_held_out_and_never_seen_in_training(folder):
    found = own(train=folder / "manifest.jsonl", test=folder / "manifest.jsonl")
    assert list(found) == ["train", "validation", "test"]
    assert len(found["train"]) == 4 and len(found["validation"]) == 1 and len(found["test"]) == 5
    assert everything({name: found[name] for name in ("train", "validation")}) == set(TEXTS.values())
    write_manifest(folder / "one.jsonl", [GOOD])
    with pytest.raises(UserError, match=r"one\.jsonl: too few clips to hold some out"):
        own(train=folder / "one.jsonl")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{oops", "no JSON"),
        ('["wavs/a.wav", "text"]', "no JSON object"),
        ({"audio_filepath": "wavs/a.wav"}, "no text under 'text'"),
        ({"text": "good"}, "no text under 'audio_filepath'"),
        (GOOD | {"text": None}, "no text under 'text'"),
        (GOOD | {"text": " "}, "empty transcript"),
        (GOOD | {"audio_filepath": ""}, "names no file"),
        (GOOD | {"audio_filepath": "wavs/none.wav"}, r"wavs/none\.wav: no such file or directory"),
        (GOOD | {"audio_filepath": "wavs"}, "wavs: is a directory"),
    ],
)
def test_a_bad_row_of_a_manifest(folder, capsys, row, complaint):
    bad = write_manifest(folder / "bad.jsonl", [GOOD, row, GOOD | {"audio_filepath": "wavs/b.wav"}])
    with pytest.raises(UserError, match=rf"bad\.jsonl, row 2: .*{complaint}.*; mend or remove it, or pass --on-bad"):
        own(train=bad)
    found = own("skip", train=bad, validation=folder)
    assert found["train"].rows.tolist() == [1, 3] and [f[-5:] for f in found["train"].files] == ["a.wav", "b.wav"]
    assert "skipped 1 of 3 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"", "0 bytes: no audio"),
        (wavs.plain(0), "a WAV of 0 samples"),
        (recording()[:30], "damaged WAV: its header is cut off"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "not a WAV"),
        (b"ID3\x04\x00" + bytes(90), "an MP3, not a WAV"),
        (b"good morning", "text, not a WAV"),
        (wavs.by_wave(bytes(2 * 3600 * 1000), 1000), "3600 s long, more than --most-seconds 30"),
    ],
)
def test_a_bad_recording(folder, contents, complaint):
    (folder / "wavs" / "b.wav").write_bytes(contents)
    with pytest.raises(UserError, match=rf"manifest\.jsonl, row 2: .*b\.wav: {complaint}; mend or remove it"):
        own(train=folder / "manifest.jsonl")
    with pytest.raises(UserError, match=rf"metadata\.csv, row 2: .*b\.wav: {complaint}"):
        own(train=folder)
    assert everything(own("skip", train=folder / "manifest.jsonl")) == set(TEXTS.values()) - {TEXTS["b"]}


def test_longer_clips_are_taken_where_they_may_be(folder):
    with pytest.raises(UserError, match="row 4: .* more than --most-seconds 0.4"):
        own(train=folder, most_seconds=0.4)
    assert everything(own("skip", train=folder, most_seconds=0.4)) == {"good morning!", "two tigers", "who hid it"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("a good\n", r"row 1: no \| in it"), ("a|\n", "row 1: has an empty"), ("a|b\n|c\n", "row 2: names no file")],
)
def test_a_bad_row_of_a_table(folder, text, complaint):
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(UserError, match=rf"metadata\.csv, {complaint}"):
        own(train=folder)


def test_bad_files(folder):
    for name, content, complaint in [
        ("none.jsonl", None, "no such file"),
        ("rows.txt", b"", "takes a manifest named .jsonl, or a table named .csv"),
        ("empty.jsonl", b"\n", 'no rows; a line is such as {"audio_filepath"'),
        ("empty.csv", b"", "no rows; a line is such as a|Good"),
        ("latin.csv", "a|für\n".encode("latin-1"), "not UTF-8 text"),
    ]:
        if content is not None:
            (folder / name).write_bytes(content)
        with pytest.raises(UserError) as raised:
            own(train=folder / name)
        assert str(folder / name) in str(raised.value) and complaint in str(raised.value)
    with pytest.raises(UserError, match="--train: takes one file"):
        data.splits(SpeechConfig(train=(folder, folder)))
    write_manifest(folder / "bad.jsonl", ["{"])
    with pytest.raises(UserError, match="no good clip among"):
        own("skip", train=folder / "bad.jsonl")


def test_the_sample(monkeypatch, tmp_path):
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    monkeypatch.setattr(synthesis, "COUNTS", {"train": 3})
    (train,) = data.splits(SpeechConfig()).values()
    assert train.texts == tuple(one.text for one in synthesis.utterances()["train"]) and train.seconds.min() > 0.5
    assert data.sample_rate(SpeechConfig()) == 16000 and data.sample_rate(SpeechConfig(dataset="fsdd")) == 8000


def test_unknown_names():
    with pytest.raises(UserError, match=r"--dataset lj-speech: unknown \(did you mean ljspeech\?\)"):
        data.splits(SpeechConfig(dataset="lj-speech"))
    with pytest.raises(UserError, match="--hold-out-speaker goes with --dataset fsdd"):
        data.splits(SpeechConfig(hold_out_speaker="theo"))


@pytest.fixture(scope="module")
def fsdd():
    return data.splits(SpeechConfig(dataset="fsdd"))


def samples(wav):
    with wave.open(io.BytesIO(wav)) as reader:
        return np.frombuffer(reader.readframes(-1), "<i2")


def split_up(text, wav, recordings):
    """The recordings that a string is made of, found by their samples, and the pauses between them in seconds."""
    rest, found, pauses = samples(wav), [], []
    for word in text.split():
        fits = [one for one in recordings[word] if np.array_equal(rest[: len(one.samples)], one.samples)]
        (one,) = fits
        found.append(one)
        rest = rest[len(one.samples) :]
        if len(found) < len(text.split()):
            # A recording may itself begin with zeros; so the pause is what fits the next one.
            beginnings = {tuple(o.samples[:40]): 0 for o in recordings[text.split()[len(found)]]}
            gap = next(n for n in range(400, 2401, 8) if not rest[:n].any() and tuple(rest[n : n + 40]) in beginnings)
            pauses.append(gap / 8000)
            rest = rest[gap:]
    assert not len(rest)
    return found, pauses


@PUBLIC
def test_digits(fsdd):
    assert {name: len(split) for name, split in fsdd.items()} == {
        "train": 4800, "validation": 150, "test": 300, "test_single": 300,
    }  # fmt: skip
    assert list(fsdd)[:3] == ["train", "validation", "test"]
    sizes = {name: Counter(len(text.split()) for text in split.texts) for name, split in fsdd.items()}
    assert sizes["train"][1] == 2400 and sizes["test_single"] == {1: 300}
    assert all(set(sizes[name]) == set(range(3, 8)) for name in ("validation", "test"))
    assert everything(fsdd) and set(" ".join(everything(fsdd)).split()) == set(digits.WORDS)
    again = data.splits(SpeechConfig(dataset="fsdd", seed=1))
    assert all(again[name].contents == fsdd[name].contents for name in fsdd)  # whatever the seed of a run


@PUBLIC
@pytest.mark.parametrize(
    ("name", "indices"), [("validation", range(45, 50)), ("test", range(5)), ("train", range(5, 45))]
)
def test_strings_are_of_one_speaker_and_one_split(fsdd, name, indices):
    by_word = {word: [] for word in digits.WORDS}
    for one in digits._recordings():
        by_word[digits.WORDS[one.digit]].append(one)
    heard, pauses = Counter(), []
    for index in range(0, len(fsdd[name]), 7):
        found, between = split_up(fsdd[name].texts[index], fsdd[name].encoded(index), by_word)
        assert len({one.speaker for one in found}) == 1 and {one.index for one in found} <= set(indices)
        heard.update(one.speaker for one in found)
        pauses += between
    assert len(heard) == 6 and min(pauses) >= 0.05 and max(pauses) <= 0.3 and np.ptp(pauses) > 0.2


@PUBLIC
def test_a_speaker_held_out(fsdd):
    found = data.splits(SpeechConfig(dataset="fsdd", hold_out_speaker="theo"))
    assert {name: len(split) for name, split in found.items()} == {
        "train": 4400, "validation": 150, "test": 300, "test_single": 500,
    }  # fmt: skip
    theo = [one for one in digits._recordings() if one.speaker == "theo"]
    assert sorted(found["test_single"].contents) == sorted(one.contents for one in theo)
    beginnings = {one.contents[44:300] for one in theo}
    assert all(wav[44:300] in beginnings for wav in found["test"].contents)
    assert not any(wav[44:300] in beginnings for name in ("train", "validation") for wav in found[name].contents)
    with pytest.raises(UserError, match=r"--hold-out-speaker teo: unknown \(did you mean theo\?\)"):
        data.splits(SpeechConfig(dataset="fsdd", hold_out_speaker="teo"))


@PUBLIC
def test_recordings_that_are_not_those_of_the_set(monkeypatch, tmp_path):
    (tmp_path / "fsdd").mkdir()
    archive = tmp_path / digits.PROVIDED
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path))
    archive.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"recordings\.tar\.gz: not readable"):
        data.splits(SpeechConfig(dataset="fsdd"))
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as packed:
        packed.writestr("set-1/recordings/0_theo_0.wav", recording())
    assert digits._unzipped(tmp_path / "some.zip") == {"0_theo_0.wav": recording()}


@PUBLIC
def test_ljspeech(monkeypatch, tmp_path):
    monkeypatch.setenv("ESPALIER_CACHE", str(tmp_path))
    found = data.splits(SpeechConfig(dataset="ljspeech"))
    assert {name: len(split) for name, split in found.items()} == {"train": 216, "validation": 24, "test": 30}
    rows = np.concatenate([split.rows for split in found.values()])
    assert (
        sorted(rows) == list(range(1, 271)) and 1.5 < found["train"].seconds.min() < found["train"].seconds.max() < 11
    )
    again = data.splits(SpeechConfig(dataset="ljspeech", seed=3))  # from the cache, and the same whatever the seed
    assert all(again[name].files == split.files for name, split in found.items())
    assert not list(tmp_path.rglob(".partial*"))
    for split in found.values():
        names = [os.path.basename(file) for file in split.files]
        assert names == [f"LJ001-{n:04}.wav" if n <= 186 else f"LJ002-{n - 186:04}.wav" for n in split.rows]
        assert all(text and len(text) < 200 for text in split.texts)
