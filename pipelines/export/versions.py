"""The versions of an exported model: `<base>/<number>/`, each of which is there whole or not at all.

A server that looks in at any moment finds finished versions only: one is made under a hidden name, which
TensorFlow Serving passes over, and renamed when it is complete and on the disk.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import UserError
from pipelines.files import flush_to_disk


def existing(base: Path) -> list[int]:
    """The versions that are there, ascending."""
    if not base.is_dir():
        return []
    return sorted(int(found.name) for found in base.iterdir() if found.name.isdigit() and found.is_dir())


@contextlib.contextmanager
def publishing(base: Path, version: int | None = None, keep: int = 0) -> Iterator[tuple[Path, int]]:
    """Publishes what the body makes, if it ends well; otherwise leaves no trace.

    Args:
        base: directory of the model's versions; made where it is missing.
        version: number to publish as; by default the one after the newest.
        keep: how many of the newest versions to keep; 0 keeps all.

    Yields:
        A path at which to make the version, and its number.

    Raises:
        UserError: the version exists.
    """
    if version is None:
        version = max(existing(base), default=0) + 1
    final = base / str(version)
    taken = f"{final}: exists; choose another --version, or none for the next one"
    if final.exists():
        raise UserError(taken)
    _remove_leftovers(base)
    made = [folder for folder in (base, *base.parents) if not folder.exists()]
    hidden = base / f".{version}.{os.getpid()}"
    try:
        hidden.mkdir(parents=True)
        yield hidden, version
        for file in sorted(hidden.rglob("*"), reverse=True):
            flush_to_disk(file)
        try:
            os.rename(hidden, final)
        except OSError as error:
            if not final.exists():
                raise
            raise UserError(taken) from error
        flush_to_disk(base)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    if keep:
        for old in existing(base)[:-keep]:
            _remove(base / str(old))


def _remove_leftovers(base: Path) -> None:
    """Clears what a kill has left of an export, unless another process is making it right now."""
    for hidden in base.glob(".*.*"):
        _, version, maker = hidden.name.split(".", 2)
        if version.isdigit() and (maker == "removed" or (maker.isdigit() and not Path("/proc", maker).exists())):
            shutil.rmtree(hidden, ignore_errors=True)


def _remove(version: Path) -> None:
    """Takes a version away whole: file by file under its own name, a server would find half of it."""
    hidden = version.with_name(f".{version.name}.removed")
    os.rename(version, hidden)
    shutil.rmtree(hidden)
