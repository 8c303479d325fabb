"""The network: spectrogram, convolutions that shorten it, an encoder, and scores of symbols for each step."""

import keras
from keras import layers as stock
from keras import ops

from apps.speech.config import ModelConfig, SpecAugmentConfig
from layers import (
    LSTM,
    Bidirectional,
    ConformerBlock,
    Conv1D,
    Dropout,
    LayerNormalization,
    LogMelSpectrogram,
    SpecAugment,
)


def steps(settings: ModelConfig, sample_rate: int, samples: int) -> int:
    """How many steps T a network makes of so many samples: whole hops, and then halved, rounding up each time."""
    frames = -(-samples // round(sample_rate * settings.hop_ms / 1000))
    return -(-frames // settings.subsampling)


class SpeechRecognizer(keras.Model):
    """From waveforms to a distribution over symbols at each step, for connectionist temporal classification.

    Args:
        settings: sizes.
        augmentation: masks over the spectrogram while training.
        sample_rate: of the audio, in Hz.
        symbols: V, the blank (id 0) included.

    Call arguments:
        inputs: a batch with `audio` (B, N) float32 and `audio_length` (B,) integers, in samples; rows end in padding.

    Returns:
        `logits` (B, T, V) float32 and `lengths` (B,) int32, steps that are not padding.
    """

    def __init__(
        self, settings: ModelConfig, augmentation: SpecAugmentConfig, sample_rate: int, symbols: int, **kwargs
    ):
        super().__init__(**kwargs)
        self.settings = settings
        self.sample_rate = sample_rate
        width = settings.width
        self.spectrogram = LogMelSpectrogram(
            sample_rate, settings.frame_ms, settings.hop_ms, settings.bands, name="spectrogram"
        )
        self.spec_augment = SpecAugment(
            augmentation.frequency_masks,
            augmentation.frequency_width,
            augmentation.time_masks,
            augmentation.time_width,
            name="spec_augment",
        )
        # Each halves the steps. Causal, so that where they are cut does not depend on how much padding follows.
        self.convolutions = [
            Conv1D(width, 3, strides=2, padding="causal", activation="relu", name=f"convolution_{number}")
            for number in range(1, settings.subsampling.bit_length())
        ]
        self.projection = stock.Dense(width, name="projection")
        self.dropout = Dropout(settings.dropout, name="dropout")
        make = {"rnn": _recurrent, "conformer": _conformer}[settings.encoder]
        self.encoder = [make(settings, f"block_{number}") for number in range(1, settings.layers + 1)]
        self.norm = LayerNormalization(epsilon=1e-5, name="norm")
        self.logits = stock.Dense(symbols, dtype="float32", name="logits")

    @classmethod
    def from_settings(cls, settings, augmentation, sample_rate, symbols) -> "SpeechRecognizer":
        """Builds the network that the settings describe."""
        model = cls(settings, augmentation, sample_rate, symbols)
        model({"audio": ops.zeros((2, sample_rate)), "audio_length": ops.full((2,), sample_rate, "int32")})
        return model

    def steps(self, samples: int) -> int:
        """How many steps a clip of so many samples has."""
        return steps(self.settings, self.sample_rate, samples)

    def mel(self, audio, audio_length):
        """The spectrogram (B, T, M) of clips, and which of its frames are real (B, T)."""
        real = ops.arange(ops.shape(audio)[1])[None] < audio_length[:, None]  # (B, N)
        return self.spectrogram(audio, mask=real), self.spectrogram.compute_mask(audio, real)

    def call(self, inputs, training=False):
        x, mask = self.mel(inputs["audio"], inputs["audio_length"])
        x = self.spec_augment(x, mask=mask, training=training)
        for convolution in self.convolutions:
            x, mask = convolution(x, mask=mask), convolution.compute_mask(x, mask)
        x = self.dropout(self.projection(x), training=training)
        for block in self.encoder:
            x = block(x, mask=mask, training=training)
        return {"logits": self.logits(self.norm(x)), "lengths": ops.sum(ops.cast(mask, "int32"), axis=1)}


class RecurrentBlock(stock.Layer):
    """A bidirectional LSTM and a way around it:  y = x + Drop(W BiLSTM(Norm(x)))."""

    def __init__(self, width, dropout, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.norm = LayerNormalization(epsilon=1e-5, name="norm")
        self.recurrent = Bidirectional(LSTM(width, return_sequences=True, name="forward"), name="recurrent")
        self.output_projection = stock.Dense(width, name="output")
        self.dropout = Dropout(dropout, name="dropout")

    def call(self, x, mask=None, training=None):
        y = self.recurrent(self.norm(x), mask=mask, training=training)
        return x + self.dropout(self.output_projection(y), training=training)


def _recurrent(settings: ModelConfig, name: str):
    return RecurrentBlock(settings.width, settings.dropout, name=name)


def _conformer(settings: ModelConfig, name: str):
    return ConformerBlock(
        settings.heads,
        settings.feedforward,
        settings.kernel_size,
        dropout=settings.dropout,
        name=name,
    )
