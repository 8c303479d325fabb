"""The networks, from the classic one to inverted residuals, each in a few lines of the project's layers."""

from collections.abc import Sequence

import keras
from keras import layers as stock

from apps.image.config import ModelConfig
from layers import (
    Conv2D,
    Dropout,
    GlobalAveragePooling2D,
    InvertedResidualBlock,
    MaxPooling2D,
    ResidualBlock,
    normalisation,
)

LARGE = 96  # pictures of this side and more are made smaller before the first stage


def cnn() -> tuple[list, list]:
    """The classic: conv 32, pool, conv 64, pool, dense 128 (LeCun et al. 1998, in today's sizes)."""
    features = []
    for number, filters in enumerate((32, 64), 1):
        features.append(Conv2D(filters, 3, padding="same", name=f"conv_{number}"))
        # The largest of four rectified values is the largest, rectified: in this order a quarter of the work.
        features += [MaxPooling2D(2, name=f"pool_{number}"), stock.ReLU(name=f"relu_{number}")]
    return features, [stock.Flatten(name="flatten"), stock.Dense(128, activation="relu", name="dense")]


def _stem(settings: ModelConfig, size: int) -> list:
    if size < LARGE:
        return [Conv2D(settings.width, 3, padding="same", use_bias=False, name="stem")]
    stem = Conv2D(settings.width, 7, strides=2, padding="same", use_bias=False, name="stem")
    return [stem, MaxPooling2D(3, strides=2, padding="same", name="stem_pool")]


def stages(settings: ModelConfig, size: int) -> tuple[list, list]:
    """Blocks stage after stage: each stage but the first halves the picture and doubles the channels.

    The blocks leave their sum as it is (pre-activation), so one more normalisation and activation end the last one.
    """
    block = {"resnet": ResidualBlock, "mobile": InvertedResidualBlock}[settings.architecture]
    blocks, total = [], sum(settings.blocks)
    for stage, count in enumerate(settings.blocks):
        for number in range(count):
            blocks.append(
                block(
                    settings.width * 2**stage,
                    strides=2 if stage and not number else 1,
                    normalisation=settings.normalisation,
                    stochastic_depth=settings.stochastic_depth * len(blocks) / max(total - 1, 1),
                    name=f"stage_{stage + 1}_{number + 1}",
                )
            )
    channels = settings.width * 2 ** (len(settings.blocks) - 1)
    ending = [normalisation(settings.normalisation, channels, name="norm"), stock.ReLU(name="relu")]
    return [*_stem(settings, size), *blocks, *ending], [GlobalAveragePooling2D(name="pool")]


class Backbone(keras.layers.Layer):
    """A pretrained network in inference mode.

    Its batch normalisation keeps the statistics of the pretraining, which little data and small batches would spoil.
    """

    def __init__(self, network: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def call(self, images, training=None):
        return self.network(images, training=False)


class ImageClassifier(keras.Model):
    """A network in two parts: what it sees where, and what it makes of that.

    Args:
        features: layers from pictures (B, S, S, C) to feature maps (B, h, w, c).
        head: layers from feature maps to a vector (B, d).
        classes: how many there are.
        dropout: share of the vector that is dropped before the last layer.

    Call arguments:
        inputs: a batch with `image` (B, S, S, C) float32, normalised; or the pictures themselves.

    Returns:
        Logits (B, classes), float32.
    """

    def __init__(self, features: Sequence, head: Sequence, classes: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.feature_layers = list(features)
        self.head_layers = [*head, Dropout(dropout, name="dropout")]
        self.logits = stock.Dense(classes, dtype="float32", name="logits")

    @classmethod
    def from_settings(
        cls,
        settings: ModelConfig,
        size: int,
        channels: int,
        classes: int,
        backbone: keras.Model | None = None,
    ) -> "ImageClassifier":
        """Builds the network that the settings describe, around a pretrained one where there is one."""
        if backbone is not None:
            parts = [Backbone(backbone, name="backbone")], [GlobalAveragePooling2D(name="pool")]
        else:
            parts = cnn() if settings.architecture == "cnn" else stages(settings, size)
        model = cls(*parts, classes, settings.dropout)
        model(keras.ops.zeros((2, size, size, channels)))
        return model

    def features(self, images, training=False):
        """Feature maps (B, h, w, c) of pictures."""
        for layer in self.feature_layers:
            images = layer(images, training=training)
        return images

    def head(self, features, training=False):
        """Logits (B, K) of feature maps."""
        for layer in self.head_layers:
            features = layer(features, training=training)
        return self.logits(features)

    def call(self, inputs, training=False):
        images = inputs["image"] if isinstance(inputs, dict) else inputs
        return self.head(self.features(images, training), training)
