"""What all layers over sequences share: their arguments, and what goes in and comes out."""

import keras
from keras import ops

from layers.dropout import Dropout


class _StepDropout(Dropout):
    """Drops the same features of a row at all its steps."""

    def _mask_shape(self, inputs):
        return (ops.shape(inputs)[0], 1, inputs.shape[-1])


class Sequence(keras.layers.Layer):
    """What all layers over sequences share: their arguments, and what goes in and comes out.

    A subclass names its states, makes its weights, and has `_run`.
    """

    STATES = 1

    def __init__(self, units, return_sequences, return_state, go_backwards, dropout, seed, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.dropout = dropout
        self.seed = seed
        self.supports_masking = True
        self.input_dropout = _StepDropout(dropout, seed, dtype=self.dtype_policy, name="input_dropout")

    def initial_state(self, batch_size):
        """The state before anything was read: a list of zeros (B, units), in the compute dtype."""
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in range(self.STATES)]

    def call(self, inputs, initial_state=None, mask=None, training=None):
        if mask is None:  # Keras finds it by itself only where `inputs` is the only tensor
            mask = getattr(inputs, "_keras_mask", None)
        state = self.initial_state(ops.shape(inputs)[0]) if initial_state is None else self._state(initial_state)
        if mask is not None:
            mask = ops.cast(mask, "bool")
        if self.go_backwards:
            inputs = ops.flip(inputs, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        outputs, state = self._run(self.input_dropout(inputs, training=training), state, mask, training)
        last = state[0]
        if mask is not None and initial_state is not None:  # before the first real step: else these are zeros already
            begun = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
            outputs = ops.where(begun[:, :, None], outputs, ops.zeros_like(outputs))
            last = ops.where(ops.any(mask, axis=1, keepdims=True), last, ops.zeros_like(last))
        results = [outputs if self.return_sequences else last]
        if self.return_state:
            results += state
        return tuple(results) if self.return_state else results[0]

    def _state(self, given):
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(given) != self.STATES:
            raise ValueError(f"{type(self).__name__} has {self.STATES} states. Received: {len(given)}")
        return [ops.cast(x, self.compute_dtype) for x in given]

    def compute_mask(self, inputs, previous_mask):
        mask = previous_mask[0] if isinstance(previous_mask, (list, tuple)) else previous_mask
        if not self.return_sequences:
            mask = None
        elif self.go_backwards and mask is not None:
            mask = ops.flip(mask, axis=1)
        return [mask] + [None] * self.STATES if self.return_state else mask

    def compute_output_shape(self, inputs_shape):
        batch, length, _ = inputs_shape
        output = (batch, length, self.units) if self.return_sequences else (batch, self.units)
        return (output, *[(batch, self.units)] * self.STATES) if self.return_state else output

    def get_config(self):
        names = ("units", "return_sequences", "return_state", "go_backwards", "dropout", "seed")
        return super().get_config() | {name: getattr(self, name) for name in names}
