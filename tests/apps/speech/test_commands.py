"""The app from the command line: train, evaluate, predict, explain, export, as a user would give them."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  the operations of an export that writes pieces

from tests.apps import command_line
from tests.apps.speech.conftest import RATE, say, tone_wav
from tests.pipelines.audio import wavs


def test_training_leaves_a_run(trained):
    directory, out = trained
    assert "96 clips" in out and "5 characters" in out and "validation at step" in out
    assert json.loads((directory / "assets" / "characters.json").read_text())["alphabet"] == " abcd"


def test_evaluate_shows_the_worst_and_writes_metrics(trained, command):
    directory, _ = trained
    code, out, err = command("evaluate", "--run-dir", directory)
    assert code == 0, err
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["cer"] <= metrics["wer"] < 0.3
    assert "error rate" in out and "words" in out


def test_predict_takes_files_and_folders(trained, tones, command):
    directory, _ = trained
    code, out, err = command("predict", "--run-dir", directory, "--json", tones / "test" / "1.wav", tones / "test")
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == 13 and 0 <= answers[0]["confidence"] <= 1
    same = next(answer for answer in answers[1:] if answer["source"] == answers[0]["source"])
    assert answers[0]["text"] == same["text"]


def test_a_long_recording_is_heard_in_parts(trained, command, tmp_path):
    """Two minutes of tones, far more than training ever saw, in stereo and at another rate."""
    directory, _ = trained
    rng = np.random.default_rng(5)
    text = " ".join("".join(rng.choice(list("abcd"), 3)) for _ in range(150))
    samples = np.repeat(say(text), 2)  # 16 kHz
    assert len(samples) / (2 * RATE) > 100
    stereo = np.stack([samples, samples], 1)
    (tmp_path / "long.wav").write_bytes(wavs.by_scipy(np.round(stereo * 2**15).astype(np.int16), 2 * RATE))
    code, out, err = command("predict", "--run-dir", directory, tmp_path / "long.wav")
    assert code == 0, err
    heard = out.strip()
    wrong = sum(a != b for a, b in zip(heard, text, strict=False)) + abs(len(heard) - len(text))
    assert abs(len(heard) - len(text)) <= 0.05 * len(text)
    assert wrong < len(text)  # positions shift with the first error; the words themselves are counted below
    assert len(set(heard.split()) & set(text.split())) > 0.8 * len(set(text.split()))


def test_explain_draws(trained, tones, command, tmp_path):
    directory, _ = trained
    code, out, err = command("explain", "--run-dir", directory, "--output", tmp_path, tones / "test" / "0.wav")
    assert code == 0, err
    (file,) = tmp_path.glob("*.png")
    assert file.name in out and tf.io.decode_png(file.read_bytes()).shape[2] == 3


@pytest.mark.slow
def test_an_export_with_int8_weights_hears_what_predict_hears_with_them(trained, tones, command, tmp_path):
    directory, _ = trained
    code, _, err = command("export", "--run-dir", directory, "--output", tmp_path, "--quantize=int8")
    assert code == 0, err
    path = tmp_path / "speech" / "1"
    stored = tf.train.load_checkpoint(str(path / "variables" / "variables")).get_variable_to_dtype_map()
    assert tf.int8 in stored.values()
    files = sorted((tones / "test").glob("*.wav"))
    _, out, _ = command("predict", "--run-dir", directory, "--quantize=int8", "--json", *files)
    predicted = [json.loads(line) for line in out.splitlines()]
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = served(audio_bytes=tf.constant([file.read_bytes() for file in files]))
    assert [text.decode() for text in found["transcript"].numpy()] == [answer["text"] for answer in predicted]
    np.testing.assert_allclose(found["confidence"], [answer["confidence"] for answer in predicted], atol=1e-3)


def test_the_export_hears_what_training_heard(trained, tones, command, tmp_path):
    directory, _ = trained
    code, out, err = command("export", "--run-dir", directory, "--output", tmp_path)
    assert code == 0, err
    served = tf.saved_model.load(str(tmp_path / "speech" / "1")).signatures
    files = sorted((tones / "test").glob("*.wav"))
    code, out, _ = command("predict", "--run-dir", directory, "--json", *files)
    predicted = [json.loads(line) for line in out.splitlines()]
    found = served["serving_default"](audio_bytes=tf.constant([file.read_bytes() for file in files]))
    assert [text.decode() for text in found["transcript"].numpy()] == [answer["text"] for answer in predicted]
    np.testing.assert_allclose(found["confidence"], [answer["confidence"] for answer in predicted], atol=1e-3)
    samples = np.round(say("ab cd") * 2**15) / 2**15
    by_samples = served["waveform"](
        waveform=tf.constant(samples[None], tf.float32), sample_rate=tf.constant([RATE], tf.int32)
    )
    by_bytes = served["serving_default"](audio_bytes=tf.constant([tone_wav("ab cd")]))
    assert by_samples["transcript"].numpy()[0] == by_bytes["transcript"].numpy()[0]
    none = tf.zeros([0], tf.string)
    for name in ("serving_default", "explain"):
        assert {len(value) for value in served[name](audio_bytes=none).values()} == {0}
    nothing = served["waveform"](waveform=tf.zeros([2, 0]), sample_rate=tf.constant([RATE, RATE]))
    assert nothing["transcript"].numpy().tolist() == [b"", b""]
    explained = served["explain"](audio_bytes=tf.constant([files[0].read_bytes()]))
    assert explained["spectrogram"].shape[2] == 24 and explained["symbols"].shape == explained["probabilities"].shape


NO_RECORDINGS = {
    "empty.wav": (b"", "0 bytes"),
    "song.wav": (b"ID3\x04" + bytes(100), "an MP3, not a WAV"),
    "cut.wav": (tone_wav("a")[:30], "header is cut off"),
    "none.wav": (wavs.by_scipy(np.zeros(0, np.int16), RATE), "0 samples"),
    "text.wav": (b"hello world, no sound here", "text, not a WAV"),
    "nan.wav": (wavs.by_scipy(np.full(800, np.nan, np.float32), RATE), "NaN"),
}


def test_what_is_no_recording_is_named_and_the_others_are_heard(trained, tones, command, tmp_path):
    directory, _ = trained
    for name, (contents, _) in NO_RECORDINGS.items():
        (tmp_path / name).write_bytes(contents)
    (tmp_path / "silence.wav").write_bytes(wavs.by_scipy(np.zeros(RATE, np.int16), RATE))
    files = [tmp_path / name for name in (*NO_RECORDINGS, "silence.wav")]
    code, out, err = command(
        "predict", "--run-dir", directory, "--json", "--on-bad-example=skip", *files, tones / "test" / "1.wav"
    )
    assert code == 0 and "Traceback" not in err, err
    answers = [json.loads(line) for line in out.splitlines()]
    for answer, (name, (_, said)) in zip(answers, NO_RECORDINGS.items(), strict=False):
        assert name in answer["error"] and said in answer["error"]
    assert answers[-2]["text"].strip() == "" and answers[-1]["text"]
    command_line.refused(command("predict", "--run-dir", directory, tmp_path / "song.wav"), "song.wav", "an MP3")


@pytest.mark.slow
def test_a_model_can_write_pieces_of_words(flags, tones, command, tmp_path):
    run = tmp_path / "run"
    pieces = [*flags, "--units=pieces", "--vocabulary-size=14", "--model.subsampling=2", "--epochs=12"]
    code, out, err = command("train", "--run-dir", run, *pieces, "--validate-every=60")
    assert code == 0 and "10 pieces" in out, err
    search = "--search.language-model=0.3"
    code, _, err = command("export", "--run-dir", run, "--output", tmp_path, search)
    assert code == 0, err
    file = tones / "test" / "0.wav"
    _, out, _ = command("predict", "--run-dir", run, search, file)
    served = tf.saved_model.load(str(tmp_path / "speech" / "1")).signatures["serving_default"]
    heard = served(audio_bytes=tf.constant([file.read_bytes()]))["transcript"].numpy()[0].decode()
    assert heard and heard == out.removesuffix("\n")
    words = tmp_path / "words.txt"
    words.write_text("ab cd\n")
    command_line.refused(command("predict", "--run-dir", run, f"--search.words={words}", file), "--search.words")
    command_line.refused(command("train", *flags, "--vocabulary-size=24"), "--units pieces")
