"""The Transformer of Vaswani et al. (2017), pre-norm, with one matrix for source, target and output embedding; and
what it shares with the other kind of translation model."""

from typing import Self

import keras
from keras import ops

from apps.translate.config import ModelConfig
from layers import (
    Dropout,
    LayerNormalization,
    SinusoidalPositionEncoding,
    TiedEmbedding,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
    rematerialise,
)


class TranslationModel(keras.Model):
    """What all translation models share: token ids in, where id 0 is padding, and logits out.

    A subclass names its settings, those fields of `ModelConfig` that it takes as arguments, and has

    - `call({"source": (B, S), "target": (B, T)})`: logits (B, T, V), at t of target token t given those before it;
    - `attention(source, target)`: (B, layers, heads, T, S), row t being where the model looked when it predicted t;
    - `start_decoding(source, max_length, hypotheses)`: the state that step-by-step decoding begins with;
    - `decode_step(frontier, state)`: logits (B, K, V) of the token after each hypothesis of a `Frontier`, and a state.
    """

    SETTINGS: tuple[str, ...]

    def __init__(self, vocabulary_size, start_id, settings, remat, **kwargs):
        super().__init__(**kwargs)
        self.remat = remat
        self.vocabulary_size = vocabulary_size
        self.start_id = start_id
        self.settings = settings
        self.embedding = TiedEmbedding(vocabulary_size, settings["width"])
        self.dropout = Dropout(settings["dropout"])

    @classmethod
    def from_settings(cls, config: ModelConfig, vocabulary_size: int, start_id: int, remat: bool = False) -> Self:
        """A built model."""
        settings = {name: getattr(config, name) for name in cls.SETTINGS}
        model = cls(vocabulary_size, start_id, **settings, remat=remat)
        model.build({"source": (None, None), "target": (None, None)})
        return model

    def shift(self, target):
        """What the decoder sees of the target: the start token, then all tokens but the last. (B, T) -> (B, T)."""
        start = ops.full_like(target[:, :1], self.start_id)
        return ops.concatenate([start, target[:, :-1]], axis=1)

    def _apply(self, layer, *inputs, training, **masks):
        if self.remat and training:
            return rematerialise(layer, *inputs, training=training, **masks)
        return layer(*inputs, training=training, **masks)

    def get_config(self):
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "start_id": self.start_id,
            "remat": self.remat,
            **self.settings,
        }


@keras.saving.register_keras_serializable(package="espalier")
class TranslationTransformer(TranslationModel):
    """Encoder-decoder Transformer over token ids, where id 0 is padding.

    Args:
        vocabulary_size: Pieces in the joint vocabulary, V.
        start_id: Token before the first target token.
        encoder_layers, decoder_layers, width, feedforward, heads, dropout: See `ModelConfig`; width is d below.
        remat: Whether training keeps only the input of each block and computes the rest again on the way back.

    Call arguments:
        inputs: {"source": (B, S), "target": (B, T)} int ids; the target ends with the end token.

    Returns:
        Logits (B, T, V): at t, of target token t given the tokens before it.
    """

    SETTINGS = ("encoder_layers", "decoder_layers", "width", "feedforward", "heads", "dropout")

    def __init__(
        self,
        vocabulary_size,
        start_id,
        encoder_layers=4,
        decoder_layers=4,
        width=128,
        feedforward=256,
        heads=4,
        dropout=0.1,
        remat=False,
        **kwargs,
    ):
        settings = {
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "width": width,
            "feedforward": feedforward,
            "heads": heads,
            "dropout": dropout,
        }
        super().__init__(vocabulary_size, start_id, settings, remat, **kwargs)
        self.position = SinusoidalPositionEncoding()
        self.encoder = [
            TransformerEncoderBlock(heads, feedforward, dropout=dropout, name=f"encoder_{i}")
            for i in range(encoder_layers)
        ]
        self.decoder = [
            TransformerDecoderBlock(heads, feedforward, dropout=dropout, name=f"decoder_{i}")
            for i in range(decoder_layers)
        ]
        # Pre-norm blocks leave their sums unnormalised; one norm closes each stack.
        self.encoder_norm = LayerNormalization(epsilon=1e-5)
        self.decoder_norm = LayerNormalization(epsilon=1e-5)

    def build(self, input_shape):
        width = self.settings["width"]
        source = target = (None, None, width)
        self.embedding.build((None, None))
        for block in self.encoder:
            block.build(source)
        for block in self.decoder:
            block.build(target, source)
        self.encoder_norm.build(source)
        self.decoder_norm.build(target)
        self.built = True

    def embed(self, ids, position=None, training=None):
        x = self.position(self.embedding(ids), position=position)  # (B, L, d)
        return self.dropout(x, training=training)

    def encode(self, source, training=None):
        """Source ids (B, S) -> memory (B, S, d)."""
        mask = ops.not_equal(source, 0)
        x = self.embed(source, training=training)
        for block in self.encoder:
            x = self._apply(block, x, mask=mask, training=training)
        return self.encoder_norm(x)

    def call(self, inputs, training=None):
        source, target = inputs["source"], inputs["target"]
        memory = self.encode(source, training=training)
        x = self.embed(self.shift(target), training=training)
        for block in self.decoder:
            x = self._apply(block, x, memory, memory_mask=ops.not_equal(source, 0), training=training)
        return self.embedding(self.decoder_norm(x), reverse=True)  # (B, T, V)

    def attention(self, source, target):
        """Cross-attention of every decoder layer while it reads a given target.

        Args:
            source, target: Ids (B, S) and (B, T).

        Returns:
            (B, layers, heads, T, S); row t is what was attended to when token t was predicted.
        """
        memory = self.encode(source)
        x = self.embed(self.shift(target))
        scores = []
        for block in self.decoder:
            x, attended = block(x, memory=memory, memory_mask=ops.not_equal(source, 0), return_attention_scores=True)
            scores.append(attended["cross"])
        return ops.stack(scores, axis=1)

    def start_decoding(self, source, max_length, hypotheses=1):
        """What step-by-step decoding carries along: the source's mask, each layer's keys and values, and the projection
        onto the vocabulary.

        Args:
            source: Ids (B, S).
            max_length: Target tokens to keep room for.
            hypotheses: How many of each row there are.
        """
        memory = self.encode(source)
        rows = ops.shape(source)[0]
        caches = [block.make_cache(rows, max_length, memory, hypotheses) for block in self.decoder]
        return {"mask": ops.not_equal(source, 0), "caches": caches, "projection": self.embedding.projection()}

    def decode_step(self, frontier, state):
        """Predicts the token after each hypothesis of a `Frontier`. Returns logits (B, K, V) and the state."""
        rows, hypotheses = ops.shape(frontier.tokens)
        x = self.embed(ops.reshape(frontier.tokens, (-1, 1)), position=frontier.position)  # (B · K, 1, d)
        x = ops.reshape(x, (rows, hypotheses, x.shape[-1]))
        caches = []
        for block, cache in zip(self.decoder, state["caches"], strict=True):
            x, cache = block(
                x,
                memory_mask=state["mask"],
                cache=cache,
                position=frontier.position,
                visible=frontier.visible,
            )
            caches.append(cache)
        logits = ops.matmul(self.decoder_norm(x), state["projection"])
        return logits, state | {"caches": caches}
