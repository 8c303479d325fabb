"""What both APIs, gRPC and REST, ask of the server."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    regression_pb2,
)

from pipelines.serving import examples
from pipelines.serving.batching import Arrays
from pipelines.serving.manager import Manager
from pipelines.serving.metrics import Metrics
from pipelines.serving.model import DEFAULT_SIGNATURE
from pipelines.serving.settings import Settings
from pipelines.serving.status import Code, StatusError, invalid
from pipelines.serving.version import Version

SIGNATURES = "signature_def"
Response = TypeVar("Response")
LARGE_BYTES = 256 * 1024  # below, the change of thread would cost more than the work

log = logging.getLogger(__name__)


class Service:
    """The server without its sockets.

    Args:
        settings: of the server.
        manager: has the models.
        metrics: to be told.
        metrics_path: of the page with metrics; None: there is none.
    """

    def __init__(self, settings: Settings, manager: Manager, metrics: Metrics, metrics_path: str | None):
        self.settings = settings
        self.metrics_path = metrics_path
        self._manager = manager
        self._metrics = metrics
        self._running = 0
        self._reloads: set[asyncio.Task] = set()
        self.draining = False

    def metrics_page(self) -> bytes:
        """Prometheus' text format."""
        return self._metrics.page()

    @contextlib.contextmanager
    def request(self, api: str, entrypoint: str, model: str) -> Iterator[None]:
        """Surrounds one inference request: admits it, counts and measures it.

        Args:
            api: Predict, Classify, Regress or MultiInference.
            entrypoint: GRPC or REST.
            model: its name, as the client gave it.

        Raises:
            StatusError: UNAVAILABLE, there is too much to do, or the server is about to end; or why the request failed.
        """
        began, status = time.perf_counter(), Code.OK
        self._running += 1
        try:
            if self.draining:
                raise StatusError(Code.UNAVAILABLE, "the server is shutting down")
            if self._running > self.settings.max_concurrent_requests:
                raise StatusError(
                    Code.UNAVAILABLE, f"{self.settings.max_concurrent_requests} requests are being answered already"
                )
            yield
        except StatusError as error:
            status = error.code
            raise
        except asyncio.CancelledError:
            status = Code.CANCELLED
            raise
        except Exception as error:
            status = Code.INTERNAL
            log.exception("%s of model %s failed", api, model)
            raise StatusError(Code.INTERNAL, f"internal error: {type(error).__name__}") from error
        finally:
            self._running -= 1
            seconds = time.perf_counter() - began
            # A name that is not served must not become a label: clients could make any number of them up.
            self._metrics.request(model if self._manager.has(model) else "", api, entrypoint, status.name, seconds)

    def handle(self, spec: model_pb2.ModelSpec) -> contextlib.AbstractContextManager[Version]:
        """The version that a request means, for as long as it takes."""
        return self._manager.handle(spec)

    async def classify(
        self, request: classification_pb2.ClassificationRequest, deadline: float
    ) -> classification_pb2.ClassificationResponse:
        """Labels and scores for tf.Examples; `deadline` on `time.monotonic()`."""
        return await self._single(request, examples.CLASSIFY, classification_pb2.ClassificationResponse(), deadline)

    async def regress(
        self, request: regression_pb2.RegressionRequest, deadline: float
    ) -> regression_pb2.RegressionResponse:
        """Values for tf.Examples; `deadline` on `time.monotonic()`."""
        return await self._single(request, examples.REGRESS, regression_pb2.RegressionResponse(), deadline)

    async def _single(self, request, method: str, response: Response, deadline: float) -> Response:
        with self.handle(request.model_spec) as version:
            await self._examples(version, request.model_spec, request.input, method, response, deadline)
        return response

    async def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, deadline: float
    ) -> inference_pb2.MultiInferenceResponse:
        """Several classifications and regressions of the same tf.Examples."""
        if not request.tasks:
            raise invalid("Inference request must have at least one task.")
        seen = set()
        for task in request.tasks:
            name = task.model_spec.signature_name or DEFAULT_SIGNATURE
            if not task.model_spec.name:
                raise invalid("Found ModelSpec with an empty model name.")
            if task.model_spec.name != request.tasks[0].model_spec.name:
                raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if name in seen:
                raise invalid(f"Duplicate evaluation of signature: {name}")
            if task.method_name not in (examples.CLASSIFY, examples.REGRESS):
                raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
            seen.add(name)
        response = inference_pb2.MultiInferenceResponse()
        with self.handle(request.tasks[0].model_spec) as version:  # one for all, whatever is switched meanwhile
            for task in request.tasks:
                result, spec = response.results.add(), task.model_spec
                await self._examples(version, spec, request.input, task.method_name, result, deadline)
        return response

    async def _examples(self, version: Version, spec, rows, method: str, response, deadline: float) -> None:
        """Fills a response for tf.Examples, or one result of several."""
        name = spec.signature_name or DEFAULT_SIGNATURE
        if name not in version.signatures:
            raise invalid(f"No signature was found with the name: {name}")
        classify = method == examples.CLASSIFY
        wanted = (examples.check_classify if classify else examples.check_regress)(version.signatures[name])
        inputs = examples.serialized(rows)
        found = await version.infer(name, {examples.INPUT: inputs}, wanted, deadline=deadline)
        response.model_spec.CopyFrom(described(spec.name, name, version))
        several = isinstance(response, inference_pb2.InferenceResult)
        if classify:
            place = response.classification_result if several else response.result
            place.CopyFrom(examples.classifications(found, len(inputs)))
        else:
            place = response.regression_result if several else response.result
            place.CopyFrom(examples.regressions(found, len(inputs)))

    def model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions."""
        return self._manager.status(request.model_spec)

    def model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURES:
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.handle(request.model_spec) as version:
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = version.number
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in version.signatures.items():
                signatures.signature_def[name].CopyFrom(definition)
            response.metadata[SIGNATURES].Pack(signatures)
        return response

    async def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves what the request's configuration lists, and nothing else."""
        # Shielded: a client that gives up must not leave models half loaded.
        self._reloads.add(task := asyncio.ensure_future(self._manager.configure(request.config)))
        task.add_done_callback(self._reloads.discard)
        await asyncio.shield(task)
        return model_management_pb2.ReloadConfigResponse()


async def sized(size: int, function: Callable, *arguments: Any) -> Any:
    """Calls a function that has so many bytes to work on: right here, or in a thread where they are many, so that the
    event loop goes on serving others meanwhile."""
    if size > LARGE_BYTES:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)


def weight(arrays: Arrays) -> int:
    """The bytes of arrays, those that strings point to included."""
    strings = [array for array in arrays.values() if array.dtype.hasobject]
    return sum(array.nbytes for array in arrays.values()) + sum(sum(map(len, array.flat)) for array in strings)


def described(name: str, signature: str, version: Version) -> model_pb2.ModelSpec:
    """What answered a request."""
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    spec.version.value = version.number
    return spec
