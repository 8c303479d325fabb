"""What can be set in the image app. Every field's comment is its help text.

python -m apps.image train                            handwritten digits, embedded
python -m apps.image train --dataset fashion_mnist    70,000 grey pictures of clothes
python -m apps.image train --dataset cifar10          60,000 colour pictures
python -m apps.image train --train pictures/          a folder a class
python -m apps.image evaluate | predict | explain | export
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from pipelines.config import EarlyStoppingConfig, OptimizerConfig, TrainConfig, require_at_least, require_share
from pipelines.errors import UserError
from pipelines.image.config import Augmentation
from pipelines.options import EvaluateOptions, ExportOptions, PredictOptions


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Convolutional network. --size sets width and blocks; these flags change single fields."""

    # cnn: convolutions and pooling (LeCun et al. 1998), of one size only; resnet: residual blocks (He et al. 2016);
    # mobile: inverted residuals (Sandler et al. 2018).
    architecture: Literal["cnn", "resnet", "mobile"] = "resnet"
    # Pretrained network to fine-tune in place of an architecture: a preset of KerasHub (resnet_18_imagenet), the
    # directory of one, the directory of a model in Hugging Face's format, or a network of keras.applications
    # (MobileNetV2). See also --optimizer.frozen-steps.
    backbone: str = ""
    # Channels of the first stage of resnet and mobile; each further stage has twice as many.
    width: int = 32
    # Blocks in each stage of resnet and mobile.
    blocks: tuple[int, ...] = (1, 1, 1)
    # What follows convolutions: batch keeps statistics of the training data, from the rows of each replica and part;
    # group takes each picture's own, so that it does not matter how a batch is divided.
    normalisation: Literal["batch", "group", "none"] = "batch"
    # Dropout before the last layer.
    dropout: float = 0.0
    # Share of blocks that a picture skips in training, rising to this with depth (Huang et al. 2016).
    stochastic_depth: float = 0.0


@dataclasses.dataclass(frozen=True)
class ImageConfig(TrainConfig):
    """Train a network that classifies pictures."""

    sizes: ClassVar[Mapping[str, Mapping]] = {
        "tiny": {"width": 32, "blocks": (1, 1, 1)},
        "small": {"width": 64, "blocks": (2, 2, 2)},
        "base": {"width": 64, "blocks": (2, 2, 2, 2)},
    }
    automatic: ClassVar[frozenset[str]] = frozenset({"jit", "image_size", "channels"})
    recipes: ClassVar[Mapping[str, Mapping]] = {
        "sample": {
            "epochs": 30,
            "batch_size": 32,
            "jit": "off",  # convolutions gain nothing from XLA on a CPU
            "model": {"architecture": "cnn", "dropout": 0.3},
            "augmentation": {"crop": 1},
            "optimizer": {"learning_rate": 2e-3, "warmup_steps": 100, "schedule": "cosine", "average_decay": 0.98},
        },
        "fashion_mnist": {
            "epochs": 14,
            "batch_size": 128,
            "augmentation": {"flip": True, "crop": 2},
            "optimizer": {"learning_rate": 4e-3, "warmup_steps": 300, "schedule": "cosine", "weight_decay": 0.05},
        },
        "cifar10": {
            "epochs": 30,
            "batch_size": 128,
            "augmentation": {"flip": True, "crop": 4},
            "optimizer": {"learning_rate": 4e-3, "warmup_steps": 400, "schedule": "cosine", "weight_decay": 0.05},
        },
    }

    # Side of the square that pictures are brought to; 0 takes that of the pictures, 224 at most.
    image_size: int = 0
    # 1 for grey, 3 for colour; 0 takes what the pictures have.
    channels: Literal[0, 1, 3] = 0
    # Share of the target that is spread over all classes; the validation loss has it too.
    label_smoothing: float = 0.1
    # A split is kept decoded in memory up to so many megabytes; a larger one is decoded anew in every epoch.
    cache_megabytes: int = 2000

    model: ModelConfig = ModelConfig()
    augmentation: Augmentation = Augmentation()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig(metric="accuracy")
    optimizer: OptimizerConfig = OptimizerConfig()

    def check(self) -> None:
        super().check()
        self.augmentation.check()
        require_at_least(1, self.model, "width", prefix="model.")
        require_at_least(0, self, "image_size", "cache_megabytes")
        if not self.model.blocks or min(self.model.blocks) < 1:
            raise UserError("--model.blocks takes how many blocks each stage has, such as 2 2 2")
        if self.model.backbone and self.channels == 1:
            raise UserError("--model.backbone takes pictures in colour: leave --channels out")
        require_share(self, "label_smoothing")
        require_share(self.model, "dropout", "stochastic_depth", prefix="model.")


def check_size(config: ImageConfig) -> None:
    """Refuses settings that do not go with the pictures' size, once that is known."""
    size = config.image_size
    if config.model.architecture == "cnn" and not config.model.backbone and size < 4:
        raise UserError(f"--image-size {size}: the cnn halves pictures twice; give 4 at least")
    if config.augmentation.crop >= size:
        raise UserError(f"--augmentation.crop {config.augmentation.crop}: takes less than the pictures' {size} pixels")


@dataclasses.dataclass(frozen=True)
class ImageEvaluateOptions(EvaluateOptions):
    """Measure accuracy on held-out pictures; draws the confusion matrix and the worst mistakes."""

    # Also count an answer as right when the class is among this many likeliest ones.
    top_k: int = 5

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "top_k")


@dataclasses.dataclass(frozen=True)
class ImagePredictOptions(PredictOptions):
    """Classify picture files; a folder stands for the files in it."""

    # Classes to name for each picture, likeliest first.
    top_k: int = 3

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "top_k")


@dataclasses.dataclass(frozen=True)
class ImageExportOptions(ExportOptions):
    """Write a SavedModel that takes JPEG, PNG, BMP, GIF and WebP bytes, for TensorFlow Serving."""

    # Classes in an answer, likeliest first.
    top_k: int = 5

    def check(self) -> None:
        super().check()
        require_at_least(1, self, "top_k")
