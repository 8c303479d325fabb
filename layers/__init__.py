"""Keras layers, the mathematics of every model in this project: written on `keras.ops`, without input or
output, and independent of the applications and pipelines that use them."""

from layers.additive_attention import AdditiveAttention
from layers.attention import MultiHeadAttention
from layers.bidirectional import Bidirectional
from layers.cache import donated_caches
from layers.conformer import ConformerBlock, ConformerConvolution
from layers.convolution import Conv1D, Conv2D
from layers.depthwise import DepthwiseConv1D, DepthwiseConv2D, DepthwiseSeparableConv2D
from layers.dropout import Dropout
from layers.embedding import TiedEmbedding
from layers.lora import add_adapters
from layers.min_gru import MinGRU
from layers.normalisation import BatchNormalization, LayerNormalization, normalisation
from layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    MaxPooling1D,
    MaxPooling2D,
)
from layers.position import RotaryEmbedding, SinusoidalPositionEncoding
from layers.pre_norm import PreNormResidual
from layers.recurrent import GRU, LSTM, SimpleRNN
from layers.remat import rematerialise
from layers.residual import InvertedResidualBlock, ResidualBlock, SqueezeExcitation
from layers.spectrogram import LogMelSpectrogram, SpecAugment
from layers.stochastic_depth import StochasticDepth
from layers.transformer import FeedForward, TransformerDecoderBlock, TransformerEncoderBlock

__all__ = [
    "AdditiveAttention",
    "AveragePooling1D",
    "AveragePooling2D",
    "BatchNormalization",
    "Bidirectional",
    "ConformerBlock",
    "ConformerConvolution",
    "Conv1D",
    "Conv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseSeparableConv2D",
    "Dropout",
    "FeedForward",
    "GRU",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "InvertedResidualBlock",
    "LSTM",
    "LayerNormalization",
    "LogMelSpectrogram",
    "MaxPooling1D",
    "MaxPooling2D",
    "MinGRU",
    "MultiHeadAttention",
    "PreNormResidual",
    "ResidualBlock",
    "RotaryEmbedding",
    "SimpleRNN",
    "SinusoidalPositionEncoding",
    "SpecAugment",
    "SqueezeExcitation",
    "StochasticDepth",
    "TiedEmbedding",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
    "add_adapters",
    "donated_caches",
    "normalisation",
    "rematerialise",
]
