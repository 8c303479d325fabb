"""Attention as recurrent translators have it: how well a query and a key fit is found by a small network of one
hidden layer, not by their product."""

import keras
from keras import ops

from layers.attention import HIDDEN_SCORE, dtype_config
from layers.dropout import Dropout


@keras.saving.register_keras_serializable(package="espalier")
class AdditiveAttention(keras.layers.Layer):
    """Additive attention (Bahdanau attention) of each query over a memory.

    e_ij = vᵀ tanh(W q_i + U m_j)
    a_i  = softmax(e_i) over the visible j
    c_i  = Σ_j a_ij m_j

    Unlike `keras.layers.AdditiveAttention` it has the projections W and U, and takes U m projected beforehand, so
    that a decoder going step by step projects its memory once.

    In training it keeps (B, T, S, units) numbers for the backward pass; see `rematerialise` where that is too much.

    Args:
        units: width of the hidden layer.
        dropout: rate at which attention weights are dropped in training.
        kernel_initializer: initialiser of W, U and v.

    Call arguments:
        query: shape (B, T, d). Of a decoder's step, T may be the hypotheses of a row, which share its memory.
        value: the memory m, shape (B, S, d_value).
        value_mask: boolean (B, S), True = visible. A row that sees nothing gets a finite average over all. A mask
            that Keras attached to the value is used when none is passed.
        keys: U m, shape (B, S, units), from `project_memory`; by default it is projected here.
        return_attention_scores: also return a (before dropout), shape (B, T, S).
        training: whether dropout is active.

    Returns:
        The contexts c (B, T, d_value); then, if asked for, the scores.

    Example:
        >>> AdditiveAttention(8)(keras.ops.ones((2, 5, 16)), keras.ops.ones((2, 7, 12))).shape
        TensorShape([2, 5, 12])

    References:
        Bahdanau et al. 2015, Neural Machine Translation by Jointly Learning to Align and Translate.
        https://arxiv.org/abs/1409.0473
    """

    def __init__(self, units, dropout=0.0, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.query_projection = self._projection("query")
        self.key_projection = self._projection("key")
        self.weight_dropout = Dropout(dropout, dtype=self.dtype_policy, name="weight_dropout")

    def _projection(self, name):
        return keras.layers.Dense(
            self.units,
            use_bias=False,
            # A copy for each: initialisers are stateless, a shared one would repeat its numbers.
            kernel_initializer=keras.initializers.serialize(self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, query_shape, value_shape):
        self.query_projection.build(query_shape)
        self.key_projection.build(value_shape)
        self.score_kernel = self.add_weight((self.units, 1), name="score_kernel", initializer=self.kernel_initializer)

    def call(self, query, value, value_mask=None, keys=None, return_attention_scores=False, training=None):
        if keys is None:
            keys = self.project_memory(value)
        hidden = ops.tanh(self.query_projection(query)[:, :, None] + keys[:, None])  # (B, T, S, units)
        scores = ops.matmul(hidden, ops.cast(self.score_kernel, self.compute_dtype))[..., 0]  # (B, T, S)
        scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
        if value_mask is not None:
            bias = ops.where(ops.cast(value_mask, "bool"), 0.0, HIDDEN_SCORE)  # (B, S)
            scores = scores + ops.cast(bias, scores.dtype)[:, None]
        scores = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        context = ops.matmul(self.weight_dropout(scores, training=training), value)  # (B, T, d_value)
        return (context, scores) if return_attention_scores else context

    def project_memory(self, value):
        """The memory through its matrix, to be computed once and passed as `keys` in every step.

        Args:
            value: shape (B, S, d_value).

        Returns:
            U m, shape (B, S, units), in the compute dtype.
        """
        if not self.built:
            raise ValueError("project_memory needs the layer's weights: build it first.")
        return self.key_projection(value)

    def compute_output_shape(self, query_shape, value_shape):
        return (*query_shape[:-1], value_shape[-1])

    def compute_output_spec(self, *args, **kwargs):
        # By tracing: what a call returns depends on `return_attention_scores`.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def get_config(self):
        return super().get_config() | {
            "dtype": dtype_config(self),
            "units": self.units,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
