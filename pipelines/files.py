"""Files that are whole or not there, and what full disks are called."""

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that appears under its name only when it is complete. Text is written as UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_array(path: Path, array: "np.ndarray") -> None:
    """Writes an .npy file, whole or not at all."""
    import numpy as np  # here, as it would take a third of the time in which a command line answers

    file = io.BytesIO()
    np.save(file, array)
    write_atomically(path, file.getvalue())


def flush_to_disk(path: Path) -> None:
    """Returns when a file, or a directory's list of names, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turns what TensorFlow's writers make of a full disk into the error of the operating system, with the path."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or "No space left" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
