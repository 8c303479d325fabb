"""The server process: sockets, models, and an orderly end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator

import grpc
import tensorflow as tf
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from pipelines.errors import UserError
from pipelines.serving import config_files
from pipelines.serving.batching import Threads
from pipelines.serving.grpc_api import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    ModelService,
    PredictionService,
    RefuseUnreadable,
)
from pipelines.serving.manager import Manager
from pipelines.serving.metrics import Metrics
from pipelines.serving.rest.api import RestApi
from pipelines.serving.rest.protocol import uvicorn_config
from pipelines.serving.service import Service
from pipelines.serving.settings import Settings
from pipelines.serving.status import StatusError

SPARE_CALLS = 100  # for status and health, besides inference

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Raises:
        UserError: a wrong file or model, or a port in use.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", stream=sys.stderr)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it finds the session loader old
    # The first session of a process decides how many threads there are.
    tf.config.threading.set_intra_op_parallelism_threads(settings.tensorflow_intra_op_parallelism or 1)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config = config_files.models(settings)
    parameters, count = config_files.batching(settings)
    metrics, threads = Metrics(), Threads(count)
    manager = Manager(settings, parameters, threads, metrics)
    service = Service(settings, manager, metrics, config_files.metrics_path(settings))
    # Ports are taken before models are loaded, so that one in use is known at once. gRPC listens from then on, though
    # it answers nobody yet; REST listens when it starts.
    servers = [_GrpcServer(service)] if settings.port or settings.grpc_socket_path else []
    servers += [_RestServer(service)] if settings.rest_api_port else []

    await _load(manager.configure(config), stop)
    background = [asyncio.ensure_future(manager.poll()), asyncio.ensure_future(_follow(settings, manager, config))]
    for server in reversed(servers):  # REST first, which may fail: a gRPC server cannot be left once it has started
        await server.start()
    log.info("serving: %s", ", ".join(map(str, servers)))
    await stop.wait()

    log.info("ending: %g seconds at most for what is being answered", settings.drain_seconds)
    service.draining = True
    for task in background:
        task.cancel()
    await asyncio.gather(*(server.stop(settings.drain_seconds) for server in servers))
    log.info("ended")
    logging.shutdown()
    # Not by returning: threads may still be computing for clients that have been cut off, or loading a model.
    os._exit(0)


async def _load(loading: Coroutine, stop: asyncio.Event) -> None:
    """Waits for the models."""
    task, stopped = asyncio.ensure_future(loading), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        os._exit(0)
    stopped.cancel()
    try:
        task.result()
    except StatusError as error:
        raise UserError(error.message) from None


async def _follow(settings: Settings, manager: Manager, config: model_server_config_pb2.ModelServerConfig) -> None:
    """Reads the file of models again and again, and serves what it says when it has changed."""
    said = ""
    while settings.model_config_file and settings.model_config_file_poll_wait_seconds > 0:
        await asyncio.sleep(settings.model_config_file_poll_wait_seconds)
        try:
            found = await asyncio.to_thread(config_files.models, settings)  # the disk may be a slow one
            # Also when it has not changed: a version that a label waits for may have come, or a client have reloaded.
            await manager.configure(found)
            if found != config:
                log.info("%s: read again", settings.model_config_file)
            config, said = found, ""
        except (UserError, StatusError) as error:
            if str(error) != said:
                said = str(error)
                log.error("%s: not followed: %s", settings.model_config_file, said)


class _GrpcServer:
    """The gRPC side: its port, its Unix socket, or both.

    Raises:
        UserError: the port is in use, or a key is not one.
    """

    def __init__(self, service: Service):
        self._settings = settings = service.settings
        self._server = grpc.aio.server(
            interceptors=[RefuseUnreadable()],
            options=[
                ("grpc.so_reuseport", 0),  # two servers on one port would share its clients unnoticed
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_time_ms", 60_000),  # finds clients whose machine or network has gone
                ("grpc.max_connection_idle_ms", 600_000),
                *settings.channel_arguments(),
            ],
            # A message is read before it can be refused, so a second bound keeps what waits in memory. Above it gRPC
            # itself answers RESOURCE_EXHAUSTED.
            maximum_concurrent_rpcs=settings.max_concurrent_requests + SPARE_CALLS,
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(service), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(service), self._server)
        self._health = health.aio.HealthServicer()
        if settings.enable_grpc_healthcheck_service:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.port:
            self._listen(f"{settings.bind_address}:{settings.port}")
        if settings.grpc_socket_path:
            try:
                self._server.add_insecure_port(f"unix:{settings.grpc_socket_path.absolute()}")
            except RuntimeError:
                raise UserError(f"{settings.grpc_socket_path}: no socket can be made there") from None

    def __str__(self):
        port = f"{self._settings.bind_address}:{self._settings.port}" if self._settings.port else ""
        return "gRPC on " + " and ".join(filter(None, [port, str(self._settings.grpc_socket_path or "")]))

    def _listen(self, address: str) -> None:
        try:
            if ssl := config_files.ssl(self._settings):
                credentials = grpc.ssl_server_credentials(
                    [(ssl.server_key.encode(), ssl.server_cert.encode())],
                    root_certificates=ssl.custom_ca.encode() or None,
                    require_client_auth=ssl.client_verify,
                )
                self._server.add_secure_port(address, credentials)
            else:
                self._server.add_insecure_port(address)
        except RuntimeError:
            keys = f", or the keys in {self._settings.ssl_config_file} are no PEM" if ssl else ""
            raise UserError(
                f"{address}: in use, or not of this machine{keys}; choose another --port or --bind_address"
            ) from None

    async def start(self) -> None:
        await self._server.start()
        for name in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, seconds: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)


class _RestServer(uvicorn.Server):
    """The REST side.

    Raises:
        UserError: the port is in use; by `start` where that shows only then.
    """

    def __init__(self, service: Service):
        settings = service.settings
        super().__init__(uvicorn_config(RestApi(service), settings))
        self._address = f"{settings.bind_address}:{settings.rest_api_port}"
        # asyncio turns Nagle's delays off (40 ms a request) only where the protocol is named.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((settings.bind_address, settings.rest_api_port))
        except OSError as error:
            raise self._refused(error) from None

    def __str__(self):
        return f"REST on http://{self._address}"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the whole server."""
        yield

    def _refused(self, error: OSError) -> UserError:
        remedy = "choose another --rest_api_port or --bind_address"
        return UserError(f"{self._address}: {error.strerror.lower()}; {remedy}")

    async def start(self) -> None:
        self._serving = asyncio.ensure_future(self.serve([self._socket]))
        while not self.started and not self._serving.done():
            await asyncio.sleep(0.01)
        if not self.started:
            try:
                self._serving.result()
            except OSError as error:  # another server has had the port too, and was faster to listen on it
                raise self._refused(error) from None

    async def stop(self, seconds: float) -> None:
        self.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._serving, seconds + 1)
