"""A recurrent layer whose steps are all computed in parallel, for long sequences."""

import keras
from keras import ops

from layers.sequence import Sequence

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
class MinGRU(Sequence):
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
