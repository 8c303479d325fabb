"""What the gRPC side does besides answering: what it logs, and where it writes long answers."""

import asyncio
import contextlib
import logging
import threading
import types

import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2

from pipelines.serving import grpc_api
from pipelines.serving.settings import Settings
from pipelines.serving.status import invalid


class Context:
    """A call whose client has set no deadline."""

    def time_remaining(self):
        return None

    async def abort(self, code, message):
        raise ZeroDivisionError  # as gRPC's own does it, with an exception of its own


@pytest.mark.parametrize(
    ("error", "said"), [(None, "OK"), (invalid("no"), "INVALID_ARGUMENT: no"), (asyncio.CancelledError(), "broken off")]
)
def test_the_log_tells_how_a_call_ended(caplog, error, said):
    service = types.SimpleNamespace(settings=Settings(verbose=True))

    async def call():
        async with grpc_api._answering(service, Context(), "Predict", "m"):
            if error:
                raise error

    with caplog.at_level(logging.INFO), contextlib.suppress(asyncio.CancelledError, ZeroDivisionError):
        asyncio.run(call())
    assert caplog.messages[-1].startswith("gRPC Predict m") and caplog.messages[-1].endswith(f"ms {said}")


class Answering:
    """A service with a version that answers every request alike."""

    settings, signatures, number = Settings(), {"serving_default": None}, 1

    def __init__(self, text: bytes):
        self.text = text

    def handle(self, spec):
        return contextlib.nullcontext(self)

    def request(self, *_):
        return contextlib.nullcontext()

    def check_names(self, *_):
        pass

    async def infer(self, *_, **__):
        return {"text": np.array([self.text], object)}


@pytest.mark.parametrize(("size", "here"), [(10, True), (300_000, False)])
def test_long_texts_are_written_beside_the_event_loop(monkeypatch, size, here):
    write, threads = grpc_api._write, []

    def noting(*arguments):
        threads.append(threading.current_thread())
        write(*arguments)

    monkeypatch.setattr(grpc_api, "_write", noting)
    request = predict_pb2.PredictRequest(model_spec={"name": "m"})
    response = asyncio.run(grpc_api.PredictionService(Answering(b"a" * size)).Predict(request, Context()))
    assert len(response.outputs["text"].string_val[0]) == size
    assert [thread is threading.current_thread() for thread in threads] == [here]
