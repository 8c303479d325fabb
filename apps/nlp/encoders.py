"""What reads a text: three kinds of encoder, and how its states become one vector."""

import keras
from keras import layers as stock
from keras import ops

from apps.nlp.config import ModelConfig
from layers import (
    LSTM,
    Bidirectional,
    Conv1D,
    Dropout,
    LayerNormalization,
    PreNormResidual,
    TiedEmbedding,
    TransformerEncoderBlock,
    rematerialise,
)
from layers.attention import dtype_config


@keras.saving.register_keras_serializable(package="espalier")
class TextEncoder(stock.Layer):
    """From token ids to a state for each token.

    Every kind is a stack of blocks with a way around them, y = x + Drop(f(Norm(x))), where f is a convolution over
    neighbouring tokens, a bidirectional LSTM, or self-attention with rotary positions and a feed-forward network.

    Args:
        vocabulary_size: V, id 0 being padding.
        kind: "cnn", "rnn" or "transformer".
        width, layers, heads, kv_heads, feedforward, kernel_size, dropout, word_dropout: See `ModelConfig`; width is d
            below.
        remat: Whether training keeps only the input of each block and computes the rest again on the way back.

    Call arguments:
        tokens: (B, L) integer ids.

    Returns:
        States (B, L, d). Those of padding carry no meaning.

    References:
        Kim 2014, Convolutional Neural Networks for Sentence Classification. https://arxiv.org/abs/1408.5882
        Graves & Schmidhuber 2005, Framewise Phoneme Classification with Bidirectional LSTM.
        https://doi.org/10.1016/j.neunet.2005.06.042
        Devlin et al. 2019, BERT. https://arxiv.org/abs/1810.04805
    """

    def __init__(
        self,
        vocabulary_size,
        kind="transformer",
        width=128,
        layers=2,
        heads=4,
        kv_heads=0,
        feedforward=512,
        kernel_size=5,
        dropout=0.1,
        word_dropout=0.0,
        remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "vocabulary_size": vocabulary_size,
            "kind": kind,
            "width": width,
            "layers": layers,
            "heads": heads,
            "kv_heads": kv_heads,
            "feedforward": feedforward,
            "kernel_size": kernel_size,
            "dropout": dropout,
            "word_dropout": word_dropout,
            "remat": remat,
        }
        self.remat = remat
        self.width = width
        self.embedding = TiedEmbedding(vocabulary_size, width, name="embedding")
        self.word_dropout = WordDropout(word_dropout, name="word_dropout")
        self.dropout = Dropout(dropout, name="dropout")

        def block(number):
            name = f"block_{number}"
            if kind == "transformer":
                return TransformerEncoderBlock(
                    heads,
                    feedforward,
                    dropout,
                    activation="gelu",
                    num_kv_heads=kv_heads or None,
                    rotary_base=10_000.0,
                    name=name,
                )
            if kind == "rnn":
                half = LSTM(width // 2, return_sequences=True, name="forward")
                return PreNormResidual(Bidirectional(half, name="recurrent"), dropout, name=name)
            if kind == "cnn":
                convolution = Conv1D(width, kernel_size, padding="same", activation="relu", name="convolution")
                return PreNormResidual(convolution, dropout, name=name)
            raise ValueError(f"kind must be cnn, rnn or transformer. Received: kind={kind!r}")

        self.blocks = [block(number) for number in range(layers)]
        self.norm = LayerNormalization(epsilon=1e-5, name="norm")

    @classmethod
    def from_settings(cls, settings: ModelConfig, vocabulary_size: int, remat: bool = False, **kwargs) -> "TextEncoder":
        names = ("width", "layers", "heads", "kv_heads", "feedforward", "kernel_size", "dropout", "word_dropout")
        chosen = {name: getattr(settings, name) for name in names}
        return cls(vocabulary_size, settings.encoder, **chosen, remat=remat, name="encoder", **kwargs)

    def build(self, tokens_shape=None):
        states = (None, None, self.width)
        self.embedding.build((None, None))
        for block in self.blocks:
            block.build(states)
        self.norm.build(states)

    def call(self, tokens, training=None):
        return self.encode(self.embedding(tokens), ops.not_equal(tokens, 0), training=training)

    def encode(self, embedded, mask, training=None):
        """The states of tokens given by their embeddings (B, L, d), and which of them are real (B, L)."""
        x = self.dropout(self.word_dropout(embedded, training=training), training=training)
        for block in self.blocks:
            if self.remat and training:
                x = rematerialise(block, x, mask=mask, training=training)
            else:
                x = block(x, mask=mask, training=training)
        return self.norm(x)

    def compute_output_shape(self, tokens_shape):
        return (*tokens_shape, self.width)

    def get_config(self):
        return super().get_config() | {"dtype": dtype_config(self), **self.settings}


@keras.saving.register_keras_serializable(package="espalier")
class WordDropout(Dropout):
    """Dropout of whole embeddings (B, L, d): a classifier must not rest on a few words (Iyyer et al. 2015)."""

    def _mask_shape(self, inputs):
        return (*ops.shape(inputs)[:-1], 1)


def mean_pool(states, mask):
    """The mean (B, d) of states (B, L, d) where the mask (B, L) is true; zeros where it never is."""
    real = ops.cast(mask, states.dtype)[:, :, None]
    return ops.sum(states * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)


def max_pool(states, mask):
    """The greatest of each feature over the states where the mask is true; zeros where it never is."""
    hidden = ops.cast(-3e4, states.dtype)  # finite in float16 too
    greatest = ops.max(ops.where(mask[:, :, None], states, hidden), axis=1)
    return ops.where(ops.any(mask, axis=1, keepdims=True), greatest, ops.zeros_like(greatest))
