"""The task's own methods: which clips can be learnt from, and that the served model hears what training heard."""

import numpy as np
import pytest
import tensorflow as tf

from apps.speech.config import (
    GREEDY,
    ModelConfig,
    SearchConfig,
    SpeechConfig,
    SpeechExportOptions,
    SpeechPredictOptions,
)
from apps.speech.task import SpeechTask, _spans
from apps.speech.transcriber import PART, _stretches, padded
from pipelines.audio.reading import read_audios
from pipelines.errors import UserError
from pipelines.runs import Run
from pipelines.text.characters import Characters
from tests.apps.speech.conftest import RATE, tone_wav, write_manifest
from tests.pipelines.audio import wavs

PART_SAMPLES = round(PART * RATE)
TINY = ModelConfig(width=16, layers=1, bands=24)


def prepared(tones, run, **settings):
    splits = {name: (tones / f"{name}.jsonl",) for name in ("train", "validation", "test")}
    task = SpeechTask(SpeechConfig(**{"sample_rate": RATE, "batch_size": 12, **splits, **settings}), Run(run))
    task.config = task.prepare()
    task.load()
    return task


def test_training_is_given_what_a_server_reads(tones, tmp_path):
    task = prepared(tones, tmp_path / "run")
    batch = next(iter(task.validation_batches()))
    clips = task._validation
    contents = [clips.encoded(index) for index in range(len(clips))]
    audio, lengths = read_audios(tf.constant(contents), RATE)
    rows = {lengths.numpy()[i]: audio.numpy()[i, : lengths[i]] for i in range(len(clips))}
    for row, length in zip(batch["audio"].numpy(), batch["audio_length"].numpy(), strict=True):
        np.testing.assert_array_equal(row[:length], rows[length])
        assert not row[length:].any()


@pytest.mark.parametrize(
    "text, said",
    [
        ("abc é", "é"),
        ("abcd" * 40, "steps are needed for its transcript"),
        ("...", "no letter and no digit in its transcript"),
    ],
)
def test_a_clip_that_cannot_be_learnt_from_is_named_or_skipped(tones, tmp_path, text, said, capsys):
    (tmp_path / "bad.wav").write_bytes(tone_wav("abc"))
    (tmp_path / "good.wav").write_bytes(tone_wav("ab"))
    rows = [{"audio_filepath": "good.wav", "text": "ab"}, {"audio_filepath": "bad.wav", "text": text}]
    write_manifest(tmp_path / "validation.jsonl", rows)
    validation = (tmp_path / "validation.jsonl",)
    with pytest.raises(UserError, match=f"bad.wav.*{said}"):
        prepared(tones, tmp_path / "a", validation=validation).validation_batches()
    task = prepared(tones, tmp_path / "b", validation=validation, on_bad_example="skip")
    assert next(iter(task.validation_batches()))["weight"].numpy().sum() == 1
    assert [file.read_bytes() for file in task._examples] == [(tmp_path / "good.wav").read_bytes()]
    assert "skipped 1 of 2 clips" in capsys.readouterr().out


def test_steps_are_those_of_the_model(tones, tmp_path):
    task = prepared(tones, tmp_path / "run", model=ModelConfig(width=16, layers=1, bands=24, subsampling=2))
    model = task.build_model()
    for samples in (1, 79, 80, 81, 1600, 4321):
        outputs = model({"audio": np.zeros((1, samples), "float32"), "audio_length": np.array([samples], "int32")})
        assert int(outputs["lengths"][0]) == outputs["logits"].shape[1] == task._steps(samples) == model.steps(samples)


@pytest.mark.parametrize("encoder", ["rnn", "conformer"])
def test_padding_changes_nothing(tones, tmp_path, encoder):
    task = prepared(tones, tmp_path / "run", model=ModelConfig(encoder=encoder, width=16, heads=2, layers=1, bands=24))
    model = task.build_model()
    audio, lengths = padded([task._validation.audio(0), task._validation.audio(1)])
    together = model({"audio": np.pad(audio, [[0, 0], [0, 999]]), "audio_length": lengths})
    for row in range(2):
        alone = model({"audio": audio[row : row + 1, : lengths[row]], "audio_length": lengths[row : row + 1]})
        steps = int(alone["lengths"][0])
        assert int(together["lengths"][row]) == steps
        np.testing.assert_allclose(together["logits"][row, :steps], alone["logits"][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [PART_SAMPLES, PART_SAMPLES + 1, 3 * PART_SAMPLES // 2])
def test_parts_of_a_long_recording_join_without_gap_or_repetition(tones, tmp_path, samples):
    task = prepared(tones, tmp_path / "run", model=ModelConfig(width=16, layers=1, bands=24))
    model = task.build_model()
    audio = np.random.default_rng(0).normal(0, 1000, samples).astype(np.int16)
    (tmp_path / "long.wav").write_bytes(wavs.by_scipy(audio, RATE))
    transcriber = task._transcriber(model, GREEDY)
    with open(tmp_path / "long.wav", "rb") as file:
        pieces = list(transcriber._parts(file, samples / RATE, lambda *_: None))
    assert sum(map(len, pieces)) == model.steps(samples)


def test_blanks_between_the_stretches_of_a_long_recording_are_written(tones, tmp_path, monkeypatch):
    task = prepared(tones, tmp_path / "run", units="pieces", vocabulary_size=14, model=TINY)
    transcriber = task._transcriber(task.build_model(), GREEDY)
    text = " ".join(["ab", "cd", "dab"] * 200)
    ids = [symbol for number in task.symbols.encode(text) for symbol in (number, 0)]
    scores = np.where(np.arange(task.symbols.size) == np.array(ids)[:, None], 0.0, -30.0).astype(np.float32)
    assert len(list(_stretches(scores, transcriber.model.steps(PART_SAMPLES)))) > 1
    monkeypatch.setattr(transcriber, "_parts", lambda *_: iter([scores]))
    heard = transcriber.transcribe_file(tones / "test" / "0.wav")
    assert heard.text == text and heard.confidence > 0.99


def test_examples_of_an_export_are_no_longer_than_it_takes(tones, tmp_path):
    task = prepared(tones, tmp_path / "run", model=TINY)
    model = task.build_model()
    seconds = sorted(task._validation.seconds[:6])
    for most, count in ((60.0, 6), (seconds[2], 3), (0.11, 1)):
        served = task.servable(model, SpeechExportOptions(most_seconds=most))
        assert len(served.examples["serving_default"][1]["audio_bytes"]) == count
    (silence,) = served.examples["serving_default"][1]["audio_bytes"]
    assert read_audios(tf.constant([silence]), RATE, 0.11)[1] == [RATE // 10]


def test_a_list_of_words(tones, tmp_path):
    task = prepared(tones, tmp_path / "run", model=TINY)
    search = SearchConfig(words=tmp_path / "words.txt")
    for written, said in ((b"caf\xe9", "not UTF-8"), (b"xyz", "no word in it that the alphabet can spell")):
        search.words.write_bytes(written)
        with pytest.raises(UserError, match=said):
            task._known_words(search)
    search.words.write_text("ab-cd\n")  # as a transcript is written: two words
    both = task._known_words(search)
    search.words.write_text("ab cd\n")
    assert all(map(np.array_equal, both, task._known_words(search)))
    task.symbols = Characters("abcd")
    with pytest.raises(UserError, match="writes no blank"):
        task._known_words(search)


@pytest.mark.parametrize(
    "text, said", [("...", "no letter and no digit in any transcript"), ("ab", "--model.bands 128")]
)
def test_what_shows_only_with_the_data_is_refused(tones, tmp_path, text, said):
    rows = [{"audio_filepath": str(tones / "test" / f"{number}.wav"), "text": text} for number in range(3)]
    train = (write_manifest(tmp_path / "train.jsonl", rows),)
    with pytest.raises(UserError, match=said):
        prepared(tones, tmp_path / "run", train=train, model=ModelConfig(bands=128 if text == "ab" else 24))


def test_short_recordings_share_batches(tones, tmp_path, monkeypatch):
    task = prepared(tones, tmp_path / "run", model=TINY)
    model = task.build_model()
    transcriber = task._transcriber(model, GREEDY)
    (tmp_path / "long.wav").write_bytes(wavs.by_scipy(np.zeros(PART_SAMPLES + 1, np.int16), RATE))
    files = [*(tones / "test" / f"{number}.wav" for number in range(4)), tmp_path / "none.wav", tmp_path / "long.wav"]
    alone = [transcriber.transcribe_file(file) for file in files if file.exists()]
    sizes, transcribe = [], transcriber.transcribe

    def counted(clips, batch_size):
        sizes.append(len(clips))
        return transcribe(clips, batch_size)

    monkeypatch.setattr(transcriber, "transcribe", counted)
    rows = list(map(str, files))
    answers = list(task.predict(model, rows, SpeechPredictOptions(search=GREEDY, batch_size=3)))
    assert sizes == [3, 1]
    assert [answer["source"] for answer in answers] == rows and "no such file" in answers.pop(4)["error"]
    assert [answer["text"] for answer in answers] == [found.text for found in alone]
    confidences = [found.confidence for found in alone]
    np.testing.assert_allclose([answer["confidence"] for answer in answers], confidences, atol=1e-3)


def test_spans_of_symbols():
    assert _spans(["", "a", "a", "", "b", "b"], 0.5) == [("a", 0.5, 1.5), ("b", 2.0, 3.0)]
    assert _spans([], 0.5) == []


def test_stretches_are_cut_at_blanks():
    scores = np.random.default_rng(0).normal(size=(1000, 5))
    pieces = list(_stretches(scores, 100))
    np.testing.assert_array_equal(np.concatenate(pieces), scores)
    assert all(len(piece) <= 100 for piece in pieces)
    assert all(piece[0, 0] >= 1 for piece in pieces[1:])  # the most blank step of some fifty
