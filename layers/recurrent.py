"""Recurrent layers whose steps follow one another: the plain one, GRU and LSTM, with fast loops."""

import keras
from keras import ops

from layers.attention import reshape
from layers.dropout import Dropout
from layers.sequence import Sequence


class _Recurrent(Sequence):
    """A layer whose steps need the step before: h_t = cell(W_xh x_t + b, h_{t-1}).

    A subclass has the number of its gates, the biases' shape and start, `_cell` for one step, and `_fused` for all.
    """

    GATES = 1

    def __init__(
        self,
        units,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(units, return_sequences, return_state, go_backwards, dropout, seed, **kwargs)
        self.recurrent_dropout = recurrent_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        # Another seed: one and the same would drop states where it drops inputs.
        self.state_dropout = Dropout(
            recurrent_dropout, None if seed is None else seed + 1, dtype=self.dtype_policy, name="state_dropout"
        )

    def build(self, inputs_shape):
        width = self.GATES * self.units
        self.kernel = self.add_weight((inputs_shape[-1], width), name="kernel", initializer=self.kernel_initializer)
        self.recurrent_kernel = self.add_weight(
            (self.units, width), name="recurrent_kernel", initializer=self.recurrent_initializer
        )
        self.bias = self.add_weight(self._bias_shape(width), name="bias", initializer=self._initial_bias)

    def _bias_shape(self, width):
        return (width,)

    def _initial_bias(self, shape, dtype):
        return ops.zeros(shape, dtype)

    def step(self, inputs, state):
        """One step, for a decoder that makes its next input from its last output. Nothing is dropped.

        Args:
            inputs: shape (B, d).
            state: list of (B, units), as `initial_state` makes it or `return_state` returns it.

        Returns:
            output (B, units), and the new state, a list like the old one.
        """
        if not self.built:
            self.build((None, None, inputs.shape[-1]))
        projected = ops.matmul(ops.cast(inputs, self.compute_dtype), self._weight("kernel")) + self._input_bias()
        state = self._cell(projected, self._state(state), None)
        return state[0], state

    def _run(self, inputs, state, mask, training):
        kernels = _kernels()
        dropout = None
        if training and self.recurrent_dropout:
            dropout = self.state_dropout(ops.ones_like(state[0]), training=True)
        projected = self._project(ops.transpose(inputs, (1, 0, 2)))  # (T, B, gates · units)
        if mask is not None:
            # As numbers: TensorFlow turns booleans too, but complains that oneDNN does not.
            mask = ops.cast(ops.transpose(ops.cast(mask, "float32"))[:, :, None], "bool")
        run = self._scan if kernels is None else self._fused
        outputs, *state = run(projected, state, mask, dropout)
        return ops.transpose(outputs, (1, 0, 2)), state

    def _project(self, x):
        """Inputs of all steps through their matrix, as one product: (T, B, d) -> (T, B, gates · units)."""
        length, batch, width = ops.shape(x)
        projected = ops.matmul(ops.reshape(x, (-1, width)), self._weight("kernel")) + self._input_bias()
        return reshape(projected, (length, batch, self.GATES * self.units))

    def _weight(self, name):
        return ops.cast(getattr(self, name), self.compute_dtype)

    def _input_bias(self):
        return self._weight("bias")

    def _scan(self, projected, state, mask, dropout):
        """The steps one after the other, on any backend."""
        if mask is None:
            mask = ops.ones((*ops.shape(projected)[:2], 1), "bool")

        def step(state, inputs):
            projected, real = inputs
            new = self._cell(projected, state, dropout)
            state = [ops.where(real, a, b) for a, b in zip(new, state, strict=True)]
            return state, state

        state, states = ops.scan(step, state, (projected, mask))
        return (states[0], *state)

    def get_config(self):
        return super().get_config() | {
            "recurrent_dropout": self.recurrent_dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
        }


def _kernels():
    """The loops written for TensorFlow, or None with another backend."""
    if keras.backend.backend() != "tensorflow":
        return None
    from layers import recurrent_kernels

    return recurrent_kernels


def _drop(h, dropout):
    return h if dropout is None else h * dropout


@keras.saving.register_keras_serializable(package="espalier")
class SimpleRNN(_Recurrent):
    """The plain recurrent layer (Elman network).

    h_t = σ(W_hh h_{t-1} + W_xh x_t + b_h)

    Its loop, like those of `GRU` and `LSTM`, is written for TensorFlow with a gradient of its own (see
    `recurrent_kernels`); another backend of Keras runs the same steps by `keras.ops.scan`.

    Args:
        units: size of the state and of the output.
        activation: σ: "tanh", "relu", "sigmoid" or "linear".
        return_sequences: return the outputs of all steps, else that of the last.
        return_state: also return the last state.
        go_backwards: read from the end. The outputs then come in the order in which they were read.
        dropout: rate at which inputs are dropped in training, the same features at all steps.
        recurrent_dropout: rate at which the state is dropped on its way to the next step, likewise.
        kernel_initializer: initialiser of W_xh.
        recurrent_initializer: initialiser of W_hh.
        seed: of dropout; an integer, or None for one from Keras' global seed.

    Call arguments:
        inputs: shape (B, T, d).
        initial_state: list of states (B, units), one for this layer and GRU (or that tensor alone), two for LSTM:
            h and c. Zeros by default.
        mask: boolean (B, T), True = real. A masked step changes nothing: state and output stay as they were, so
            that the last output is that of a row's last real step, wherever its padding is. Before a row's first
            real step outputs are zero. A mask that Keras attached to the inputs is used when none is passed, and
            handed on.
        training: whether dropout is active.

    Returns:
        output (B, T, units) or (B, units); then, if asked for, the last states, (B, units) each.

    Raises:
        ValueError: an unknown activation, or the wrong number of states.

    Example:
        >>> SimpleRNN(4)(keras.ops.ones((2, 5, 3))).shape
        TensorShape([2, 4])

    References:
        Elman 1990, Finding Structure in Time. https://doi.org/10.1207/s15516709cog1402_1
        Gal & Ghahramani 2016, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks.
        https://arxiv.org/abs/1512.05287
    """

    ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")

    def __init__(self, units, activation="tanh", **kwargs):
        super().__init__(units, **kwargs)
        if activation not in self.ACTIVATIONS:
            raise ValueError(f"activation must be one of {self.ACTIVATIONS}. Received: activation={activation!r}")
        self.activation = activation

    def _cell(self, projected, state, dropout):
        (h,) = state
        product = ops.matmul(_drop(h, dropout), self._weight("recurrent_kernel"))
        return [keras.activations.get(self.activation)(projected + product)]

    def _fused(self, projected, state, mask, dropout):
        kernel = self._weight("recurrent_kernel")
        return _kernels().simple_rnn(projected, *state, kernel, mask, dropout, self.activation)

    def get_config(self):
        return super().get_config() | {"activation": self.activation}


@keras.saving.register_keras_serializable(package="espalier")
class GRU(_Recurrent):
    """Gated recurrent unit, in the form of which cuDNN, PyTorch and Keras (`reset_after`) are.

    z_t, r_t = σ(W_x x_t + W_h h_{t-1} + b)
    n_t = tanh(W_xn x_t + b_xn + r_t (W_hn h_{t-1} + b_hn))
    h_t = z_t h_{t-1} + (1 - z_t) n_t

    Weights are laid out as in `keras.layers.GRU`: gates in the order z r n, bias (2, 3 units).

    Args, call arguments, returns: as `SimpleRNN`, without `activation`.

    Example:
        >>> output, state = GRU(4, return_sequences=True, return_state=True)(keras.ops.ones((2, 5, 3)))
        >>> output.shape, state.shape
        (TensorShape([2, 5, 4]), TensorShape([2, 4]))

    References:
        Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
        Translation. https://arxiv.org/abs/1406.1078
    """

    GATES = 3

    def _bias_shape(self, width):
        return (2, width)

    def _input_bias(self):
        """Of the inputs, and of the gates that take theirs and the state's as one sum."""
        inputs, recurrent = ops.split(self._weight("bias"), 2, axis=0)
        gates = ops.arange(3 * self.units) < 2 * self.units
        return ops.where(gates, inputs + recurrent, inputs)[0]

    def _candidate_bias(self):
        return self._weight("bias")[1, 2 * self.units :]

    def _cell(self, projected, state, dropout):
        (h,) = state
        product = ops.matmul(_drop(h, dropout), self._weight("recurrent_kernel"))
        x_z, x_r, x_n = ops.split(projected, 3, axis=-1)
        h_z, h_r, h_n = ops.split(product, 3, axis=-1)
        z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
        return [z * h + (1 - z) * ops.tanh(x_n + r * (h_n + self._candidate_bias()))]

    def _fused(self, projected, state, mask, dropout):
        kernel, bias = self._weight("recurrent_kernel"), self._candidate_bias()
        return _kernels().gru(projected, *state, kernel, bias, mask, dropout)


@keras.saving.register_keras_serializable(package="espalier")
class LSTM(_Recurrent):
    """Long short-term memory.

    i_t, f_t, o_t = σ(W_x x_t + W_h h_{t-1} + b),  g_t = tanh(W_xg x_t + W_hg h_{t-1} + b_g)
    c_t = f_t c_{t-1} + i_t g_t
    h_t = o_t tanh(c_t)

    Weights are laid out as in `keras.layers.LSTM`: gates in the order i f g o; the bias of f starts as 1, so that a
    fresh layer remembers. There are two states, h and c.

    Args, call arguments, returns: as `SimpleRNN`, without `activation`.

    Example:
        >>> lstm = LSTM(4)
        >>> output, state = lstm.step(keras.ops.ones((2, 3)), lstm.initial_state(2))
        >>> output.shape, len(state)
        (TensorShape([2, 4]), 2)

    References:
        Hochreiter & Schmidhuber 1997, Long Short-Term Memory. https://doi.org/10.1162/neco.1997.9.8.1735
        Jozefowicz et al. 2015, An Empirical Exploration of Recurrent Network Architectures (the bias of f).
        https://proceedings.mlr.press/v37/jozefowicz15.html
    """

    GATES, STATES = 4, 2

    def _initial_bias(self, shape, dtype):
        place = ops.arange(shape[0]) // self.units
        return ops.cast(place == 1, dtype)

    def _cell(self, projected, state, dropout):
        h, c = state
        i, f, g, o = ops.split(projected + ops.matmul(_drop(h, dropout), self._weight("recurrent_kernel")), 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        return [ops.sigmoid(o) * ops.tanh(c), c]

    def _fused(self, projected, state, mask, dropout):
        return _kernels().lstm(projected, *state, self._weight("recurrent_kernel"), mask, dropout)
