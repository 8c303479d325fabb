"""One version of a model, loaded as TensorFlow Serving loads it: by the session loader, never by Python's own.

Sessions run TensorFlow 1 exports too, accept and refuse what TensorFlow Serving accepts and refuses, are safe to call
from many threads, and compute without Python's lock.
"""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from pipelines.export.session import TAG, refused_operations, registered, served_graphs
from pipelines.serving.batching import Arrays
from pipelines.serving.status import Code, StatusError, invalid, of_tensorflow

_CORE = registered(pywrap_tf_session, op_def_pb2)
import tensorflow_text  # noqa: E402, F401  (registers its operations, after TensorFlow's own have been listed)

DEFAULT_SIGNATURE = "serving_default"
# Selections of outputs that stay prepared, for each version.
MOST_PREPARED = 64


class SavedModel:
    """A loaded SavedModel.

    Args:
        directory: holds saved_model.pb.
        threads: that the operations of one request share.

    Raises:
        StatusError: it cannot be loaded, or TensorFlow Serving would not run it.
    """

    def __init__(self, directory: Path, threads: int):
        _refuse_what_serving_refuses(directory)
        options = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=options)
        try:
            with self._session.graph.as_default():
                loaded = tf.compat.v1.saved_model.load(self._session, [TAG], str(directory))
        except tf.errors.OpError as error:
            self._session.close()
            raise of_tensorflow(error) from None
        except (RuntimeError, ValueError, OSError) as error:
            self._session.close()
            raise StatusError(Code.NOT_FOUND, " ".join(str(error).split())) from None
        self.signatures = dict(loaded.signature_def)
        self._inputs = {name: _declared(definition) for name, definition in self.signatures.items()}
        self._prepared = functools.lru_cache(MOST_PREPARED)(self._prepare)

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Computes a request in the caller's thread.

        Args:
            signature: its name.
            inputs: as `check` has passed them.
            outputs: names of the ones wanted; all of them by default.

        Raises:
            StatusError: TensorFlow says why.
        """
        try:
            feeds, fetches, compute = self._prepared(signature, tuple(outputs))
            found = compute(*(inputs[name] for name in feeds))
        except tf.errors.OpError as error:
            raise of_tensorflow(error) from None
        # A single string comes as bytes, of which NumPy's own type for them would cut zeros off the end.
        arrays = (np.asarray(value, object if isinstance(value, bytes) else None) for value in found)
        return dict(zip(fetches, arrays, strict=True))

    def _prepare(self, signature: str, outputs: tuple[str, ...]):
        definition = self.signatures[signature]
        feeds, fetches = sorted(definition.inputs), outputs or tuple(sorted(definition.outputs))
        options = config_pb2.CallableOptions(
            feed=[definition.inputs[name].name for name in feeds],
            fetch=[definition.outputs[name].name for name in fetches],
        )
        # -1 is the caller's own thread. A pool's threads would wake one another for every small operation, which
        # takes twice as long where operations are many. Only this underscored method of the session takes options.
        options.run_options.inter_op_thread_pool = -1
        return feeds, fetches, self._session._make_callable_from_options(options)

    def check(self, signature: str, inputs: Arrays, outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Compares a request with a signature. Returns the inputs, what has a default and was not given included.

        Raises:
            StatusError: INVALID_ARGUMENT in TensorFlow Serving's words.
        """
        definition = self.signatures[signature]
        self.check_names(signature, inputs)
        complete = {}
        for position, (name, dtype, shape) in enumerate(self._inputs[signature]):
            if name in inputs:
                complete[name] = inputs[name]
                _check_type(position, inputs[name], dtype)
                if not shape.is_compatible_with(inputs[name].shape):
                    raise invalid(f"Input {name} has shape {list(inputs[name].shape)}, expected is {shape}")
            else:
                complete[name] = tf.make_ndarray(definition.defaults[name])
        for name in outputs:
            if name not in definition.outputs:
                known = ",".join(sorted(definition.outputs))
                raise invalid(
                    f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{known}}}."
                )
            if list(outputs).count(name) > 1:
                raise invalid(f"duplicate output tensor alias: {name}")
        return complete

    def check_names(self, signature: str, names: Collection[str]) -> None:
        """Compares the names of a request's inputs with a signature.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        definition = self.signatures[signature]
        sent, known = sorted(names), sorted(definition.inputs)
        missing = [name for name in known if name not in names and name not in definition.defaults]
        extra = [name for name in sent if name not in definition.inputs]
        if missing or extra:
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(known)} len({{{','.join(sent)}}}) != "
                f"len({{{','.join(known)}}}). Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}."
            )

    def close(self) -> None:
        """Ends the session. Nothing may be running."""
        self._session.close()
        del self._prepared, self._session  # which refer to one another, through this object


def _refuse_what_serving_refuses(directory: Path) -> None:
    file = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(file.read_bytes())
    except OSError as error:
        raise StatusError(Code.NOT_FOUND, f"{file}: {error.strerror.lower()}") from None
    except DecodeError:
        raise StatusError(Code.DATA_LOSS, f"{file}: damaged, it cannot be parsed") from None
    for graph in served_graphs(saved):
        for problem in refused_operations(graph, _CORE):
            raise StatusError(Code.FAILED_PRECONDITION, f"{directory}: {problem}")


def _declared(definition) -> list[tuple[str, tf.DType, tf.TensorShape]]:
    """What a signature takes, in the order in which errors count it."""
    inputs = sorted(definition.inputs.items())
    return [(name, tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)) for name, info in inputs]


def _check_type(position: int, array: np.ndarray, wanted: tf.DType) -> None:
    given = tf.string if array.dtype.kind in "SUO" else tf.as_dtype(array.dtype)
    if given != wanted:
        raise invalid(f"Expects arg[{position}] to be {_spelled(wanted)} but {_spelled(given)} is provided")


def _spelled(dtype: tf.DType) -> str:
    """A type as TensorFlow's kernels call it."""
    return {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)
