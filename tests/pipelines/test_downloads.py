"""Downloads against a real HTTP server on the loopback interface, well-behaved and otherwise."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines import downloads
from pipelines.errors import UserError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "corpus/train.en.gz"


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, or the fault that the path names, and counts the requests."""

    requests = 0

    def do_GET(self):
        type(self).requests += 1
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/good":
            self.wfile.write(CONTENT)
        elif self.path == "/wrong":
            self.wfile.write(CONTENT[::-1])
        elif self.path == "/truncated":
            self.wfile.write(CONTENT[:100_000])
        elif self.path == "/stalled":
            self.wfile.write(CONTENT[:100_000])
            self.wfile.flush()
            time.sleep(30)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a running server; the cache is a new directory, and there is no ESPALIER_DATA."""
    monkeypatch.delenv(downloads.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
    Handler.requests = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def files_under(directory: Path) -> list[Path]:
    return [file for file in directory.rglob("*") if file.is_file()]


def test_a_file_is_downloaded_once(server, tmp_path, capsys):
    first = downloads.fetch(NAME, f"{server}/good", SHA256)
    second = downloads.fetch(NAME, f"{server}/good", SHA256)
    assert first == second == tmp_path / "cache" / NAME
    assert first.read_bytes() == CONTENT
    assert Handler.requests == 1
    assert files_under(tmp_path / "cache") == [first], "nothing but the file stays behind"
    printed = capsys.readouterr()
    assert printed.out == "" and "good" in printed.err, "progress belongs on standard error"


@pytest.mark.parametrize(("fault", "said"), [("truncated", "got only 100000"), ("wrong", "sha256"), ("missing", "404")])
def test_a_failed_download_leaves_nothing(server, tmp_path, fault, said):
    with pytest.raises(UserError, match=said) as caught:
        downloads.fetch(NAME, f"{server}/{fault}", SHA256)
    message = str(caught.value)
    assert NAME in message and downloads.DATA_VARIABLE in message and "\n" not in message
    assert files_under(tmp_path / "cache") == []
    assert downloads.fetch(NAME, f"{server}/good", SHA256).read_bytes() == CONTENT, "the next try is clean"


def test_a_server_that_is_down(server, tmp_path):
    # Port 9 of the loopback interface (discard) refuses connections.
    with pytest.raises(UserError, match="could not be downloaded.*refused"):
        downloads.fetch(NAME, "http://127.0.0.1:9/good", SHA256)
    assert files_under(tmp_path / "cache") == []


def test_a_killed_download_is_never_taken_for_whole(server, tmp_path):
    cache = tmp_path / "cache"
    program = f"from pipelines.downloads import fetch; fetch({NAME!r}, {server + '/stalled'!r}, {SHA256!r})"
    environment = {**os.environ, "PYTHONPATH": str(Path(downloads.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size for file in files_under(cache)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (cache / NAME).exists()
    (left,) = cache.rglob(".partial-*")
    an_age_ago = time.time() - 2 * downloads.ABANDONED_AFTER_SECONDS
    os.utime(left, (an_age_ago, an_age_ago))
    assert downloads.fetch(NAME, f"{server}/good", SHA256).read_bytes() == CONTENT
    assert not left.exists(), "what killed downloads leave is cleared away in time"


def test_a_damaged_cache_entry_is_replaced(server, tmp_path):
    cached = tmp_path / "cache" / NAME
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT[:-1])
    assert downloads.fetch(NAME, f"{server}/good", SHA256).read_bytes() == CONTENT


def test_the_users_copy_comes_first(server, tmp_path, monkeypatch):
    monkeypatch.setenv(downloads.DATA_VARIABLE, str(tmp_path / "data"))
    provided = tmp_path / "data" / NAME
    provided.parent.mkdir(parents=True)
    provided.write_bytes(CONTENT)
    assert downloads.fetch(NAME, f"{server}/missing", SHA256) == provided
    provided.write_bytes(b"something else")
    with pytest.raises(UserError, match="not the expected file") as caught:
        downloads.fetch(NAME, f"{server}/good", SHA256)
    assert str(provided) in str(caught.value)
    assert Handler.requests == 0


def test_a_cache_that_cannot_be_made(server, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file, where a directory is wanted")
    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "occupied"))
    with pytest.raises(UserError, match=downloads.CACHE_VARIABLE):
        downloads.fetch(NAME, f"{server}/good", SHA256)


def test_importing_the_module_does_not_load_tensorflow():
    program = "import sys, pipelines.downloads, pipelines.text.parallel; print('tensorflow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(downloads.__file__).parents[1])}
    printed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert printed.stdout.strip() == "False", printed.stderr
