"""What only the image app knows: its pictures, loss, and how answers are scored and shown."""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console

from apps.image import backbone, data
from apps.image.config import (
    ImageConfig,
    ImageEvaluateOptions,
    ImageExportOptions,
    ImagePredictOptions,
    check_size,
)
from apps.image.model import ImageClassifier
from pipelines import classification, interpretation, losses
from pipelines.attribution import grad_cam, integrated_gradients
from pipelines.batching import epoch_seed
from pipelines.config import override
from pipelines.export.servable import Servable
from pipelines.files import write_atomically
from pipelines.image import pictures
from pipelines.image.decoding import normalise, read_image, read_images, reason
from pipelines.inputs import answered
from pipelines.options import ExplainOptions
from pipelines.task import Report, Task, chosen_splits

EXAMPLES = 8  # pictures that an export is checked with, and a server warms up on
MISTAKES = 25  # worst mistakes that are shown
EXPLAINED = 4  # pictures explained in TensorBoard


class ImageTask(Task):
    """Classification of labelled pictures."""

    config: ImageConfig
    validation_metrics = ("loss", "accuracy")
    takes_files = True
    classes: tuple[str, ...] = ()  # of this run, once they are loaded

    @property
    def _description_file(self) -> Path:
        """Classes, and mean and deviation of each channel."""
        return self.run.assets / "classes.json"

    @property
    def _backbone_file(self) -> Path:
        """The pretrained network: a run needs what it came from no longer."""
        return self.run.assets / "backbone.keras"

    @property
    def _examples(self) -> list[Path]:
        return sorted((self.run.assets / "examples").glob("*"))

    def prepare(self) -> ImageConfig:
        train = self._splits["train"]
        size, channels = pictures.size_and_channels(train)
        channels = 3 if self.config.model.backbone else channels
        self.config = override(
            self.config,
            {"image_size": self.config.image_size or size, "channels": self.config.channels or channels},
        )
        check_size(self.config)
        mean, deviation = pictures.channel_statistics(self._train, self.config.image_size, self.config.channels)
        about = {"classes": list(train.classes), "mean": mean, "deviation": deviation}
        write_atomically(self._description_file, json.dumps(about, indent=2) + "\n")
        if self.config.model.backbone:
            backbone.load(self.config.model.backbone, self.config.image_size, mean, deviation).save(self._backbone_file)
        print(f"{train.source}: {len(self._train)} pictures of {len(train.classes)} classes, {self._shape} pixels")
        for number, index in enumerate(self._shown(EXAMPLES)):
            write_atomically(self.run.assets / "examples" / f"{number}", self._validation.encoded(index))
        return self.config

    @property
    def _shape(self) -> str:
        return f"{self.config.image_size} x {self.config.image_size} x {self.config.channels}"

    def load(self) -> None:
        about = json.loads(self._description_file.read_text("utf-8"))
        self.classes = tuple(about["classes"])
        self.statistics = about["mean"], about["deviation"]
        self._forwards = {}

    @functools.cached_property
    def _splits(self) -> dict[str, pictures.Pictures]:
        found = data.splits(self.config)
        if self.classes:
            classification.require_classes(found["train"].source, found["train"].classes, self.classes)
        return found

    @functools.cached_property
    def _train(self) -> pictures.Pictures:
        return self._decoded(self._splits["train"])

    @functools.cached_property
    def _validation(self) -> pictures.Pictures:
        return self._decoded(self._splits["validation"])

    def _shown(self, most: int) -> list[int]:
        """Some validation pictures, from end to end: they often come class after class."""
        return sorted({int(index) for index in np.linspace(0, len(self._validation) - 1, most)})

    def _decoded(self, found: pictures.Pictures) -> pictures.Pictures:
        config = self.config
        return pictures.decode(found, config.image_size, config.channels, config.on_bad_example, config.cache_megabytes)

    def _batches(self, found: pictures.Pictures, batch_size: int, **options) -> tf.data.Dataset:
        size, channels = self.config.image_size, self.config.channels
        return pictures.batches(found, size, channels, self.statistics, batch_size, **options)

    def build_model(self) -> keras.Model:
        config = self.config
        pretrained = keras.saving.load_model(self._backbone_file, compile=False) if config.model.backbone else None
        return ImageClassifier.from_settings(
            config.model, config.image_size, config.channels, len(self.classes), pretrained
        )

    def pretrained(self, model: keras.Model) -> Sequence[keras.Variable]:
        return model.feature_layers[0].trainable_variables if self.config.model.backbone else ()

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        return self._batches(
            self._train,
            self.config.batch_size,
            shard=self.shard,
            order=pictures.shuffled_order(len(self._train), self.config.seed, epoch),
            augmentation=self.config.augmentation,
            seed=epoch_seed(self.config.seed, epoch),
        )

    def validation_batches(self) -> tf.data.Dataset:
        return self._batches(self._validation, self.config.batch_size, shard=self.shard)

    def steps_per_epoch(self) -> int:
        return -(-len(self._train) // self.config.batch_size)

    def sums(self, outputs, batch):
        target, weight = batch["target"], batch["weight"]  # (B, K), (B,)
        loss = losses.soft_cross_entropy(outputs, target, self.config.label_smoothing)
        right = ops.cast(ops.equal(ops.argmax(outputs, -1), ops.argmax(target, -1)), "float32")
        total = ops.sum(weight)
        return {"loss": (ops.sum(loss * weight), total), "accuracy": (ops.sum(right * weight), total)}

    def report(self, model: keras.Model) -> Report:
        probabilities = self._probabilities(model, self._validation, self.config.batch_size)
        found = self._drawn(self._validation, probabilities)
        explained = {
            f"explain/{number}": self._explained(model, self._validation.encoded(index))[1]
            for number, index in enumerate(self._shown(EXPLAINED))
        }
        return Report(images=found | explained)

    def _drawn(self, found: pictures.Pictures, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        """The confusion matrix and the worst mistakes as pictures."""
        counts = classification.confusion_counts(found.labels, probabilities.argmax(-1), len(self.classes))
        images = {"confusion": interpretation.confusion_matrix_picture(counts, self.classes)}
        worst = classification.worst_mistakes(found.labels, probabilities, MISTAKES)
        if len(worst):
            pixels = pictures.reader(found, self.config.image_size, self.config.channels)(worst).numpy()
            titles = [self._title(found.labels[i], probabilities[i]) for i in worst]
            images["mistakes"] = interpretation.picture_grid(pixels, titles)
        return images

    def _title(self, label: int, probabilities: np.ndarray) -> str:
        best = int(probabilities.argmax())
        return f"{self.classes[best]} {probabilities[best]:.0%}\n({self.classes[label]})"

    def _probabilities(self, model, found: pictures.Pictures, batch_size: int) -> np.ndarray:
        """(N, K) of all pictures."""
        forward = self._forward(model)
        rows = [forward(batch["image"]) for batch in self._batches(found, batch_size)]
        return np.concatenate(rows)[: len(found)]

    def _forward(self, model):
        """From normalised pictures to probabilities, traced once a model."""
        if id(model) not in self._forwards:
            self._forwards[id(model)] = tf.function(lambda images: tf.nn.softmax(model(images, training=False)))
        return self._forwards[id(model)]

    def evaluate(self, model: keras.Model, options: ImageEvaluateOptions) -> dict[str, dict[str, float]]:
        found = {}
        for name in chosen_splits(list(self._splits), options.split):
            split = self._validation if name == "validation" else self._decoded(self._splits[name])
            probabilities = self._probabilities(model, split, options.batch_size)
            counts = classification.confusion_counts(split.labels, probabilities.argmax(-1), len(self.classes))
            figures = classification.ClassFigures.of(counts)
            top = min(options.top_k, len(self.classes))
            scores = {
                "accuracy": classification.accuracy(counts),
                f"top_{top}_accuracy": classification.top_k_accuracy(split.labels, probabilities, top),
                **figures.means(),
            }
            Console().print(figures.table(self.classes, f"{name}: {len(split)} pictures"))
            print(", ".join(f"{metric} {value:.4f}" for metric, value in scores.items()))
            for picture, pixels in self._drawn(split, probabilities).items():
                file = self.run.explain / f"{name}-{picture}.png"
                write_atomically(file, tf.io.encode_png(pixels).numpy())
                print(file)
            found[name] = scores
        return found

    def _read(self, row: str) -> tuple[np.ndarray | None, str]:
        """A file's pixels, or why there are none."""
        try:
            contents = Path(row).read_bytes()
            return read_image(contents, self.config.image_size, self.config.channels).numpy(), ""
        except OSError as error:
            return None, f"{row}: {error.strerror.lower()}; give the path of a picture"
        except tf.errors.InvalidArgumentError as error:
            return None, f"{row}: {reason(error)}"

    def predict(self, model: keras.Model, rows: Sequence[str], options: ImagePredictOptions) -> Iterator[dict]:
        forward = self._forward(model)

        def read(files):
            return zip(*map(self._read, files), strict=True)

        def answer(pixels):
            found = forward(normalise(np.stack(pixels), *self.statistics)).numpy()
            return (self._answer(probabilities, options.top_k) for probabilities in found)

        return answered(rows, options.batch_size, read, answer)

    def _answer(self, probabilities: np.ndarray, top_k: int) -> dict:
        best = np.argsort(-probabilities)[:top_k]
        classes = [self.classes[i] for i in best]
        shares = [round(float(probabilities[i]), 4) for i in best]
        text = ", ".join(f"{name} {share:.1%}" for name, share in zip(classes, shares, strict=True))
        return {"text": text, "classes": classes, "probabilities": shares}

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        for number, row in enumerate(rows, 1):
            _, error = self._read(row)
            answer = {"row": number, "source": Path(row).name}
            if error:
                yield answer | {"error": error}
            else:
                text, picture = self._explained(model, Path(row).read_bytes())
                yield answer | {"text": text, "picture": picture}

    def _explained(self, model, contents: bytes) -> tuple[str, np.ndarray]:
        """The answer to a picture, and a drawing of what it rests on."""
        pixels = read_image(contents, self.config.image_size, self.config.channels)
        found = self._attributed(model, pixels[None])
        best = int(np.argmax(found["probabilities"][0]))
        text = f"{self.classes[best]} {found['probabilities'][0][best]:.1%}"
        return text, interpretation.attribution_picture(
            pixels.numpy(), found["grad_cam"][0].numpy(), found["integrated_gradients"][0].numpy(), text
        )

    def _attributed(self, model, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        """Probabilities of pictures (B, S, S, C), and where the likeliest class comes from."""
        images = normalise(pixels, *self.statistics)
        probabilities = tf.nn.softmax(model(images, training=False))
        best = tf.argmax(probabilities, -1, tf.int32)
        return {
            "probabilities": probabilities,
            "grad_cam": grad_cam(model.features, model.head, images, best),  # (B, h, w)
            # Against a picture of the average colour, which is 0 once normalised.
            "integrated_gradients": integrated_gradients(model, images, best, tf.zeros_like(images)),  # (B, S, S, C)
        }

    def servable(self, model: keras.Model, options: ImageExportOptions) -> Servable:
        names = tf.constant(self.classes)
        top_k = min(options.top_k, len(self.classes))
        contents = tf.TensorSpec([None], tf.string, name="image_bytes")

        def answer(probabilities):
            shares, best = tf.math.top_k(probabilities, top_k)
            return {"classes": tf.gather(names, best), "probabilities": shares}

        def read(image_bytes):
            pixels = read_images(image_bytes, self.config.image_size, self.config.channels)
            # TensorFlow's fused convolutions fail on no rows at all: one is added, and taken off the answers.
            return tf.pad(pixels, [[0, tf.cast(tf.equal(tf.size(image_bytes), 0), tf.int32)], [0, 0], [0, 0], [0, 0]])

        def rows_of(image_bytes, answers):
            return {name: value[: tf.size(image_bytes)] for name, value in answers.items()}

        @tf.function(input_signature=[contents])
        def classify(image_bytes):
            images = normalise(read(image_bytes), *self.statistics)
            return rows_of(image_bytes, answer(tf.nn.softmax(model(images, training=False))))

        @tf.function(input_signature=[contents])
        def explain(image_bytes):
            found = self._attributed(model, read(image_bytes))
            return rows_of(image_bytes, answer(found.pop("probabilities")) | found)

        several = np.array([file.read_bytes() for file in self._examples] + [None], object)[:-1]
        examples = [{"image_bytes": several[:1]}, {"image_bytes": several}]
        return Servable(
            {"serving_default": classify, "explain": explain},
            {"serving_default": examples, "explain": examples[:1]},
        )
