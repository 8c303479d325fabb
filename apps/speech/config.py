"""What can be set in the speech app. Every field's comment is its help text.

python -m apps.speech train                        sentences spoken by espeak-ng, made on first use
python -m apps.speech train --dataset fsdd         spoken digits, single and connected
python -m apps.speech train --dataset ljspeech     read sentences of one speaker
python -m apps.speech train --train clips.jsonl    a manifest, or an LJSpeech-style metadata.csv
python -m apps.speech evaluate | predict | explain | export
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.audio.config import Augmentation
from pipelines.audio.headers import LEAST_RATE
from pipelines.config import (
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainConfig,
    require_ascending,
    require_at_least,
    require_share,
)
from pipelines.errors import UserError
from pipelines.options import EvaluateOptions, ExportOptions, PredictOptions


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Network. --size sets width and layers; these flags change single fields."""

    # rnn: bidirectional LSTMs; conformer: self-attention and convolution (Gulati et al. 2020).
    encoder: Literal["rnn", "conformer"] = "rnn"
    # Width of the encoder.
    width: int = 128
    # Blocks of the encoder.
    layers: int = 2
    # Attention heads of a conformer block.
    heads: int = 4
    # Hidden width of a conformer block's feed-forward parts.
    feedforward: int = 256
    # Steps that a conformer block's convolution spans.
    kernel_size: int = 15
    # Bands of the mel spectrogram.
    bands: int = 64
    # Length of a frame in milliseconds.
    frame_ms: float = 25.0
    # From one frame to the next in milliseconds.
    hop_ms: float = 10.0
    # How many times fewer steps than frames the encoder works on.
    subsampling: Literal[1, 2, 4, 8] = 4
    # Dropout in each block.
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks over training spectrograms (Park et al. 2019)."""

    # Stretches of frequency to mask.
    frequency_masks: int = 1
    # The widest mask of frequencies, in bands.
    frequency_width: int = 12
    # Stretches of time to mask.
    time_masks: int = 2
    # The longest mask of time, in frames.
    time_width: int = 25


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How transcripts are sought in what the model hears."""

    # Prefixes that the beam search keeps; 1 takes the likeliest symbol of each step.
    beams: int = 16
    # Weight of how symbols follow one another in the training transcripts.
    language_model: float = 0.0
    # Added for each symbol, which makes up for what the language model takes.
    symbol_bonus: float = 0.0
    # File of known words, which the search prefers.
    words: Path | None = None
    # Taken off for each word that is not among them, in nats.
    word_penalty: float = 5.0

    def check(self) -> None:
        require_at_least(1, self, "beams", prefix="search.")
        require_at_least(0, self, "language_model", "word_penalty", prefix="search.")
        if self.beams == 1 and (self.words or self.language_model):
            raise UserError("--search.words and --search.language-model need a beam search: --search.beams 16")
        if self.symbol_bonus and not self.language_model:
            raise UserError("--search.symbol-bonus goes with --search.language-model, such as 0.5")


GREEDY = SearchConfig(beams=1)


@dataclasses.dataclass(frozen=True)
class SpeechConfig(TrainConfig):
    """Train a network that writes down what is said."""

    sizes: ClassVar[Mapping[str, Mapping]] = {
        "tiny": {"width": 128, "layers": 2, "feedforward": 256},
        "small": {"width": 192, "layers": 4, "feedforward": 512},
        "base": {"width": 256, "layers": 8, "feedforward": 1024},
    }
    automatic: ClassVar[frozenset[str]] = frozenset({"jit", "sample_rate", "vocabulary_size", "buckets"})
    recipes: ClassVar[Mapping[str, Mapping]] = {
        "sample": {
            "epochs": 28,
            "batch_size": 16,
            "jit": "on",  # measuring would take a tenth of so short a training
            "augmentation": {"speed": 0.1},
            "optimizer": {"learning_rate": 3e-3, "schedule": "cosine", "average_decay": 0.99},
        },
        "fsdd": {
            "epochs": 15,
            "batch_size": 32,
            "model": {"subsampling": 2, "bands": 40},
            "augmentation": {"speed": 0.1, "noise": 0.5},
            "optimizer": {"learning_rate": 3e-3, "schedule": "cosine", "average_decay": 0.99},
        },
        "ljspeech": {
            "epochs": 60,
            "batch_size": 8,
            "augmentation": {"speed": 0.1},
            "model": {"dropout": 0.2},
            "optimizer": {"schedule": "cosine", "average_decay": 0.99},
        },
    }

    # Rate to which recordings are brought, in Hz; 0 takes that of the data set, 16000 of your own files.
    sample_rate: int = 0
    # Longer clips are bad examples.
    most_seconds: float = 30.0
    # Speaker of fsdd whose recordings are left out of training and become the test.
    hold_out_speaker: str = ""
    # What the network writes: characters, or pieces of words found by SentencePiece.
    units: Literal["characters", "pieces"] = "characters"
    # Pieces in the vocabulary; 0 takes 256, or fewer where the transcripts have fewer.
    vocabulary_size: int = 0
    # Lengths, in samples, to which the clips of a batch are padded; empty: four that suit the data.
    buckets: tuple[int, ...] = ()

    model: ModelConfig = ModelConfig()
    augmentation: Augmentation = Augmentation()
    spec_augment: SpecAugmentConfig = SpecAugmentConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig(metric="wer")
    optimizer: OptimizerConfig = OptimizerConfig()

    def check(self) -> None:
        super().check()
        self.augmentation.check()
        require_at_least(
            1, self.model, "width", "layers", "heads", "feedforward", "kernel_size", "bands", prefix="model."
        )
        require_at_least(0, self, "sample_rate", "vocabulary_size")
        if self.vocabulary_size and self.units == "characters":
            raise UserError("--vocabulary-size goes with --units pieces; there are as many characters as are written")
        require_at_least(0.1, self, "most_seconds")
        require_ascending(self, "buckets")
        require_share(self.model, "dropout", prefix="model.")
        if self.model.width % self.model.heads and self.model.encoder == "conformer":
            raise UserError(f"--model.width {self.model.width}: --model.heads {self.model.heads} must divide it")
        if self.model.kernel_size % 2 == 0:
            raise UserError(f"--model.kernel-size {self.model.kernel_size}: takes an odd number")
        if 0 < self.sample_rate < LEAST_RATE:
            raise UserError(f"--sample-rate {self.sample_rate}: takes {LEAST_RATE} or more, in Hz")
        for name in ("frame_ms", "hop_ms"):
            if getattr(self.model, name) < 1:
                flag = f"--model.{name}".replace("_", "-")
                raise UserError(f"{flag} {getattr(self.model, name):g}: takes milliseconds, 1 or more")
        if self.model.hop_ms > self.model.frame_ms:
            raise UserError("--model.hop-ms must be no more than --model.frame-ms")
        masks = ("frequency_masks", "frequency_width", "time_masks", "time_width")
        require_at_least(0, self.spec_augment, *masks, prefix="spec-augment.")
        if self.spec_augment.frequency_width > self.model.bands:
            raise UserError(
                f"--spec-augment.frequency-width {self.spec_augment.frequency_width}: takes no more than the "
                f"{self.model.bands} of --model.bands"
            )


@dataclasses.dataclass(frozen=True)
class SpeechEvaluateOptions(EvaluateOptions):
    """Measure word and character error rates on held-out recordings; shows the worst transcripts."""

    search: SearchConfig = SearchConfig()
    # Worst transcripts to show.
    worst: int = 5

    def check(self) -> None:
        super().check()
        require_at_least(0, self, "worst")


@dataclasses.dataclass(frozen=True)
class SpeechPredictOptions(PredictOptions):
    """Transcribe WAV files of any length, those of up to 20 s in batches; a folder stands for the files in it."""

    search: SearchConfig = SearchConfig()


@dataclasses.dataclass(frozen=True)
class SpeechExportOptions(ExportOptions):
    """Write a SavedModel that takes WAV bytes, for TensorFlow Serving."""

    search: SearchConfig = SearchConfig()
    # Longest recording that is taken.
    most_seconds: float = 60.0

    def check(self) -> None:
        super().check()
        require_at_least(0.1, self, "most_seconds")
