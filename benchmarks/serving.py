"""What the server costs, and what batches gain.

    python benchmarks/serving.py latency
    python benchmarks/serving.py batching --export saved_models/translate

`latency` asks a trivial model (y = 2 x + 1) one request after the other, in turns in this process, over gRPC and over
REST. `batching` has 32 clients ask three servers of the same export in turns: one batches; one does not; and one does
not and shares the operations of each request out among all cores, as TensorFlow does by default.
"""

import argparse
import asyncio
import http.client
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from results_files import RESULTS, bars, ratio, save, versions
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from pipelines.serving.client.base import connect
from pipelines.serving.client.load import Report, run
from pipelines.serving.model import SavedModel
from pipelines.serving.process import ServerProcess

ONE_BY_ONE, BATCHING = "one request after the other, a trivial model", "{} clients, a text a request, {}"
TEXTS = [
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "Two young women in white dresses are playing the violin on a stage.",
    "A dog runs through the snow.",
    "Several people wait for the bus in front of an old house.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=("latency", "batching"))
    parser.add_argument("--export", type=Path, help="directory of versions that take texts, for batching")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="requests in a turn (%(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="requests at a time, for batching (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    if options.comparison == "batching" and not options.export:
        parser.error("batching needs --export")
    rows, used = latency(options) if options.comparison == "latency" else asyncio.run(batching(options))
    title = f"{options.rounds} rounds of {options.requests} requests"
    table = Table(title=title, title_justify="left")
    names = [name for name in rows[0] if name not in ("rounds", "unit", "ratio_range")]
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if name in ("work", "system") else "right")
    for row in rows:
        cells = [ratio(row) if name == "ratio" else str(row[name]) for name in names]
        table.add_row(*cells)
    Console(width=130).print(table)
    about = {"rounds": options.rounds, "requests": options.requests}
    save(f"serving_{options.comparison}", rows, options.output, used, bars(rows), **about)


def latency(options: argparse.Namespace) -> tuple[list[dict], dict[str, str]]:
    """Milliseconds a request; `more_ms` is how much more they are than in the process, compared within rounds."""
    with tempfile.TemporaryDirectory() as folder:
        export_line(Path(folder) / "1")
        saved = SavedModel(Path(folder) / "1", 1)
        x = {"x": np.array([1.0], np.float32)}
        with ServerProcess("--model_name=line", f"--model_base_path={folder}") as server:
            systems = {
                "in the process": lambda: saved.run("serving_default", x),
                "gRPC": _grpc(server.grpc),
                "REST": _rest(server.rest),
            }
            for ask in systems.values():
                median(ask, 200)  # connections, caches
            times = {name: [] for name in systems}
            for _ in range(options.rounds):
                for name, ask in systems.items():
                    times[name].append(median(ask, options.requests))
    base = np.array(times["in the process"])
    rows = []
    for name, found in times.items():
        more, middle = np.array(found) - base, round(float(np.median(found)), 3)
        rows.append(
            {"work": ONE_BY_ONE, "system": name, "value": middle, "unit": "ms"}
            | _ratios(found, base)
            | {"more_ms": round(float(np.median(more)), 3)}
            | {"more_ms_range": [round(float(more.min()), 3), round(float(more.max()), 3)]}
            | {"rounds": [round(each, 4) for each in found]}
        )
    return rows, versions("grpcio")


def _ratios(found: Sequence[float], base: Sequence[float]) -> dict:
    """Over that of another system, within each round: the median, the lowest and the highest."""
    ratios = np.array(found) / np.array(base)
    bounds = [round(float(each), 3) for each in (ratios.min(), ratios.max())]
    return {"ratio": round(float(np.median(ratios)), 3), "ratio_range": bounds}


def export_line(directory: Path, slope: float = 2.0, shift: float = 1.0) -> None:
    """y = slope · x + shift, visible at once and whole."""
    model = tf.Module()
    model.slope = tf.Variable(slope)
    signature = [tf.TensorSpec([None], tf.float32, name="x")]
    model.line = tf.function(lambda x: {"y": x * model.slope + shift}, input_signature=signature)
    hidden = directory.with_name(f".{directory.name}")
    tf.saved_model.save(model, str(hidden), signatures=model.line)
    hidden.rename(directory)


def _grpc(address: str) -> Callable[[], None]:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "line"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    return lambda: stub.Predict(request, 30)


def _rest(address: str) -> Callable[[], None]:
    connection = http.client.HTTPConnection(address)

    def ask() -> None:
        connection.request("POST", "/v1/models/line:predict", b'{"instances": [1.0]}')
        assert connection.getresponse().read() == b'{"predictions":[3.0]}'

    return ask


def median(ask: Callable[[], None], times: int) -> float:
    """The median of some calls, in milliseconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return 1000 * float(np.median(taken))


async def batching(options: argparse.Namespace) -> tuple[list[dict], dict[str, str]]:
    """Requests a second of the servers, over both APIs; `ratio` is that to the server that does not batch."""
    flags = ("--model_name=m", f"--model_base_path={options.export.absolute()}")
    one_by_one = (*flags, "--enable_batching=false")
    shared = f"--tensorflow_intra_op_parallelism={os.cpu_count()}"
    with (
        ServerProcess(*flags) as batched,
        ServerProcess(*one_by_one) as single,
        ServerProcess(*one_by_one, shared) as sharing,
    ):
        servers = {"batched": batched, "one by one": single, f"one by one, {os.cpu_count()} threads each": sharing}
        found = {}
        for _ in range(options.rounds):
            for api in ("gRPC", "REST"):
                for name, server in servers.items():
                    url = server.grpc if api == "gRPC" else f"http://{server.rest}"
                    found.setdefault((api, name), []).append(await measured(api.lower(), url, options))
    rows = []
    for (api, name), reports in found.items():
        speeds, others = ([r["requests_per_second"] for r in found[api, which]] for which in (name, "one by one"))
        medians = {key: round(float(np.median([r[key] for r in reports])), 1) for key in ("p50_ms", "p99_ms")}
        rows.append(
            {"work": BATCHING.format(options.clients, api), "system": name}
            | {"value": round(float(np.median(speeds)), 1), "unit": "requests/s"}
            | _ratios(speeds, others)
            | medians
            | {"rounds": [round(each, 1) for each in speeds]}
        )
    return rows, versions("grpcio", "uvicorn")


async def measured(api: str, url: str, options: argparse.Namespace) -> dict:
    """The figures of one turn, in which no request may fail."""
    async with connect(api, url, "m") as client:
        signature = await client.signature()
        (name,) = signature.inputs
        requests = [client.encode(signature, {name: [text]}) for text in TEXTS]
        report = Report(options.clients)
        await run(client.send, requests, options.requests, report)
    assert not report.errors, report.errors
    return report.summary()


if __name__ == "__main__":
    main()
