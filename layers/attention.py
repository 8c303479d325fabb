"""Multi-head attention for every model of the project: self- and cross-attention, grouped key/value heads,
rotary positions, padding and causal masks, and a key/value cache of static shape for decoding one step at a
time."""

import keras
from keras import ops

from layers.cache import write_slots
from layers.dropout import Dropout
from layers.position import RotaryEmbedding

# Added to the scores of hidden keys. Finite in float16 too, so that a row without a single visible key gives
# a finite softmax (an average over all keys) and finite gradients where -inf would give NaN.
HIDDEN_SCORE = -6e4


def dtype_config(layer):
    """The `dtype` entry of a composite layer's config, with the policies of quantised sub-layers by path.

    Without it, a saved int8 model would be rebuilt in float and its weights would not fit.
    """

    def policy_of(part):
        policy = part.dtype_policy
        return policy[part.path] if isinstance(policy, keras.dtype_policies.DTypePolicyMap) else policy

    parts = layer._flatten_layers(include_self=False)
    quantized = {part.path: policy_of(part) for part in parts if part.quantization_mode}
    policy = policy_of(layer)
    if quantized:
        policy = keras.dtype_policies.DTypePolicyMap(policy, quantized)
    return keras.dtype_policies.serialize(policy)


def reshape(x, shape):
    """As `ops.reshape`, for shapes with sizes that are known only when the graph runs.

    One unknown size becomes -1: the graph need not put the shape together at every call, which takes
    a decoding step of one sentence longer than its arithmetic.
    """
    unknown = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if len(unknown) == 1:
        shape = [-1 if axis in unknown else size for axis, size in enumerate(shape)]
    return ops.reshape(x, shape)


def project(dense, x):
    """`dense(x)` as a product of two matrices, where the graph would otherwise compute how to flatten x each time.

    Args:
        dense: a Dense layer.
        x: shape (B, T, d).
    """
    batch, length = ops.shape(x)[:2]
    y = dense(ops.reshape(x, (-1, x.shape[-1])))
    return reshape(y, (batch, length, y.shape[-1]))


def _split_heads(x, heads):
    """(B, T, heads · dh) -> (B, heads, T, dh)."""
    batch, length = ops.shape(x)[:2]
    head_dim = x.shape[-1] // heads
    if x.shape[1] == 1:  # the step of a decoder: nothing to move
        return reshape(x, (batch, heads, length, head_dim))
    return ops.transpose(reshape(x, (batch, length, heads, head_dim)), (0, 2, 1, 3))


def _merge_heads(x):
    """(B, heads, T, dh) -> (B, T, heads · dh)."""
    batch, heads, length, head_dim = ops.shape(x)
    if x.shape[2] != 1:
        x = ops.transpose(x, (0, 2, 1, 3))
    return reshape(x, (batch, length, heads * head_dim))


def _attention_bias(key_mask, attention_mask, causal, query_length, key_length):
    """All masks combined into one term for the scores.

    Returns:
        float32 (B or 1, 1, T or 1, S), or None if nothing is hidden.
    """
    visible = []
    if key_mask is not None:
        visible.append(ops.cast(key_mask, "bool")[:, None, None, :])  # (B, 1, 1, S)
    if attention_mask is not None:
        attention_mask = ops.cast(attention_mask, "bool")
        # (T, S) -> (1, 1, T, S); (B, T, S) -> (B, 1, T, S)
        shared = len(attention_mask.shape) == 2
        visible.append(attention_mask[None, None] if shared else attention_mask[:, None])
    if causal:
        earlier = ops.arange(query_length)[:, None] >= ops.arange(key_length)  # (T, S)
        visible.append(earlier[None, None])
    if not visible:
        return None
    combined = visible[0]
    for mask in visible[1:]:
        combined = ops.logical_and(combined, mask)
    return ops.where(combined, 0.0, HIDDEN_SCORE)


@keras.saving.register_keras_serializable(package="espalier")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention in several heads at once.

    Attention(Q, K, V)  = softmax(Q Kᵀ / sqrt(d_k)) V
    MultiHead(Q, K, V)  = Concat(head_1, ..., head_h) W^O
    head_i              = Attention(Q W_i^Q, K W_i^K, V W_i^V)

    Called with a query alone it is self-attention, and Q, K and V come from one fused projection. Called
    with a value too it is cross-attention, with one projection for Q and one fused projection for K and V.
    Which of the two a layer is, is settled when it is built, and stays. With `num_kv_heads` below
    `num_heads`, each key/value head serves `num_heads / num_kv_heads` neighbouring query heads
    (grouped-query attention; 1 is multi-query attention), and the cache shrinks by the same factor.

    The default Glorot initialiser sees the fused width, so Q, K and V start smaller than with separate
    projections (by 1/sqrt(2) for equal heads), which is what deep Transformers are usually started with.

    Args:
        num_heads: number of query heads, h.
        head_dim: width of a head, dh; default the query's width divided by `num_heads`.
        num_kv_heads: number of key/value heads, a divisor of `num_heads`; default `num_heads`.
        dropout: rate at which attention weights are dropped in training.
        use_bias: whether projections have a bias.
        rotary_base: rotate queries and keys of self-attention by position with this base; None for no
            rotation.
        kernel_initializer: initialiser of all projection kernels.
        lora_rank: build the projections with low-rank adapters of this rank; see `enable_lora`.
        lora_alpha: scale of the adapters; default `lora_rank`.

    Call arguments:
        query: shape (B, T, d).
        value: shape (B, S, d_value), from which keys and values are made; None for self-attention.
        query_mask: boolean (B, T), True = real. In self-attention it hides keys, unless `value_mask` is
            given; outputs at padded queries are computed as any other and carry no meaning. A mask that
            Keras attached to the query is used when none is passed.
        value_mask: boolean (B, S), True = visible key. In a cached step of self-attention S is the cache's
            length.
        attention_mask: boolean (B, T, S) or (T, S), True = may attend.
        use_causal_mask: hide later positions. Masks combine: a key must be visible in all of them. A row
            that sees no key at all gets a finite average over all keys.
        cache: dict {"key": (B, h_kv, slots, dh), "value": the same}. In self-attention, the query is one step
            of each row, (B, 1, d), or of K hypotheses of each row, (B, K, d), which share the row's cache: the
            step of hypothesis k is written to slot `position · K + k`. One hypothesis attends to the positions
            up to its own; of several, `attention_mask` (B, K, slots) says which slots are each one's past. In
            cross-attention, the projected memory from `project_memory`.
        position: integer scalar or (B,), the step's position in each row; only with the cache of
            self-attention.
        return_attention_scores: also return the attention probabilities (before dropout), shape (B, h, T, S).
        training: whether dropout is active.

    Returns:
        output (B, T, d); then, if a cache was given, the new cache; then, if asked for, the scores.

    Raises:
        ValueError: heads do not divide as they should, or the arguments do not fit the kind of attention.

    Example:
        >>> attention = MultiHeadAttention(num_heads=4)
        >>> attention(keras.ops.ones((2, 5, 16)), use_causal_mask=True).shape
        TensorShape([2, 5, 16])

    References:
        Vaswani et al. 2017, Attention Is All You Need. https://arxiv.org/abs/1706.03762
        Ainslie et al. 2023, GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
        Checkpoints. https://arxiv.org/abs/2305.13245
        Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models. https://arxiv.org/abs/2106.09685
    """

    def __init__(
        self,
        num_heads,
        head_dim=None,
        num_kv_heads=None,
        dropout=0.0,
        use_bias=True,
        rotary_base=None,
        kernel_initializer="glorot_uniform",
        lora_rank=None,
        lora_alpha=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.dropout = dropout
        self.use_bias = use_bias
        self.rotary_base = rotary_base
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.supports_masking = True
        if num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads. Received: num_heads={num_heads}, num_kv_heads={num_kv_heads}"
            )
        self.weight_dropout = Dropout(dropout, dtype=self.dtype_policy, name="weight_dropout")
        self.rotary = None
        if rotary_base is not None:
            self.rotary = RotaryEmbedding(rotary_base, dtype=self.dtype_policy, name="rotary")

    def build(self, query_shape, value_shape=None):
        dim = query_shape[-1]
        if self.head_dim is None and dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide the query's width unless head_dim is given. "
                f"Received: num_heads={self.num_heads}, width {dim}"
            )
        self.key_dim = self.head_dim or dim // self.num_heads
        self.is_cross_attention = value_shape is not None
        query_width, kv_width = self.num_heads * self.key_dim, self.num_kv_heads * self.key_dim
        if self.is_cross_attention:
            self.query = self._projection(query_width, "query", query_shape)
            self.key_value = self._projection(2 * kv_width, "key_value", value_shape)
        else:
            fused_width = query_width + 2 * kv_width
            self.query_key_value = self._projection(fused_width, "query_key_value", query_shape)
        self.output_projection = self._projection(dim, "output", (*query_shape[:-1], query_width))
        if self.rotary is not None:
            self.rotary.build((None, self.num_heads, None, self.key_dim))
        if self.lora_rank:
            self.enable_lora(self.lora_rank, self.lora_alpha)

    def _projections(self):
        inputs = [self.query, self.key_value] if self.is_cross_attention else [self.query_key_value]
        return [*inputs, self.output_projection]

    def _projection(self, units, name, input_shape):
        dense = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            # A copy for each: initialisers are stateless, a shared one would repeat its numbers.
            kernel_initializer=keras.initializers.serialize(self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build(input_shape)
        return dense

    def call(
        self,
        query,
        value=None,
        query_mask=None,
        value_mask=None,
        attention_mask=None,
        use_causal_mask=False,
        cache=None,
        position=None,
        return_attention_scores=False,
        training=None,
    ):
        self._check_arguments(query, value, attention_mask, cache, position)
        key_mask = value_mask
        if self.is_cross_attention:
            q = _split_heads(project(self.query, query), self.num_heads)  # (B, h, T, dh)
            cache_out = self.project_memory(value) if cache is None else cache
            k, v = cache_out["key"], cache_out["value"]  # (B, h_kv, S, dh)
        else:
            q, k, v = self._project_self(query, position)
            if cache is not None:
                use_causal_mask = False  # implied by the slots filled so far
                first = ops.cast(position, "int32") * query.shape[1]
                cache_out = write_slots(cache, {"key": k, "value": v}, first)
                k, v = cache_out["key"], cache_out["value"]  # (B, h_kv, slots, dh)
                if query.shape[1] == 1:
                    filled = ops.arange(ops.shape(k)[2]) <= ops.reshape(first, (-1, 1))  # (1 or B, slots)
                    key_mask = filled if key_mask is None else ops.logical_and(filled, ops.cast(key_mask, "bool"))
            elif key_mask is None:
                # Keras fills `query_mask` only when a call has several tensor arguments.
                key_mask = query_mask if query_mask is not None else getattr(query, "_keras_mask", None)
        bias = _attention_bias(key_mask, attention_mask, use_causal_mask, ops.shape(q)[2], ops.shape(k)[2])
        output, scores = self._attend(q, k, v, bias, training)
        results = [project(self.output_projection, _merge_heads(output))]
        if cache is not None:
            results.append(cache_out)
        if return_attention_scores:
            results.append(scores)
        return results[0] if len(results) == 1 else tuple(results)

    def _check_arguments(self, query, value, attention_mask, cache, position):
        if self.is_cross_attention:
            if value is None and cache is None:
                raise ValueError("Cross-attention needs a value or a cache. Received: neither")
        elif value is not None:
            raise ValueError("This layer was built without a value, as self-attention. Received: a value")
        elif cache is not None and (position is None or (query.shape[1] != 1 and attention_mask is None)):
            raise ValueError(
                "A cached step of self-attention takes one query (B, 1, d) and its position; several hypotheses "
                f"(B, K, d) need an attention_mask. Received: query of shape {tuple(query.shape)}, position={position}"
            )

    def _project_self(self, query, position):
        """Returns q (B, h, T, dh), k and v (B, h_kv, T, dh)."""
        # One transpose in four axes: one in five, with Q, K and V apart, is slow without XLA.
        heads = _split_heads(project(self.query_key_value, query), self.num_heads + 2 * self.num_kv_heads)
        q, k, v = ops.split(heads, [self.num_heads, self.num_heads + self.num_kv_heads], axis=1)
        if self.rotary is not None:
            q, k = self._rotate(q, position), self._rotate(k, position)
        return q, k, v

    def _rotate(self, x, position):
        if position is None:
            return self.rotary(x)
        # The steps of a row's hypotheses stand at one position: to the rotation they are further heads.
        batch, heads, count, dim = ops.shape(x)
        return reshape(
            self.rotary(reshape(x, (batch, heads * count, 1, dim)), position=position), (batch, heads, count, dim)
        )

    def _attend(self, q, k, v, bias, training):
        """Returns the heads' outputs (B, h, T, dh) and the probabilities (B, h, T, S)."""
        batch, length, key_length = ops.shape(q)[0], ops.shape(q)[2], ops.shape(k)[2]
        # Query heads that share a key head become further rows of one product: no key or value is repeated.
        shared_rows = self.num_heads // self.num_kv_heads * length
        q = q * self.key_dim**-0.5  # before the product, which could overflow in float16
        q = reshape(q, (batch, self.num_kv_heads, shared_rows, self.key_dim))
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))  # (B, h_kv, h/h_kv · T, S)
        scores = reshape(scores, (batch, self.num_heads, length, key_length))
        scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
        scores = ops.softmax(scores if bias is None else scores + ops.cast(bias, scores.dtype), axis=-1)
        scores = ops.cast(scores, self.compute_dtype)
        weights = self.weight_dropout(scores, training=training)
        weights = reshape(weights, (batch, self.num_kv_heads, shared_rows, key_length))
        output = ops.matmul(weights, v)  # (B, h_kv, h/h_kv · T, dh)
        return reshape(output, (batch, self.num_heads, length, self.key_dim)), scores

    def empty_cache(self, batch_size, max_length, hypotheses=1):
        """A cache of zeros for self-attention, in the compute dtype.

        Args:
            batch_size: integer or scalar tensor, B.
            max_length: integer, L: positions 0 to L - 1 can be decoded.
            hypotheses: integer, K: how many share the cache of a row.

        Returns:
            Dict {"key": (B, h_kv, L · K, dh), "value": the same}.
        """
        if not self.built or self.is_cross_attention:
            raise ValueError("empty_cache serves self-attention, after the layer is built.")
        shape = (batch_size, self.num_kv_heads, max_length * hypotheses, self.key_dim)
        return {name: ops.zeros(shape, dtype=self.compute_dtype) for name in ("key", "value")}

    def project_memory(self, value):
        """Keys and values of cross-attention, to be computed once and passed as `cache` in every step.

        Args:
            value: the memory, shape (B, S, d_value).

        Returns:
            Dict {"key": (B, h_kv, S, dh), "value": the same}.
        """
        if not self.built or not self.is_cross_attention:
            raise ValueError("project_memory serves cross-attention, after the layer is built.")
        k, v = ops.split(_split_heads(project(self.key_value, value), 2 * self.num_kv_heads), 2, axis=1)
        return {"key": k, "value": v}

    def project_sequence(self, x):
        """Keys and values of self-attention to a sequence that is read at once, with which a cache begins.

        Args:
            x: shape (B, T, d), at positions 0 to T - 1.

        Returns:
            Dict {"key": (B, h_kv, T, dh), "value": the same}.
        """
        if not self.built or self.is_cross_attention:
            raise ValueError("project_sequence serves self-attention, after the layer is built.")
        _, k, v = self._project_self(x, None)
        return {"key": k, "value": v}

    def enable_lora(self, rank, lora_alpha=None):
        """Freezes the projections, biases included, and gives each a trainable low-rank adapter.

        Saving merges the adapters into the kernels, as Keras' Dense does.
        """
        for projection in self._projections():
            projection.enable_lora(rank, lora_alpha=lora_alpha)
            if self.use_bias:
                projection.bias.trainable = False
        self.lora_rank, self.lora_alpha = rank, lora_alpha

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantises each projection that is not quantised yet, for example with mode "int8"."""
        for projection in self._projections():
            if projection.quantization_mode is None:
                projection.quantize(mode, type_check=type_check, config=config)

    def compute_output_shape(self, query_shape, value_shape=None):
        return query_shape

    def compute_output_spec(self, *args, **kwargs):
        # By tracing: what a call returns depends on `cache` and `return_attention_scores`.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": dtype_config(self),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "num_kv_heads": self.num_kv_heads,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "rotary_base": self.rotary_base,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "lora_rank": self.lora_rank,
            "lora_alpha": self.lora_alpha,
        }
