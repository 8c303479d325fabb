"""What can be set in the translate app. Every field's comment is its help text.

python -m apps.translate train                       sample grammar, about 3 minutes on two cores
python -m apps.translate train --dataset multi30k    29,000 image captions, English to German, about an hour
python -m apps.translate train --model.kind rnn      LSTMs with additive attention, on either data set
python -m apps.translate evaluate | predict | explain | export
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import tyro

from pipelines.config import (
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainConfig,
    require_ascending,
    require_at_least,
    require_share,
)
from pipelines.errors import UserError
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Encoder-decoder network. --size sets widths, layers and heads; these flags change single fields."""

    # transformer: Vaswani et al. (2017); rnn: bidirectional LSTMs, and LSTMs with attention (Bahdanau et al. 2015).
    kind: Literal["transformer", "rnn"] = "transformer"
    # Encoder layers.
    encoder_layers: int = 4
    # Decoder layers.
    decoder_layers: int = 4
    # Width of embeddings and layers.
    width: int = 128
    # Width of the feed-forward part of a layer; transformer only.
    feedforward: int = 256
    # Attention heads; they divide the width; transformer only.
    heads: int = 4
    # Dropout on embeddings and on the output of each layer or sub-layer.
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class TranslateConfig(TrainConfig):
    """Train a model that translates."""

    sizes: ClassVar[Mapping[str, Mapping]] = {
        "tiny": {"encoder_layers": 4, "decoder_layers": 4, "width": 128, "feedforward": 256, "heads": 4},
        "small": {"encoder_layers": 6, "decoder_layers": 6, "width": 256, "feedforward": 1024, "heads": 4},
        "base": {"encoder_layers": 6, "decoder_layers": 6, "width": 512, "feedforward": 2048, "heads": 8},
    }
    # About as many parameters each, with a vocabulary of 8,000. LSTMs go step by step: fewer layers, and wider ones.
    rnn_sizes: ClassVar[Mapping[str, Mapping]] = {
        "tiny": {"encoder_layers": 2, "decoder_layers": 2, "width": 160},
        "small": {"encoder_layers": 3, "decoder_layers": 3, "width": 384},
        "base": {"encoder_layers": 4, "decoder_layers": 4, "width": 704},
    }
    automatic: ClassVar[frozenset[str]] = frozenset({"jit", "vocabulary_size", "buckets"})
    recipes: ClassVar[Mapping[str, Mapping]] = {
        "sample": {
            "epochs": 4,
            "max_steps": 2200,
            "batch_size": 32,
            "jit": "on",  # measuring would take a tenth of so short a training
            "vocabulary_type": "bpe",  # a small lexicon: whole words, where unigram finds their parts
            "vocabulary_size": 3000,
            "model": {"dropout": 0.0},
            "optimizer": {
                "learning_rate": 3e-3,
                "warmup_steps": 300,
                "schedule": "cosine",
                "average_decay": 0.98,
            },
        },
        "multi30k": {
            "epochs": 20,
            "model": {"dropout": 0.2},
            "optimizer": {"learning_rate": 3e-3, "warmup_steps": 800},
        },
    }

    # Languages of a public data set, source first.
    language_pair: str = "en-de"
    # Pieces in the joint SentencePiece vocabulary; 0 takes 8,000, or fewer where the text has fewer.
    vocabulary_size: int = 0
    # How pieces are found: unigram (Kudo 2018) or byte-pair merges (Sennrich et al. 2016).
    vocabulary_type: Literal["unigram", "bpe"] = "unigram"
    # Longest text in pieces. Longer training pairs are left out; a longer text to translate is refused.
    max_length: int = 128
    # Static lengths to which batches are padded; empty chooses them from the data.
    buckets: tuple[int, ...] = ()
    # Share of the target distribution that is spread over the whole vocabulary.
    label_smoothing: float = 0.1

    model: ModelConfig = ModelConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig(metric="bleu")
    optimizer: OptimizerConfig = OptimizerConfig()

    def size_settings(self) -> Mapping:
        return self.rnn_sizes[self.size] if self.model.kind == "rnn" else super().size_settings()

    def check(self) -> None:
        super().check()
        width, heads = self.model.width, self.model.heads
        if self.model.kind == "rnn":  # half of it for each direction
            if width < 2 or width % 2:
                raise UserError(f"--model.width {width}: takes an even number")
        elif heads < 1 or width < 2 or width % heads or width % 2:
            raise UserError(f"--model.width {width}: takes an even number that --model.heads {heads} divide")
        require_at_least(1, self.model, "encoder_layers", "decoder_layers", "feedforward", prefix="model.")
        require_at_least(4, self, "max_length")
        require_ascending(self, "buckets", self.max_length)
        require_share(self, "label_smoothing")
        require_share(self.model, "dropout", prefix="model.")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How a translation is sought."""

    # Hypotheses that are followed at a time; 1 takes the likeliest token each time.
    beam: int = 4
    # How much longer translations are favoured: scores are divided by ((5 + tokens) / 6) to this power.
    length_penalty: float = 1.0

    def check(self) -> None:
        if not 1 <= self.beam <= 64:
            raise UserError(f"--beam {self.beam}: takes a number from 1 to 64")
        if not 0 <= self.length_penalty <= 10:
            raise UserError(f"--length-penalty {self.length_penalty}: takes a number from 0 to 10")


GREEDY = SearchConfig(beam=1)
# Flags without a prefix: --beam, not --search.beam.
Search = Annotated[SearchConfig, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True)
class TranslateEvaluateOptions(EvaluateOptions):
    """Measure BLEU and chrF on held-out data."""

    # Also score a word-by-word dictionary and the nearest training sentence; auto does so for the sample.
    baselines: Literal["auto", "on", "off"] = "auto"
    search: Search = SearchConfig()


@dataclasses.dataclass(frozen=True)
class TranslatePredictOptions(PredictOptions):
    """Translate texts."""

    # Translations to give of each text, best first.
    n_best: int = 1
    search: Search = SearchConfig()

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "n_best")
        if self.n_best > self.search.beam:
            raise UserError(f"--n-best {self.n_best}: only --beam {self.search.beam} hypotheses are followed")


@dataclasses.dataclass(frozen=True)
class TranslateExplainOptions(ExplainOptions):
    """Draw what the model looked at while it translated."""

    search: Search = SearchConfig()


@dataclasses.dataclass(frozen=True)
class TranslateExportOptions(ExportOptions):
    """Write a SavedModel that takes texts, for TensorFlow Serving."""

    search: Search = SearchConfig()
