"""An export with int8 weights is a fraction of the size and answers as the rounded model does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.export.check import check
from pipelines.export.servable import Servable, write
from pipelines.quantisation import SMALLEST, round_weights

INPUTS = np.random.default_rng(0).normal(size=(3, 12, 12, 4)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """A convolution, a norm with statistics, Keras' recurrence over rows of pixels, and a large layer."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input([12, 12, 4]),
            keras.layers.Conv2D(256, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Reshape([100, 256]),
            keras.layers.GRU(160),
            keras.layers.Dense(6000),
        ]
    )
    rng = np.random.default_rng(1)
    for variable in model.layers[1].variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def export(directory, model, quantize):
    """Two signatures that share a function, as those of the apps do."""
    shape = tf.TensorSpec([None, 12, 12, 4], tf.float32, name="x")
    forward = tf.function(lambda x: model(x, training=False), input_signature=[shape])

    @tf.function(input_signature=[shape])
    def scores(x):
        return {"y": forward(x)}

    @tf.function(input_signature=[shape])
    def best(x):
        return {"best": tf.argmax(forward(x), -1), "y": model(x, training=False)}

    functions = {"serving_default": scores, "best": best}
    write(directory, "m", model, Servable(functions, {name: [{"x": INPUTS}] for name in functions}), {}, quantize)
    return directory


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    return [export(directory / name, model, name) for name in ("none", "int8")]


def types(directory):
    """How many numbers of each type are stored."""
    reader = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    shapes, found = reader.get_variable_to_shape_map(), {}
    for name, dtype in reader.get_variable_to_dtype_map().items():
        found[dtype] = found.get(dtype, 0) + int(np.prod(shapes[name]))
    return found


def test_the_file_is_a_fraction_of_the_size(exported, model):
    sizes = [sum(file.stat().st_size for file in found.rglob("*") if file.is_file()) for found in exported]
    assert sizes[1] < 0.45 * sizes[0], sizes
    stored = types(exported[1])
    large = sum(np.prod(v.shape) for v in model.variables if np.prod(v.shape) >= SMALLEST and v.ndim > 1)
    assert stored[tf.int8] == large and stored[tf.float32] < 0.05 * large
    assert tf.int8 not in types(exported[0])


def test_another_process_gets_the_answers_recorded_here(exported):
    assert check(exported[1]).signatures == {"serving_default": 1, "best": 1}


def test_it_answers_as_the_rounded_model(exported, model):
    before = [variable.numpy() for variable in model.variables]
    exact = model(INPUTS).numpy()
    round_weights(model)
    rounded = model(INPUTS).numpy()
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(exported[1])).signature_def
        for signature in signatures.values():
            if "x" in signature.inputs:
                found = session.run(signature.outputs["y"].name, {signature.inputs["x"].name: INPUTS})
                np.testing.assert_allclose(found, rounded, rtol=1e-4, atol=1e-5)
    assert 0 < np.abs(rounded - exact).mean() < 0.05 * np.abs(exact).mean()


def test_weights_that_cannot_be_kept_so(tmp_path):
    model = keras.Sequential([keras.Input([64]), keras.layers.Dense(64)])
    model.layers[0].kernel.assign(np.full((64, 64), np.inf))
    function = tf.function(lambda x: {"y": model(x)}, input_signature=[tf.TensorSpec([None, 64], name="x")])
    with pytest.raises(UserError, match="kernel has numbers that are not finite"):
        write(tmp_path / "1", "m", model, Servable({"serving_default": function}, {}), {}, "int8")
    assert not (tmp_path / "1").exists()
