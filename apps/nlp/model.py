"""The networks that read: an encoder, and on top of it a classifier, a sentence vector, or a guess at hidden words.
(The one that writes is in `language_model.py`.)"""

import keras
import numpy as np
from keras import layers as stock
from keras import ops

from apps.nlp.encoders import TextEncoder, WordDropout, max_pool, mean_pool
from layers import Dropout, LayerNormalization


@keras.saving.register_keras_serializable(package="espalier")
class TextClassifier(keras.Model):
    """From token ids to a logit for each class.

    logits = W · [mean of states, greatest of each feature] + Σ_t e(token_t)

    What a token says for each class by itself, e, begins as what counting found, and W begins as zero: learning starts
    from naive Bayes (Wang & Manning 2012), and finds what words mean together. Of a pretrained encoder, e begins as
    zero too.

    Args:
        encoder: what reads.
        evidence: (V, K) what each token says for each class at first, in nats.
        dropout: on what the encoder found.
        word_dropout: on what each token says by itself.

    Call arguments:
        inputs: a batch with `tokens` (B, L), where id 0 is padding.

    Returns:
        Logits (B, K) float32.
    """

    def __init__(self, encoder: TextEncoder, evidence, dropout: float, word_dropout: float, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.first_evidence = evidence
        self.dropout = Dropout(dropout, name="dropout")
        self.word_dropout = WordDropout(word_dropout, dtype="float32", name="word_dropout")
        self.logits = stock.Dense(evidence.shape[1], kernel_initializer="zeros", dtype="float32", name="logits")

    def build(self, input_shape=None):
        self.evidence = self.add_weight(
            self.first_evidence.shape,
            name="evidence",
            autocast=False,
            initializer=lambda shape, dtype: ops.convert_to_tensor(self.first_evidence, dtype),
        )
        if not self.encoder.built:
            self.encoder.build((None, None))
        self.logits.build((None, 2 * self.encoder.width))

    def call(self, inputs, training=False):
        tokens = inputs["tokens"]
        found = self.classify(self.encoder.embedding(tokens), ops.not_equal(tokens, 0), training=training)
        return found + ops.sum(self.word_dropout(self.weigh(tokens), training=training), axis=1)

    def weigh(self, tokens):
        """What each token says for each class by itself, (B, L, K) float32; nothing where it is padding."""
        found = ops.take(self.evidence, tokens, axis=0)
        return ops.where(ops.not_equal(tokens, 0)[:, :, None], found, 0.0)

    def classify(self, embedded, mask, training=False):
        """What the encoder finds for each class (B, K), of texts given by the embeddings of their tokens (B, L, d) and
        which of them are real (B, L)."""
        states = self.encoder.encode(embedded, mask, training=training)
        pooled = ops.concatenate([mean_pool(states, mask), max_pool(states, mask)], axis=-1)  # (B, 2 d)
        return self.logits(self.dropout(pooled, training=training))


@keras.saving.register_keras_serializable(package="espalier")
class SentenceEncoder(keras.Model):
    """From token ids to a vector of length 1: texts that mean the like point the like way.

    v = normalised(Σ_t w(token_t) · (P(token_t) + U state_t))

    Rare words say more about what a text is about than common ones: w is a weight for each token that begins as its
    inverse document frequency. P, a vector for each token, begins at random, and U as zero: so the whole begins as a
    random projection of TF-IDF vectors, and learning starts from what those can tell. A pretrained encoder needs no P;
    there U begins as an orthogonal matrix and w as one, so that the whole begins as the mean of states, turned.

    Args:
        encoder: what reads.
        inverse_frequencies: (V,) how rare each token is.
        vector_width: D of sentence vectors; the more, the less the projection blurs.
        pretrained: whether the encoder is, and knows more than counting tells.

    Call arguments:
        inputs: a batch with `tokens` (B, L) and `others` (B, L), the two texts of each pair.

    Returns:
        Cosines (B,) float32 of the two.

    References:
        Arora et al. 2017, A Simple but Tough-to-Beat Baseline for Sentence Embeddings.
        https://openreview.net/forum?id=SyK00v5xx
    """

    def __init__(
        self, encoder: TextEncoder, inverse_frequencies, vector_width: int = 512, pretrained: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.first_weights = np.ones_like(inverse_frequencies) if pretrained else inverse_frequencies
        self.vectors = None
        if not pretrained:
            self.vectors = stock.Embedding(
                len(inverse_frequencies),
                vector_width,
                embeddings_initializer=keras.initializers.RandomNormal(stddev=vector_width**-0.5),
                dtype="float32",
                name="vectors",
            )
        first = "orthogonal" if pretrained else "zeros"
        self.projection = stock.Dense(vector_width, use_bias=False, kernel_initializer=first, name="projection")

    def build(self, input_shape=None):
        self.token_weights = self.add_weight(
            self.first_weights.shape,
            name="token_weights",
            autocast=False,
            initializer=lambda shape, dtype: ops.convert_to_tensor(self.first_weights, dtype),
        )
        if not self.encoder.built:
            self.encoder.build((None, None))
        if self.vectors:
            self.vectors.build((None, None))
        self.projection.build((None, None, self.encoder.width))

    def call(self, inputs, training=False):
        first, second = (self.embed(inputs[name], training=training) for name in ("tokens", "others"))
        return ops.sum(first * second, axis=-1)

    def embed(self, tokens, training=False):
        """Unit vectors (B, D) float32 of token ids (B, L); of an empty text it is zero."""
        return ops.sum(self.parts(tokens, training=training), axis=1)

    def parts(self, tokens, training=False):
        """What each token adds to its text's vector, (B, L, D) float32; nothing where it is padding."""
        mask = ops.not_equal(tokens, 0)
        found = ops.cast(self.projection(self.encoder(tokens, training=training)), "float32")
        if self.vectors:
            found += self.vectors(tokens)
        weights = ops.take(self.token_weights, tokens, axis=0)
        found *= ops.where(mask, weights, 0.0)[:, :, None]
        total = ops.sum(found, axis=1, keepdims=True)  # (B, 1, D)
        return found * ops.rsqrt(ops.maximum(ops.sum(ops.square(total), axis=-1, keepdims=True), 1e-12))


@keras.saving.register_keras_serializable(package="espalier")
class MaskedLanguageModel(keras.Model):
    """Which tokens stood where a text has been hidden (Devlin et al. 2019).

    logits = Norm(gelu(W states)) Eᵀ + b

    Args:
        encoder: what reads.

    Call arguments:
        inputs: a batch with `tokens` (B, L), some of them hidden, and maybe the `places` (B, P) to guess at.

    Returns:
        Logits (B, P, V), without `places` of all tokens (B, L, V).
    """

    def __init__(self, encoder: TextEncoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.transform = stock.Dense(encoder.width, activation="gelu", name="transform")
        self.norm = LayerNormalization(epsilon=1e-5, name="norm")

    def build(self, input_shape=None):
        size, width = self.encoder.settings["vocabulary_size"], self.encoder.width
        self.bias = self.add_weight((size,), name="bias", initializer="zeros")
        if not self.encoder.built:
            self.encoder.build((None, None))
        self.transform.build((None, None, width))
        self.norm.build((None, None, width))

    def call(self, inputs, training=False):
        states = self.encoder(inputs["tokens"], training=training)
        if "places" in inputs:
            states = ops.take_along_axis(states, inputs["places"][:, :, None], axis=1)
        return self.encoder.embedding(self.norm(self.transform(states)), reverse=True) + self.bias
