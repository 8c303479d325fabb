"""The server as a process: its flags and sockets, what it refuses at start, its limits, and its end."""

import asyncio
import concurrent.futures
import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import psutil
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from pipelines.errors import UserError
from pipelines.launch import free_addresses
from pipelines.serving import config_files, server
from pipelines.serving.process import ServerProcess
from pipelines.serving.settings import Settings
from tests.pipelines.serving import exports

ROOT = Path(__file__).parents[3]


class Server(ServerProcess):
    """A server to ask one question at a time."""

    def post(self, model: str, body, path: str = ":predict", timeout: float = 30):
        """Status and JSON of a REST request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.get(f"/v1/models/{model}{path}", data, timeout)

    def get(self, path: str, data=None, timeout: float = 30):
        try:
            with urllib.request.urlopen(f"http://{self.rest}{path}", data, timeout) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def predict(self, inputs: dict, address: str = "", credentials=None, timeout: float = 30, model: str = "m"):
        """Outputs of a gRPC request."""
        address = address or self.grpc
        channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        with channel:
            response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}


def single(base, *flags):
    return ["--model_name=m", f"--model_base_path={base}", *flags]


LINE = {"x": exports.floats(1.0, 2.0)}


def test_both_apis_a_unix_socket_health_and_an_orderly_end(tmp_path, made):
    made("linear", tmp_path / "models" / "1")
    socket_path = tmp_path / "socket"
    flags = single(tmp_path / "models", f"--grpc_socket_path={socket_path}", "--enable_grpc_healthcheck_service=true")
    with Server(*flags, "--verbose") as server:
        assert server.post("m", {"instances": [1.0, 2.0]}) == (200, {"predictions": [2.5, 3.0]})
        for address in (server.grpc, f"unix:{socket_path}"):
            assert server.predict(LINE, address)["y"].tolist() == [2.5, 3.0]
        with grpc.insecure_channel(server.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "tensorflow.serving.PredictionService"):
                found = health.Check(health_pb2.HealthCheckRequest(service=name), 10)
                assert found.status == health_pb2.HealthCheckResponse.SERVING
        assert server.stop(10) == 0
        said = server.log
    assert "REST POST /v1/models/m:predict 200" in said and "gRPC Predict m" in said and said.rstrip().endswith("ended")


def test_sigterm_lets_requests_end_and_refuses_new_ones(tmp_path, made):
    made("texts", tmp_path / "1", seconds=2.0)
    with Server(*single(tmp_path)) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(server.post, "m", {"instances": ["a"]}), pool.submit(server.predict, {"text": [b"b"]})]
        time.sleep(0.5)
        assert not any(answer.done() for answer in answers), "it answers too fast for this test"
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises((OSError, grpc.RpcError)):
            server.predict({"text": [b"c"]}, timeout=5)
        assert answers[0].result()[0] == 200
        assert answers[1].result()["upper"].tolist() == [b"B"]
        assert server.process.wait(10) == 0 and time.monotonic() - began < 10


def test_sigterm_waits_no_longer_than_it_may(tmp_path, made):
    made("texts", tmp_path / "1", seconds=60.0)
    with Server(*single(tmp_path, "--drain_seconds=1")) as server:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answer = pool.submit(server.post, "m", {"instances": ["a"]})
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 0
            with pytest.raises((OSError, ValueError)):
                answer.result()


def test_deadlines_limits_and_one_bad_row(tmp_path, made):
    made("texts", tmp_path / "1", seconds=0.5)
    flags = single(
        tmp_path, "--max_concurrent_requests=4", "--max_request_bytes=100000", "--rest_api_timeout_in_ms=4000"
    )
    with Server(*flags) as server, concurrent.futures.ThreadPoolExecutor(16) as pool:
        with pytest.raises(grpc.RpcError) as error:
            server.predict({"text": [b"a"]}, timeout=0.1)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(1)
        # One of three in a batch is bad, over either API; the others are answered.
        answers = [pool.submit(server.post, "m", {"instances": [text]}) for text in ("a", "bad", "c")]
        codes = [answer.result()[0] for answer in answers]
        assert codes == [200, 400, 200]
        assert "the text is bad" in answers[1].result()[1]["error"]
        # Twelve at once where four are allowed: the rest is told so, at once.
        began = time.monotonic()
        answers = [pool.submit(server.post, "m", {"instances": ["a"]}) for _ in range(12)]
        found = [answer.result()[0] for answer in answers]
        assert set(found) == {200, 503} and found.count(200) >= 4 and time.monotonic() - began < 10
        assert server.post("m", {"instances": ["a" * 200_000]})[0] == 413
        with pytest.raises(grpc.RpcError) as error:
            server.predict({"text": [b"a" * 200_000]})
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_reload_whose_client_gives_up_is_brought_to_its_end(tmp_path, made):
    made("linear", tmp_path / "one" / "1", slope=1.0)
    made("texts", tmp_path / "two" / "1", seconds=2.0)
    warmup = predict_pb2.PredictRequest()
    warmup.inputs["text"].CopyFrom(tf.make_tensor_proto(["a"]))
    exports.write_warmup(tmp_path / "two" / "1", warmup)  # so that loading takes its time
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(
        name="two", base_path=str(tmp_path / "two"), model_platform="tensorflow"
    )
    with Server(*single(tmp_path / "one")) as server, grpc.insecure_channel(server.grpc) as channel:
        with pytest.raises(grpc.RpcError) as error:
            model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=0.2)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        for _ in range(100):
            if server.get("/v1/models/two/metadata")[0] == 200:
                break
            time.sleep(0.1)
        assert server.predict({"text": [b"b"]}, model="two")["upper"].tolist() == [b"B"]
        assert server.get("/v1/models/m/metadata")[0] == 404


def test_small_messages_that_stand_for_much_memory_are_refused(tmp_path, made):
    made("linear", tmp_path / "1")
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    for number in range(40):
        tensor = request.inputs[f"made_up_{number}"]
        tensor.dtype = 1
        tensor.tensor_shape.dim.add().size = 16 << 20
    members = b"".join([gzip.compress(b"")] * 50_000)
    with Server(*single(tmp_path)) as server, grpc.insecure_channel(server.grpc) as channel:
        process = psutil.Process(server.process.pid)
        before, began = process.memory_info().rss, time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, 30)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        asked = urllib.request.Request(
            f"http://{server.rest}/v1/models/m:predict", members, {"Content-Encoding": "gzip"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=30)
        assert refused.value.code == 400
        assert process.memory_info().rss - before < 100e6 and time.monotonic() - began < 5


def test_a_rest_request_that_takes_too_long(tmp_path, made):
    made("texts", tmp_path / "1", seconds=3.0)
    with Server(*single(tmp_path, "--rest_api_timeout_in_ms=300")) as server:
        began = time.monotonic()
        assert server.post("m", {"instances": ["a"]})[0] == 504
        assert time.monotonic() - began < 2


def test_metrics_have_tensorflow_servings_names(tmp_path, made):
    made("linear", tmp_path / "1", warmup=1.0)
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics/here" }')
    with Server(*single(tmp_path, f"--monitoring_config_file={monitoring}")) as server:
        server.predict(LINE)
        server.post("m", {"instances": ["no number"]})
        for name in range(50):
            server.post(f"unknown-{name}", {"instances": [1.0]})
        with urllib.request.urlopen(f"http://{server.rest}/metrics/here") as answer:
            page = answer.read().decode()
    assert "# TYPE :tensorflow:serving:request_count counter\n" in page
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 1.0' in page
    assert ':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 1.0' in page
    assert page.count(":tensorflow:serving:request_count{") == 3  # those 50 are not 50 of their own
    for name in ("request_latency", "runtime_latency", "model_warmup_latency", "batching_session:queuing_latency"):
        assert f"# TYPE :tensorflow:serving:{name} histogram" in page
        assert f":tensorflow:serving:{name}_count" in page


def test_the_file_of_models_is_followed(tmp_path, made):
    made("linear", tmp_path / "one" / "1", slope=1.0)
    made("linear", tmp_path / "two" / "1", slope=2.0)
    file = tmp_path / "models.config"

    def write(name):
        entry = f'name: "{name}" base_path: "{tmp_path / name}" model_platform: "tensorflow"'
        file.write_text(f"model_config_list {{ config {{ {entry} }} }}")

    write("one")
    flags = [f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=0.2"]
    with Server(*flags) as server:
        assert server.predict(LINE, model="one")["y"][0] == 3.0
        file.write_text("nonsense {")
        time.sleep(0.6)
        assert server.predict(LINE, model="one")["y"][0] == 3.0  # and says so in its log
        assert "nonsense" in server.log
        write("two")
        for _ in range(100):
            if server.post("two", {"instances": [1.0]})[0] == 200:
                break
            time.sleep(0.1)
        assert server.predict(LINE, model="two")["y"][0] == 4.0
        assert server.post("one", {"instances": [1.0]})[0] == 404


def test_encrypted_grpc(tmp_path, made):
    made("linear", tmp_path / "models" / "1")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
        + ["subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    config = tmp_path / "ssl.config"
    config.write_text(f"server_key: {json.dumps(key.read_text())} server_cert: {json.dumps(certificate.read_text())}")
    with Server(*single(tmp_path / "models", f"--ssl_config_file={config}")) as server:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        assert server.predict(LINE, credentials=trusted)["y"].tolist() == [2.5, 3.0]
        with pytest.raises(grpc.RpcError):
            server.predict(LINE, timeout=3)


def test_the_file_of_models_is_read_beside_the_event_loop(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(config_files, "models", lambda settings: found.append(threading.current_thread()))
    settings = Settings(model_config_file=tmp_path / "file", model_config_file_poll_wait_seconds=0.01)
    manager = types.SimpleNamespace(configure=lambda config: asyncio.sleep(0))

    async def scenario():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server._follow(settings, manager, None), 0.5)

    asyncio.run(scenario())
    assert found and threading.main_thread() not in found


def test_a_rest_port_that_another_server_takes_while_models_are_loaded():
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        async def scenario():
            late = server._RestServer(types.SimpleNamespace(settings=Settings(rest_api_port=port)))
            other.listen()
            await late.start()

        with pytest.raises(UserError, match=f"127.0.0.1:{port}: .* in use; choose another --rest_api_port"):
            asyncio.run(scenario())


def test_a_server_of_a_program_that_does_not_start_says_why_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # has TensorFlow write more before it
    with pytest.raises(UserError) as raised:
        Server(*single(tmp_path / "nothing"))
    assert str(raised.value) == (
        f"the server did not start: {tmp_path}/nothing: no such directory; model m needs one that holds its versions"
    )


@pytest.fixture
def taken():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found.getsockname()[1]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--model_base_pth={models}"], "did you mean"),
        (["--model_base_path={models}", "--port={taken}"], "choose another --port"),
        (["--model_base_path={models}", "--port=0", "--rest_api_port={taken}"], "choose another --rest_api_port"),
        (["--model_base_path={models}", "--bind_address=192.0.2.1"], "or --bind_address"),
        (["--model_base_path={damaged}", "--port={free}"], "did not become available"),
        (["--model_base_path={models}", "--port={free}", "--grpc_socket_path=/no/such/place"], "no socket can be made"),
    ],
)
def test_a_mistake_at_the_start_is_one_line(tmp_path, made, taken, flags, complaint):
    for name in ("models", "damaged"):
        (tmp_path / name).mkdir()
    made("damaged", tmp_path / "damaged" / "1")
    free = free_addresses(1)[0].split(":")[1]
    names = {"models": tmp_path / "models", "damaged": tmp_path / "damaged", "taken": taken, "free": free}
    command = [sys.executable, "-m", "pipelines.serving", *(flag.format(**names) for flag in flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert complaint in line and "Traceback" not in done.stderr
