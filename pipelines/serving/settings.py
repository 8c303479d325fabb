"""The server's flags, which are TensorFlow Serving's own, and the files they name."""

import dataclasses
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipelines import config
from pipelines.config import require_at_least, require_at_most
from pipelines.errors import UserError
from pipelines.export import versions
from pipelines.options import ExportOptions

MOST_NUMBER = 2**31 - 1  # that gRPC's core reads, of 32 bits


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the server is told on its command line."""

    # Port for gRPC; 0 for none.
    port: int = 8500
    # Port for REST; 0 for none.
    rest_api_port: int = 0
    # IPv4 address to listen on; 0.0.0.0 lets other machines in.
    bind_address: str = "127.0.0.1"
    # Unix socket for gRPC, besides its port.
    grpc_socket_path: Path | None = None
    # Name of the one model to serve.
    model_name: str = "default"
    # Directory that holds the model's versions, a directory with a number for a name each.
    model_base_path: Path | None = None
    # Text proto ModelServerConfig with models to serve, instead of the two flags above.
    model_config_file: Path | None = None
    # Seconds between readings of that file; 0 reads it once.
    model_config_file_poll_wait_seconds: float = 0
    # Seconds between looks for new versions; 0 looks once.
    file_system_poll_wait_seconds: float = 1
    # Let a label name a version that is not loaded.
    allow_version_labels_for_unavailable_models: bool = False
    # Run requests of several clients together. auto does so where each row of a signature is one value (texts, images
    # as bytes) and its answer has a fixed shape, and hardly waits for more; true does so for all, by the file below.
    enable_batching: Literal["auto", "true", "false"] = "auto"
    # Text proto BatchingParameters.
    batching_parameters_file: Path | None = None
    # Text proto MonitoringConfig; says whether and where there are Prometheus metrics.
    monitoring_config_file: Path | None = None
    # Text proto SSLConfig for gRPC.
    ssl_config_file: Path | None = None
    # Offer the service grpc.health.v1.Health.
    enable_grpc_healthcheck_service: bool = False
    # Options of gRPC's core, as name=value,name=value.
    grpc_channel_arguments: str = ""
    # Milliseconds until a REST request is given up.
    rest_api_timeout_in_ms: int = 30_000
    # Let pages of other origins call the REST API.
    rest_api_enable_cors_support: bool = False
    # Threads that a single request's operations share; 0 is one, so that each core answers requests of its own.
    tensorflow_intra_op_parallelism: int = 0
    # Requests or batches that run at once; 0 is one a core.
    tensorflow_inter_op_parallelism: int = 0
    # Inference requests in the house at once; one more is refused at once with UNAVAILABLE.
    max_concurrent_requests: int = 1000
    # Largest request.
    max_request_bytes: int = 64 << 20
    # Seconds in which a REST client has to go on sending what it has begun.
    slow_client_seconds: float = 10
    # Seconds that requests have to end in after SIGTERM.
    drain_seconds: float = 8
    # Print a line for every request.
    verbose: bool = False

    def check(self) -> None:
        """Refuses values out of range.

        Raises:
            UserError: it names the flag.
        """
        for name in ("port", "rest_api_port", "max_concurrent_requests", "max_request_bytes", "rest_api_timeout_in_ms"):
            require_at_least(0 if name.endswith("port") else 1, self, name)
        for name in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism", "drain_seconds"):
            require_at_least(0, self, name)
        if not (self.port or self.rest_api_port or self.grpc_socket_path):
            raise UserError("nowhere to listen: give --port, --rest_api_port or --grpc_socket_path")
        if self.port and self.port == self.rest_api_port:
            raise UserError(f"--port and --rest_api_port are both {self.port}; they need one each")
        for port in (self.port, self.rest_api_port):
            if port > 65535:
                raise UserError(f"port {port}: there are 65535")
        if bool(self.model_base_path) == bool(self.model_config_file):
            raise UserError("give either --model_base_path, with --model_name, or --model_config_file")
        require_at_most(MOST_NUMBER, self, "max_request_bytes")
        if self.slow_client_seconds <= 0:
            raise UserError("--slow_client_seconds must be above 0")
        self.channel_arguments()
        self._check_free()

    def _check_free(self) -> None:
        """Finds a port in use before TensorFlow's import takes its seconds."""
        for flag, port in (("--port", self.port), ("--rest_api_port", self.rest_api_port)):
            with socket.socket() as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    tried.bind((self.bind_address, port))
                except OSError as error:
                    reason = error.strerror.lower()
                    raise UserError(
                        f"{self.bind_address}:{port}: {reason}; choose another {flag} or --bind_address"
                    ) from None

    @property
    def threads(self) -> int:
        """How many requests or batches are computed at once."""
        return self.tensorflow_inter_op_parallelism or len(os.sched_getaffinity(0))

    def channel_arguments(self) -> list[tuple[str, int | str]]:
        """gRPC's options, numbers as such."""
        found = []
        for text in filter(None, self.grpc_channel_arguments.split(",")):
            name, equals, value = text.partition("=")
            if not (name and equals):
                raise UserError(f"--grpc_channel_arguments {text}: expected name=value")
            if re.fullmatch(r"-?[0-9]+", value):
                if len(value) > 11 or not ~MOST_NUMBER <= int(value) <= MOST_NUMBER:
                    raise UserError(f"--grpc_channel_arguments {text}: gRPC takes numbers up to {MOST_NUMBER}")
                value = int(value)
            found.append((name, value))
        return found


def parse(arguments: Sequence[str], program: str, app: str = "") -> Settings:
    """Reads flags as TensorFlow Serving spells them: --a_b=value, and of booleans --a, --a=true and --a=false.

    Args:
        arguments: the flags.
        program: to name in the help text.
        app: whose exports to serve where no flag names others; then REST has a port, too.
    """
    default = Settings(model_name=app, rest_api_port=8501) if app else Settings()
    settings = config.parse(default, [_respelled(argument) for argument in arguments], program)
    if app and not settings.model_base_path and not settings.model_config_file:
        base = ExportOptions().output / app
        if not versions.existing(base):
            raise UserError(f"{base}: nothing exported there; export first: python -m apps.{app} export")
        settings = dataclasses.replace(settings, model_base_path=base)
    settings.check()
    return settings


def _respelled(argument: str) -> str:
    """A boolean as the project's other commands take it."""
    name, equals, value = argument.removeprefix("--").partition("=")
    field = next((f for f in dataclasses.fields(Settings) if f.name == name.replace("-", "_")), None)
    if not argument.startswith("--") or field is None or (equals and value.lower() not in ("true", "false", "1", "0")):
        return argument
    on = not equals or value.lower() in ("true", "1")
    if field.type is bool:
        return f"--{'' if on else 'no-'}{name}"
    if field.name == "enable_batching":
        return f"--{name}={'true' if on else 'false'}"
    return argument
