"""What a plan is made of: a model, a data set in numbers, and devices."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from apps.nlp.config import ModelConfig, NlpConfig, TaskName
from pipelines import config
from pipelines.config import require_at_least
from pipelines.errors import UserError


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """What training a transformer takes: parameters, FLOPs a token, memory by part, days. Nothing is trained."""

    # What it is to learn; see `train --help`.
    task: TaskName = "generate"
    # Named model size; single fields by their own flag (--model.layers 24).
    size: Literal["tiny", "small", "base"] = "base"
    # Symbols in the vocabulary.
    vocabulary_size: int = 32_000
    # Symbols in a sequence.
    max_length: int = 1024
    # Classes, of --task classify.
    classes: int = 2
    # Sequences in a step, across all devices; a pair of texts is two.
    batch_size: int = 512
    # Devices to train on.
    devices: int = 8
    # Type in which layers compute; weights stay float32.
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "mixed_bfloat16"
    # Keep only each block's input for the backward pass and compute the rest of it again.
    remat: bool = False
    # Compute a step's gradients in N parts, one after the other.
    accumulate: int = 1
    # Train low-rank adapters of this rank only; 0 trains all weights.
    lora: int = 0
    # Tokens to train on; 0 takes 20 a parameter (Hoffmann et al. 2022).
    tokens: int = 0
    # What a device can do at best, in 10^12 operations a second; 0 times matrix products on this machine.
    teraflops: float = 0.0
    # Share of --teraflops that training reaches.
    utilisation: float = 0.4
    # Memory of a device in GB (10^9 bytes), to see whether it is enough; 0 leaves that out.
    device_memory: float = 0.0
    # Train this network for some steps on this machine, on short sequences, and compare with what was counted for them.
    measure: bool = False
    # Print one JSON object.
    json: bool = False

    model: ModelConfig = ModelConfig()

    def check(self) -> None:
        """Raises UserError for what `train` would refuse too, and for values that no plan can be made of."""
        require_at_least(1, self, "vocabulary_size", "devices", "classes")
        require_at_least(0, self, "tokens", "teraflops", "device_memory")
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation {self.utilisation}: takes a share above 0 and up to 1")
        if self.model.encoder != "transformer" or self.model.backbone:
            raise UserError("plan: counts transformers only; leave --model.encoder and --model.backbone out")
        if self.measure and self.task != "generate":
            raise UserError(f"--measure: trains a language model; with --task {self.task}, leave it out")
        as_trained = NlpConfig(
            **{
                name: getattr(self, name)
                for name in ("task", "size", "vocabulary_size", "max_length", "batch_size", "precision", "accumulate")
            },
            model=self.model,
        )
        as_trained.check()
        as_trained.check_replicas(self.devices)
        require_at_least(0, self, "lora")

    @property
    def rows(self) -> int:
        """Sequences that a device computes at a time."""
        return self.batch_size // (self.devices * self.accumulate)

    @property
    def kv_width(self) -> int:
        """Width of all keys of a token, and of all its values."""
        return self.model.width // self.model.heads * (self.model.kv_heads or self.model.heads)

    @property
    def guesses(self) -> int:
        """Symbols of a sequence at which a symbol is guessed: all, or those that pretraining hides."""
        return math.ceil(NlpConfig().mask_share * self.max_length) if self.task == "pretrain" else self.max_length


def parse(arguments: Sequence[str], program: str) -> PlanOptions:
    """The options, in which flags of the model override what its size says."""
    draft = config.parse(PlanOptions(), arguments, program)
    sizes = NlpConfig(task=draft.task, size=draft.size).size_settings()
    options = config.parse(PlanOptions(model=ModelConfig(**sizes)), arguments, program)
    options.check()
    return options
