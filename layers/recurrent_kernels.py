"""The loops of recurrent layers on TensorFlow, with gradients written by hand.

Differentiating a loop step by step, TensorFlow multiplies by a transposed matrix and adds up a gradient of the weights
at every step, which takes most of the time. Here each loop keeps the activations of its gates. Before the loop back,
all factors of the gradients that do not depend on later steps are computed at once; in it, one product by a matrix
transposed once is left; after it, one product gives the gradient of the weights. What surrounds that product is kept
in float32 where the layer computes in 16 bits. All of it is made of plain operations, so that it runs inside XLA, in
an export, and with sizes that are known only when it runs.

Shapes: T steps, B rows, U units; sequences have time first.
"""

import tensorflow as tf

# Derivatives of what a plain recurrent layer may use as σ, as functions of its output.
DERIVATIVES = {
    "linear": tf.ones_like,
    "relu": lambda y: tf.cast(y > 0, y.dtype),
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
}
# What closes a gate for good: σ(-SHUT) is 0 and σ(SHUT) is 1, to the last bit.
SHUT = 1e9


def simple_rnn(projected, h, kernel, mask, dropout, activation):
    """h_t = σ(x_t + h_{t-1} W)

    Args:
        projected: x, inputs through their own matrix, bias added: (T, B, U).
        h: state before the first step, (B, U).
        kernel: W, (U, U).
        mask: boolean (T, B, 1) or None; a masked step leaves the state as it is.
        dropout: factors of the state on its way into the product, (B, U) or None.
        activation: σ, a key of `DERIVATIVES`.

    Returns:
        The states (T, B, U) and the last of them.
    """
    function = tf.identity if activation == "linear" else getattr(tf.nn, activation)
    dtype, wide = projected.dtype, _wide(projected.dtype)
    masked = None if mask is None else tf.cast(~mask, wide)
    dropout = _cast(wide, dropout)

    @tf.custom_gradient
    def recurrence(projected, h, kernel):
        units = kernel.shape[0]

        def step(inputs, state):
            x, *real = inputs
            h = function(x + _product(_drop(state[0], dropout), kernel))
            if real:
                h = tf.where(real[0], h, state[0])
            return [h], [h]

        (states,), last = _loop(step, _present(projected, mask), [h], [units])

        def gradient(d_states, d_last):
            factors = DERIVATIVES[activation](states)
            if mask is not None:
                factors = tf.where(mask, factors, 0)
            transposed = tf.transpose(kernel)

            def back(inputs, carried):
                d_output, factor, *masked = inputs
                dh = carried[0] + d_output
                dx = dh * factor
                before = _drop(_product(dx, transposed), dropout)
                return [dx], [before + dh * masked[0] if masked else before]

            inputs = _present(d_states, factors, masked)
            (dx,), (dh,) = _loop(back, inputs, [d_last], [units], backwards=True)
            return dx, dh, _weight_gradient(_drop(_before(h, states), dropout), dx, kernel.dtype)

        return (states, *last), gradient

    return _cast(dtype, recurrence(*_cast(wide, (projected, h)), kernel))


def gru(projected, h, kernel, bias, mask, dropout):
    """z, r = σ(x_zr + h_{t-1} W_zr),  n = tanh(x_n + r (h_{t-1} W_n + b)),  h_t = z h_{t-1} + (1 - z) n

    Args:
        projected: x, inputs through their own matrix, and the biases of z and r added: (T, B, 3 U), in the order z r n.
        h: state before the first step, (B, U).
        kernel: W, (U, 3 U).
        bias: b, (U,).
        mask, dropout: as for `simple_rnn`.

    Returns:
        The states (T, B, U) and the last of them.
    """
    dtype, units = projected.dtype, kernel.shape[0]
    projected, h, bias, dropout = _cast(_wide(dtype), (projected, h, bias, dropout))
    if mask is not None:  # z = 1, which keeps the state, and lets no gradient past
        projected = tf.where(mask, projected, tf.repeat(tf.constant([SHUT, 0, 0], projected.dtype), units))

    @tf.custom_gradient
    def recurrence(projected, h, kernel, bias):
        def step(inputs, state):
            x_gates, x_candidate = inputs
            (h,) = state
            gates, recurrent = tf.split(_product(_drop(h, dropout), kernel), [2 * units, units], axis=1)
            gates = tf.sigmoid(x_gates + gates)
            z, r = tf.split(gates, 2, axis=1)
            recurrent += bias
            candidate = tf.tanh(x_candidate + r * recurrent)
            h = z * h + (1 - z) * candidate
            return [h, gates, candidate, recurrent], [h]

        inputs = tf.split(projected, [2 * units, units], axis=2)
        widths = [units, 2 * units, units, units]
        (states, gates, candidates, recurrents), last = _loop(step, inputs, [h], widths)

        def gradient(d_states, d_last):
            previous = _before(h, states)
            z, r = tf.split(gates, 2, axis=2)
            by_candidate = (1 - z) * (1 - candidates * candidates)
            by_gates = tf.concat([(previous - candidates) * (1 - z) * z, by_candidate * recurrents * (1 - r) * r], 2)
            factors = tf.concat([by_gates, by_candidate * r], axis=2)
            transposed = tf.transpose(kernel)

            def back(inputs, carried):
                d_output, factor, z = inputs
                dh = carried[0] + d_output
                d_product = tf.concat([dh, dh, dh], axis=1) * factor
                return [dh, d_product], [_drop(_product(d_product, transposed), dropout) + dh * z]

            inputs, widths = [d_states, factors, z], [units, 3 * units]
            (dh, d_product), (d_first,) = _loop(back, inputs, [d_last], widths, backwards=True)
            d_gates, d_recurrent = tf.split(d_product, [2 * units, units], axis=2)
            d_projected = tf.concat([d_gates, dh * by_candidate], axis=2)
            d_bias = tf.reduce_sum(d_recurrent, axis=[0, 1])
            d_kernel = _weight_gradient(_drop(previous, dropout), d_product, kernel.dtype)
            return d_projected, d_first, d_kernel, d_bias

        return (states, *last), gradient

    return _cast(dtype, recurrence(projected, h, kernel, bias))


def lstm(projected, h, c, kernel, mask, dropout):
    """i, f, o = σ(x_ifo + h_{t-1} W_ifo),  g = tanh(x_g + h_{t-1} W_g),  c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)

    Args:
        projected: x, inputs through their own matrix, bias added: (T, B, 4 U), in the order i f g o.
        h, c: state before the first step, (B, U) each.
        kernel: W, (U, 4 U).
        mask, dropout: as for `simple_rnn`.

    Returns:
        The outputs h (T, B, U), and the last h and c.
    """
    dtype, units = projected.dtype, kernel.shape[0]
    projected, h, c, dropout = _cast(_wide(dtype), (projected, h, c, dropout))
    masked = None
    if mask is not None:
        # i = o = 0 and f = 1, which keep c, and let no gradient past; h has to be kept by itself.
        projected = tf.where(mask, projected, tf.repeat(tf.constant([-SHUT, SHUT, 0, -SHUT], projected.dtype), units))
        masked = tf.cast(~mask, projected.dtype)

    @tf.custom_gradient
    def recurrence(projected, h, c, kernel):
        # tanh(x) = 2 σ(2 x) - 1: with g's columns doubled, one σ serves all four gates.
        doubled = tf.repeat(tf.constant([1, 1, 2, 1], projected.dtype), units)
        matrix = kernel * tf.cast(doubled, kernel.dtype)

        def step(inputs, state):
            x, *masked = inputs
            h, c = state
            gates = tf.sigmoid(x + _product(_drop(h, dropout), matrix))
            i, f, g, o = tf.split(gates, 4, axis=1)
            c = f * c + i * (2 * g - 1)
            output = o * tf.tanh(c)
            h = output + masked[0] * h if masked else output
            return [h, c, gates], [h, c]

        widths = [units, units, 4 * units]
        (outputs, cells, gates), last = _loop(step, _present(projected * doubled, masked), [h, c], widths)

        def gradient(d_outputs, d_h, d_c):
            i, f, g, o = tf.split(gates, 4, axis=2)
            g = 2 * g - 1
            tanh = tf.tanh(cells)
            by_c = [g * i * (1 - i), _before(c, cells) * f * (1 - f), i * (1 - g * g)]
            factors = tf.concat([*by_c, tanh * o * (1 - o)], axis=2)
            into_c = o * (1 - tanh * tanh)
            transposed = tf.transpose(kernel)

            def back(inputs, carried):
                d_output, factor, into_c, f, *masked = inputs
                dh, dc = carried
                dh += d_output
                dc += dh * into_c
                dx = tf.concat([dc, dc, dc, dh], axis=1) * factor
                before = _drop(_product(dx, transposed), dropout)
                return [dx], [before + masked[0] * dh if masked else before, dc * f]

            inputs = _present(d_outputs, factors, into_c, f, masked)
            (dx,), (dh, dc) = _loop(back, inputs, [d_h, d_c], [4 * units], backwards=True)
            return dx, dh, dc, _weight_gradient(_drop(_before(h, outputs), dropout), dx, kernel.dtype)

        return (outputs, *last), gradient

    return _cast(dtype, recurrence(projected, h, c, kernel))


def _wide(dtype):
    """What is computed in between the products, which are computed in `dtype`."""
    return tf.float32 if dtype.size < 4 else dtype


def _cast(dtype, tensors):
    return tf.nest.map_structure(lambda x: None if x is None else tf.cast(x, dtype), tensors)


def _present(*sequences):
    return [x for x in sequences if x is not None]


def _before(first, states):
    """The states that the steps began with: (B, U) and (T, B, U) -> (T, B, U)."""
    return tf.concat([first[None], states[:-1]], axis=0)


def _drop(h, dropout):
    return h if dropout is None else h * dropout


def _product(x, matrix):
    return tf.cast(tf.matmul(tf.cast(x, matrix.dtype), matrix), x.dtype)


def _weight_gradient(states, gradients, dtype):
    """Of all steps at once: what was multiplied (T, B, U), gradients of the products (T, B, n) -> (U, n)."""
    states, gradients = (tf.cast(tf.reshape(x, (-1, x.shape[-1])), dtype) for x in (states, gradients))
    return tf.matmul(states, gradients, transpose_a=True)


def _loop(step, sequences, state, widths, backwards=False):
    """Runs `step(inputs, state) -> (outputs, state)` over time.

    Args:
        step: takes a list of (B, n), one of each sequence, and a list of states; returns two such lists.
        sequences: list of (T, B, n).
        state: list of (B, n) before the first step.
        widths: n of each output.
        backwards: begin with the last step.

    Returns:
        The outputs as a list of (T, B, n), and the last state.
    """
    x, dtype = sequences[0], state[0].dtype
    length = x.shape[0] or tf.shape(x)[0]
    outputs = [
        tf.TensorArray(dtype, x.shape[0] or tf.maximum(length, 1), element_shape=(x.shape[1], width))
        for width in widths
    ]
    if not x.shape[0]:  # perhaps there are no steps, and an empty array could not tell how many rows it has
        zeros = [tf.zeros((tf.shape(x)[1], width), dtype) for width in widths]
        outputs = [array.write(0, zero) for array, zero in zip(outputs, zeros, strict=True)]
    sequences = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in sequences]

    def body(t, state, outputs):
        at = length - 1 - t if backwards else t
        values, state = step([x.read(at) for x in sequences], state)
        return t + 1, state, [array.write(at, value) for array, value in zip(outputs, values, strict=True)]

    _, state, outputs = tf.while_loop(lambda t, *_: t < length, body, (0, list(state), outputs))
    outputs = [array.stack() for array in outputs]
    return outputs if x.shape[0] else [output[:length] for output in outputs], state
