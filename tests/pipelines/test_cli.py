"""The command line: a command that one app alone has stands beside those of every app."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli, config
from pipelines.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Greeting:
    """What to say."""

    # To whom.
    name: str = "world"


def _parse(arguments, program):
    return config.parse(Greeting(), arguments, program)


APP = cli.App(
    "greeter",
    "Greets.",
    TrainConfig,
    task=lambda: None,
    commands={"greet": cli.Command("say hello", _parse, lambda options: print(f"hello, {options.name}"))},
)


def test_it_is_there_before_what_takes_long_to_import():
    script = "import sys; import pipelines.cli; print(*{'numpy', 'tensorflow', 'keras'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True).stdout == "\n"


def test_an_apps_own_command_gets_its_options(capsys):
    cli.main(APP, ["greet", "--name", "you"])
    assert capsys.readouterr().out == "hello, you\n"


def test_help_lists_it_after_those_of_every_app(capsys):
    cli.main(APP, ["--help"])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == [*cli.COMMANDS, "greet"]


def test_its_help_names_it(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(APP, ["greet", "--help"])
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "python -m apps.greeter greet" in out and "To whom." in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gret"], "unknown command 'gret' (did you mean greet?)"),
        (["trian"], "unknown command 'trian' (did you mean train?)"),
        (["greet", "--nam", "you"], "unknown argument --nam (did you mean --name?)"),
    ],
)
def test_a_wrong_word_gets_one_line_with_a_hint(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(APP, arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_an_app_without_own_commands_has_those_of_every_app(capsys):
    cli.main(dataclasses.replace(APP, commands={}), [])
    assert "greet " not in capsys.readouterr().out
