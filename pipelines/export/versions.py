"""The versions of an exported model: `<base>/<number>/`, each of which is there whole or not at all.

A server that looks in at any moment finds finished versions only: one is made under a hidden name, which
TensorFlow Serving passes over, and renamed when it is complete and on the disk.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import UserError
from pipelines.files import flush_to_disk

MOST_VERSION = 2**63 - 1  # the largest number that TensorFlow Serving reads


def existing(base: Path) -> dict[int, Path]:
    """The versions that are there, by number, ascending. As for TensorFlow Serving, `00000001` is version 1, and what
    is no number of 64 bits in ASCII digits is no version."""
    if not base.is_dir():
        return {}
    named = [path for path in base.iterdir() if path.name.isascii() and path.name.isdecimal() and path.is_dir()]
    found = {int(path.name): path for path in named if int(path.name) <= MOST_VERSION}
    return dict(sorted(found.items()))


class Export:
    """A version in the making.

    Args:
        directory: where to make it.
        version: the number it is published under; known afterwards, where it was not given.
    """

    def __init__(self, directory: Path, version: int | None):
        self.directory = directory
        self.version = version


@contextlib.contextmanager
def publishing(base: Path, version: int | None = None, keep: int = 0) -> Iterator[Export]:
    """Publishes what the body makes, if it ends well; otherwise leaves no trace.

    Args:
        base: directory of the model's versions; made where it is missing.
        version: number to publish as; by default the one after the newest.
        keep: how many of the newest versions to keep, besides this one if it is older; 0 keeps all.

    Raises:
        UserError: the version exists, a file has its name, or no number comes after the newest.
    """
    _number(base, version)
    made = [folder for folder in (base, *base.parents) if not folder.exists()]
    try:
        base.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(base)
        with _hidden_directory(base) as hidden:
            export = Export(hidden, version)
            yield export
            for file in (*hidden.rglob("*"), hidden):
                flush_to_disk(file)
            export.version = _rename(hidden, base, version)
            flush_to_disk(base)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    older = list(existing(base).values())[:-keep] if keep else []
    for path in older:
        if int(path.name) != export.version:
            _remove(path)


@contextlib.contextmanager
def _hidden_directory(base: Path) -> Iterator[Path]:
    """A directory of this process alone, which is gone afterwards, if it still has that name."""
    hidden = Path(tempfile.mkdtemp(prefix=".making-", dir=base))
    try:
        hidden.chmod(0o755)  # a server may run as somebody else
        with _locked(hidden):
            yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _number(base: Path, version: int | None) -> int:
    """The number to publish under."""
    found = existing(base)
    number = max(found, default=0) + 1 if version is None else version
    if number in found:
        raise UserError(f"{found[number]}: exists; choose another --version, or none for the next one")
    if number > MOST_VERSION:
        raise UserError(f"{base}: no number comes after that of the newest version; choose a --version")
    if (path := base / str(number)).is_file():
        raise UserError(f"{path}: a file that has the name of a version; move it away")
    return number


def _rename(hidden: Path, base: Path, version: int | None) -> int:
    """Gives a complete version its name. Returns its number."""
    while True:
        number = _number(base, version)
        try:
            os.rename(hidden, base / str(number))
            return number
        except OSError:  # another export took the name just now
            if not (base / str(number)).is_dir():
                raise


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Tells others that a process is at work here; the system takes the lock back when it dies.

    Raises:
        BlockingIOError: another one is.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(base: Path) -> None:
    """Clears what kills have left behind."""
    for hidden in (*base.glob(".making-*"), *base.glob(".removed-*")):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(hidden):
            shutil.rmtree(hidden, ignore_errors=True)


def _remove(version: Path) -> None:
    """Takes a version away whole: file by file under its own name, a server would find half of it."""
    hidden = version.with_name(f".removed-{version.name}")
    with contextlib.suppress(FileNotFoundError):  # another export has taken it away just now
        os.rename(version, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
