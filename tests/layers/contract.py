"""The shared layer test: one function that holds any layer of the project to the layer contract, so that each
layer's own test file only adds what is particular to it, above all its independent reference."""

import inspect
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree


def check_layer(
    make,
    inputs,
    *,
    options=None,
    jit=True,
    half_precision=("mixed_float16", "mixed_bfloat16"),
    padding=None,
    causal=False,
    decode=None,
    atol=1e-5,
):
    """Checks config round trip, reload, shapes, gradients, compiled steps, mixed precision, and what
    options ask for.

    Args:
        make: function of keyword arguments (`dtype`, `name`) that returns a fresh, unbuilt layer without
            active randomness (dropout 0).
        inputs: the layer's input array, or a dict from call argument to array, the first argument first.
            Masks are inputs too. NumPy arrays, batch first.
        options: further call arguments that are not tensors, e.g. {"use_causal_mask": True}.
        jit: whether the layer is meant to run under XLA.
        half_precision: dtype policies to run.
        padding: dict from the name of a time-major input (B, T, ...) to the name of its mask input (B, T):
            appending masked garbage to the input must not change the outputs at the real positions.
        causal: whether outputs up to t may depend on the first input up to t only (time axis 1).
        decode: function (layer, inputs dict) -> output computed step by step with a cache; must equal one
            full call.
        atol: tolerance of equality between two ways to compute the same numbers.
    """
    if not isinstance(inputs, dict):
        inputs = {next(iter(inspect.signature(make().call).parameters)): inputs}
    options = options or {}
    layer = make(name="layer")
    outputs = _call(layer, inputs, options)

    _check_config(layer, inputs, options, outputs)
    model = _check_shapes(layer, inputs, options, outputs)
    _check_reload(model, inputs, outputs, atol)
    _check_gradients(layer, inputs, options)
    _check_compiled_step(model, inputs, atol, jit)
    for policy in half_precision:
        _check_half_precision(make, layer, policy, inputs, options, outputs)
    for name, mask in (padding or {}).items():
        _check_padding(layer, inputs, options, name, mask, atol)
    if causal:
        _check_causality(layer, inputs, options, outputs, atol)
    if decode is not None:
        _assert_equal(decode(layer, inputs), outputs, atol, "step-by-step decoding differs from a full call")


def _call(layer, inputs, options):
    first, *rest = inputs
    return layer(inputs[first], **{name: inputs[name] for name in rest}, **options)


def _floats(structure):
    return [ops.cast(x, "float32") for x in tree.flatten(structure)]


def _assert_equal(actual, expected, atol, message):
    actual, expected = tree.flatten(actual), tree.flatten(expected)
    assert len(actual) == len(expected), message
    for a, e in zip(actual, expected, strict=True):
        a, e = np.asarray(a, "float32"), np.asarray(e, "float32")
        np.testing.assert_allclose(a, e, rtol=atol, atol=atol, err_msg=message)


def _check_config(layer, inputs, options, outputs):
    config = layer.get_config()
    assert config == json.loads(json.dumps(config)), "config is not plain data"
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == config, "config changes on a round trip"
    for name, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
            assert hasattr(layer, name), f"init argument {name} is not kept as an attribute"
            assert name in config, f"init argument {name} is not in the config"
    registered = keras.saving.get_registered_name(type(layer))
    assert registered == f"espalier>{type(layer).__name__}", f"registered as {registered}"
    if layer.weights:
        copy.build_from_config(layer.get_build_config())
        assert [w.path for w in copy.weights] == [w.path for w in layer.weights]
        copy.set_weights(layer.get_weights())
        _assert_equal(_call(copy, inputs, options), outputs, 1e-6, "a copy from config computes otherwise")


def _check_shapes(layer, inputs, options, outputs):
    """Symbolic and eager shapes agree, for a fixed and for an unknown batch; returns a functional model."""
    shapes = tree.map_structure(lambda x: tuple(x.shape), outputs)
    fixed = {k: keras.KerasTensor(v.shape, str(v.dtype)) for k, v in inputs.items()}
    symbolic = _call(layer, fixed, options)
    symbolic_shapes = tree.map_structure(lambda x: tuple(x.shape), symbolic)
    assert symbolic_shapes == shapes, f"symbolic and eager shapes differ: {symbolic_shapes}, {shapes}"
    for tensor, array in zip(tree.flatten(symbolic), tree.flatten(outputs), strict=True):
        dtype = keras.backend.standardize_dtype(array.dtype)
        assert tensor.dtype == dtype, f"symbolic and eager dtypes differ: {tensor.dtype}, {dtype}"
    wanted = inspect.signature(layer.compute_output_shape).parameters
    by_name = {f"{k}_shape": v.shape for k, v in inputs.items() if f"{k}_shape" in wanted}
    if len(wanted) == 1:
        by_name = {next(iter(wanted)): next(iter(inputs.values())).shape}
    computed = layer.compute_output_shape(**by_name)
    first = next(iter(tree.flatten(outputs)))
    if not isinstance(computed[0], int):
        computed = computed[0]  # a layer of several outputs
    assert tuple(computed) == tuple(first.shape), f"compute_output_shape says {computed}"

    unknown = {k: keras.Input(v.shape[1:], dtype=str(v.dtype), name=k) for k, v in inputs.items()}
    model = keras.Model(unknown, _call(layer, unknown, options))
    for tensor, array in zip(tree.flatten(model.output), tree.flatten(outputs), strict=True):
        assert tuple(tensor.shape[1:]) == tuple(array.shape[1:]), "shapes differ for an unknown batch"
    return model


def _check_reload(model, inputs, outputs, atol):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    _assert_equal(loaded(inputs), outputs, atol, "a reloaded model computes otherwise")


def _check_gradients(layer, inputs, options):
    """Along a random direction of the outputs, every trainable weight has a finite, non-zero gradient."""
    rng = np.random.default_rng(0)
    with tf.GradientTape() as tape:
        outputs = _floats(_call(layer, inputs, options))
        loss = sum(ops.sum(x * rng.normal(size=x.shape).astype("float32")) for x in outputs)
    gradients = tape.gradient(loss, [w.value for w in layer.trainable_weights])
    for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
        assert gradient is not None, f"no gradient reaches {weight.path}"
        gradient = np.asarray(tf.convert_to_tensor(gradient))
        assert np.isfinite(gradient).all(), f"gradient of {weight.path} is not finite"
        assert np.abs(gradient).max() > 0, f"gradient of {weight.path} is zero"


def _check_compiled_step(model, inputs, atol, jit):
    """One gradient-descent step of the pure function, as the training loop runs it, with and without XLA."""

    def step(trainable, non_trainable, x):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            outputs, non_trainable = model.stateless_call(trainable, non_trainable, x, training=True)
            loss = sum(tf.reduce_mean(tf.square(y)) for y in _floats(outputs))
        gradients = tape.gradient(loss, trainable)
        gradients = [tf.convert_to_tensor(g) for g in gradients]  # embeddings give indexed slices
        return loss, [w - 0.1 * g for w, g in zip(trainable, gradients, strict=True)], non_trainable

    trainable = [tf.convert_to_tensor(w) for w in model.trainable_variables]
    non_trainable = [tf.convert_to_tensor(w) for w in model.non_trainable_variables]
    tensors = {name: tf.constant(x) for name, x in inputs.items()}
    plain = tf.function(step)(trainable, non_trainable, tensors)
    assert np.isfinite(plain[0])
    _assert_equal(step(trainable, non_trainable, tensors), plain, atol, "graph and eager steps differ")
    if jit:
        compiled = tf.function(step, jit_compile=True)(trainable, non_trainable, tensors)
        _assert_equal(compiled, plain, atol, "steps with and without XLA differ")


def _check_half_precision(make, layer, policy, inputs, options, outputs):
    """Half precision computes in its own dtype, keeps float32 weights, and stays near the float32 result."""
    half = make(dtype=policy)
    _call(half, inputs, options)
    half.set_weights(layer.get_weights())
    wanted = policy.removeprefix("mixed_")
    assert all(w.dtype == "float32" for w in half.trainable_weights)
    results = tree.flatten(_call(half, inputs, options))
    for result, reference in zip(results, tree.flatten(outputs), strict=True):
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(reference.dtype)):
            continue
        assert keras.backend.standardize_dtype(result.dtype) == wanted, f"{policy} gives {result.dtype}"
        result, reference = np.asarray(ops.cast(result, "float32")), np.asarray(reference)
        assert np.isfinite(result).all()
        # Rounding errors grow with the largest terms of a sum, so they are measured against the largest
        # output.
        tolerance = {"float16": 0.01, "bfloat16": 0.06}[wanted] * max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(result, reference, atol=tolerance, rtol=0, err_msg=policy)


def _check_padding(layer, inputs, options, name, mask, atol, extra=3):
    """Masked garbage after the end changes nothing at the real positions."""
    rng = np.random.default_rng(1)
    x, real = inputs[name], inputs.get(mask)
    real = np.ones(x.shape[:2], bool) if real is None else real
    shape = (x.shape[0], extra, *x.shape[2:])
    if x.dtype.kind == "f":
        garbage = rng.normal(scale=50.0, size=shape).astype(x.dtype)
    else:
        garbage = rng.choice(x.ravel(), shape)
    padded = {**inputs, name: np.concatenate([x, garbage], axis=1)}
    padded[mask] = np.pad(real, [(0, 0), (0, extra)])
    before = _floats(_call(layer, {**inputs, mask: real}, options))
    after = _floats(_call(layer, padded, options))
    time_inputs = name == next(iter(inputs))
    for a, b in zip(after, before, strict=True):
        a, b = np.asarray(a)[:, : b.shape[1]], np.asarray(b)
        if time_inputs and b.shape[1] == real.shape[1]:
            a, b = a[real], b[real]  # outputs at padded positions carry no meaning
        np.testing.assert_allclose(a, b, rtol=atol, atol=atol, err_msg=f"padding {name} changes real outputs")


def _check_causality(layer, inputs, options, outputs, atol):
    """Changing the first input from position t on changes outputs from t on, and none before."""
    name, x = next(iter(inputs.items()))
    rng = np.random.default_rng(2)
    reference = np.asarray(next(iter(_floats(outputs))))
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t:] = rng.normal(size=x[:, t:].shape) if x.dtype.kind == "f" else np.roll(x, 1)[:, t:]
        result = np.asarray(next(iter(_floats(_call(layer, {**inputs, name: changed}, options)))))
        _assert_equal(result[:, :t], reference[:, :t], atol, f"outputs before {t} see position {t}")
        assert np.abs(result[:, t:] - reference[:, t:]).max() > atol, f"outputs ignore position {t}"
