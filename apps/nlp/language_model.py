"""The language model: a decoder-only Transformer with rotary positions, grouped-query attention and one matrix for
embedding and output."""

from typing import Self

import keras
from keras import ops

from apps.nlp.config import ModelConfig
from layers import Dropout, LayerNormalization, TiedEmbedding, TransformerDecoderBlock, rematerialise
from pipelines.text.tokenizer import END

SETTINGS = ("width", "layers", "heads", "kv_heads", "feedforward", "dropout")  # fields of ModelConfig
ROTARY_BASE = 10000.0


@keras.saving.register_keras_serializable(package="espalier")
class LanguageModel(keras.Model):
    """Predicts the next token of a text from those before it. Id 0 is padding, before a text or after it.

    Positions are relative: a token's logits do not depend on how much padding is before its text.

    Args:
        vocabulary_size: V.
        width, layers, heads, kv_heads, feedforward, dropout: See `ModelConfig`; width is d below.
        context: How many tokens the model was trained to look back, the last one included: in decoding it looks back
            no further.
        remat: Whether training keeps only the input of each block and computes the rest again on the way back.

    Call arguments:
        inputs: {"tokens": (B, L)} int ids.

    Returns:
        Logits (B, L, V): at l, of the token after token l.

    References:
        Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
        Su et al. 2021, RoFormer. https://arxiv.org/abs/2104.09864
        Ainslie et al. 2023, GQA. https://arxiv.org/abs/2305.13245
    """

    def __init__(
        self,
        vocabulary_size,
        width=128,
        layers=4,
        heads=4,
        kv_heads=0,
        feedforward=512,
        dropout=0.1,
        context=128,
        remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.settings = dict(zip(SETTINGS, (width, layers, heads, kv_heads, feedforward, dropout), strict=True))
        self.context = context
        self.remat = remat
        self.embedding = TiedEmbedding(vocabulary_size, width, name="embedding")
        self.dropout = Dropout(dropout, name="dropout")
        self.blocks = [
            TransformerDecoderBlock(
                heads,
                feedforward,
                dropout=dropout,
                activation="gelu",
                num_kv_heads=kv_heads or None,
                rotary_base=ROTARY_BASE,
                cross_attention=False,
                name=f"block_{i}",
            )
            for i in range(layers)
        ]
        # Pre-norm blocks leave their sums unnormalised; one norm closes the stack.
        self.norm = LayerNormalization(epsilon=1e-5, name="norm")

    @classmethod
    def from_settings(cls, config: ModelConfig, vocabulary_size: int, context: int, remat: bool = False) -> Self:
        """A built model."""
        settings = {name: getattr(config, name) for name in SETTINGS}
        model = cls(vocabulary_size, **settings, context=context, remat=remat)
        model.build({"tokens": (None, None)})
        return model

    def build(self, input_shape):
        shape = (None, None, self.settings["width"])
        self.embedding.build((None, None))
        for block in self.blocks:
            block.build(shape)
        self.norm.build(shape)
        self.built = True

    def call(self, inputs, training=None):
        return self.embedding(self.encode(inputs["tokens"], training=training), reverse=True)  # (B, L, V)

    def encode(self, tokens, training=None):
        """Token ids (B, L) -> states (B, L, d), each of which has seen the tokens up to its own."""
        mask = ops.not_equal(tokens, 0)
        x = self.dropout(self.embedding(tokens), training=training)
        for block in self.blocks:
            x = self._apply(block, x, mask, training)
        return self.norm(x)

    def _apply(self, block, x, mask, training):
        if self.remat and training:
            return rematerialise(block, x, mask=mask, training=training)
        return block(x, mask=mask, training=training)

    def start_decoding(self, prompt, max_length, hypotheses=1):
        """Reads prompts, all their tokens at once, into the state that step-by-step decoding begins with.

        The last token of each prompt is read by the first step, in place of a start token.

        Args:
            prompt: Ids (B, P) of at least one token a row, padded with zeros before them.
            max_length: Tokens to keep room for, L.
            hypotheses: How many of each row there are, K.

        Returns:
            "last": (B, 1), the last token of each prompt; "read": (B, 1, (P - 1) · K), which slots of the caches hold
            another one; "caches": keys and values (B, h_kv, (P - 1 + L) · K, dh) of each layer; "projection": (d, V),
            onto the vocabulary.
        """
        tokens, last = prompt[:, :-1], prompt[:, -1][:, None]
        mask = ops.not_equal(tokens, 0)
        x = self.embedding(tokens)
        caches = []
        for block in self.blocks:
            cache = block.self_attention.project_sequence(block.self_attention_norm(x))
            x = block(x, mask=mask)
            caches.append({"self": {name: _slots(steps, max_length, hypotheses) for name, steps in cache.items()}})
        first = ops.equal(ops.arange(ops.shape(tokens)[1] * hypotheses) % hypotheses, 0)
        read = ops.logical_and(ops.repeat(mask, hypotheses, axis=1), first)[:, None, :]
        return {"last": last, "read": read, "caches": caches, "projection": self.embedding.projection()}

    def decode_step(self, frontier, state):
        """Predicts the token after each hypothesis of a `Frontier`: characters or pieces, or the end.

        Returns:
            Logits (B, K, V), -inf for the other marks, and the state.
        """
        rows, hypotheses = ops.shape(frontier.tokens)
        position = ops.shape(state["read"])[2] // hypotheses + frontier.position
        tokens = ops.where(ops.equal(frontier.position, 0), state["last"], frontier.tokens)
        read = ops.broadcast_to(state["read"], (rows, hypotheses, ops.shape(state["read"])[2]))
        since = ops.broadcast_to(frontier.visible, (rows, *ops.shape(frontier.visible)[1:]))
        visible = ops.concatenate([read, since], axis=2)  # (B, K, (P - 1 + L) · K)
        recent = ops.arange(ops.shape(visible)[2]) // hypotheses > position - self.context
        visible = ops.logical_and(visible, recent)
        x = self.embedding(tokens)  # (B, K, d)
        caches = []
        for block, cache in zip(self.blocks, state["caches"], strict=True):
            x, cache = block(x, cache=cache, position=position, visible=visible)
            caches.append(cache)
        logits = ops.matmul(self.norm(x), state["projection"])
        written = ops.arange(self.vocabulary_size) >= END
        return ops.where(written, logits, -float("inf")), {**state, "caches": caches}

    def get_config(self):
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "context": self.context,
            "remat": self.remat,
            **self.settings,
        }


def _slots(steps, max_length, hypotheses):
    """Keys or values (B, h, T, dh) of a prompt in a cache with room for what follows: (B, h, (T + L) · K, dh).

    All hypotheses have the same prompt, and yet a step's slots are as many as there are hypotheses.
    """
    batch, heads, _, dim = ops.shape(steps)
    room = ops.zeros((batch, heads, max_length * hypotheses, dim), dtype=steps.dtype)
    return ops.concatenate([ops.repeat(steps, hypotheses, axis=2), room], axis=2)
