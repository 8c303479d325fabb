"""The REST API: routes, answers, limits, as a client meets them."""

import asyncio
import gzip
import json
import logging
import threading
import time

import numpy as np
import pytest

from pipelines.serving.rest import writing
from pipelines.serving.rest.api import _Request
from pipelines.serving.rest.body import Budget
from pipelines.serving.settings import Settings
from pipelines.serving.status import StatusError
from tests.pipelines.serving.rest.server import METRICS_PATH, RestServer

MOST_BYTES = 1 << 20


@pytest.fixture(scope="module")
def models(made, tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    made("linear", base / "linear" / "1", slope=0.5)
    made("linear", base / "linear" / "2", slope=3.0)
    made("linear", base / "a b/ü" / "1", slope=0.5)
    made("texts", base / "slow" / "1", seconds=3.0)
    made("texts", base / "texts" / "1")
    made("types", base / "types" / "1")
    made("estimator", base / "estimator" / "1")
    names = ("linear", "a b/ü", "slow", "texts", "types", "estimator")
    return {name: base / name for name in names}


@pytest.fixture(scope="module")
def server(models):
    server = RestServer(models, max_request_bytes=MOST_BYTES)
    yield server
    server.close()


@pytest.fixture(scope="module")
def strict(models):
    """A server for pages of other origins, with little time."""
    server = RestServer(models, rest_api_enable_cors_support=True, rest_api_timeout_in_ms=500, metrics_path=None)
    yield server
    server.close()


def predict(server, body, path="linear", **headers):
    return server.ask("POST", f"/v1/models/{path}:predict", body, **headers)


# Routes


@pytest.mark.parametrize(
    "path, slope",
    [
        ("linear", 3.0),
        ("linear/versions/1", 0.5),
        ("linear/versions/02", 3.0),
        ("linear/labels/stable", 0.5),
        ("LINEAR", None),
        ("a%20b%2F%C3%BC", 0.5),
        ("line%61r/labels/st%61ble", 0.5),
    ],
)
def test_predict_finds_the_version(server, path, slope):
    answer = predict(server, {"instances": [2.0, 4.0]}, path)
    if slope is None:  # only the words of the route are in any case
        assert answer.status == 404 and "Servable not found" in answer.error
    else:
        assert answer.status == 200 and answer.json == {"predictions": [2 * slope + 2, 4 * slope + 2]}


def test_routes_are_in_any_case(server):
    assert server.ask("POST", "/V1/Models/linear/Versions/1:PREDICT", {"inputs": [2]}).json == {"outputs": [3.0]}
    assert server.ask("GET", "/v1/MODELS/linear/METADATA").status == 200


@pytest.mark.parametrize(
    "method, path, message",
    [
        ("POST", "/v1/models/linear:guess", None),
        ("POST", "/v1/models/linear", None),
        ("POST", "/v1/models/linear/versions/x:predict", None),
        ("GET", "/v1/models/linear:predict", None),
        ("GET", "/v1/models/linear/versions/1/labels/a", None),
        ("GET", "/v1/other", None),
        ("PUT", "/v1/models/linear", None),
        ("DELETE", "/v1/models/linear", None),
        ("OPTIONS", "/v1/models/linear", None),
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", f"/v1/models/linear/versions/{'9' * 30}", f"Failed to convert version: {'9' * 30} to numeric."),
        ("POST", f"/v1/models/linear/versions/{2**63}:predict", f"Failed to convert version: {2**63} to numeric."),
        ("GET", f"/v1/models/linear/versions/{'9' * 6000}", f"Failed to convert version: {'9' * 6000}"[:1024]),
    ],
)
def test_malformed_requests(server, method, path, message):
    answer = server.ask(method, path, "{}" if method == "POST" else None)
    assert answer.status == 400
    assert answer.error == (message or f"Malformed request: {method} {path}")


@pytest.mark.parametrize("path", ["/", "/v2/models/linear", "/v1", "/favicon.ico"])
def test_other_paths_do_not_exist(server, path):
    assert server.ask("GET", path).error == f"Not found: {path}"
    assert server.ask("GET", path).status == 404


def test_unknown_models_and_versions(server):
    for path in ("nobody", "linear/versions/99", "%FF"):
        answer = predict(server, {"instances": [1]}, path)
        assert answer.status == 404 and "Servable not found" in answer.error
    assert server.ask("GET", "/v1/models/nobody").status == 404
    assert server.ask("GET", "/v1/models/nobody/metadata").status == 404
    answer = predict(server, {"instances": [1]}, "linear/labels/nobody")
    assert answer.status == 400 and "nobody" in answer.error


# Predict, classify, regress


def test_two_inputs_and_outputs_in_both_formats(server):
    row = {"signature_name": "several", "instances": [{"a": [1, 2], "b": 3}, {"a": [0.5, 0], "b": 1}]}
    assert predict(server, row).json == {"predictions": [{"count": 4, "sum": 6.0}, {"count": 2, "sum": 1.5}]}
    column = {"signature_name": "several", "inputs": {"a": [[1, 2]], "b": [3]}}
    assert predict(server, column).json == {"outputs": {"count": [4], "sum": [6.0]}}


def test_texts_and_bytes(server):
    answer = predict(server, '{"instances": ["gr\xfcn", {"b64": "YQ=="}]}'.encode(), "texts")
    assert answer.json == {
        "predictions": [
            {"text_bytes": {"b64": "Z3LDvG4="}, "upper": "GRüN"},
            {"text_bytes": {"b64": "YQ=="}, "upper": "A"},
        ]
    }


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int32", "int64", "uint8", "uint64", "bool", "string"])
def test_types(server, dtype):
    value = {"bool": [[True], [False]], "string": [["a"], ["ä"]]}.get(dtype, [[0], [100]])
    answer = predict(server, {"signature_name": dtype, "inputs": value}, "types")
    assert answer.json == {"outputs": value}


def test_numbers_that_are_not_finite(server):
    answer = predict(server, b'{"signature_name": "float32", "instances": [NaN, Infinity, -Infinity, 0.2]}', "types")
    assert answer.body == b'{"predictions":[NaN,Infinity,-Infinity,0.2]}'
    assert predict(server, b'{"instances": [nan]}').status == 400


def test_bytes_that_are_no_utf8_come_back(server):
    answer = predict(server, b'{"signature_name": "string", "instances": ["\xff\xfe"]}', "types")
    assert answer.status == 200 and answer.body == b'{"predictions":["\xff\xfe"]}'


@pytest.mark.parametrize(
    "body, status, message",
    [
        (b"", 400, "JSON Parse error: The document is empty"),
        (b'{"instances": [1', 400, "JSON Parse error: "),
        (b"{}", 400, "Missing 'inputs' or 'instances' key"),
        (b'{"instances": []}', 400, "No values in 'instances' array"),
        (b'{"instances": ["a"]}', 400, "is not of expected type: float"),
        (b'{"instances": [[1]]}', 400, "shape"),
        (b'{"signature_name": "nobody", "instances": [1]}', 400, 'Serving signature name: "nobody" not found'),
        (b'{"signature_name": "\xff", "instances": [1]}', 400, "not found in signature def"),
    ],
)  # fmt: skip
def test_bad_requests(server, body, status, message):
    answer = predict(server, body)
    assert answer.status == status and message in answer.error


def test_a_type_that_json_does_not_carry(server):
    answer = predict(server, {"signature_name": "half", "inputs": [1]}, "types")
    assert answer.status == 501 and answer.error == "Conversion of JSON Value: 1 to type: half"


def test_a_scalar_makes_no_rows(server):
    assert predict(server, {"signature_name": "float32", "inputs": 2}, "types").json == {"outputs": 2.0}


def test_one_bad_row_is_told(server):
    assert predict(server, {"instances": ["bad"]}, "texts").status == 400


def test_classify_and_regress(server):
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    answer = server.ask("POST", "/v1/models/estimator:classify", body)
    assert answer.json == {"results": [[["two", 2.5], ["three", 3.5]], [["two", 3.0], ["three", 4.0]]]}
    body = {"signature_name": "regress_x_to_y2", "context": {"x": 4.0}, "examples": [{}]}
    answer = server.ask("POST", "/v1/models/estimator:regress", body)
    assert answer.json == {"results": [5.0]}
    answer = server.ask("POST", "/v1/models/estimator:classify", {"signature_name": "nobody", "examples": [{"x": 1.0}]})
    assert answer.status == 400 and "nobody" in answer.error
    assert server.ask("POST", "/v1/models/estimator:regress", {"examples": []}).status == 400


# Status, metadata, metrics


def entry(version):
    return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_status(server):
    def versions(path):
        [(key, entries)] = server.ask("GET", f"/v1/models/linear{path}").json.items()
        assert key == "model_version_status"
        return sorted(entries, key=lambda found: found["version"])

    assert versions("") == versions("/labels/nobody") == [entry("1"), entry("2")]
    assert versions("/versions/1") == [entry("1")]
    assert server.ask("GET", "/v1/models/linear/versions/9").status == 404


def test_metadata(server):
    for path, version in (("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")):
        found = server.ask("GET", f"/v1/models/linear{path}/metadata").json
        assert found["model_spec"] == {"name": "linear", "signature_name": "", "version": version}
        signatures = found["metadata"]["signature_def"]["signature_def"]
        x = signatures["serving_default"]["inputs"]["x"]
        assert x["dtype"] == "DT_FLOAT"
        assert x["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
        assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


def test_metrics(server, strict):
    predict(server, {"instances": [1]})
    answer = server.ask("GET", METRICS_PATH)
    assert answer.status == 200 and answer.headers["content-type"] == "text/plain"
    assert b':tensorflow:serving:request_count{model_name="linear",status="OK"}' in answer.body
    assert b'entrypoint="REST"' in answer.body
    assert strict.ask("GET", METRICS_PATH).status == 404


# Limits


def test_gzip(server):
    body = gzip.compress(b'{"instances": ') + gzip.compress(b"[2]}")
    assert predict(server, body, Content_Encoding="gzip").json == {"predictions": [8.0]}
    for bad in (b"", body[:-3], b"{}", b"\x1f\x8b" + b"\xff" * 30, body + b"junk"):
        answer = predict(server, bad, Content_Encoding="gzip")
        assert answer.status == 400 and answer.error.startswith("The gzip request body is ")


def test_what_gzip_unfolds_to_counts_as_memory_too():
    body, budget = gzip.compress(bytes(100_000)), Budget(50_000)
    scope = {"method": "POST", "raw_path": b"/", "headers": [(b"content-encoding", b"gzip")]}

    async def receive():
        return {"type": "http.request", "body": body}

    request = _Request(scope, receive, Settings(), budget)
    with pytest.raises(StatusError, match="too many request bodies"):
        asyncio.run(request.body())
    request.forget()
    budget.take(50_000)  # all of it has been given back


def test_long_texts_are_written_beside_the_event_loop(server, monkeypatch):
    write, threads = writing.write_outputs, []

    def noting(*arguments):
        threads.append(threading.current_thread())
        return write(*arguments)

    monkeypatch.setattr(writing, "write_outputs", noting)
    for size in (10, 300_000):
        assert predict(server, {"instances": ["a" * size]}, "texts").status == 200
    assert [thread is server.thread for thread in threads] == [True, False]


def test_a_gzip_bomb_is_refused(server):
    bomb = gzip.compress(bytes(100 * MOST_BYTES))
    assert len(bomb) < MOST_BYTES
    answer = predict(server, bomb, Content_Encoding="gzip")
    assert answer.status == 413 and answer.error == f"The request body is larger than {MOST_BYTES} bytes"


def test_large_requests_and_answers(server):
    values = np.arange(100_000, dtype=np.float32).tolist()
    answer = predict(server, {"signature_name": "float32", "instances": values}, "types")
    assert answer.json == {"predictions": values}


def test_the_largest_body(server):
    body = json.dumps({"instances": [1]}).encode()
    assert predict(server, body.ljust(MOST_BYTES)).status == 200
    # http.client sends all of it before it reads: the answer must outlast that.
    for size in (MOST_BYTES + 1, 20 * MOST_BYTES):
        answer = predict(server, body.ljust(size))
        assert answer.status == 413 and answer.headers["connection"] == "close"
        pieces = iter([body, *[b" " * 1000] * (size // 1000 + 1)])
        answer = predict(server, pieces)  # in chunks: how much it is shows only as it comes
        assert answer.status == 413 and str(MOST_BYTES) in answer.error


def test_the_deadline(strict):
    began = time.monotonic()
    answer = predict(strict, {"instances": ["a"]}, "slow")
    assert answer.status == 504 and answer.error
    assert 0.4 < time.monotonic() - began < 2.5


def test_too_many_requests(models):
    server = RestServer({"linear": models["linear"]}, max_concurrent_requests=1)
    try:
        with server.service.request("Predict", "GRPC", "linear"):
            assert predict(server, {"instances": [1]}).status == 503
        assert predict(server, {"instances": [1]}).status == 200
    finally:
        server.close()


def test_other_origins(server, strict):
    def allowed(answer):
        return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}

    expected = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST, GET",
        "access-control-allow-headers": "Content-Type",
    }
    answer = strict.ask("OPTIONS", "/v1/models/linear:predict", Origin="http://a", Access_Control_Request_Method="POST")
    assert answer.status == 200 and answer.body == b"" and allowed(answer) == expected
    for path in ("/v1/models/linear", "/v1/models/nobody", "/nowhere"):
        assert allowed(strict.ask("GET", path)) == expected
        assert allowed(server.ask("GET", path)) == {}


def test_a_defect_is_told_as_one(server, monkeypatch, caplog):
    def fails(request):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(server.service, "model_status", fails)
    with caplog.at_level(logging.ERROR):
        answer = server.ask("GET", "/v1/models/linear")
    assert answer.status == 500 and answer.error == "Internal error"
    assert "a secret" in caplog.text and "Traceback" in caplog.text
