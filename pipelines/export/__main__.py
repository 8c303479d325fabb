"""`python -m pipelines.export check DIR`: will TensorFlow Serving run this SavedModel?"""

import sys
from pathlib import Path

from pipelines.cli import exiting
from pipelines.errors import UserError
from pipelines.export.check import check, require_saved_model

USAGE = """usage: python -m pipelines.export check DIR

Checks a SavedModel, of this project or any other: that its graph holds nothing which TensorFlow Serving does
not run, that it loads as TensorFlow Serving loads it, in a process that cannot import this project, and that
its warm-up requests, if it has any, are answered as recorded."""


def main(arguments: list[str]) -> None:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    command, *directories = arguments
    if command != "check" or len(directories) != 1:
        raise UserError("expected: python -m pipelines.export check DIR")
    directory = Path(directories[0])
    require_saved_model(directory)
    try:
        print(f"{directory}: {check(directory)}")
    except UserError as error:
        raise UserError(f"{directory}: {error}") from None


if __name__ == "__main__":
    with exiting():
        main(sys.argv[1:])
