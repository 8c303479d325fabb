"""Recurrent layers: the plain one, GRU and LSTM with fast loops, any of them in both directions, and minGRU, whose
steps are computed all at once."""

import keras
from keras import ops

from layers.attention import reshape
from layers.dropout import Dropout


class _StepDropout(Dropout):
    """Drops the same features of a row at all its steps."""

    def _mask_shape(self, inputs):
        return (ops.shape(inputs)[0], 1, inputs.shape[-1])


class _Sequence(keras.layers.Layer):
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


class _Recurrent(_Sequence):
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
            mask = ops.transpose(mask)[:, :, None]
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


CHUNK = 16  # steps of `affine_scan` that follow one another


@ops.custom_gradient
def affine_scan(keep, add, first):
    """h_t = keep_t h_{t-1} + add_t, for all t in parallel. Its gradient is such a scan too, from the end.

    Args:
        keep, add: shape (B, T, n).
        first: the state before the first step, (B, n).

    Returns:
        h, (B, T, n).
    """
    states = _affine_scan(keep, add, first)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        after = ops.concatenate([keep[:, 1:], ops.zeros_like(keep[:, :1])], axis=1)
        backwards = _affine_scan(ops.flip(after, axis=1), ops.flip(upstream, axis=1), ops.zeros_like(first))
        d_add = ops.flip(backwards, axis=1)
        before = ops.concatenate([first[:, None], states[:, :-1]], axis=1)
        return d_add * before, d_add, ops.sum(keep[:, :1] * d_add[:, :1], axis=1)

    return states, gradient


def _affine_scan(keep, add, first, levels=5):
    """`levels`: where T is unknown: how often to cut into chunks."""
    batch, length, width = ops.shape(keep)
    if levels == 0 or (isinstance(length, int) and length == 1):
        return keep * first[:, None] + add
    chunk = min(CHUNK, max(length, 1)) if isinstance(length, int) else CHUNK
    missing = -length % chunk
    if not isinstance(missing, int) or missing:  # filled up with steps that change nothing
        keep = ops.concatenate([keep, ops.ones((batch, missing, width), keep.dtype)], axis=1)
        add = ops.concatenate([add, ops.zeros((batch, missing, width), add.dtype)], axis=1)
    chunks = (length + missing) // chunk
    keep, add = (ops.unstack(ops.reshape(x, (batch, chunks, chunk, width)), chunk, axis=2) for x in (keep, add))
    keeps, adds = keep[:1], add[:1]  # the maps from a chunk's beginning to each of its steps, (B, chunks, n)
    for k, a in zip(keep[1:], add[1:], strict=True):
        keeps, adds = [*keeps, k * keeps[-1]], [*adds, k * adds[-1] + a]
    ends = _affine_scan(keeps[-1], adds[-1], first, levels - 1)
    begins = ops.concatenate([first[:, None], ends[:, :-1]], axis=1)
    states = ops.stack(keeps, axis=2) * begins[:, :, None] + ops.stack(adds, axis=2)
    return ops.reshape(states, (batch, chunks * chunk, width))[:, :length]


@keras.saving.register_keras_serializable(package="espalier")
class MinGRU(_Sequence):
    """A gated recurrent layer without a product in its recurrence, so that all steps are computed in parallel.

    z_t = σ(W_z x_t + b_z)
    n_t = W_n x_t + b_n
    h_t = (1 - z_t) h_{t-1} + z_t n_t

    A step is an affine map of the state, and maps can be composed in any grouping: the sequence is cut into chunks
    of 16 steps, all chunks go through their steps side by side, and the chunks' own maps are a sequence 16 times
    shorter, treated in the same way. The work grows with T, the number of operations one after the other with its
    logarithm. Factors are between 0 and 1 and are only ever multiplied, so nothing overflows, and no logarithms are
    needed. Where T is not known when a graph is made, it may be 16⁵ (a million) at most.

    Args, call arguments, returns: as `SimpleRNN`, without `activation`, `recurrent_dropout` and
        `recurrent_initializer`.

    Example:
        >>> MinGRU(4, return_sequences=True)(keras.ops.ones((2, 500, 3))).shape
        TensorShape([2, 500, 4])

    References:
        Feng et al. 2024, Were RNNs All We Needed? https://arxiv.org/abs/2410.01201
        Blelloch 1990, Prefix Sums and Their Applications. https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf
    """

    def __init__(
        self,
        units,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        seed=None,
        **kwargs,
    ):
        super().__init__(units, return_sequences, return_state, go_backwards, dropout, seed, **kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection = keras.layers.Dense(
            2 * units, kernel_initializer=self.kernel_initializer, dtype=self.dtype_policy, name="projection"
        )

    def build(self, inputs_shape):
        self.projection.build(inputs_shape)

    def step(self, inputs, state):
        """One step, for a decoder. As `SimpleRNN.step`."""
        (h,) = self._state(state)
        keep, add = self._maps(self.projection(inputs))
        h = ops.cast(keep * h + add, self.compute_dtype)
        return h, [h]

    def _maps(self, projected):
        """h_t = keep_t · h_{t-1} + add_t, in float32 at least."""
        gate, candidate = ops.split(ops.cast(projected, keras.backend.result_type(projected.dtype, "float32")), 2, -1)
        # 1 - σ(x) is σ(-x), which does not round small factors away.
        return ops.sigmoid(-gate), ops.sigmoid(gate) * candidate

    def _run(self, inputs, state, mask, training):
        keep, add = self._maps(self.projection(inputs))  # (B, T, units) each
        if mask is not None:
            keep, add = ops.where(mask[:, :, None], keep, 1.0), ops.where(mask[:, :, None], add, 0.0)
        states = ops.cast(affine_scan(keep, add, ops.cast(state[0], keep.dtype)), self.compute_dtype)
        # In two parts, for a sequence of no steps leaves the state as it is.
        return states, [ops.concatenate([state[0][:, None], states[:, -1:]], axis=1)[:, -1]]

    def get_config(self):
        return super().get_config() | {"kernel_initializer": keras.initializers.serialize(self.kernel_initializer)}


@keras.saving.register_keras_serializable(package="espalier")
class Bidirectional(keras.layers.Layer):
    """Two recurrent layers, one of which reads from the end.

    h_t = [forward h_t; backward h_t]   or   forward h_t + backward h_t

    Args:
        layer: a layer of this module; what it returns, this one returns.
        backward_layer: its partner, which returns the same, with the opposite `go_backwards`. By default one of the
            same settings, with weights of its own.
        merge_mode: "concat" or "sum".

    Call arguments:
        inputs: shape (B, T, d).
        initial_state: list of the states of the first layer and then those of the second. Zeros by default.
        mask: boolean (B, T), True = real. Each layer passes over padding, so that the one reading backwards begins
            with a row's last real step. Outputs at masked steps are zero.
        training: whether dropout is active.

    Returns:
        output (B, T, 2 units) or (B, 2 units), `units` wide if summed; outputs of all steps are in the order of the
        inputs. Then, if the layers return states, those of the first and those of the second.

    Raises:
        ValueError: the two layers do not fit, or another `merge_mode`.

    Example:
        >>> Bidirectional(LSTM(4, return_sequences=True))(keras.ops.ones((2, 5, 3))).shape
        TensorShape([2, 5, 8])

    References:
        Schuster & Paliwal 1997, Bidirectional Recurrent Neural Networks. https://doi.org/10.1109/78.650093
    """

    def __init__(self, layer, backward_layer=None, merge_mode="concat", **kwargs):
        super().__init__(**kwargs)
        if merge_mode not in ("concat", "sum"):
            raise ValueError(f"merge_mode must be concat or sum. Received: merge_mode={merge_mode!r}")
        self.layer = layer
        if backward_layer is None:
            turned = {"go_backwards": not layer.go_backwards, "name": f"backward_{layer.name}"}
            backward_layer = type(layer).from_config(layer.get_config() | turned)
        self.backward_layer = backward_layer
        self.merge_mode = merge_mode
        self.supports_masking = True
        same = ("return_sequences", "return_state") + (("units",) if merge_mode == "sum" else ())
        if layer.go_backwards == backward_layer.go_backwards or any(
            getattr(layer, name) != getattr(backward_layer, name) for name in same
        ):
            raise ValueError(
                f"The two layers must have opposite go_backwards and equal {', '.join(same)}. "
                f"Received: {layer.get_config()} and {backward_layer.get_config()}"
            )

    def build(self, inputs_shape):
        self.layer.build(inputs_shape)
        self.backward_layer.build(inputs_shape)

    def call(self, inputs, initial_state=None, mask=None, training=None):
        if mask is None:
            mask = getattr(inputs, "_keras_mask", None)
        first = self.layer.STATES
        states = (None, None) if initial_state is None else (initial_state[:first], initial_state[first:])
        outputs, last = [], []
        for layer, state in zip((self.layer, self.backward_layer), states, strict=True):
            result = layer(inputs, initial_state=state, mask=mask, training=training)
            output, *state = result if layer.return_state else [result]
            turn = layer.go_backwards and layer.return_sequences
            outputs.append(ops.flip(output, axis=1) if turn else output)
            last += state
        output = ops.concatenate(outputs, axis=-1) if self.merge_mode == "concat" else outputs[0] + outputs[1]
        if mask is not None and self.layer.return_sequences:
            output = ops.where(ops.cast(mask, "bool")[:, :, None], output, ops.zeros_like(output))
        return (output, *last) if self.layer.return_state else output

    def compute_mask(self, inputs, previous_mask):
        mask = previous_mask[0] if isinstance(previous_mask, (list, tuple)) else previous_mask
        mask = mask if self.layer.return_sequences else None
        states = self.layer.STATES + self.backward_layer.STATES
        return [mask] + [None] * states if self.layer.return_state else mask

    def compute_output_shape(self, inputs_shape):
        shapes = [layer.compute_output_shape(inputs_shape) for layer in (self.layer, self.backward_layer)]
        if not self.layer.return_state:
            shapes = [[shape] for shape in shapes]
        (output, *states), (other, *more) = shapes
        output = (*output[:-1], output[-1] + (other[-1] if self.merge_mode == "concat" else 0))
        return (output, *states, *more) if self.layer.return_state else output

    def get_config(self):
        config = super().get_config() | {"merge_mode": self.merge_mode}
        for name in ("layer", "backward_layer"):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
            config[name].pop("build_config", None)  # this layer builds them
        return config

    @classmethod
    def from_config(cls, config):
        layers = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("layer", "backward_layer")}
        return cls(**config | layers)
