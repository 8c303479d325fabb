"""Flags as TensorFlow Serving spells them, and the files they name."""

import pytest

from pipelines.errors import UserError
from pipelines.serving import config_files
from pipelines.serving.batching import Parameters
from pipelines.serving.settings import Settings, parse


def parsed(*flags):
    return parse(["--model_base_path=/tmp", *flags], "serving")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--port=1", "--rest_api_port=2"], {"port": 1, "rest_api_port": 2}),
        (["--rest_api_enable_cors_support"], {"rest_api_enable_cors_support": True}),
        (["--rest_api_enable_cors_support=true"], {"rest_api_enable_cors_support": True}),
        (["--rest_api_enable_cors_support=false"], {"rest_api_enable_cors_support": False}),
        (["--enable_grpc_healthcheck_service=1", "--verbose=0"], {"enable_grpc_healthcheck_service": True}),
        (["--enable_batching"], {"enable_batching": "true"}),
        (["--enable_batching=true"], {"enable_batching": "true"}),
        (["--enable_batching=False"], {"enable_batching": "false"}),
        (["--enable-batching=auto", "--rest-api-port=7"], {"enable_batching": "auto", "rest_api_port": 7}),
    ],
)
def test_flags(flags, expected):
    found = parsed(*flags)
    assert {name: getattr(found, name) for name in expected} == expected


def test_channel_arguments_are_numbers_where_they_can_be():
    found = parsed("--grpc_channel_arguments=grpc.max_concurrent_streams=5,grpc.primary_user_agent=a,b=-2147483648")
    expected = [("grpc.max_concurrent_streams", 5), ("grpc.primary_user_agent", "a"), ("b", -(2**31))]
    assert found.channel_arguments() == expected


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--port=0"], "nowhere to listen"),
        (["--port=70000"], "there are 65535"),
        (["--rest_api_port=8500"], "they need one each"),
        (["--model_config_file=/tmp/f"], "give either --model_base_path"),
        (["--grpc_channel_arguments=x"], "expected name=value"),
        (["--grpc_channel_arguments=grpc.max_message_length=2147483648"], "numbers up to 2147483647"),
        (["--grpc_channel_arguments=a=-2147483649"], "numbers up to 2147483647"),
        ([f"--grpc_channel_arguments=a={'9' * 5000}"], "numbers up to 2147483647"),
        (["--max_request_bytes=2147483648"], "takes a number up to 2147483647"),
        (["--max_concurrent_requests=0"], "takes a number from 1 on"),
        (["--slow_client_seconds=0"], "must be above 0"),
        (["--verbose=maybe"], "maybe"),
        (["--prt=1"], "did you mean"),
    ],
)
def test_wrong_flags(flags, complaint):
    with pytest.raises(UserError, match=complaint):
        parsed(*flags)


def test_an_app_serves_its_newest_export_or_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="python -m apps.translate export"):
        parse([], "serving", "translate")
    (tmp_path / "saved_models" / "translate" / "3").mkdir(parents=True)
    found = parse(["--port=9000"], "serving", "translate")
    assert (found.model_name, str(found.model_base_path)) == ("translate", "saved_models/translate")
    assert (found.port, found.rest_api_port) == (9000, 8501)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("read", "flags", "text", "complaint"),
    [
        (config_files.models, {"model_config_file": ...}, "nonsense {", "not a ModelServerConfig in text form"),
        (config_files.models, {"model_config_file": ...}, None, "no such file"),
        (config_files.models, {"model_base_path": ...}, None, "no such directory"),
        (config_files.batching, {"batching_parameters_file": ...}, "", "is for --enable_batching"),
        (
            config_files.batching,
            {"batching_parameters_file": ..., "enable_batching": "true"},
            "max_batch_size { value: 4 } allowed_batch_sizes: 3",
            "must ascend",
        ),
        (config_files.metrics_path, {"monitoring_config_file": ...}, "prometheus {}", "not a MonitoringConfig"),
        (config_files.ssl, {"ssl_config_file": ...}, 'server_key: "x"', "needs a server_key and a server_cert"),
    ],
)
def test_wrong_files_are_named(file, read, flags, text, complaint):
    if text is not None:
        file.write_text(text)
    settings = Settings(**{name: file if value is ... else value for name, value in flags.items()})
    with pytest.raises(UserError, match=complaint) as error:
        read(settings)
    assert str(file) in str(error.value)


def test_files(file):
    file.write_text("max_batch_size { value: 8 } num_batch_threads { value: 3 } pad_variable_length_inputs: true")
    settings = Settings(batching_parameters_file=file, enable_batching="true")
    assert config_files.batching(settings) == (Parameters(max_batch_size=8, pad_variable_length_inputs=True), 3)
    for text, path in (
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
        ('prometheus_config { path: "/m" }', None),
    ):
        file.write_text(text)
        assert config_files.metrics_path(Settings(monitoring_config_file=file)) == path
