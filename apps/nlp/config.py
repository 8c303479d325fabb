"""What can be set in the nlp app. Every field's comment is its help text.

python -m apps.nlp train                                                        sentiment of sentences of its own
python -m apps.nlp train --dataset sst2                                         or sst2_phrases, ag_news
python -m apps.nlp train --task similarity --dataset stsb                       how alike two sentences are
python -m apps.nlp train --task generate --dataset tinyshakespeare              a language model
python -m apps.nlp train --task pretrain --train text.txt                       an encoder for --init-from
python -m apps.nlp train --train reviews.csv --text-column review --label-column stars
python -m apps.nlp evaluate | predict | explain | export
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from apps.nlp.recipes import recipe
from pipelines.config import (
    EarlyStoppingConfig,
    OptimizerConfig,
    TrainConfig,
    require_ascending,
    require_at_least,
    require_at_most,
    require_share,
)
from pipelines.errors import UserError
from pipelines.options import ExportOptions, PredictOptions

TaskName = Literal["classify", "similarity", "generate", "pretrain"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Network. --size sets widths, layers and heads; these flags change single fields."""

    # What reads the text: windows of words (Kim 2014), bidirectional LSTMs, or self-attention. A language model is a
    # transformer.
    encoder: Literal["cnn", "rnn", "transformer"] = "transformer"
    # Pretrained encoder to fine-tune in its place: a preset of KerasHub, the directory of one, or the directory of a
    # model in Hugging Face's format. It brings its own vocabulary.
    backbone: str = ""
    # Width of embeddings and layers.
    width: int = 128
    # Layers.
    layers: int = 2
    # Attention heads; they divide the width.
    heads: int = 4
    # Heads of keys and values, each of which serves several of the others (Ainslie et al. 2023); 0: as many as heads.
    kv_heads: int = 0
    # Width of the feed-forward part of a transformer's layer.
    feedforward: int = 512
    # Words that the widest window of a cnn spans.
    kernel_size: int = 5
    # Width of the vector of a sentence, of --task similarity.
    vector_width: int = 512
    # Dropout on embeddings and on the output of each layer or sub-layer.
    dropout: float = 0.1
    # Share of the words that training hides from the encoder, each as a whole (Iyyer et al. 2015).
    word_dropout: float = 0.0


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """How a --teacher is learnt from."""

    # Share of the loss that is the difference from the teacher; the rest is that from the labels.
    share: float = 0.5
    # Above 1, more of what the teacher says about unlikely answers is learnt.
    temperature: float = 2.0


@dataclasses.dataclass(frozen=True)
class NlpConfig(TrainConfig):
    """Train a model that classifies, compares or writes text."""

    sizes: ClassVar[Mapping[str, Mapping]] = {
        "tiny": {"width": 128, "layers": 2, "heads": 4, "feedforward": 512},
        "small": {"width": 256, "layers": 4, "heads": 4, "feedforward": 1024},
        "base": {"width": 768, "layers": 12, "heads": 12, "feedforward": 3072},
    }
    # A language model's: some 0.8, 10 and 120 million parameters with a small vocabulary.
    generator_sizes: ClassVar[Mapping[str, Mapping]] = {
        "tiny": {"width": 128, "layers": 4, "heads": 4, "kv_heads": 2, "feedforward": 512},
        "small": {"width": 384, "layers": 6, "heads": 6, "kv_heads": 2, "feedforward": 1536},
        "base": {"width": 768, "layers": 16, "heads": 12, "kv_heads": 4, "feedforward": 3072},
    }
    automatic: ClassVar[frozenset[str]] = frozenset({"jit", "vocabulary_size", "buckets"})

    # What to learn: classes of texts, how alike two texts are, the next symbol of a text, or words that were hidden.
    task: TaskName = "classify"
    # Columns of your own files, by the names in their first line or, in JSONL, of their keys.
    text_column: str = "text"
    label_column: str = "label"  # Column of the class, or of several with | between them.
    first_column: str = "text_a"  # Column of the first text of a pair.
    second_column: str = "text_b"  # Column of the second text of a pair.
    score_column: str = "score"  # Column of how alike the two are.
    # A text may have several labels, or none: a | b.
    multi_label: bool = False
    # Weigh rare classes as much as common ones.
    class_weights: Literal["none", "balanced"] = "none"
    # What a text is cut into: SentencePiece's pieces of words, or characters.
    units: Literal["pieces", "characters"] = "pieces"
    # With --units pieces, take capitals for small letters; a language model writes them, and so never does.
    fold_case: bool = True
    # Symbols in the vocabulary; 0 takes 8,000 pieces, or fewer where the text has fewer.
    vocabulary_size: int = 0
    # Longest text in symbols: the rest of a longer one is not read. Of a language model, how far it looks back.
    max_length: int = 128
    # Static lengths to which batches are padded; empty chooses them from the data.
    buckets: tuple[int, ...] = ()
    # Run whose encoder to begin with, and whose vocabulary to take: one of --task pretrain, generate or any other.
    init_from: Path | None = None
    # Run whose answers to learn from besides the labels (Hinton et al. 2015): a larger model of the same task.
    teacher: Path | None = None
    # Train low-rank adapters of this rank in place of the weights they stand beside (Hu et al. 2022); 0 trains all.
    lora: int = 0
    # Share of the target that is spread over all classes; the validation loss has it too.
    label_smoothing: float = 0.0
    # Share of the symbols that pretraining hides.
    mask_share: float = 0.15

    distillation: DistillationConfig = DistillationConfig()
    model: ModelConfig = ModelConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()

    def recipe(self) -> Mapping:
        return recipe(self.task, "" if self.train else self.dataset, bool(self.model.backbone))

    def size_settings(self) -> Mapping:
        return (self.generator_sizes if self.task == "generate" else self.sizes)[self.size]

    def check(self) -> None:
        super().check()
        model = self.model
        sizes = ("width", "layers", "heads", "feedforward", "kernel_size", "vector_width")
        require_at_least(1, model, *sizes, prefix="model.")
        require_at_least(0, model, "kv_heads", prefix="model.")
        require_at_least(0, self, "vocabulary_size", "lora")
        require_at_least(2, self, "max_length")
        if model.width % model.heads or model.width // model.heads % 2:
            raise UserError(f"--model.width {model.width}: takes an even number for each of {model.heads} heads")
        if model.kv_heads and model.heads % model.kv_heads:
            raise UserError(f"--model.kv-heads {model.kv_heads}: takes a divisor of --model.heads {model.heads}")
        require_ascending(self, "buckets", self.max_length)
        require_share(model, "dropout", "word_dropout", prefix="model.")
        require_share(self, "label_smoothing", "mask_share")
        if not 0 <= self.distillation.share <= 1 or self.distillation.temperature <= 0:
            raise UserError("--distillation.share takes a share from 0 to 1, --distillation.temperature more than 0")
        if self.teacher and self.task == "pretrain":
            raise UserError("--teacher goes with --task classify, similarity and generate; pretrain has no answers")
        if model.backbone and self.task not in ("classify", "similarity"):
            raise UserError(f"--model.backbone goes with --task classify and similarity, not with {self.task}")
        if self.init_from and model.backbone:
            raise UserError("--init-from and --model.backbone: an encoder begins with one of the two")
        if self.lora and not (self.init_from or model.backbone):
            raise UserError("--lora adapts what was trained before: give --init-from or --model.backbone")
        if self.lora and not model.backbone and model.encoder != "transformer":
            raise UserError("--lora goes with --model.encoder transformer")
        if self.task == "pretrain" and not self.mask_share:
            raise UserError("--mask-share 0: hides nothing, and so there is nothing to learn")
        if self.task != "classify" and (self.multi_label or self.label_smoothing or self.class_weights != "none"):
            raise UserError("--multi-label, --label-smoothing and --class-weights go with --task classify")
        if self.task == "generate" and model.encoder != "transformer":
            raise UserError(f"--model.encoder {model.encoder}: a language model is a transformer; leave that out")
        if model.encoder == "rnn" and model.width % 2:
            raise UserError(f"--model.width {model.width}: takes an even number, half of it for each direction")


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How the continuation of a prompt is drawn."""

    # Tokens at most.
    max_tokens: int = 200
    # Below 1 the likely is made likelier, above 1 less likely; 0 takes the likeliest token each time.
    temperature: float = 0.8
    # Draw from the k likeliest tokens only; 0 draws from all.
    top_k: int = 0
    # Draw from the fewest tokens that together have this probability.
    top_p: float = 1.0
    # Seed of the first prompt's draws; the next prompt's is the next number.
    seed: int = 0

    def check(self) -> None:
        require_at_least(1, self, "max_tokens")
        require_at_least(0, self, "temperature", "top_k", "seed")
        require_at_most(2**31 - 1, self, "max_tokens", "seed")  # what the graph takes
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p}: takes a share above 0 and up to 1")

    def check_run(self, config: NlpConfig) -> None:
        for field in dataclasses.fields(self):
            if config.task != "generate" and getattr(self, field.name) != field.default:
                flag = f"--{field.name.replace('_', '-')}"
                raise UserError(f"{flag}: goes with --task generate; this run learnt to {config.task}")


# Flags without a prefix: --temperature, not --sampling.temperature.
Sampling = Annotated[SamplingConfig, tyro.conf.arg(name="")]


@dataclasses.dataclass(frozen=True)
class NlpPredictOptions(PredictOptions):
    """Classify texts; compare pairs, two texts with a tab between them; continue prompts; or guess hidden words."""

    # Of similarity: a file whose lines are compared with each input, to name the nearest.
    search: Path | None = None
    # How many lines to name.
    nearest: int = 5
    sampling: Sampling = SamplingConfig()

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "nearest")

    def check_run(self, config: NlpConfig) -> None:
        self.sampling.check_run(config)
        if self.search and config.task != "similarity":
            raise UserError(f"--search: goes with --task similarity; this run learnt to {config.task}")


@dataclasses.dataclass(frozen=True)
class NlpExportOptions(ExportOptions):
    """Write a SavedModel that takes texts, for TensorFlow Serving."""

    # Of generate: tokens at most that a request can ask for.
    most_tokens: int = 1000
    sampling: Sampling = SamplingConfig()

    def check(self) -> None:
        super().check()
        require_at_least(self.sampling.max_tokens, self, "most_tokens")
        require_at_most(2**31 - 1, self, "most_tokens")

    def check_run(self, config: NlpConfig) -> None:
        self.sampling.check_run(config)
        if self.most_tokens != NlpExportOptions.most_tokens and config.task != "generate":
            raise UserError(f"--most-tokens: goes with --task generate; this run learnt to {config.task}")
