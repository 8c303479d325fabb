"""The Conformer, the repeated part of a speech encoder: attention sees the whole utterance, a convolution what is
near, each behind a layer normalisation and around a residual connection, between two halves of a feed-forward
network."""

import keras
from keras import ops

from layers.attention import MultiHeadAttention, dtype_config, project
from layers.depthwise import DepthwiseConv1D
from layers.dropout import Dropout
from layers.normalisation import LayerNormalization
from layers.transformer import FeedForward


@keras.saving.register_keras_serializable(package="espalier")
class ConformerConvolution(keras.layers.Layer):
    """The convolution module of a Conformer: gated, over time, channel by channel.

    a, g = x W_1 + b_1                                        both as wide as x
    h    = DepthwiseConv1D(a ⊙ sigmoid(g))                    the gate is a GLU
    y    = swish(LayerNorm(h)) W_2 + b_2

    Gulati et al. have BatchNorm in place of LayerNorm. Its statistics would run over padding, or over more or fewer
    frames than the batch has, would differ between replicas, and are others in training than later; those of a
    LayerNorm are of one frame, so that a row gives what it gives alone.

    Args:
        kernel_size: frames that an output sees, an odd number: as many before as after.
        norm_epsilon: added to the variance in LayerNorm.

    Call arguments:
        x: shape (B, T, d).
        mask: boolean (B, T), True = real; padded frames count as zeros to the convolution. Default: the mask
            attached to x.

    Returns:
        Shape (B, T, d).

    Raises:
        ValueError: the kernel size is even or not positive.

    Example:
        >>> ConformerConvolution(kernel_size=15)(keras.ops.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    References:
        Gulati et al. 2020, Conformer, section 2.2. https://arxiv.org/abs/2005.08100
        Dauphin et al. 2017, Language Modeling with Gated Convolutional Networks. https://arxiv.org/abs/1612.08083
        Ba et al. 2016, Layer Normalization. https://arxiv.org/abs/1607.06450
    """

    def __init__(self, kernel_size=31, norm_epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive. Received: kernel_size={kernel_size}")
        self.kernel_size = kernel_size
        self.norm_epsilon = norm_epsilon
        self.supports_masking = True
        self.depthwise = DepthwiseConv1D(kernel_size, padding="same", dtype=self.dtype_policy, name="depthwise")
        self.norm = LayerNormalization(epsilon=norm_epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, x_shape):
        width = x_shape[-1]
        self.gated = keras.layers.Dense(2 * width, dtype=self.dtype_policy, name="gated")
        self.output_projection = keras.layers.Dense(width, dtype=self.dtype_policy, name="output")
        for layer in (self.gated, self.depthwise, self.norm, self.output_projection):
            layer.build(x_shape)

    def call(self, x, mask=None):
        h = self.depthwise(ops.glu(project(self.gated, x)), mask=mask)
        return project(self.output_projection, ops.silu(self.norm(h)))

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": dtype_config(self),
            "kernel_size": self.kernel_size,
            "norm_epsilon": self.norm_epsilon,
        }


@keras.saving.register_keras_serializable(package="espalier")
class ConformerBlock(keras.layers.Layer):
    """Half a feed-forward network, self-attention, convolution and the other half.

    x = x + ½ Dropout(FFN_1(LayerNorm(x)))
    x = x + Dropout(MultiHead(LayerNorm(x)))
    x = x + Dropout(Convolution(LayerNorm(x)))
    y = LayerNorm(x + ½ Dropout(FFN_2(LayerNorm(x))))

    Positions enter by rotating queries and keys, where the paper has the relative encoding of Transformer-XL: both
    make a score depend on the distance alone, and the rotation needs no further weights. Unlike a Transformer block it
    ends with a LayerNorm, so a stack of blocks needs none after the last.

    Args:
        num_heads: attention heads; must divide d.
        feedforward_dim: hidden width of either feed-forward network; the paper's is 4 · d.
        kernel_size: frames that the convolution sees at once, an odd number.
        dropout: rate on the residual branches and inside the feed-forward networks, in training.
        attention_dropout: rate on the attention weights, in training.
        rotary_base: rotate queries and keys by position with this base; None for no rotation.
        norm_epsilon: added to the variance in LayerNorm.

    Call arguments:
        x: shape (B, T, d).
        mask: boolean (B, T), True = real; padded frames are neither attended to nor seen by the convolution. Default:
            the mask attached to x.
        return_attention_scores: also return the attention probabilities, shape (B, h, T, T).
        training: whether dropout is active.

    Returns:
        Shape (B, T, d), or a tuple with the scores. Outputs at padded frames carry no meaning.

    Raises:
        ValueError: the kernel size is even, or heads do not divide d.

    Example:
        >>> block = ConformerBlock(num_heads=4, feedforward_dim=64, kernel_size=15)
        >>> block(keras.ops.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    References:
        Gulati et al. 2020, Conformer: Convolution-augmented Transformer for Speech Recognition.
        https://arxiv.org/abs/2005.08100
        Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding. https://arxiv.org/abs/2104.09864
    """

    def __init__(
        self,
        num_heads,
        feedforward_dim,
        kernel_size=31,
        dropout=0.0,
        attention_dropout=0.0,
        rotary_base=10000.0,
        norm_epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.feedforward_dim = feedforward_dim
        self.kernel_size = kernel_size
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.rotary_base = rotary_base
        self.norm_epsilon = norm_epsilon
        self.supports_masking = True
        settings = {"dtype": self.dtype_policy}
        self.feedforward_1 = FeedForward(feedforward_dim, "silu", dropout, name="feedforward_1", **settings)
        self.attention = MultiHeadAttention(
            num_heads, dropout=attention_dropout, rotary_base=rotary_base, name="attention", **settings
        )
        self.convolution = ConformerConvolution(kernel_size, norm_epsilon, name="convolution", **settings)
        self.feedforward_2 = FeedForward(feedforward_dim, "silu", dropout, name="feedforward_2", **settings)
        self.feedforward_1_norm = self._norm("feedforward_1_norm")
        self.attention_norm = self._norm("attention_norm")
        self.convolution_norm = self._norm("convolution_norm")
        self.feedforward_2_norm = self._norm("feedforward_2_norm")
        self.output_norm = self._norm("output_norm")
        # One layer for every residual branch: its seed moves on with each call, so no two masks are alike.
        self.residual_dropout = Dropout(dropout, name="residual_dropout", **settings)

    def _norm(self, name):
        return LayerNormalization(epsilon=self.norm_epsilon, dtype=self.dtype_policy, name=name)

    def build(self, x_shape):
        for layer in (self.feedforward_1, self.attention, self.convolution, self.feedforward_2):
            layer.build(x_shape)
        for part in ("feedforward_1", "attention", "convolution", "feedforward_2", "output"):
            getattr(self, f"{part}_norm").build(x_shape)

    def call(self, x, mask=None, return_attention_scores=False, training=None):
        branch = self.feedforward_1(self.feedforward_1_norm(x), training=training)
        x = x + 0.5 * self.residual_dropout(branch, training=training)
        branch, scores = self.attention(
            self.attention_norm(x), query_mask=mask, return_attention_scores=True, training=training
        )
        x = x + self.residual_dropout(branch, training=training)
        branch = self.convolution(self.convolution_norm(x), mask=mask)
        x = x + self.residual_dropout(branch, training=training)
        branch = self.feedforward_2(self.feedforward_2_norm(x), training=training)
        y = self.output_norm(x + 0.5 * self.residual_dropout(branch, training=training))
        return (y, scores) if return_attention_scores else y

    def compute_output_spec(self, *args, **kwargs):
        # By tracing: what a call returns depends on `return_attention_scores`.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {
            **super().get_config(),
            "dtype": dtype_config(self),
            "num_heads": self.num_heads,
            "feedforward_dim": self.feedforward_dim,
            "kernel_size": self.kernel_size,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "rotary_base": self.rotary_base,
            "norm_epsilon": self.norm_epsilon,
        }
