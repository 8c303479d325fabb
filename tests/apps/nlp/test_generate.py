"""The language model's task: windows that cover the text, its commands from training to a served model, bad prompts."""

import functools
import io
import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from apps.nlp.app import APP
from apps.nlp.config import NlpConfig, NlpPredictOptions, SamplingConfig
from apps.nlp.pictures import _placed, surprise_picture
from apps.nlp.tasks import generate
from apps.nlp.tasks.common import load_vocabulary, make_vocabulary
from apps.nlp.windows import token_stream, window_count, windows
from pipelines import commands
from pipelines.batching import WHOLE, Shard
from pipelines.errors import UserError
from pipelines.runs import Run
from pipelines.text.character_tokenizer import CharacterTokenizer
from pipelines.trained import restore
from tests.apps import command_line
from tests.replicas import check_replicas

TINY = [  # learns little, but does everything
    "--task=generate", "--units=characters", "--epochs=3", "--batch-size=8", "--max-length=16", "--jit=off",
    "--model.width=16", "--model.layers=1", "--model.heads=2", "--model.kv-heads=1", "--model.feedforward=256",
    "--optimizer.warmup-steps=10",
]  # fmt: skip
LINES = ["The cat sat.\n", "A dog ran,\tand ran.\n", "\n", "Who is there?\n"]


def text(seed, lines):
    return "".join(np.random.default_rng(seed).choice(LINES, lines))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text")
    for name, lines in {"train": 150, "validation": 40, "test": 30}.items():
        (directory / f"{name}.txt").write_text(text(lines, lines))
    return [f"--{name}={directory / name}.txt" for name in ("train", "validation", "test")]


command = functools.partial(command_line.run, "nlp")


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """A run that was trained by the command line, and what it printed."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    code, out, err = command("train", "--run-dir", directory, *files, *TINY)
    assert code == 0, err
    return directory, out


@pytest.fixture(scope="module")
def restored(trained):
    """The task of that run, and its model."""
    found = restore(APP, NlpPredictOptions(run_dir=trained[0]))
    return found.task, found.model


DOCUMENTS = ("ab\nc", "", "ca\n\nb")
LETTERS = CharacterTokenizer("\nabc")


@pytest.mark.parametrize("name", ["max_tokens", "seed"])
def test_numbers_that_the_graph_does_not_take_are_refused(name):
    SamplingConfig(**{name: 2**31 - 1}).check()
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} 2147483648: takes a number up to"):
        SamplingConfig(**{name: 2**31}).check()


def test_the_stream_is_all_documents_with_ends_around_them():
    stream = token_stream(DOCUMENTS, LETTERS)
    whole = LETTERS.tokenize(tf.constant(DOCUMENTS)).to_list()
    assert stream.dtype == np.int32
    assert stream.tolist() == [3, *(number for document in whole for number in document)]


@pytest.mark.parametrize("seed", [None, 5])
def test_every_token_is_a_target_once_and_follows_its_input(seed):
    stream = np.concatenate([[3], np.arange(4, 40), [3]]).astype(np.int32)
    batches = list(windows(stream, 7, 4, seed))
    assert len(batches) == math.ceil(window_count(stream, 7) / 4) == 2
    tokens, targets = (np.concatenate([batch[name] for batch in batches]) for name in ("tokens", "targets"))
    assert tokens.shape == targets.shape == (8, 7)
    follower = dict(zip(stream[:-1], stream[1:], strict=True))
    pairs = [(a, b) for a, b in zip(tokens.ravel(), targets.ravel(), strict=True) if b]
    assert all(follower[a] == b for a, b in pairs)
    assert sorted(b for _, b in pairs) == sorted(stream[1:])
    assert np.all((tokens == 0) == (targets == 0))
    if seed is None:
        assert [b for _, b in pairs] == stream[1:].tolist()


def test_an_epoch_is_fixed_by_its_seed_and_dealt_to_shards():
    stream = np.concatenate([[3], np.arange(4, 100), [3]]).astype(np.int32)

    def tokens(seed, shard=WHOLE):
        return np.stack([batch["tokens"] for batch in windows(stream, 8, 4, seed, shard)])

    np.testing.assert_array_equal(tokens(1), tokens(1))
    assert not np.array_equal(tokens(1), tokens(2))
    shares = [tokens(1, Shard(index, 2)) for index in range(2)]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), tokens(1))


def test_pieces_of_running_text_keep_every_character(tmp_path):
    documents = [text(0, 50), "A cat?\n\n\nThe  dog."]
    config = make_vocabulary(NlpConfig(task="generate"), Run(tmp_path), documents, running_text=True)
    tokenizer = load_vocabulary(config, Run(tmp_path))
    assert config.vocabulary_size == tokenizer.vocabulary_size > 10
    stream = token_stream(documents, tokenizer)
    ends = np.flatnonzero(stream == tokenizer.end_id)
    found = [stream[begin + 1 : end] for begin, end in zip(ends, ends[1:], strict=False)]
    assert [tokenizer.detokenize(ids[None]).numpy()[0].decode() for ids in found] == documents


def test_training_measures_what_it_says(trained):
    directory, out = trained
    assert re.search(r"train.txt: 1 documents, [\d,]+ characters, [\d,]+ tokens; a vocabulary of \d+ characters", out)
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    last = [row for row in rows if "val_loss" in row][-1]
    assert last["val_perplexity"] == pytest.approx(math.exp(last["val_loss"]))
    # Of a single document of characters, all targets but the end add a character to the text.
    tokens = len(text(40, 40)) + 1
    bits = last["val_loss"] / math.log(2) * tokens / (tokens - 1)
    assert last["val_bits_per_character"] == pytest.approx(bits, rel=1e-4)


@pytest.mark.slow
def test_replicas_train_alike(files, tmp_path):
    check_replicas("nlp", [*files, *TINY, "--model.dropout=0"], tmp_path)


def test_evaluate_prints_a_table_and_writes_metrics(trained, restored, monkeypatch):
    directory, _ = trained
    code, out, err = command("evaluate", "--run-dir", directory)
    assert code == 0, err
    assert "perplexity" in out and "bits per character" in out
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["split"] == "test" and 1 < metrics["perplexity"] < 20
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    counted = metrics["baseline_bits_per_character"]
    assert f"n-gram baseline: bits_per_character {counted:.4f}, perplexity {2**counted:.4f}" in out
    monkeypatch.setattr(generate, "MOST_COUNTED", 100)  # more text than that would take too long
    assert restored[0]._baseline("test") == {}


def test_predict_depends_on_prompt_and_seed_alone(restored):
    task, model = restored
    options = NlpPredictOptions(sampling=SamplingConfig(max_tokens=12, temperature=1.5))
    answers = [row["text"] for row in task.predict(model, ["The", "A dog", "", "The"], options)]
    assert answers[0] != answers[3]  # one seed a row
    alone = NlpPredictOptions(sampling=SamplingConfig(max_tokens=12, temperature=1.5, seed=1))
    assert [row["text"] for row in task.predict(model, ["A dog"], alone)] == answers[1:2]
    assert all(len(answer) <= 12 for answer in answers)
    long = "A dog ran,\tand ran.\n" * 20  # of which the end is read
    (first,), (second,) = (list(task.predict(model, [prompt], alone)) for prompt in (long, long[-16:]))
    assert first["text"] == second["text"]


def test_a_stream_is_the_prediction_in_parts(restored):
    task, model = restored
    options = NlpPredictOptions(sampling=SamplingConfig(max_tokens=20, temperature=1.0))
    parts = [part["text"] for part in task.stream(model, "Who", options)]
    (whole,) = task.predict(model, ["Who"], options)
    assert "".join(parts) == whole["text"] and len(parts) > 1


def test_someone_who_watches_sees_tokens_as_they_come(trained, monkeypatch):
    class Terminal(io.StringIO):
        flushes = 0

        def isatty(self):
            return True

        def flush(self):
            self.flushes += 1

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    sampling = SamplingConfig(max_tokens=8, temperature=0.0)
    commands.predict(APP, NlpPredictOptions(run_dir=trained[0], inputs=("The",), sampling=sampling))
    assert terminal.flushes >= 8 and len(terminal.getvalue()) == 9


def test_a_prompt_with_unknown_characters_is_refused_by_name(trained, restored):
    command_line.refused(command("predict", "--run-dir", trained[0], "The ☃ é"), "row 1", "'☃' (U+2603 SNOWMAN)", "é")
    task, model = restored
    rows = list(task.predict(model, ["☃", "The"], NlpPredictOptions(sampling=SamplingConfig(max_tokens=3))))
    assert "U+2603" in rows[0]["error"] and "text" in rows[1]


def test_a_text_of_nothing_is_refused(files, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    result = command("train", "--run-dir", tmp_path / "run", f"--train={tmp_path / 'empty.txt'}", files[1], *TINY)
    command_line.refused(result, "empty.txt")


def test_surprise_is_that_of_a_full_pass(restored, trained, tmp_path):
    task, model = restored
    generator = task._generator(model, SamplingConfig())
    short, long = "The cat", "A dog ran,\tand ran.\nWho is there?\n"
    tokens, found = (x.numpy() for x in generator.surprise(tf.constant([short, long, ""])))
    assert [token.decode() for token in tokens[0, : len(short) + 1]] == [*short, ""]
    stream = token_stream([short], task.tokenizer)[None]
    expected = tf.nn.log_softmax(model({"tokens": stream[:, :-1]})).numpy()[0]
    np.testing.assert_allclose(found[0, :7], expected[np.arange(7), stream[0, 1:8]], atol=1e-4)
    assert (found[0, 7:] == 0).all() and (found[1, : len(long)] < 0).all() and (found[2] == 0).all()
    # Of a long text each token is read with at least half of what the model looks back on before it.
    (row,) = task.explain(model, [long], None)
    assert "bits a token" in row["text"] and row["picture"].ndim == 3
    assert row["picture"].dtype == np.uint8
    (refused,) = task.explain(model, [""], None)
    assert "empty text" in refused["error"]


def test_pictures_break_lines_and_colour_surprise():
    cells = _placed(["ab", "↵", "x" * 100])
    assert cells == [(0, 0, "ab", 0), (0, 2, "↵", 1), (1, 0, "x" * 80, 2), (2, 0, "x" * 20, 2)]
    calm, surprised = (surprise_picture(["word"] * 5, np.full(5, bits)) for bits in (0.0, 8.0))
    assert calm.shape == surprised.shape and calm[..., 1].mean() > surprised[..., 1].mean()
    assert surprise_picture([], np.zeros(0)).ndim == 3


@pytest.fixture(scope="module")
def ask(trained, tmp_path_factory):
    """Asks signatures of the exported model through the session loader, as TensorFlow Serving does."""
    output = tmp_path_factory.mktemp("saved_models")
    code, out, err = command("export", "--run-dir", trained[0], "--output", output, "--max-tokens", "20")
    assert code == 0, err
    assert "answers as recorded: explain 2 times, generate 1 times, serving_default 2 times" in out
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(output / "nlp" / "1")).signature_def

    def ask(signature="serving_default", **inputs):
        fetches = {name: tensor.name for name, tensor in loaded[signature].outputs.items()}
        return session.run(fetches, {loaded[signature].inputs[name].name: value for name, value in inputs.items()})

    yield ask
    session.close()


def prompts(*texts):
    return np.array(texts, object)


def test_it_serves_prompts(ask, restored):
    task, model = restored
    found = ask(prompt=prompts("The", "A dog", "", "Who is"))["text"]
    options = NlpPredictOptions(sampling=SamplingConfig(max_tokens=20))
    (expected,) = task.predict(model, ["The"], options)
    assert found[0].decode() == expected["text"]
    for row, prompt in enumerate(["The", "A dog", "", "Who is"]):
        assert ask(prompt=prompts(prompt))["text"][0] == found[row]
    assert ask(prompt=prompts())["text"].shape == (0,)


def test_each_row_has_its_own_number_of_tokens_temperature_and_seed(ask):
    def generate(count, temperature, seed, prompt="The"):
        rows = len(count)
        inputs = {"max_tokens": np.int32(count), "temperature": np.float32(temperature), "seed": np.int64(seed)}
        return [t.decode() for t in ask("generate", prompt=prompts(*[prompt] * rows), **inputs)["text"]]

    found = generate([0, 5, 10, 10, 10, -3], [1, 0, 0, 2, 2, 1], [0, 0, 1, 1, 2, 0])
    assert found[0] == found[5] == "" and len(found[1]) <= 5
    assert found[2].startswith(found[1])  # at temperature 0 the seed does not matter
    assert found[3] != found[4]
    assert generate([10], [2], [2]) == found[4:5]


def test_a_server_refuses_unknown_characters_and_explains_known_ones(ask):
    with pytest.raises(tf.errors.InvalidArgumentError, match="a prompt has characters that the training text has not"):
        ask(prompt=prompts("The", "☃"))
    found = ask("explain", prompt=prompts("The cat", "A"))
    assert found["tokens"].shape == found["log_probability"].shape == (2, 7)
    assert (found["log_probability"][0] < 0).all() and (found["log_probability"][1, 1:] == 0).all()


@pytest.mark.slow
def test_an_export_of_whole_numbers_writes_what_predict_does(trained, tmp_path):
    options = ["--run-dir", trained[0], "--quantize=int8", "--max-tokens=20"]
    code, out, err = command("export", "--output", tmp_path, *options)
    assert code == 0, err
    assert "weights rounded to int8" in out and "answers as recorded" in out
    loaded = tf.saved_model.load(str(tmp_path / "nlp" / "1"))
    assert any(variable.dtype == tf.int8 for variable in loaded.model_variables)
    code, out, err = command("predict", *options, "--json", "The", "A dog")
    assert code == 0, err
    expected = [json.loads(line)["text"] for line in out.splitlines()]
    asked = {"max_tokens": [20, 20], "temperature": [0.8, 0.8], "seed": tf.constant([0, 1], tf.int64)}
    found = loaded.signatures["generate"](
        prompt=tf.constant(["The", "A dog"]), **{name: tf.constant(value) for name, value in asked.items()}
    )
    assert [text.decode() for text in found["text"].numpy()] == expected
