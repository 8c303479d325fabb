"""The command `query`, over both APIs, against servers that fail when told to and against this project's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from pipelines import config
from pipelines.cli import App
from pipelines.config import TrainConfig
from pipelines.errors import UserError
from pipelines.options import QueryOptions
from pipelines.serving.client.query import _said, query
from tests.pipelines.serving.client.faulty_servers import free_port

ROOT = Path(__file__).parents[4]
APP = App(name="upper", summary="Capitals.", config=TrainConfig, task=lambda: None)


@pytest.fixture
def command(api, url, capsys):
    """Runs `query` in this process. Returns what it printed."""

    def run(*arguments):
        flags = [f"--api={api}", f"--url={url}", *map(str, arguments)]
        options = config.parse(QueryOptions(), flags, "query")
        options.check()
        query(APP, options)
        return capsys.readouterr()

    return run


def test_query_prints_the_text_or_all_outputs(command, tmp_path, monkeypatch):
    assert command("a dog", "a cat").out == "A DOG\nA CAT\n"
    (tmp_path / "texts.txt").write_text("ein Hund\n")
    (line,) = command("--file", tmp_path / "texts.txt", "--json").out.splitlines()
    assert json.loads(line) == {"ends": [101, 100], "shout": "EIN HUND", "tenths": 0.8}


def test_query_names_several_inputs_in_json(command):
    rows = ['{"text_b": "y", "text_a": "x"}', '{"text_a": "ü", "text_b": ""}']
    assert command("--signature=pair", *rows).out == "x+y\nü+\n"
    with pytest.raises(UserError) as caught:
        command("--signature=pair", "plain")
    assert "arguments, row 1: the model takes text_a (DT_STRING), text_b (DT_STRING)" in str(caught.value)
    assert '{"text_a": "...", "text_b": "..."}' in str(caught.value)
    with pytest.raises(UserError, match="found 'text_a', 'other'"):
        command("--signature=pair", '{"text_a": "x", "other": "y"}')


def test_a_text_that_looks_like_json_is_a_text(command):
    assert command('{"a": 1}', '{"text": "x"}', "{").out == '{"A": 1}\nX\n{\n'


def test_query_sends_files(command, tmp_path):
    (tmp_path / "picture").write_bytes(bytes(range(256)))
    (line,) = command("--signature=file", "--json", tmp_path / "picture").out.splitlines()
    assert json.loads(line)["turned_bytes"]["b64"].startswith("//79/Pv6")
    with pytest.raises(UserError, match="row 1: .*none: no such file or directory"):
        command("--signature=file", tmp_path / "none")


def test_one_bad_row_does_not_lose_the_good_ones(command, model):
    rows = ["one", "two", "bad", "four", "five"]
    found = command("--batch-size=3", "--on-bad-example=skip", *rows)
    assert found.out == "ONE\nTWO\n\nFOUR\nFIVE\n"
    assert found.err == "arguments: skipped 1 of 5 rows: 3\n"
    assert model.batches == [3, 1, 1, 1, 2]
    lines = [json.loads(line) for line in command("--on-bad-example=skip", "--json", "one", "", "bad").out.splitlines()]
    assert lines[0]["shout"] == "ONE"
    assert lines[1:] == [{"row": 2, "error": "empty"}, {"row": 3, "error": "the text is bad"}]


def test_a_bad_row_is_named(command, capsys):
    with pytest.raises(UserError, match="^arguments, row 3: the text is bad$"):
        command("one", "two", "bad", "four")
    assert capsys.readouterr().out == "ONE\nTWO\n"


def test_what_goes_wrong_is_said_in_one_line(command, api, model, url):
    with pytest.raises(UserError, match=r"NOT_FOUND: Servable not found .* \(asked for --model other\)"):
        command("--model=other", "a")
    with pytest.raises(UserError, match="no signature 'x'; there is file, pair"):
        command("--signature=x", "a")
    model.stall = 1.0
    with pytest.raises(UserError, match="no answer within 0.2 s; wait longer with --timeout"):
        command("--timeout=0.2", "a")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError) as caught:
        command(f"--url={address}", "--retries=0", "a")
    assert str(caught.value) == f"{address}: nothing listens there; start a server with: python -m apps.upper serve"


def test_retries_are_told(command, model):
    model.unavailable = 1
    found = command("a")
    assert found.out == "A\n" and "still loading; trying again in" in found.err


@pytest.mark.parametrize(
    "flag",
    ["--batch-size=0", "--timeout=0", "--retries=-1", "--concurrency=0", "--version=-1", f"--version={2**63}"],
)
def test_values_out_of_range(flag):
    with pytest.raises(UserError, match=flag.split("=")[0]):
        config.parse(QueryOptions(), [flag, "a"], "query").check()
    with pytest.raises(UserError, match="not both"):
        QueryOptions(version=1, label="stable").check()


def test_it_does_without_tensorflow_which_would_take_longer_than_the_answer(api, url):
    program = (
        "import sys; from apps.translate.__main__ import APP; from pipelines.cli import main\n"
        "main(APP, sys.argv[1:]); assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "query", f"--api={api}", f"--url={url}", "--model=upper", "a dog"],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "A DOG\n", "")


def test_help_and_a_missing_server_from_the_command_line():
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "apps.translate", "query", *arguments],
            capture_output=True, text=True, cwd=ROOT, timeout=60, env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip

    assert all(flag in run("--help").stdout for flag in ("--api", "--load", "--concurrency", "--on-bad-example"))
    done = run("--url", f"http://127.0.0.1:{free_port()}", "--retries=0", "a")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.endswith("nothing listens there; start a server with: python -m apps.translate serve\n")


@pytest.fixture(scope="module")
def embedded_server(tmp_path_factory):
    """This project's server as a process of its own, with a model that refuses the text "bad". Yields urls by API."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def upper(text):
        tf.debugging.assert_none_equal(text, "bad", message="the text is bad")
        return {"shout": tf.strings.upper(text), "letters": tf.strings.length(text)}

    base = tmp_path_factory.mktemp("served")
    module = tf.Module()
    module.upper = upper
    tf.saved_model.save(module, str(base / "1"), signatures={"serving_default": upper})
    ports = {"rest": free_port(), "grpc": free_port()}
    flags = ["--model_name=upper", f"--model_base_path={base}", f"--port={ports['grpc']}"]
    server = subprocess.Popen(
        [sys.executable, "-m", "pipelines.serving", *flags, f"--rest_api_port={ports['rest']}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    server.terminate()
    server.wait(30)


def test_this_projects_server(embedded_server, api, capsys):
    def run(*arguments):
        flags = [f"--api={api}", f"--url={embedded_server[api]}", "--retries=9", *arguments]
        query(APP, config.parse(QueryOptions(), flags, "query"))
        return capsys.readouterr()

    found = run("--json", "--on-bad-example=skip", "a dog", "bad", "ein Hund")  # waits until the server is there
    first, second, third = map(json.loads, found.out.splitlines())
    assert (first, third) == ({"letters": 5, "shout": "A DOG"}, {"letters": 8, "shout": "EIN HUND"})
    assert second["row"] == 2 and "the text is bad" in second["error"]
    assert run("--version=1", "a").out == "A\n"
    with pytest.raises(UserError, match="NOT_FOUND: Servable not found.* --version 7"):
        run("--version=7", "a")
    assert json.loads(run("--load=40", "--concurrency=8", "--json", "a", "bad").out)["errors"] == {
        "INVALID_ARGUMENT": 20
    }


@pytest.mark.parametrize(
    "message, said",
    [
        ("assertion failed: [not a picture]\n\t [[{{node map/Assert}}]]", "not a picture"),
        ("Input is empty. [[{{node Decode}}]] [[other]]", "Input is empty."),
        ("as it is", "as it is"),
    ],
)
def test_names_of_nodes_are_left_out(message, said):
    assert _said(message) == said
