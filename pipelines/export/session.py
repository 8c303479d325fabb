"""Loads a SavedModel as TensorFlow Serving does and replays its warm-up requests; run as a program of its own.

    python -P pipelines/export/session.py DIRECTORY

Nothing of this project can be imported here, so that an export which leans on it fails. Prints one JSON object:
{"signatures": {name: number of requests replayed}, "operations": how many, "problems": [lines]}.
"""

import json
import sys
from pathlib import Path

PROJECT = ("apps", "layers", "pipelines")
# Kernels that only Python, or only another build than TensorFlow Serving, has.
REFUSED = {
    "Xla": "is for XLA, which TensorFlow Serving has switched off",
    "PyFunc": "calls Python",
    "EagerPyFunc": "calls Python",
    "CudnnRNN": "exists on GPUs only",
    "TPU": "exists on TPUs only",
}
# Of tensorflow-text, what TensorFlow Serving links (its ops_lib).
TEXT_OPERATIONS = {
    "CaseFoldUTF8", "FastBertNormalize", "FastWordpieceTokenizeWithOffsets", "FindSourceOffsets", "NormalizeUTF8",
    "NormalizeUTF8WithOffsetsMap", "RegexSplitWithOffsets", "SentencepieceDetokenizeOp", "SentencepieceIdToStringOp",
    "SentencepieceOp", "SentencepieceStringToIdOp", "SentencepieceTokenizeOp", "SentencepieceTokenizeWithOffsetsOp",
    "SentencepieceVocabSizeOp", "SplitMergeTokenizeWithOffsets", "TFText>FastSentencepieceDetokenize",
    "TFText>FastSentencepieceTokenize", "TFText>FastWordpieceDetokenize", "TFText>RoundRobinGenerateMasks",
    "TFText>RoundRobinTrim", "TFText>WhitespaceTokenizeWithOffsetsV2", "TokenizerFromLogits",
    "UnicodeScriptTokenizeWithOffsets", "WhitespaceTokenizeWithOffsets", "WordpieceTokenizeWithOffsets",
}  # fmt: skip
# Of decision forests all is linked.
FORESTS = "SimpleML"
# Relative and absolute, of float32 and of the smaller floats: kernels may add in another order.
TOLERANCE, TOLERANCE_OF_HALF = 1e-4, 2e-2
TAG = "serve"  # of the meta graph that TensorFlow Serving loads; others in the file are none of its business
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MOST_REQUESTS = 1000  # that TensorFlow Serving takes
REFUSED_LOG = "session_run_log"  # the kind of warm-up request with which it refuses a model; others it passes over


class _Blocked:
    """Refuses to import the project."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in PROJECT:
            raise ImportError(f"{name} is not there where models are served")
        return None


def registered(tf_session, op_def_pb2):
    """Names of all operations that this process knows so far."""
    operations = op_def_pb2.OpList()
    operations.ParseFromString(tf_session.TF_GetBuffer(tf_session.TF_GetAllOpList()))
    return {operation.name for operation in operations.op}


def refused_operations(graph, core):
    """What in a graph TensorFlow Serving does not run, a line each.

    Args:
        graph: a GraphDef.
        core: names of the operations that TensorFlow itself registers.
    """
    nodes = [(node, "") for node in graph.node]
    nodes += [(node, f.signature.name) for f in graph.library.function for node in f.node_def]
    known = core | TEXT_OPERATIONS | {f.signature.name for f in graph.library.function}
    found = {}
    for node, function in nodes:
        reason = next((why for start, why in REFUSED.items() if node.op.startswith(start)), None)
        if reason is None and node.attr["_XlaMustCompile"].b:
            reason = "is to be compiled by XLA (jit_compile), which TensorFlow Serving has switched off"
        if reason is None and node.op not in known and not node.op.startswith(FORESTS):
            reason = "is not linked into TensorFlow Serving"
        if reason:
            where = f" in {function}" if function else ""
            found.setdefault(f"operation {node.op} {reason}", f" (first: {node.name}{where})")
    for f in graph.library.function:
        if f.attr["_XlaMustCompile"].b:
            found.setdefault("a function is to be compiled by XLA (jit_compile)", f" (first: {f.signature.name})")
    return [line + first for line, first in found.items()]


def served_graphs(saved):
    """The GraphDefs of a SavedModel, a message, that TensorFlow Serving would load: one, or none."""
    return [meta.graph_def for meta in saved.meta_graphs if set(meta.meta_info_def.tags) == {TAG}]


def differences(expected, found):
    """Lines about outputs that differ."""
    import numpy as np

    for name, wanted in expected.items():
        got = found[name]
        if wanted.shape != got.shape:
            yield f"output {name} has shape {list(got.shape)}, the trainer's {list(wanted.shape)}"
        elif wanted.dtype.kind in "SOU":
            wrong = np.flatnonzero(wanted.ravel() != got.ravel())
            if wrong.size:
                texts = [bytes(array.ravel()[wrong[0]]).decode("utf-8", "replace") for array in (got, wanted)]
                yield f"output {name} is {texts[0]!r}, the trainer's {texts[1]!r}"
        elif wanted.dtype.kind in "iub":
            if not np.array_equal(wanted, got):
                yield f"output {name} is {got.ravel()[:5]}, the trainer's {wanted.ravel()[:5]}"
        elif not _close(wanted, got):
            apart = np.max(np.abs(wanted.astype("float64") - got.astype("float64")))
            yield f"output {name} differs from the trainer's by up to {apart:.2g}"


def _close(wanted, got):
    import numpy as np

    tolerance = TOLERANCE if wanted.dtype.itemsize >= 4 else TOLERANCE_OF_HALF
    wanted, got = wanted.astype("float64"), got.astype("float64")
    return np.allclose(wanted, got, rtol=tolerance, atol=tolerance, equal_nan=True)


def replay(session, signature, log):
    """Puts a recorded request to a session. Yields a line for everything that is not as recorded."""
    import tensorflow as tf

    inputs = {name: tf.make_ndarray(value) for name, value in log.request.inputs.items()}
    expected = {name: tf.make_ndarray(value) for name, value in log.response.outputs.items()}
    for kind, names, known in (("input", inputs, signature.inputs), ("output", expected, signature.outputs)):
        if wrong := sorted(set(names) - set(known)):
            yield f"a warm-up request has an {kind} {wrong[0]}, there is {', '.join(sorted(known))}"
            return
    feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
    try:
        found = session.run({name: output.name for name, output in signature.outputs.items()}, feeds)
    except tf.errors.OpError as error:
        yield " ".join(error.message.split())[:300]
        return
    yield from differences(expected, found)


def check(directory):
    """Walks, loads and runs a SavedModel. Returns what is printed."""
    import tensorflow as tf
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.client import pywrap_tf_session

    core = registered(pywrap_tf_session, op_def_pb2)
    import tensorflow_text  # noqa: F401  (registers its operations)
    from tensorflow_serving.apis import prediction_log_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(Path(directory, "saved_model.pb").read_bytes())
    graphs = served_graphs(saved)
    operations = sum(len(g.node) + sum(len(f.node_def) for f in g.library.function) for g in graphs)
    problems = [problem for graph in graphs for problem in refused_operations(graph, core)]
    replayed = {}
    result = {"signatures": replayed, "operations": operations, "problems": problems}
    if problems:
        return result

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, [TAG], directory).signature_def
        replayed |= {name: 0 for name in signatures if not name.startswith("__")}
        warmup = Path(directory, WARMUP_FILE)
        records = list(tf.compat.v1.io.tf_record_iterator(str(warmup))) if warmup.exists() else []
        if len(records) > MOST_REQUESTS:
            problems.append(f"{len(records)} warm-up requests, of which TensorFlow Serving takes {MOST_REQUESTS}")
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            if kind == REFUSED_LOG:
                problems.append(f"a warm-up request is a {kind}, which TensorFlow Serving refuses")
            if kind != "predict_log":
                continue  # of other interfaces; their signatures count as not run
            name = log.predict_log.request.model_spec.signature_name or "serving_default"
            if name not in signatures:
                problems.append(f"a warm-up request asks for signature {name}, there is {', '.join(replayed)}")
                continue
            problems += [f"signature {name}: {line}" for line in replay(session, signatures[name], log.predict_log)]
            replayed[name] += 1
    return result


if __name__ == "__main__":
    sys.meta_path.insert(0, _Blocked())
    try:
        answer = check(sys.argv[1])
    except Exception as error:  # whatever it is: the SavedModel is what made it
        answer = {"signatures": {}, "operations": 0, "problems": [" ".join(str(error).split())[:300] or repr(error)]}
    print(json.dumps(answer))
