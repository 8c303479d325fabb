"""Token embedding whose matrix also serves as the output projection of a language model or translator."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="espalier")
class TiedEmbedding(keras.layers.Layer):
    """One matrix E for both ends of a model: ids to vectors, and vectors back to logits.

    forward: y = E[ids] · sqrt(d)        reverse: logits = x Eᵀ

    E starts as N(0, 1/d), which gives embeddings of unit variance after the scaling and logits of unit
    variance from layer-normalised vectors.

    Args:
        vocabulary_size: number of rows of E.
        dim: d, the width of a vector.
        scale: multiply the embeddings (not the logits) by sqrt(d), as the Transformer does.
        mask_zero: id 0 is padding; the layer attaches the mask `ids != 0` to its output.

    Call arguments:
        inputs: integer ids of shape (B, T), or, with `reverse=True`, vectors of shape (B, T, d).
        reverse: return logits instead of embeddings.

    Returns:
        Shape (B, T, d), or logits of shape (B, T, vocabulary_size), in the compute dtype.

    Example:
        >>> embedding = TiedEmbedding(vocabulary_size=100, dim=8)
        >>> x = embedding(keras.ops.array([[5, 7, 2]]))
        >>> embedding(x, reverse=True).shape
        TensorShape([1, 3, 100])

    References:
        Press & Wolf 2017, Using the Output Embedding to Improve Language Models.
        https://arxiv.org/abs/1608.05859
        Vaswani et al. 2017, Attention Is All You Need, section 3.4. https://arxiv.org/abs/1706.03762
    """

    def __init__(self, vocabulary_size, dim, scale=True, mask_zero=False, **kwargs):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.dim = dim
        self.scale = scale
        self.mask_zero = mask_zero
        self.supports_masking = True

    def build(self, inputs_shape=None):
        # autocast=False: rows are gathered in float32 and cast afterwards, so that the gradients of a
        # frequent token are summed in float32 and not in half precision.
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.vocabulary_size, self.dim),
            initializer=keras.initializers.RandomNormal(stddev=self.dim**-0.5),
            autocast=False,
        )

    def call(self, inputs, reverse=False):
        if reverse:
            return ops.matmul(inputs, self.projection())  # (B, T, V)
        vectors = ops.take(self.embeddings, ops.cast(inputs, "int32"), axis=0)  # (B, T, d)
        if self.scale:
            vectors = vectors * self.dim**0.5
        return ops.cast(vectors, self.compute_dtype)

    def projection(self):
        """Eᵀ (d, V), from vectors to logits, in the compute dtype.

        Who multiplies by it many times, a few rows each, as decoding does, had better ask for it once: laid out anew it
        takes half the time of E read across its rows.
        """
        return ops.transpose(ops.cast(self.embeddings, self.compute_dtype))

    def compute_mask(self, inputs, mask=None):
        # In reverse the inputs are vectors, and their mask passes through.
        if not self.mask_zero or keras.backend.is_float_dtype(inputs.dtype):
            return mask
        return ops.not_equal(inputs, 0)

    def compute_output_shape(self, inputs_shape, reverse=False):
        if reverse:
            return (*inputs_shape[:-1], self.vocabulary_size)
        return (*inputs_shape, self.dim)

    def compute_output_spec(self, inputs, reverse=False):
        shape = self.compute_output_shape(inputs.shape, reverse=reverse)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "dim": self.dim,
            "scale": self.scale,
            "mask_zero": self.mask_zero,
        }
