"""Requests that an export brings along, computed before the first client's."""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from pipelines.export.session import MOST_REQUESTS, REFUSED_LOG, WARMUP_FILE
from pipelines.serving import examples
from pipelines.serving.model import DEFAULT_SIGNATURE, SavedModel
from pipelines.serving.status import Code, StatusError


def warm_up(saved: SavedModel, directory: Path) -> None:
    """Replays the requests, whose answers are not looked at.

    Raises:
        StatusError: one fails, and with it the version would fail its clients.
    """
    file = directory / WARMUP_FILE
    if not file.exists():
        return
    try:
        for number, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(file)), 1):
            if number > MOST_REQUESTS:
                raise StatusError(Code.INVALID_ARGUMENT, f"{file}: more than {MOST_REQUESTS} requests")
            _replay(saved, prediction_log_pb2.PredictionLog.FromString(record))
    except tf.errors.DataLossError:
        raise StatusError(Code.DATA_LOSS, f"{file}: damaged") from None


def _replay(saved: SavedModel, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        _run(saved, request.model_spec, inputs, tuple(request.output_filter))
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        _run(saved, request.model_spec, {examples.INPUT: examples.serialized(request.input)})
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for task in request.tasks:
            _run(saved, task.model_spec, {examples.INPUT: examples.serialized(request.input)})
    elif kind == REFUSED_LOG:
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _run(saved: SavedModel, spec, inputs: dict, outputs: tuple[str, ...] = ()) -> None:
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in saved.signatures:
        raise StatusError(
            Code.FAILED_PRECONDITION, f'a warm-up request asks for signature "{name}", which is not there'
        )
    try:
        saved.run(name, saved.check(name, inputs, outputs), outputs)
    except StatusError as error:
        raise StatusError(error.code, f"a warm-up request of signature {name} fails: {error.message}") from None
