"""Public data files, fetched once and verified.

Every file is pinned by its SHA-256, so what a run trains on is known to the byte. A copy under the directory
named by ESPALIER_DATA is used first; else the file is downloaded into a cache (ESPALIER_CACHE, default
~/.cache/espalier). A download appears in the cache under its own name only after its digest has been checked.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from pipelines.errors import UserError

DATA_VARIABLE = "ESPALIER_DATA"
CACHE_VARIABLE = "ESPALIER_CACHE"
ABANDONED_AFTER_SECONDS = 24 * 3600  # no download takes a day: its process was killed


def fetch(path: str, url: str, sha256: str) -> Path:
    """Returns a local, verified copy of a public file, downloading it when there is none.

    Args:
        path: where the file lies under ESPALIER_DATA and in the cache, such as "multi30k/train.en.gz".
        url: where it is downloaded from.
        sha256: the hexadecimal SHA-256 of its content.

    Returns:
        The path of a file whose content has that digest.

    Raises:
        UserError: the copy under ESPALIER_DATA differs, the download failed or delivered something else, or
            the cache cannot be written.
    """
    if file := provided(path):
        found = _sha256_of(file)
        if found != sha256:
            raise UserError(
                f"{file}: not the expected file (sha256 {found}, expected {sha256}); "
                f"replace it with {url}, or remove it to have it downloaded"
            )
        return file

    cached = cache() / path
    if cached.is_file() and _sha256_of(cached) == sha256:
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cached.parent)
        # A directory of its own, beside the target: nobody sees the partial file under the final name, two
        # processes do not write into one file, and the final rename stays within one file system.
        partial = tempfile.TemporaryDirectory(prefix=".partial-", dir=cached.parent)
    except OSError as error:
        raise UserError(
            f"{cached.parent}: cannot be written ({error.strerror}); name another directory in {CACHE_VARIABLE}"
        ) from error
    with partial as directory:
        downloaded = _download(path, url, Path(directory))
        found = _sha256_of(downloaded)
        if found != sha256:
            raise UserError(
                f"{path}: {url} delivered {downloaded.stat().st_size} bytes that are not the expected file "
                f"(sha256 {found}, expected {sha256}); try again, or put the right file at "
                f"{path} under a directory named by {DATA_VARIABLE}"
            )
        os.replace(downloaded, cached)
    return cached


def provided(path: str) -> Path | None:
    """The file of that name under ESPALIER_DATA, unverified; None where there is none."""
    directory = os.environ.get(DATA_VARIABLE)
    file = Path(directory).expanduser() / path if directory else None
    return file if file and file.is_file() else None


def cache() -> Path:
    """The directory of what was downloaded or made; it need not exist yet."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/espalier").expanduser()


def _download(path: str, url: str, directory: Path) -> Path:
    import keras  # here and not above: whoever has the files should not wait for TensorFlow to load

    try:
        # The progress bar goes to standard error: standard output belongs to a command's results.
        with contextlib.redirect_stdout(sys.stderr):
            return Path(keras.utils.get_file(Path(path).name, url, cache_dir=str(directory), cache_subdir="files"))
    except Exception as error:  # get_file raises bare Exception for HTTP and network failures alike
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: could not be downloaded ({reason}); try again, or put the file from {url} at "
            f"{path} under a directory named by {DATA_VARIABLE}"
        ) from error


def _sha256_of(file: Path) -> str:
    status = file.stat()
    return _digest(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest(file: Path, size: int, modified_ns: int) -> str:
    """Hashes a file once per process; with its size and time as arguments, a changed one is read again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove_abandoned(directory: Path) -> None:
    """Deletes what killed downloads have left behind."""
    for partial in directory.glob(".partial-*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just finished with it
            if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)
