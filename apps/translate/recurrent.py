"""The recurrent translator: LSTMs that read the source from both ends, and LSTMs that write the target while additive
attention looks back at the source (Bahdanau et al. 2015)."""

import keras
from keras import ops, tree

from apps.translate.model import TranslationModel
from layers import LSTM, AdditiveAttention, Bidirectional, Dropout, LayerNormalization, PreNormResidual


@keras.saving.register_keras_serializable(package="espalier")
class RecurrentTranslator(TranslationModel):
    """Recurrent encoder-decoder over token ids, where id 0 is padding.

    memory = bidirectional LSTMs over the source
    q      = first LSTM over the target so far
    c      = additive attention of q over the memory
    y      = further LSTMs over [q; c]
    logits = tanh(W [y; c]) Eᵀ

    Attention asks with the lowest layer's state of the same step, so that no layer waits for another one's next step:
    in training each reads the whole target at once, and attention is one product for all positions. Layers have a way
    around them (y = x + ...) and normalise what they read.

    Args:
        vocabulary_size: Pieces in the joint vocabulary, V.
        start_id: Token before the first target token.
        encoder_layers, decoder_layers, width, dropout: See `ModelConfig`; width is d below, and half of it is that of
            each direction of the encoder.
        remat: Whether training computes attention, which fills (B, T, S, d), again on the way back.

    Call arguments:
        inputs: {"source": (B, S), "target": (B, T)} int ids; the target ends with the end token.

    Returns:
        Logits (B, T, V): at t, of target token t given the tokens before it.

    References:
        Bahdanau et al. 2015, Neural Machine Translation by Jointly Learning to Align and Translate.
        https://arxiv.org/abs/1409.0473
        Wu et al. 2016, Google's Neural Machine Translation System (attention from the lowest layer, for all others).
        https://arxiv.org/abs/1609.08144
        Luong et al. 2015, Effective Approaches to Attention-based Neural Machine Translation (what makes the logits).
        https://arxiv.org/abs/1508.04025
    """

    SETTINGS = ("encoder_layers", "decoder_layers", "width", "dropout")

    def __init__(
        self,
        vocabulary_size,
        start_id,
        encoder_layers=2,
        decoder_layers=2,
        width=160,
        dropout=0.1,
        remat=False,
        **kwargs,
    ):
        settings = {
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "width": width,
            "dropout": dropout,
        }
        super().__init__(vocabulary_size, start_id, settings, remat, **kwargs)
        self.encoder = [self._encoder_block(f"encoder_{i}") for i in range(encoder_layers)]
        self.encoder_norm = LayerNormalization(epsilon=1e-5)
        # From the memory's mean to the state that each layer of the decoder begins with.
        self.first_states = keras.layers.Dense(2 * width * decoder_layers, activation="tanh", name="first_states")
        self.decoder = [DecoderBlock(width, dropout, name=f"decoder_{i}") for i in range(decoder_layers)]
        self.memory_attention = AdditiveAttention(width, name="memory_attention")
        self.decoder_norm = LayerNormalization(epsilon=1e-5)
        self.output_projection = keras.layers.Dense(width, activation="tanh", name="output")

    def _encoder_block(self, name):
        half = LSTM(self.settings["width"] // 2, return_sequences=True, name="forward")
        return PreNormResidual(Bidirectional(half, name="recurrent"), self.settings["dropout"], name=name)

    def build(self, input_shape):
        width = self.settings["width"]
        self.embedding.build((None, None))
        for block in self.encoder:
            block.build((None, None, width))
        self.encoder_norm.build((None, None, width))
        self.first_states.build((None, width))
        for number, block in enumerate(self.decoder):
            block.build((None, None, width), (None, None, width) if number else None)
        self.memory_attention.build((None, None, width), (None, None, width))
        self.decoder_norm.build((None, None, width))
        self.output_projection.build((None, None, 2 * width))
        self.built = True

    def embed(self, ids, training=None):
        return self.dropout(self.embedding(ids), training=training)  # (B, L, d)

    def encode(self, source, training=None):
        """Source ids (B, S) -> memory (B, S, d), and the states h and c (B, d) that each decoder layer begins with."""
        mask = ops.not_equal(source, 0)
        x = self.embed(source, training=training)
        for block in self.encoder:
            x = block(x, mask=mask, training=training)
        memory = self.encoder_norm(x)
        real = ops.cast(mask, memory.dtype)[:, :, None]
        # A row of padding alone has no tokens to divide by.
        mean = ops.sum(memory * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1)
        states = ops.split(self.first_states(mean), 2 * len(self.decoder), axis=-1)
        return memory, list(zip(states[::2], states[1::2], strict=True))

    def join(self, y, context):
        """What the top layer says and what was looked at, (B, T, d) each, in one: (B, T, d)."""
        return self.output_projection(ops.concatenate([self.decoder_norm(y), context], axis=-1))

    def call(self, inputs, training=None):
        source, target = inputs["source"], inputs["target"]
        memory, states = self.encode(source, training=training)
        bottom, *upper = self.decoder
        x = bottom(self.embed(self.shift(target), training=training), state=states[0], training=training)
        mask = ops.not_equal(source, 0)
        context = self._apply(self.memory_attention, x, memory, value_mask=mask, training=training)  # (B, T, d)
        for block, state in zip(upper, states[1:], strict=True):
            x = block(x, context=context, state=state, training=training)
        return self.embedding(self.dropout(self.join(x, context), training=training), reverse=True)

    def attention(self, source, target):
        """Attention while the decoder reads a given target.

        Args:
            source, target: Ids (B, S) and (B, T).

        Returns:
            (B, 1, 1, T, S), one layer and one head; row t is what was attended to when token t was predicted.
        """
        memory, states = self.encode(source)
        x = self.decoder[0](self.embed(self.shift(target)), state=states[0])
        mask = ops.not_equal(source, 0)
        _, scores = self.memory_attention(x, memory, value_mask=mask, return_attention_scores=True)
        return scores[:, None, None]

    def start_decoding(self, source, max_length, hypotheses=1):
        """What step-by-step decoding carries along: the memory, as it is and projected, each layer's h and c, and the
        projection onto the vocabulary.

        Args:
            source: Ids (B, S).
            max_length: Target tokens to keep room for, of which a recurrent state needs none.
            hypotheses: How many of each row there are.
        """
        memory, states = self.encode(source)
        shape = (ops.shape(source)[0], hypotheses, self.settings["width"])
        return {
            "mask": ops.not_equal(source, 0),
            "memory": memory,
            "keys": self.memory_attention.project_memory(memory),
            "states": [[ops.broadcast_to(x[:, None], shape) for x in state] for state in states],  # (B, K, d)
            "projection": self.embedding.projection(),
        }

    def decode_step(self, frontier, state):
        """Predicts the token after each hypothesis of a `Frontier`. Returns logits (B, K, V) and the state."""
        states = state["states"]
        if frontier.tokens.shape[1] != 1:
            states = tree.map_structure(
                lambda x: ops.take_along_axis(x, frontier.parents[:, :, None], axis=1),
                states,
            )
        bottom, *upper = self.decoder
        x, first = bottom.step(self.embed(frontier.tokens), states[0])  # (B, K, d)
        # To attention, the hypotheses of a row are as many positions.
        context = self.memory_attention(x, state["memory"], value_mask=state["mask"], keys=state["keys"])
        new = [first]
        for block, before in zip(upper, states[1:], strict=True):
            x, after = block.step(x, before, context=context)
            new.append(after)
        return ops.matmul(self.join(x, context), state["projection"]), state | {"states": new}


class DecoderBlock(keras.layers.Layer):
    """y = x + Drop(LSTM([Norm(x); context])), the context only where the block is built with one.

    Call arguments:
        x: shape (B, T, d).
        context: shape (B, T, d).
        state: h and c before the first step, (B, d) each.
        training: whether dropout is active.

    Returns:
        y, (B, T, d).
    """

    def __init__(self, width, dropout, **kwargs):
        super().__init__(**kwargs)
        self.norm = LayerNormalization(epsilon=1e-5, name="norm")
        self.recurrent = LSTM(width, return_sequences=True, name="recurrent")
        self.dropout = Dropout(dropout, name="dropout")

    def build(self, x_shape, context_shape=None):
        self.norm.build(x_shape)
        width = x_shape[-1] + (context_shape[-1] if context_shape else 0)
        self.recurrent.build((*x_shape[:-1], width))

    def call(self, x, context=None, state=None, training=None):
        y = self.recurrent(self._read(x, context), initial_state=state, training=training)
        return x + self.dropout(y, training=training)

    def step(self, x, state, context=None):
        """The same for one step of K hypotheses a row.

        Args:
            x, context: shape (B, K, d).
            state: h and c, (B, K, d) each.

        Returns:
            y (B, K, d), and the new state, a list like the old one.
        """
        shape = ops.shape(x)
        read = self._read(x, context)
        y, after = self.recurrent.step(*(tree.map_structure(_rows, part) for part in (read, state)))
        y, *after = (ops.reshape(part, shape) for part in (y, *after))
        return x + y, after

    def _read(self, x, context):
        x = self.norm(x)
        return x if context is None else ops.concatenate([x, context], axis=-1)


def _rows(x):
    """(B, K, d) -> (B · K, d)."""
    return ops.reshape(x, (-1, x.shape[-1]))
