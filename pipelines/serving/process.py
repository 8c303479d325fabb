"""A server in a process of its own, for programs that need one for a while: tests, measurements, notebooks.

with ServerProcess("--model_name=m", "--model_base_path=saved_models/m") as server:
    ...  # server.rest and server.grpc are its addresses
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.errors import UserError
from pipelines.launch import free_addresses

ROOT = Path(__file__).parents[2]
READY = " serving: "


class ServerProcess:
    """Starts a server on free ports of this machine, and waits until it serves.

    Args:
        flags: as on its command line, but for the ports.
        seconds: how long to wait.

    Raises:
        UserError: it ends at once, with what it said, or does not come to serve in time.
    """

    def __init__(self, *flags: str, seconds: float = 120):
        ports = [address.rsplit(":", 1)[1] for address in free_addresses(2)]
        self.grpc, self.rest = (f"127.0.0.1:{port}" for port in ports)
        self._log = tempfile.NamedTemporaryFile("r", suffix=".log")
        self._command = [sys.executable, "-m", "pipelines.serving", f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
        self._command += flags
        self._seconds = seconds
        self.start()

    def start(self) -> None:
        """Starts it; after its end once more, on the same ports."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(self._log.name, "w") as log:
            self.process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        due = time.monotonic() + self._seconds
        while READY not in self.log:
            if self.process.poll() is not None or time.monotonic() > due:
                self.kill()
                # Its last line says why: of an error that it knows, and of a traceback.
                said = self.log.strip().rpartition("\n")[-1] or "it said nothing"
                raise UserError(f"the server did not start: {said.removeprefix('error: ')}")
            time.sleep(0.05)

    @property
    def log(self) -> str:
        """What the server has said."""
        return Path(self._log.name).read_text()

    def stop(self, seconds: float = 20) -> int:
        """Ends the server in order. Returns its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Ends the server at once."""
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
