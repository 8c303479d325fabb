"""Transformer blocks, the repeated part of encoders, decoders and language models: attention and a
feed-forward network, each behind a layer normalisation and around a residual connection."""

import keras

from layers.attention import MultiHeadAttention, dtype_config, project
from layers.dropout import Dropout
from layers.normalisation import LayerNormalization


@keras.saving.register_keras_serializable(package="espalier")
class FeedForward(keras.layers.Layer):
    """The position-wise feed-forward network of a Transformer.

    FFN(x) = Dropout(activation(x W_1 + b_1)) W_2 + b_2

    Args:
        hidden_dim: width between the two projections.
        activation: name or function of the non-linearity.
        dropout: rate at which hidden units are dropped in training.

    Call arguments:
        x: shape (B, T, d). A padding mask passes through unchanged: positions do not mix.
        training: whether dropout is active.

    Returns:
        Shape (B, T, d).

    Example:
        >>> FeedForward(hidden_dim=64)(keras.ops.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    References:
        Vaswani et al. 2017, Attention Is All You Need, section 3.3. https://arxiv.org/abs/1706.03762
    """

    def __init__(self, hidden_dim, activation="relu", dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.supports_masking = True
        self.hidden = keras.layers.Dense(hidden_dim, self.activation, dtype=self.dtype_policy, name="hidden")
        self.hidden_dropout = Dropout(dropout, dtype=self.dtype_policy, name="hidden_dropout")

    def build(self, x_shape):
        self.output_projection = keras.layers.Dense(x_shape[-1], dtype=self.dtype_policy, name="output")
        self.hidden.build(x_shape)
        self.output_projection.build((*x_shape[:-1], self.hidden_dim))

    def call(self, x, training=None):
        hidden = self.hidden_dropout(project(self.hidden, x), training=training)
        return project(self.output_projection, hidden)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": dtype_config(self),
            "hidden_dim": self.hidden_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }


class _TransformerBlock(keras.layers.Layer):
    """What encoder and decoder blocks share: self-attention, feed-forward, and their settings."""

    def __init__(
        self,
        num_heads,
        feedforward_dim,
        dropout=0.0,
        activation="relu",
        num_kv_heads=None,
        rotary_base=None,
        attention_dropout=0.0,
        norm_epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feedforward_dim = feedforward_dim
        self.dropout = dropout
        self.activation = keras.activations.get(activation)
        self.num_kv_heads = num_kv_heads
        self.rotary_base = rotary_base
        self.attention_dropout = attention_dropout
        self.norm_epsilon = norm_epsilon
        self.supports_masking = True
        self.self_attention_norm = self._norm("self_attention_norm")
        self.self_attention = self._attention("self_attention", rotary_base=rotary_base)
        self.feedforward_norm = self._norm("feedforward_norm")
        self.feedforward = FeedForward(feedforward_dim, self.activation, dtype=self.dtype_policy, name="feedforward")
        # One layer for every residual branch: its seed moves on with each call, so no two masks are alike.
        self.residual_dropout = Dropout(dropout, dtype=self.dtype_policy, name="residual_dropout")

    def _norm(self, name):
        return LayerNormalization(epsilon=self.norm_epsilon, dtype=self.dtype_policy, name=name)

    def _attention(self, name, rotary_base=None):
        return MultiHeadAttention(
            self.num_heads,
            num_kv_heads=self.num_kv_heads,
            dropout=self.attention_dropout,
            rotary_base=rotary_base,
            dtype=self.dtype_policy,
            name=name,
        )

    def _build_shared(self, x_shape):
        for layer in (self.self_attention_norm, self.self_attention, self.feedforward_norm, self.feedforward):
            layer.build(x_shape)

    def _feed_forward(self, x, training):
        branch = self.feedforward(self.feedforward_norm(x), training=training)
        return x + self.residual_dropout(branch, training=training)

    def compute_output_spec(self, *args, **kwargs):
        # By tracing: what a call returns depends on `return_attention_scores` and the cache.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": dtype_config(self),
            "num_heads": self.num_heads,
            "feedforward_dim": self.feedforward_dim,
            "dropout": self.dropout,
            "activation": keras.activations.serialize(self.activation),
            "num_kv_heads": self.num_kv_heads,
            "rotary_base": self.rotary_base,
            "attention_dropout": self.attention_dropout,
            "norm_epsilon": self.norm_epsilon,
        }


@keras.saving.register_keras_serializable(package="espalier")
class TransformerEncoderBlock(_TransformerBlock):
    """Self-attention and feed-forward, pre-norm.

    x = x + Dropout(MultiHead(LayerNorm(x)))
    x = x + Dropout(FFN(LayerNorm(x)))

    The residual path is never normalised, which trains without warm-up; a stack of blocks therefore ends
    with one more LayerNorm, which belongs to the model.

    Args:
        num_heads: attention heads; must divide d.
        feedforward_dim: hidden width of the feed-forward network.
        dropout: rate on the two residual branches, in training.
        activation: non-linearity of the feed-forward network.
        num_kv_heads: key/value heads, a divisor of `num_heads`; default `num_heads`.
        rotary_base: rotate queries and keys by position with this base; None for no rotation.
        attention_dropout: rate on the attention weights, in training.
        norm_epsilon: added to the variance in LayerNorm.

    Call arguments:
        x: shape (B, T, d).
        mask: boolean (B, T), True = real; padded positions are not attended to. Default: the mask attached
            to x.
        use_causal_mask: hide later positions.
        return_attention_scores: also return the attention probabilities, shape (B, h, T, T).
        training: whether dropout is active.

    Returns:
        Shape (B, T, d), or a tuple with the scores.

    Example:
        >>> block = TransformerEncoderBlock(num_heads=4, feedforward_dim=64)
        >>> block(keras.ops.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    References:
        Vaswani et al. 2017, Attention Is All You Need. https://arxiv.org/abs/1706.03762
        Xiong et al. 2020, On Layer Normalization in the Transformer Architecture.
        https://arxiv.org/abs/2002.04745
    """

    def build(self, x_shape):
        self._build_shared(x_shape)

    def call(self, x, mask=None, use_causal_mask=False, return_attention_scores=False, training=None):
        branch, scores = self.self_attention(
            self.self_attention_norm(x),
            query_mask=mask,
            use_causal_mask=use_causal_mask,
            return_attention_scores=True,
            training=training,
        )
        x = x + self.residual_dropout(branch, training=training)
        x = self._feed_forward(x, training)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, x_shape):
        return x_shape


@keras.saving.register_keras_serializable(package="espalier")
class TransformerDecoderBlock(_TransformerBlock):
    """Causal self-attention, cross-attention to a memory, and feed-forward, pre-norm.

    x = x + Dropout(MultiHead(LayerNorm(x)))                    causal
    x = x + Dropout(MultiHead(LayerNorm(x), memory, memory))    unless cross_attention=False
    x = x + Dropout(FFN(LayerNorm(x)))

    With `cross_attention=False` it is the block of a decoder-only language model. As with the encoder
    block, the LayerNorm after the last block belongs to the model; the memory is expected to be normalised
    by its encoder.

    Args:
        num_heads, feedforward_dim, dropout, activation, num_kv_heads, attention_dropout, norm_epsilon: as in
            `TransformerEncoderBlock`.
        rotary_base: rotates self-attention only; cross-attention has no common positions.
        cross_attention: whether the block attends to a memory.

    Call arguments:
        x: shape (B, T, d); in a decoding step (B, 1, d), or (B, K, d) for K hypotheses of each row.
        memory: shape (B, S, d_memory); not needed with a cache.
        mask: boolean (B, T), True = real target. Default: the mask attached to x. Not used in a decoding
            step.
        memory_mask: boolean (B, S), True = real.
        cache: dict from `make_cache` or from the previous step; needs `position`.
        position: integer scalar or (B,), the step's position in each row.
        visible: boolean (B, K, L · K), the slots of the cache that are each hypothesis' past, with itself; see
            `MultiHeadAttention`. Needed for more hypotheses than one.
        return_attention_scores: also return a dict {"self": (B, h, T, T or L), "cross": (B, h, T, S)}.
        training: whether dropout is active.

    Returns:
        Output (B, T, d); then, if a cache was given, the new cache; then, if asked for, the scores.

    Raises:
        ValueError: a memory is missing, or given where there is no cross-attention.

    Example:
        >>> block = TransformerDecoderBlock(num_heads=4, feedforward_dim=64)
        >>> memory = keras.ops.ones((2, 7, 16))
        >>> block(keras.ops.ones((2, 5, 16)), memory).shape
        TensorShape([2, 5, 16])
        >>> cache = block.make_cache(batch_size=2, max_length=10, memory=memory)
        >>> y, cache = block(keras.ops.ones((2, 1, 16)), cache=cache, position=0)
        >>> y.shape
        TensorShape([2, 1, 16])

    References:
        Vaswani et al. 2017, Attention Is All You Need. https://arxiv.org/abs/1706.03762
        Xiong et al. 2020, On Layer Normalization in the Transformer Architecture.
        https://arxiv.org/abs/2002.04745
    """

    def __init__(
        self,
        num_heads,
        feedforward_dim,
        dropout=0.0,
        activation="relu",
        num_kv_heads=None,
        rotary_base=None,
        attention_dropout=0.0,
        norm_epsilon=1e-5,
        cross_attention=True,
        **kwargs,
    ):
        super().__init__(
            num_heads,
            feedforward_dim,
            dropout,
            activation,
            num_kv_heads,
            rotary_base,
            attention_dropout,
            norm_epsilon,
            **kwargs,
        )
        self.cross_attention = cross_attention
        if cross_attention:
            self.memory_attention_norm = self._norm("memory_attention_norm")
            self.memory_attention = self._attention("memory_attention")

    def build(self, x_shape, memory_shape=None):
        self._build_shared(x_shape)
        if self.cross_attention:
            self.memory_attention_norm.build(x_shape)
            # Built without a memory's shape, the block expects one as wide as x.
            self.memory_attention.build(x_shape, memory_shape or x_shape)

    def call(
        self,
        x,
        memory=None,
        mask=None,
        memory_mask=None,
        cache=None,
        position=None,
        visible=None,
        return_attention_scores=False,
        training=None,
    ):
        self._check_memory(memory, cached=cache is not None)
        new_cache, scores = {}, {}
        if cache is None:
            # Keras fills `mask` only when x is the one tensor argument.
            mask = getattr(x, "_keras_mask", None) if mask is None else mask
            branch, scores["self"] = self.self_attention(
                self.self_attention_norm(x),
                query_mask=mask,
                use_causal_mask=True,
                return_attention_scores=True,
                training=training,
            )
        else:
            branch, new_cache["self"], scores["self"] = self.self_attention(
                self.self_attention_norm(x),
                attention_mask=visible,
                cache=cache["self"],
                position=position,
                return_attention_scores=True,
                training=training,
            )
        x = x + self.residual_dropout(branch, training=training)
        if self.cross_attention:
            projected = self.memory_attention.project_memory(memory) if cache is None else cache["cross"]
            branch, new_cache["cross"], scores["cross"] = self.memory_attention(
                self.memory_attention_norm(x),
                value_mask=memory_mask,
                cache=projected,
                return_attention_scores=True,
                training=training,
            )
            x = x + self.residual_dropout(branch, training=training)
        results = [self._feed_forward(x, training)]
        if cache is not None:
            results.append(new_cache)
        if return_attention_scores:
            results.append(scores)
        return results[0] if len(results) == 1 else tuple(results)

    def _check_memory(self, memory, cached):
        if self.cross_attention and memory is None and not cached:
            raise ValueError("A block with cross_attention=True needs a memory or a cache. Received: neither")
        if not self.cross_attention and memory is not None:
            raise ValueError("A block with cross_attention=False takes no memory. Received: a memory")

    def make_cache(self, batch_size, max_length, memory=None, hypotheses=1):
        """The cache for decoding from position 0, with the memory projected once.

        Args:
            batch_size: integer or scalar tensor, B.
            max_length: integer, L: positions 0 to L - 1 can be decoded.
            memory: shape (B, S, d_memory), for a block with cross-attention.
            hypotheses: integer, K: how many each row has.

        Returns:
            Dict {"self": {"key", "value": (B, h_kv, L · K, dh)}, "cross": {"key", "value": (B, h_kv, S, dh)}},
            without "cross" where there is no cross-attention.
        """
        self._check_memory(memory, cached=False)
        cache = {"self": self.self_attention.empty_cache(batch_size, max_length, hypotheses)}
        if self.cross_attention:
            cache["cross"] = self.memory_attention.project_memory(memory)
        return cache

    def compute_output_shape(self, x_shape, memory_shape=None):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "cross_attention": self.cross_attention}
