"""Keras layers, the mathematics of every model in this project: written on `keras.ops`, without input or
output, and independent of the applications and pipelines that use them."""

from layers.attention import MultiHeadAttention
from layers.embedding import TiedEmbedding
from layers.position import RotaryEmbedding, SinusoidalPositionEncoding
from layers.transformer import FeedForward, TransformerDecoderBlock, TransformerEncoderBlock

__all__ = [
    "FeedForward",
    "MultiHeadAttention",
    "RotaryEmbedding",
    "SinusoidalPositionEncoding",
    "TiedEmbedding",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
]
