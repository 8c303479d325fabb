"""Keras layers, the mathematics of every model in this project: written on `keras.ops`, without input or
output, and independent of the applications and pipelines that use them."""

from layers.attention import MultiHeadAttention
from layers.cache import donated_caches
from layers.dropout import Dropout
from layers.embedding import TiedEmbedding
from layers.position import RotaryEmbedding, SinusoidalPositionEncoding
from layers.remat import rematerialise
from layers.transformer import FeedForward, TransformerDecoderBlock, TransformerEncoderBlock

__all__ = [
    "Dropout",
    "FeedForward",
    "MultiHeadAttention",
    "RotaryEmbedding",
    "SinusoidalPositionEncoding",
    "TiedEmbedding",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
    "donated_caches",
    "rematerialise",
]
