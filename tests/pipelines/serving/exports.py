"""SavedModels to serve, small enough to be made for a test."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pipelines.export.session import WARMUP_FILE

BAD = b"bad"  # what the model of texts cannot answer


class _Linear(tf.Module):
    def __init__(self, slope: float, constant: float):
        super().__init__()
        self.slope = tf.Variable(slope)
        self.constant = tf.Variable(constant)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def line(self, x):
        return {"y": x * self.slope + self.constant}

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a"), tf.TensorSpec([None], tf.int32, name="b")]
    )
    def several(self, a, b):
        return {"sum": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32), "count": b + 1}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="rows")])
    def lengths(self, rows):
        return {"total": tf.reduce_sum(rows, 1) * self.slope}


def linear(directory: Path, slope: float = 0.5, constant: float = 2.0, warmup: float | None = None) -> Path:
    """y = slope · x + constant, with a signature of two inputs and one of rows of any length."""
    model = _Linear(slope, constant)
    signatures = {"serving_default": model.line, "several": model.several, "lengths": model.lengths}
    tf.saved_model.save(model, str(directory), signatures=signatures)
    if warmup is not None:
        request = predict_pb2.PredictRequest()
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([warmup], tf.float32))
        write_warmup(directory, request)
    return directory


def write_warmup(directory: Path, request: predict_pb2.PredictRequest) -> None:
    write_log(directory, prediction_log_pb2.PredictionLog(predict_log={"request": request}))


def write_log(directory: Path, log: prediction_log_pb2.PredictionLog) -> None:
    (directory / WARMUP_FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(directory / WARMUP_FILE)) as file:
        file.write(log.SerializeToString())


def add_graph_for_training(directory: Path) -> None:
    """A second meta graph, which TensorFlow Serving would not run and does not load."""
    file = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    training = saved.meta_graphs.add()
    training.CopyFrom(saved.meta_graphs[0])
    training.meta_info_def.tags[:] = ["train"]
    training.graph_def.node.add(name="python", op="PyFunc")
    file.write_bytes(saved.SerializeToString())


class _Texts(tf.Module):
    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def upper(self, text):
        # A row that is refused, as a text that is too long would be, and work that takes its time.
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(text != BAD), ["the text is bad"])]):
            due = tf.timestamp() + self.seconds
            end = tf.while_loop(lambda now: now < due, lambda now: [tf.timestamp()], [due - self.seconds])
        with tf.control_dependencies(end):
            return {"upper": tf.strings.upper(text), "text_bytes": tf.identity(text)}


def texts(directory: Path, seconds: float = 0.0) -> Path:
    """Upper-cases texts, refuses `BAD` ones, and takes that long for it."""
    model = _Texts(seconds)
    tf.saved_model.save(model, str(directory), signatures=model.upper)
    return directory


TYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string", "half")


class _Same(tf.Module):
    @tf.function(autograph=False)
    def same(self, x):
        return {"y": tf.identity(x)}


def types(directory: Path, names: Sequence[str] = TYPES) -> Path:
    """Gives back what it is given: a signature for each type, with tensors of any shape."""
    model = _Same()
    signatures = {
        name: model.same.get_concrete_function(tf.TensorSpec(None, tf.as_dtype(name), name="x")) for name in names
    }
    tf.saved_model.save(model, str(directory), signatures=signatures)
    return directory


class _Estimator(tf.Module):
    def __init__(self):
        super().__init__()
        self.slope = tf.Variable(0.5)

    def _values(self, inputs, constant):
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"] * self.slope + constant

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def two(self, inputs):
        return {"outputs": self._values(inputs, 2.0)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def three(self, inputs):
        return {"outputs": self._values(inputs, 3.0)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def both(self, inputs):
        scores = tf.concat([self._values(inputs, 2.0), self._values(inputs, 3.0)], 1)
        return {"classes": tf.tile([["two", "three"]], [tf.shape(scores)[0], 1]), "scores": scores}


def estimator(directory: Path) -> Path:
    """Signatures for Classify and Regress, as estimators export them: x/2 + 2, x/2 + 3, and both as scores."""
    model = _Estimator()
    methods = {"regress_x_to_y": "regress", "regress_x_to_y2": "regress", "classify_x_to_y": "classify"}
    functions = dict(zip(methods, (model.two, model.three, model.both), strict=True))
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.two, **functions})
    # TensorFlow 2 writes every signature as one for Predict.
    file = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name, method in methods.items():
        saved.meta_graphs[0].signature_def[name].method_name = f"tensorflow/serving/{method}"
    file.write_bytes(saved.SerializeToString())
    return directory


def keras_model(directory: Path) -> Path:
    """What `model.export` of Keras 3 writes: sums of three numbers."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1, kernel_initializer="ones", name="sum")])
    model.export(str(directory), verbose=False)
    return directory


def compiled(directory: Path) -> Path:
    """An export that TensorFlow Serving refuses: its function is to be compiled by XLA."""
    model = tf.Module()
    model.double = tf.function(
        lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")], jit_compile=True
    )
    tf.saved_model.save(model, str(directory), signatures=model.double)
    return directory


def damaged(directory: Path) -> Path:
    """A version whose variables are cut short."""
    linear(directory)
    data = next((directory / "variables").glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:2])
    return directory


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)
