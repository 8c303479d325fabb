"""Measuring a server: counts, times and errors are those that happened, after an interruption too."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import config
from pipelines.errors import UserError
from pipelines.options import QueryOptions
from pipelines.serving.client.base import connect
from pipelines.serving.client.load import Report, run
from pipelines.serving.status import Code, StatusError
from tests.pipelines.serving.client.faulty_servers import SERVERS, Model

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.usefixtures("interruptible")


def test_percentiles_of_known_times():
    report = Report(4, latencies=[n / 1000 for n in range(100, 0, -1)], seconds=2.0)
    report.errors["UNAVAILABLE"] = 3
    found = report.summary()
    assert found == {
        "requests": 103, "concurrency": 4, "seconds": 2.0, "requests_per_second": 50.0,
        "p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "max_ms": 100, "errors": {"UNAVAILABLE": 3},
    }  # fmt: skip
    assert "103 requests, 4 at a time" in str(report) and "3 UNAVAILABLE" in str(report)


def test_nothing_measured():
    assert Report(1).summary()["p50_ms"] is None and "0 requests" in str(Report(1))


def test_requests_are_sent_in_turn_and_errors_counted():
    sent = []

    async def send(request):
        sent.append(request)
        await asyncio.sleep(0.01)
        if request == b"bad":
            raise StatusError(Code.INVALID_ARGUMENT, "bad")

    report = Report(3)
    asyncio.run(run(send, [b"a", b"bad"], 9, report, show=False))
    assert sent == [b"a", b"bad"] * 4 + [b"a"]
    assert report.errors == {"INVALID_ARGUMENT": 4} and len(report.latencies) == 5 == report.done - 4
    assert min(report.latencies) >= 0.01 and 0.03 <= report.seconds < 1  # three rounds of three


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_so_many_are_under_way_at_a_time(api):
    model = Model()
    report = Report(12)

    async def measure(url):
        async with connect(api, url, "upper") as client:
            request = client.encode(await client.signature(), {"text": ["a"]})
            model.stall = 0.05
            await run(client.send, [request], 48, report, show=False)

    with SERVERS[api](model) as url:
        asyncio.run(measure(url))
    assert report.done == len(report.latencies) == 48 == len(model.batches) and set(model.batches) == {1}
    assert 2 <= model.most_under_way <= 12
    assert min(report.latencies) >= 0.1  # it stalls twice


def start(api, url, *arguments):
    command = [sys.executable, "-m", "apps.translate", "query", f"--api={api}", f"--url={url}", "--model=upper"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_the_command_measures(api):
    model = Model()
    with SERVERS[api](model) as url:
        out, err = start(api, url, "--load=60", "--concurrency=5", "--json", "one", "bad", "three").communicate()
    assert out, err
    found = json.loads(out)
    assert found["requests"] == 60 and found["errors"] == {"INVALID_ARGUMENT": 20} and found["concurrency"] == 5
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert model.batches == [1] * 60


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_an_interruption_prints_what_was_measured(api):
    model = Model()
    with SERVERS[api](model) as url:
        process = start(api, url, "--load=1000000", "--concurrency=4", "a")
        deadline = time.monotonic() + 60
        while len(model.batches) < 40 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.endswith("interrupted\n") and "Traceback" not in err
    assert int(out.split()[0]) >= 35 and "p99 ms" in out and "none" in out


def test_load_takes_no_negative_number():
    with pytest.raises(UserError, match="--load -1"):
        config.parse(QueryOptions(), ["--load=-1", "a"], "query").check()
