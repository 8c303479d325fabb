"""What a task exports, and how that becomes a SavedModel."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pipelines.export.session import WARMUP_FILE
from pipelines.quantisation import StoredWeights

ORIGIN_FILE = Path("assets.extra", "origin.json")

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass
class Servable:
    """What a task exports.

    Args:
        signatures: functions by signature name. Each is a `tf.function` with an input signature of named tensors,
            rank 1 and one row an example, and returns a dict of tensors.
        examples: for each signature some inputs by name, to check the export with and to warm a server up on.
        parts: what the functions use besides the model: tokenizers, tables, constants.
    """

    signatures: Mapping[str, tf.types.experimental.PolymorphicFunction]
    examples: Mapping[str, Sequence[Arrays]]
    parts: Sequence[tf.Module] = ()


class _Exported(tf.Module):
    """Holds what a SavedModel must carry.

    TensorFlow Serving restores the variables that the functions captured, which are the raw ones behind
    Keras': an export of the Keras model itself saves copies, loads in Python, and fails on the server.
    """

    def __init__(self, variables: Sequence[tf.Variable], parts: Sequence[tf.Module], functions: Mapping):
        super().__init__()
        self.model_variables = list(variables)
        self.parts = list(parts)
        self.functions = dict(functions)


def write(
    directory: Path, name: str, model: keras.Model, servable: Servable, origin: Mapping, quantize: str = "none"
) -> None:
    """Writes a SavedModel with its warm-up requests.

    Args:
        directory: where to, an empty one or one to be made.
        name: of the served model.
        model: whose variables the signatures read.
        servable: what to export.
        origin: where the model comes from, to be kept with it.
        quantize: `int8` keeps large weights so, `none` all of them as they are.

    Raises:
        UserError: a weight cannot be quantised.
    """
    signatures, variables = dict(servable.signatures), [variable.value for variable in model.variables]
    if quantize == "int8":
        stored = StoredWeights(model)
        signatures = {name: stored.reading(function) for name, function in signatures.items()}
        variables = stored.variables
    tf.saved_model.save(_Exported(variables, servable.parts, signatures), str(directory), signatures=signatures)
    extra = directory / WARMUP_FILE.parent
    extra.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(directory / WARMUP_FILE)) as file:
        for signature, examples in servable.examples.items():
            for inputs in examples:
                outputs = {key: found.numpy() for key, found in signatures[signature](**_tensors(inputs)).items()}
                file.write(_log(name, signature, inputs, outputs).SerializeToString())
    (directory / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n")


def _tensors(arrays: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in arrays.items()}


def _log(name: str, signature: str, inputs: Arrays, outputs: Arrays) -> prediction_log_pb2.PredictionLog:
    """A request with the answer that it should get. TensorFlow Serving replays the one and ignores the other."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, array in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
    response = predict_pb2.PredictResponse()
    for key, array in outputs.items():
        response.outputs[key].CopyFrom(tf.make_tensor_proto(array))
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request, response=response)
    )
