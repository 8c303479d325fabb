"""Exports that TensorFlow Serving would not run are refused by name; others are, whoever made them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow_serving.apis import prediction_log_pb2

from pipelines.errors import UserError
from pipelines.export import session
from pipelines.export.check import check, require_saved_model
from pipelines.export.servable import ORIGIN_FILE, Servable, write
from pipelines.export.session import WARMUP_FILE
from tests.pipelines.serving import exports

ROOT = Path(__file__).parents[3]
FLOATS = tf.TensorSpec([None, 3], tf.float32, name="x")


def doubling(**options):
    return tf.function(lambda x: {"y": 2.0 * x}, input_signature=[FLOATS], **options)


def save(directory, function):
    module = tf.Module()
    module.function = function
    tf.saved_model.save(module, str(directory), signatures={"serving_default": function})
    return directory


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A Dense layer exported with two requests, one of them with text."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    table = tf.Module()
    table.names = tf.Variable(["zero", "one"])

    @tf.function(input_signature=[FLOATS])
    def classify(x):
        scores = model(x)
        return {"scores": scores, "name": tf.gather(table.names, tf.argmax(scores, -1))}

    directory = tmp_path_factory.mktemp("models") / "1"
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    examples = {"serving_default": [{"x": inputs}, {"x": inputs[:1]}]}
    write(directory, "m", model, Servable({"serving_default": classify}, examples, [table]), {"run": "r"})
    return directory


def test_a_good_export_is_loaded_and_asked(exported):
    found = check(exported)
    assert found.signatures == {"serving_default": 2}
    assert "answers as recorded: serving_default 2 times" in str(found)
    assert json.loads((exported / ORIGIN_FILE).read_text()) == {"run": "r"}


def test_warm_up_requests_are_what_tensorflow_serving_reads(exported):
    records = list(tf.data.TFRecordDataset(str(exported / WARMUP_FILE)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record).predict_log for record in records]
    assert [log.request.model_spec.signature_name for log in logs] == ["serving_default"] * 2
    assert [tf.make_ndarray(log.request.inputs["x"]).shape for log in logs] == [(4, 3), (1, 3)]
    assert logs[0].request.model_spec.name == "m"


def slices(x):
    return {"y": keras.ops.slice_update(x, (0, 0), x[:1])}


def calls_python(x):
    return {"y": tf.numpy_function(np.sin, [x], tf.float32)}


def graph_of(function):
    """The graph of a caller of the function, which keeps the function itself, attributes and all, in its library."""
    caller = tf.function(lambda x: function(x), input_signature=[FLOATS])
    return caller.get_concrete_function().graph.as_graph_def()


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (doubling(jit_compile=True), "compiled by XLA"),
        (tf.function(slices, input_signature=[FLOATS]), "operation XlaDynamicUpdateSlice is for XLA"),
        (tf.function(calls_python, input_signature=[FLOATS]), "operation PyFunc calls Python"),
    ],
)
def test_what_serving_refuses_is_named(function, complaint):
    core = session.registered(pywrap_tf_session, op_def_pb2)
    found = session.refused_operations(graph_of(function), core)
    assert any(complaint in line and "(first: " in line for line in found), found
    assert session.refused_operations(graph_of(doubling()), core) == []


def test_an_operation_of_a_library_that_serving_does_not_link(tmp_path, exported):
    copy = shutil.copytree(exported, tmp_path / "1")
    file = copy / "saved_model.pb"
    # A name of the same length, as a library of one's own would bring along.
    file.write_bytes(file.read_bytes().replace(b"ArgMax", b"MyMost"))
    with pytest.raises(UserError, match="operation MyMost is not linked into TensorFlow Serving"):
        check(copy)


def test_any_tensorflow_saved_model_without_requests(tmp_path):
    found = check(save(tmp_path / "1", doubling()))
    assert found.signatures == {"serving_default": 0}
    assert "not run, for want of warm-up requests: serving_default" in str(found)


def test_variables_that_the_server_would_not_find(tmp_path):
    """What an export of a Keras model without the raw variables does: it loads in Python, not on the server."""
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    module = tf.Module()
    module.model = model
    function = tf.function(lambda x: {"y": model(x)}, input_signature=[FLOATS])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": function})
    np.testing.assert_allclose(
        tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"](tf.ones([1, 3]))["y"],
        model(np.ones([1, 3])),
        rtol=1e-6,
    )
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    add_request(tmp_path / "2", np.ones([1, 3], "float32"), np.asarray(model(np.ones([1, 3]))))
    with pytest.raises(UserError, match="serving_default: .*(variable|Variable)"):
        check(tmp_path / "2")


def test_the_project_cannot_be_imported_there(tmp_path):
    script = "import runpy, sys; sys.argv = ['session.py', 'nowhere']; runpy.run_path(sys.argv[0], run_name='__main__')"
    script += "; import pipelines.export"
    path = str(ROOT / "pipelines" / "export" / "session.py")
    process = subprocess.run(
        [sys.executable, "-c", script.replace("'session.py'", repr(path))], cwd=ROOT, capture_output=True, text=True
    )
    assert "pipelines is not there where models are served" in process.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda log: log.request.inputs["z"].CopyFrom(log.request.inputs["x"]), "has an input z, there is x"),
        (lambda log: log.response.outputs["z"].CopyFrom(log.request.inputs["x"]), "has an output z, there is y"),
    ],
)
def test_requests_that_do_not_fit_the_signature(tmp_path, change, complaint):
    directory = save(tmp_path / "1", doubling())
    x = np.ones([1, 3], "float32")
    log = prediction_log_pb2.PredictLog()
    log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    log.response.outputs["y"].CopyFrom(tf.make_tensor_proto(2 * x))
    with tf.Graph().as_default(), tf.compat.v1.Session() as loaded:
        signature = tf.compat.v1.saved_model.load(loaded, ["serve"], str(directory)).signature_def["serving_default"]
        assert not list(session.replay(loaded, signature, log))
        change(log)
        (line,) = session.replay(loaded, signature, log)
    assert complaint in line


def add_request(directory, x, y):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "serving_default"
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    log.predict_log.response.outputs["y"].CopyFrom(tf.make_tensor_proto(y))
    exports.write_log(directory, log)


def test_a_kind_of_request_with_which_the_server_refuses_a_model(tmp_path):
    directory = save(tmp_path / "1", doubling())
    exports.write_log(directory, prediction_log_pb2.PredictionLog(session_run_log={}))
    with pytest.raises(UserError, match="a session_run_log, which TensorFlow Serving refuses"):
        check(directory)


def test_only_the_graph_that_is_served_is_looked_at(tmp_path):
    directory = save(tmp_path / "1", doubling())
    exports.add_graph_for_training(directory)
    assert check(directory).signatures == {"serving_default": 0}


def test_an_answer_that_is_not_the_trainers(tmp_path):
    directory = save(tmp_path / "1", doubling())
    add_request(directory, np.array([[1, 2, 3]], "float32"), np.array([[2, 4, 6.1]], "float32"))
    with pytest.raises(UserError, match=r"output y differs from the trainer's by up to 0\.1"):
        check(directory)


@pytest.mark.parametrize(
    ("wanted", "got", "complaint"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], None),
        ([[1.0, 2.0]], [[1.0, 2.00001]], None),
        ([[1.0, np.nan]], [[1.0, np.nan]], None),
        ([[1.0, np.nan]], [[1.0, 2.0]], "differs"),
        ([[1.0, 2.0]], [[1.0, 2.1]], "differs from the trainer's by up to 0.1"),
        ([10001], [10002], "is [10002], the trainer's [10001]"),
        ([True], [True], None),
        ([[1.0, 2.0]], [1.0, 2.0], "has shape [2], the trainer's [1, 2]"),
        ([b"a", b"b"], [b"a", b"b"], None),
        ([b"a", b"b"], [b"a", b"c"], "is 'c', the trainer's 'b'"),
    ],
)
def test_differences(wanted, got, complaint):
    lines = list(session.differences({"y": np.array(wanted)}, {"y": np.array(got)}))
    assert len(lines) == (complaint is not None)
    assert not lines or complaint in lines[0]


def test_a_folder_whose_name_is_a_digit_and_no_number(tmp_path):
    for name in ("2", "\u00b2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    with pytest.raises(UserError, match=f"such as {tmp_path}/2$"):
        require_saved_model(tmp_path)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_check_without_a_traceback(exported):
    command = [sys.executable, "-m", "pipelines.export", "check", str(exported)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not psutil.Process(process.pid).children():
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert (process.returncode, said) == (130, "interrupted\n")


def run(*arguments):
    process = subprocess.run(
        [sys.executable, "-m", "pipelines.export", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    return process.returncode, process.stdout, process.stderr


def test_command_line(exported, tmp_path):
    code, out, _ = run("check", exported)
    assert code == 0 and "operations, all of which TensorFlow Serving runs" in out
    for arguments, complaint in (
        (["check", exported.parent], rf"no SavedModel (no saved_model.pb); give a version, such as {exported}"),
        (["check", tmp_path / "nothing"], "no such directory"),
        (["check"], "expected: python -m pipelines.export check DIR"),
        (["look", exported], "expected: python -m pipelines.export check DIR"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and complaint in err and err.count("\n") == 1, err
    shutil.copytree(exported, tmp_path / "1")
    file = tmp_path / "1" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, _, err = run("check", tmp_path / "1")
    assert code == 2 and str(tmp_path / "1") in err and "Traceback" not in err
    assert run("--help")[0] == 0
