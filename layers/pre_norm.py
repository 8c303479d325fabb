"""A way around a layer: what deep stacks of recurrent or convolutional layers need to be trainable."""

import keras

from layers.dropout import Dropout
from layers.normalisation import LayerNormalization


@keras.saving.register_keras_serializable(package="espalier")
class PreNormResidual(keras.layers.Layer):
    """A layer over a sequence, what it reads normalised, and a way around it.

    y = x + Drop(layer(Norm(x)))

    Args:
        layer: from (B, T, d) to (B, T, d); it is called with the mask.
        dropout: share of its outputs that training drops.

    Call arguments:
        x: shape (B, T, d).
        mask: boolean, shape (B, T), true where x is real.
        training: whether dropout is active.

    Returns:
        y, (B, T, d).

    Example:
        >>> block = PreNormResidual(LSTM(8, return_sequences=True), dropout=0.1)
        >>> block(keras.ops.zeros((2, 5, 8))).shape
        TensorShape([2, 5, 8])

    References:
        He et al. 2016, Identity Mappings in Deep Residual Networks. https://arxiv.org/abs/1603.05027
        Xiong et al. 2020, On Layer Normalization in the Transformer Architecture. https://arxiv.org/abs/2002.04745
    """

    def __init__(self, layer, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.dropout = dropout
        self.norm = LayerNormalization(epsilon=1e-5, dtype=self.dtype_policy, name="norm")
        self.layer = layer
        self.branch_dropout = Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, x_shape):
        self.norm.build(x_shape)
        self.layer.build(x_shape)

    def call(self, x, mask=None, training=None):
        return x + self.branch_dropout(self.layer(self.norm(x), mask=mask), training=training)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        layer.pop("build_config", None)  # this layer builds it
        return {**super().get_config(), "layer": layer, "dropout": self.dropout}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"layer": keras.saving.deserialize_keras_object(config["layer"])})
