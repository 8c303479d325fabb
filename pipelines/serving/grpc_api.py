"""The gRPC side: TensorFlow Serving's services, on the stubs of tensorflow-serving-api."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import AsyncIterator

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from pipelines.serving import tensors
from pipelines.serving.model import DEFAULT_SIGNATURE
from pipelines.serving.service import Service, described, sized, weight
from pipelines.serving.status import Code, StatusError, invalid

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

log = logging.getLogger(__name__)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Inference and metadata.

    Args:
        service: answers.
    """

    def __init__(self, service: Service):
        self._service = service
        self._answering = functools.partial(_answering, service)

    async def Predict(self, request, context):
        async with self._answering(context, "Predict", request.model_spec.name):
            with self._service.request("Predict", "GRPC", request.model_spec.name):
                return await self._predict(request, _deadline(context))

    async def _predict(self, request: predict_pb2.PredictRequest, deadline: float) -> predict_pb2.PredictResponse:
        with self._service.handle(_spec(request)) as version:
            name = request.model_spec.signature_name or DEFAULT_SIGNATURE
            if name not in version.signatures:
                raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
            version.check_names(name, request.inputs)  # before made-up ones are read
            most = self._service.settings.max_request_bytes
            inputs = await sized(request.ByteSize(), tensors.to_arrays, request.inputs, most)
            outputs = await version.infer(name, inputs, tuple(request.output_filter), deadline=deadline)
            response = predict_pb2.PredictResponse(model_spec=described(request.model_spec.name, name, version))
            await sized(weight(outputs), _write, outputs, response)
            return response

    async def Classify(self, request, context):
        async with self._answering(context, "Classify", request.model_spec.name):
            with self._service.request("Classify", "GRPC", request.model_spec.name):
                _spec(request)
                return await self._service.classify(request, _deadline(context))

    async def Regress(self, request, context):
        async with self._answering(context, "Regress", request.model_spec.name):
            with self._service.request("Regress", "GRPC", request.model_spec.name):
                _spec(request)
                return await self._service.regress(request, _deadline(context))

    async def MultiInference(self, request, context):
        name = request.tasks[0].model_spec.name if request.tasks else ""
        async with self._answering(context, "MultiInference", name):
            with self._service.request("MultiInference", "GRPC", name):
                return await self._service.multi_inference(request, _deadline(context))

    async def GetModelMetadata(self, request, context):
        async with self._answering(context, "GetModelMetadata", request.model_spec.name):
            return self._service.model_metadata(request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """What is served, and what is to be.

    Args:
        service: answers.
    """

    def __init__(self, service: Service):
        self._service = service
        self._answering = functools.partial(_answering, service)

    async def GetModelStatus(self, request, context):
        async with self._answering(context, "GetModelStatus", request.model_spec.name):
            _spec(request)
            return self._service.model_status(request)

    async def HandleReloadConfigRequest(self, request, context):
        async with self._answering(context, "HandleReloadConfigRequest", ""):
            return await self._service.reload_config(request)


class RefuseUnreadable(grpc.aio.ServerInterceptor):
    """Tells a client whose bytes are no message that it is at fault; gRPC itself would log a defect of the server."""

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        def parsed(data: bytes):
            try:
                return handler.request_deserializer(data)
            except DecodeError:
                return None

        async def answered(request, context):
            if request is None:
                await context.abort(Code.INVALID_ARGUMENT, "the request cannot be parsed")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answered, parsed, handler.response_serializer)


def _write(outputs: dict[str, np.ndarray], response: predict_pb2.PredictResponse) -> None:
    for key, array in outputs.items():
        tensors.to_proto(array, response.outputs[key])


@contextlib.asynccontextmanager
async def _answering(
    service: Service, context: grpc.aio.ServicerContext, method: str, model: str
) -> AsyncIterator[None]:
    """Turns what goes wrong into a gRPC status, and logs the call where that is asked for."""
    began, status = time.perf_counter(), "broken off"
    try:
        yield
        status = "OK"
    except StatusError as error:
        status = str(error)
        await context.abort(error.code, error.message)
    finally:
        if service.settings.verbose:
            log.info("gRPC %s %s %.1f ms %s", method, model, 1e3 * (time.perf_counter() - began), status)


def _spec(request):
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _deadline(context: grpc.aio.ServicerContext) -> float:
    """When the client gives up, on `time.monotonic()`."""
    remaining = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining
