"""TensorFlow Serving's REST API as an ASGI application.

It finds the route, reads and writes the JSON, and keeps to the limits of size and time; what a request asks for is the
service's to answer, as it is for gRPC.
"""

import asyncio
import json
import logging
import re
import time
import urllib.parse

from google.protobuf import json_format
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from pipelines.serving.model import DEFAULT_SIGNATURE
from pipelines.serving.rest import parsing, writing
from pipelines.serving.rest.body import BodyError, Budget, ClientGone, is_gzip, read_body, unzip
from pipelines.serving.rest.reading import read_inputs
from pipelines.serving.rest.reading_examples import read_examples
from pipelines.serving.service import sized, weight
from pipelines.serving.status import Code, StatusError, http_status, invalid

_logger = logging.getLogger(__name__)

_MODEL = r"/v1/models/(?P<name>[^/:]+)"
_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(rf"{_MODEL}{_VERSION}:(?P<verb>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)

BODIES_AT_ONCE = 8  # of the largest size, that all requests together may hold
_LINGER_SECONDS = 2.0

_JSON = (b"content-type", b"application/json")
_CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]


class RestApi:
    """The ASGI application.

    Args:
        service: the `Service` that both APIs ask.
    """

    def __init__(self, service):
        self._service = service
        self._settings = service.settings
        self._budget = Budget(BODIES_AT_ONCE * service.settings.max_request_bytes)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served, not {scope['type']}")
        request = _Request(scope, receive, self._settings, self._budget)
        began = time.monotonic()
        try:
            status = await self._respond(request, receive, send)
        finally:
            request.forget()
        if self._settings.verbose:
            _logger.info(
                "REST %s %s %s %.1f ms", request.method, request.path, status, 1e3 * (time.monotonic() - began)
            )

    async def _respond(self, request: "_Request", receive, send) -> int | str:
        """Sends the answer to a request. Returns its status."""
        headers, unread = [_JSON], False
        try:
            status, headers, body = await self._answer(request)
        except ClientGone:
            return "client gone"
        except StatusError as error:
            status, body = http_status(error.code), writing.write_error(error.message)
        except BodyError as error:
            status, body, unread = error.status, writing.write_error(error.message), error.unread
            headers = [_JSON, (b"connection", b"close")]
        except Exception:
            _logger.exception("%s %s failed", request.method, request.path)
            status, body = 500, writing.write_error("Internal error")
        if self._settings.rest_api_enable_cors_support:
            headers = headers + _CORS
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await _linger(receive)
            await send({"type": "http.response.body", "body": b""})
        return status

    async def _answer(self, request: "_Request") -> tuple[int, list, bytes]:
        """Status, headers and body of the answer to a request."""
        method, path = request.method, request.path
        if method == "GET" and path == self._service.metrics_path:
            return 200, [(b"content-type", b"text/plain")], self._service.metrics_page()
        if not path.lower().startswith("/v1/"):
            return 404, [_JSON], writing.write_error(f"Not found: {path}")
        if method == "OPTIONS" and self._settings.rest_api_enable_cors_support:
            return 200, [_JSON], b""
        if method == "POST" and (match := _INFERENCE.fullmatch(path)):
            answer = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
            spec = _model_spec(match)
            # Before the service is asked, so that slow clients take nothing from what it has for others.
            body = await request.body()
            return 200, [_JSON], await answer[match["verb"].lower()](spec, body, request.deadline)
        if method == "GET" and (match := _STATUS.fullmatch(path)):
            if not match["name"]:
                raise invalid("Missing model name in request.")
            return 200, [_JSON], self._metadata(match) if match["metadata"] else self._status(match)
        raise invalid(f"Malformed request: {method} {path}")

    async def _predict(self, spec: ModelSpec, body: bytes, deadline: float) -> bytes:
        with self._service.request("Predict", "REST", spec.name):
            document = await sized(len(body), parsing.parse, body)
            signature = parsing.signature_name(document) or DEFAULT_SIGNATURE
            with self._service.handle(spec) as version:
                if signature not in version.signatures:
                    raise invalid(f'Serving signature name: "{signature}" not found in signature def')
                infos = version.signatures[signature].inputs
                inputs, row = await sized(len(body), read_inputs, document, infos)
                del document  # several times as large as the inputs, which may have to wait
                outputs = await version.infer(signature, inputs, deadline=deadline)
            return await sized(weight(outputs), writing.write_outputs, outputs, row)

    async def _classify(self, spec: ModelSpec, body: bytes, deadline: float) -> bytes:
        with self._service.request("Classify", "REST", spec.name):
            message = await _with_examples(ClassificationRequest(model_spec=spec), body)
            response = await self._service.classify(message, deadline)
            return writing.write_classifications(response.result)

    async def _regress(self, spec: ModelSpec, body: bytes, deadline: float) -> bytes:
        with self._service.request("Regress", "REST", spec.name):
            message = await _with_examples(RegressionRequest(model_spec=spec), body)
            response = await self._service.regress(message, deadline)
            return writing.write_regressions(response.result)

    def _status(self, match: re.Match) -> bytes:
        spec = _model_spec(match)
        spec.ClearField("version_label")  # TensorFlow Serving ignores the label here, and lists all versions
        return _to_json(_to_dict(self._service.model_status(GetModelStatusRequest(model_spec=spec))))

    def _metadata(self, match: re.Match) -> bytes:
        request = GetModelMetadataRequest(model_spec=_model_spec(match), metadata_field=["signature_def"])
        response = self._service.model_metadata(request)
        signatures = SignatureDefMap()
        # Unpacked first: as an Any it would be written with the URL of its type.
        response.metadata["signature_def"].Unpack(signatures)
        metadata = {"signature_def": _to_dict(signatures)}
        return _to_json({"model_spec": _to_dict(response.model_spec), "metadata": metadata})


class _Request:
    """One HTTP request: what of the ASGI scope is needed, and the body when it is asked for."""

    def __init__(self, scope, receive, settings, budget: Budget):
        self.method = scope["method"]
        # The path as it was sent: an escaped slash belongs to a name.
        self.path = scope["raw_path"].decode("ascii", "replace")
        self._headers = dict(scope["headers"])
        self._receive = receive
        self._settings = settings
        self._budget = budget
        self._taken = 0
        self.deadline = time.monotonic() + settings.rest_api_timeout_in_ms / 1000

    async def body(self) -> bytes:
        """The body, unzipped.

        Raises:
            StatusError: DEADLINE_EXCEEDED where it took too long to come, UNAVAILABLE where there is no room for it.
            BodyError, ClientGone: see `read_body`.
        """
        most = self._settings.max_request_bytes
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                slow = self._settings.slow_client_seconds
                body = await read_body(self._receive, self._headers, most, slow, self._take)
                if not is_gzip(self._headers):
                    return body
                content = await asyncio.to_thread(unzip, body, most)
                self._take(len(content))  # which may be a thousand times as much as has come
                return content
        except TimeoutError:
            raise StatusError(Code.DEADLINE_EXCEEDED, "Deadline exceeded while reading the request") from None

    def _take(self, count: int) -> None:
        self._budget.take(count)
        self._taken += count

    def forget(self) -> None:
        """Gives back what the body took."""
        self._budget.give_back(self._taken)


async def _with_examples(message, body: bytes):
    """A classify or regress request, with what the body says."""
    document = await sized(len(body), parsing.parse, body)
    message.model_spec.signature_name = parsing.signature_name(document)
    message.input.CopyFrom(await sized(len(body), read_examples, document))
    return message


def _model_spec(match: re.Match) -> ModelSpec:
    """The model that a path names."""
    spec = ModelSpec(name=urllib.parse.unquote(match["name"]))
    if match["version"]:
        # Compared as a string first, since `int` refuses to read thousands of digits.
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    elif match["label"]:
        spec.version_label = urllib.parse.unquote(match["label"])
    return spec


def _to_dict(message) -> dict:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _to_json(value: dict) -> bytes:
    return json.dumps(value).encode()


async def _linger(receive):
    """Reads on for a moment after an early answer. To close at once could reset the connection before the client,
    still sending, has read the answer."""
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
