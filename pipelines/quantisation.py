"""Weights as whole numbers from -127 to 127 with a scale a channel: a quarter of the size, and almost the same answers.

Only how weights are kept changes; a model computes with what they stand for. That is done to variables and not to
layers, so that every layer takes part: recurrent kernels, convolutions, embeddings, those of other libraries.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pipelines.errors import UserError

LEVELS = 127  # on either side of zero
SMALLEST = 4096  # numbers in a weight that is worth it: smaller ones are few, and biases and norms matter most
SHORTEST_CHANNEL = 8  # numbers that share a scale, which takes as much room as four of them
NOTHING, TOO_MUCH = 1e-30, 1e30  # magnitudes beyond which float32 has no room for a scale


class Quantised(NamedTuple):
    """An array as `values * scale`.

    Args:
        values: int8, of the array's shape.
        scale: float32, of the same rank, with sizes of 1 but for the axis of the channels.
    """

    values: np.ndarray
    scale: np.ndarray


def quantise(array: np.ndarray) -> Quantised:
    """The nearest whole numbers, with a scale for each channel of the axis that loses least.

    Where every channel would be short, all share one scale. The error of a number is at most half its scale. What was
    quantised before comes back exactly.

    Args:
        array: float32, of any shape.

    Raises:
        ValueError: a number is infinite, not a number, or beyond 1e30.
    """
    array = np.asarray(array, np.float32)
    if not np.all(np.abs(array) < TOO_MUCH):
        raise ValueError("numbers that are not finite, or beyond 1e30")
    axes = [axis for axis, size in enumerate(array.shape) if array.size >= SHORTEST_CHANNEL * size]
    found = [_quantised(array, axis) for axis in axes or [None]]
    return min(found, key=lambda each: np.sum(np.square(array - dequantise(*each), dtype=np.float64)))


def _quantised(array: np.ndarray, channels: int | None) -> Quantised:
    """With a scale for each channel of an axis, or one for all."""
    others = tuple(axis for axis in range(array.ndim) if axis != channels)
    greatest = np.max(np.abs(array), axis=others, keepdims=True, initial=0.0)
    # Rounded up to 17 binary digits: times a whole number of 7 digits that is a float32, without any rounding. So it
    # does not matter who multiplies, and rounded weights stay what they are when they are rounded again.
    mantissa, exponent = np.frexp(np.where(greatest > NOTHING, greatest, LEVELS) / np.float32(LEVELS))
    scale = np.ldexp(np.ceil(mantissa * 2**17) / 2**17, exponent).astype(np.float32)
    return Quantised(np.rint(array / scale).astype(np.int8), scale)


def dequantise(values, scale):
    """What whole numbers stand for, float32; arrays as well as tensors."""
    if tf.is_tensor(values):
        return tf.cast(values, tf.float32) * scale
    return values.astype(np.float32) * scale


def _large(model: keras.Model) -> list[keras.Variable]:
    """The weights that are quantised: large matrices and what has more axes, whether they were trained or frozen."""
    return [v for v in model.variables if v.dtype == "float32" and v.ndim >= 2 and np.prod(v.shape) >= SMALLEST]


def _quantised_variable(variable: keras.Variable) -> Quantised:
    try:
        return quantise(variable.numpy())
    except ValueError as error:
        raise UserError(
            f"--quantize int8: the weight {variable.path} has {error}; choose another --checkpoint"
        ) from None


def round_weights(model: keras.Model) -> None:
    """Gives a model the weights that it has after quantisation.

    Raises:
        UserError: a weight cannot be quantised.
    """
    for variable in _large(model):
        variable.assign(dequantise(*_quantised_variable(variable)))


class StoredWeights:
    """A model's large weights as int8 variables, and functions that read those in their stead.

    Args:
        model: whose weights are quantised. It is left alone.

    Raises:
        UserError: a weight cannot be quantised.
    """

    def __init__(self, model: keras.Model):
        self._stored: dict[int, tuple[tf.Variable, tf.Variable]] = {}  # by the identity of the model's variable
        for variable in _large(model):
            values, scale = _quantised_variable(variable)
            name = variable.path.replace("/", "_")
            self._stored[id(variable)] = (
                tf.Variable(values, trainable=False, name=name),
                tf.Variable(scale, trainable=False, name=f"{name}_scale"),
            )
        self._model = model  # keeps the identities taken

    @property
    def variables(self) -> list[tf.Variable]:
        """What a SavedModel has to keep: the model's own variables, and int8 and scales instead of the large ones."""
        kept = [v.value for v in self._model.variables if id(v) not in self._stored]
        return kept + [variable for pair in self._stored.values() for variable in pair]

    def reading(self, function: tf.types.experimental.PolymorphicFunction) -> Callable:
        """The same `tf.function`, traced anew so that it reads the int8 variables.

        Raises:
            ValueError: it calls a function that was traced before, and reads the model's own weights.
        """

        @functools.wraps(function.python_function)
        def instead(*args, **kwargs):
            with _Reading(self._stored):
                return function.python_function(*args, **kwargs)

        found = tf.function(instead, input_signature=function.input_signature)
        captured = {id(tensor) for tensor in found.get_concrete_function().captured_inputs}
        for variable in self._model.variables:
            if id(variable) in self._stored and id(variable.value.handle) in captured:
                raise ValueError(f"{variable.path} is read by a function that was traced before it was quantised")
        return found


class _Reading(keras.StatelessScope):
    """Where Keras' variables have the values of the int8 ones that they are stored as.

    Each is multiplied out once a function, outside of its loops and branches: a decoder that reads its weights at every
    step finds them ready. Functions that are called have their own: they are traced once for all callers.
    """

    def __init__(self, stored: dict[int, tuple[tf.Variable, tf.Variable]]):
        super().__init__(initialize_variables=False)
        self._stored = stored
        self._made: dict[tuple[int, tf.Graph], tf.Tensor] = {}

    def get_current_value(self, variable: keras.Variable):
        if id(variable) not in self._stored:
            return super().get_current_value(variable)
        graph = tf.compat.v1.get_default_graph()
        # The graphs of loops and branches are of types of their own.
        while type(graph) is not tf.__internal__.FuncGraph:
            graph = graph.outer_graph
        key = id(variable), graph
        if key not in self._made:
            with graph.as_default(), tf.control_dependencies(None):
                self._made[key] = dequantise(*(tf.convert_to_tensor(part) for part in self._stored[id(variable)]))
        return self._made[key]
