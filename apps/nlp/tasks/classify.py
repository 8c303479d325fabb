"""What only classification knows: classes and their weights, its loss, and how answers are scored and shown."""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console

from apps.nlp import baselines, data
from apps.nlp.config import NlpConfig
from apps.nlp.counting import log_ratios
from apps.nlp.data import Examples
from apps.nlp.model import TextClassifier
from apps.nlp.pages import contribution_page
from apps.nlp.pictures import contribution_picture
from apps.nlp.rows import ragged_of
from apps.nlp.tasks.reading import ReadingTask
from pipelines import classification, interpretation, losses
from pipelines.attribution import integrated_gradients
from pipelines.bucketing import by_length
from pipelines.errors import UserError
from pipelines.export.servable import Servable
from pipelines.files import write_array, write_atomically
from pipelines.inputs import answered
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions
from pipelines.task import Report, chosen_splits

EXAMPLES = 8  # texts that an export is checked with, and a server warms up on
EXPLAINED = 3  # texts explained in TensorBoard
MISTAKES = 10  # worst mistakes in TensorBoard
TRUST = 0.3  # naive Bayes takes words for independent, and so is too sure: what it says counts so much at first


class ClassifyTask(ReadingTask):
    """Texts into classes, one each, or any number."""

    unit = "texts"
    validation_metrics = ("loss", "accuracy")
    classes: tuple[str, ...] = ()  # of this run, once they are loaded

    @property
    def _classes_file(self) -> Path:
        """Names of the classes, and what each weighs in the loss."""
        return self.run.assets / "classes.json"

    @property
    def _evidence_file(self) -> Path:
        """(V, K) what each token says for each class at first."""
        return self.run.assets / "evidence.npy"

    def prepare(self) -> NlpConfig:
        train, config = self._splits["train"], self.config
        classes = data.class_names(train, config.multi_label)
        counts = self._targets(train, classes).sum(axis=0)
        weights = np.ones(len(classes))
        if config.class_weights == "balanced":
            weights = counts.sum() / (len(classes) * np.maximum(counts, 1))
        about = {"classes": classes, "weights": weights.tolist()}
        write_atomically(self._classes_file, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        shown = list(self._splits["validation"].texts[:EXAMPLES])
        write_atomically(self._examples_file, json.dumps(shown, ensure_ascii=False) + "\n")
        config = super().prepare()
        tokens, columns = self._rows("train")
        ratios = log_ratios(tokens["tokens"], columns["target"], self.tokenizer.vocabulary_size, config.multi_label)
        # A pretrained encoder knows words already; counts of these very rows explain them too well to leave it much.
        write_array(self._evidence_file, (0.0 if config.model.backbone else TRUST) * ratios)
        return config

    def _said(self, examples: Examples) -> str:
        return f"{len(examples):,} texts of {len(self.classes)} classes"

    def load(self) -> None:
        super().load()
        about = json.loads(self._classes_file.read_text("utf-8"))
        self.classes, self.class_weights = tuple(about["classes"]), np.array(about["weights"], np.float32)
        self._forwards = {}

    @functools.cached_property
    def _splits(self) -> dict[str, Examples]:
        found = super()._splits
        if self.classes:
            train = found["train"]
            names = data.class_names(train, self.config.multi_label)
            classification.require_classes(train.source, names, self.classes)
        return found

    def _targets(self, examples: Examples, classes: Sequence[str]) -> np.ndarray:
        """(N, K) float32, 1 for each class of a text."""
        places = {name: place for place, name in enumerate(classes)}
        found = np.zeros((len(examples), len(classes)), np.float32)
        for row, label in zip(found, examples.labels, strict=True):
            for name in data.classes_of(label, self.config.multi_label):
                row[places[name]] = 1.0
        return found

    def _columns(self, examples: Examples) -> dict[str, np.ndarray]:
        return {"target": self._targets(examples, self.classes)}

    def build_model(self) -> keras.Model:
        settings = self.config.model
        model = TextClassifier(self._encoder(), np.load(self._evidence_file), settings.dropout, settings.word_dropout)
        model({"tokens": ops.ones((1, 2), "int32")})
        return model

    def sums(self, outputs, batch):
        target, weight = batch["target"], batch["weight"]  # (B, K), (B,)
        logits = ops.cast(outputs, "float32")
        smoothing = self.config.label_smoothing
        if self.config.multi_label:
            smoothed = (1 - smoothing) * target + smoothing / 2
            # Each class is a question of its own: yes or no.
            asked = ops.softplus(logits) - smoothed * logits
            loss = ops.sum(asked * self.class_weights, axis=-1)
            right = ops.all(ops.equal(logits > 0, target > 0.5), axis=-1)
            rows = weight
        else:
            loss = losses.soft_cross_entropy(logits, target, smoothing)
            right = ops.equal(ops.argmax(logits, -1), ops.argmax(target, -1))
            rows = weight * ops.sum(target * self.class_weights, axis=-1)
        if "teacher" in batch:
            share = self.config.distillation.share
            loss = (1 - share) * loss + share * self._from_teacher(logits, batch["teacher"])
        return {
            "loss": (ops.sum(loss * rows), ops.sum(rows)),
            "accuracy": (ops.sum(ops.cast(right, "float32") * weight), ops.sum(weight)),
        }

    def _from_teacher(self, logits, teacher):
        """(B,) how far logits (B, K) are from the teacher's."""
        temperature = self.config.distillation.temperature
        if self.config.multi_label:  # each class a question of two answers
            logits, teacher = (ops.stack([x, ops.zeros_like(x)], axis=-1) for x in (logits, teacher))
            return ops.sum(losses.distillation(logits, teacher, temperature), axis=-1)
        return losses.distillation(logits, teacher, temperature)

    def check_teacher(self, teacher):
        if list(teacher.classes) != list(self.classes) or teacher.config.multi_label != self.config.multi_label:
            raise UserError(f"--teacher {self.config.teacher}: has other classes ({', '.join(teacher.classes)})")

    def outputs(self, model, examples, batch_size):
        """(N, K) logits."""
        if id(model) not in self._forwards:  # traced once a model
            self._forwards[id(model)] = tf.function(
                lambda tokens: model({"tokens": tokens}, training=False),
                input_signature=[tf.TensorSpec([None, None], tf.int32)],
            )
        forward, ids = self._forwards[id(model)], self._ids(examples.texts)
        found = np.zeros((len(ids), len(self.classes)), np.float32)
        for chosen in by_length([len(row) for row in ids], batch_size):
            found[chosen] = forward(ragged_of([ids[i] for i in chosen]).to_tensor()).numpy()
        return found

    def _probabilities_of(self, logits):
        return tf.sigmoid(logits) if self.config.multi_label else tf.nn.softmax(logits)

    def _probabilities(self, model, examples: Examples, batch_size: int) -> np.ndarray:
        """(N, K) of texts, in their order."""
        return self._probabilities_of(self.outputs(model, examples, batch_size)).numpy()

    def report(self, model: keras.Model) -> Report:
        split = self._splits["validation"]
        probabilities = self._probabilities(model, split, self.config.batch_size)
        targets = self._targets(split, self.classes)
        images = {}
        if not self.config.multi_label:
            labels = targets.argmax(-1)
            counts = classification.confusion_counts(labels, probabilities.argmax(-1), len(self.classes))
            images["confusion"] = interpretation.confusion_matrix_picture(counts, self.classes)
        for number in range(min(EXPLAINED, len(split))):
            _, title, tokens, attribution = self._explained(model, split.texts[number])
            images[f"explain/{number}"] = contribution_picture(tokens, attribution, title)
        return Report(images=images, texts={"mistakes": self._mistakes(split, targets, probabilities)})

    def _mistakes(self, split: Examples, targets: np.ndarray, probabilities: np.ndarray) -> str:
        """The texts on which the model is most sure of something wrong, as Markdown."""
        wrong = np.abs(probabilities - targets).max(axis=1)
        worst = [index for index in np.argsort(-wrong, kind="stable")[:MISTAKES] if wrong[index] > 0.5]
        lines = [f"- {self._text(probabilities[i])} (is {split.labels[i]}): {split.texts[i]}" for i in worst]
        return "\n".join(lines) or "no mistakes"

    def evaluate(self, model: keras.Model, options: EvaluateOptions) -> dict[str, dict[str, float]]:
        found = {}
        baseline_of = baselines.classifier(self._splits["train"], self._splits["validation"], self.config.multi_label)
        for name in chosen_splits(list(self._splits), options.split):
            split = self._splits[name]
            probabilities = self._probabilities(model, split, options.batch_size)
            targets = self._targets(split, self.classes)
            if self.config.multi_label:
                scores = _macro(classification.multi_label_figures(targets, probabilities > 0.5))
            else:
                labels, predicted = targets.argmax(-1), probabilities.argmax(-1)
                counts = classification.confusion_counts(labels, predicted, len(self.classes))
                figures = classification.ClassFigures.of(counts)
                Console().print(figures.table(self.classes, f"{name}: {len(split)} texts"))
                scores = {"accuracy": classification.accuracy(counts), **_macro(figures.means())}
                picture = interpretation.confusion_matrix_picture(counts, self.classes)
                file = self.run.explain / f"{name}-confusion.png"
                write_atomically(file, tf.io.encode_png(picture).numpy())
                print(file)
            right = (probabilities > 0.5) == (targets > 0.5) if self.config.multi_label else labels == predicted
            sure = np.maximum(probabilities, 1 - probabilities) if self.config.multi_label else probabilities.max(-1)
            scores["calibration_error"] = classification.calibration_error(sure.ravel(), right.ravel())
            print(", ".join(f"{metric} {value:.4f}" for metric, value in scores.items()))
            baseline = baseline_of(split)
            print("TF-IDF baseline: " + ", ".join(f"{metric} {value:.4f}" for metric, value in baseline.items()))
            found[name] = scores | {f"baseline_{metric}": value for metric, value in baseline.items()}
        return found

    def predict(self, model: keras.Model, rows: Sequence[str], options: PredictOptions) -> Iterator[dict]:
        def read(texts):
            return texts, map(self._error, texts)

        def answer(texts):
            return map(self._answer, self._probabilities(model, Examples(tuple(texts)), options.batch_size))

        return answered(rows, options.batch_size, read, answer)

    def _answer(self, probabilities: np.ndarray) -> dict:
        best = np.argsort(-probabilities, kind="stable")
        shares = [round(float(probabilities[i]), 4) for i in best]
        return {
            "text": self._text(probabilities),
            "classes": [self.classes[i] for i in best],
            "probabilities": shares,
        }

    def _text(self, probabilities: np.ndarray) -> str:
        best = np.argsort(-probabilities, kind="stable")
        chosen = [i for i in best if probabilities[i] > 0.5] if self.config.multi_label else best[:1]
        return ", ".join(f"{self.classes[i]} {probabilities[i]:.1%}" for i in chosen) or "none"

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        for row, text in enumerate(rows, 1):
            answer = {"row": row, "source": text}
            if error := self._error(text):
                yield answer | {"error": error}
                continue
            said, title, tokens, attribution = self._explained(model, text)
            picture, page = (draw(tokens, attribution, title) for draw in (contribution_picture, contribution_page))
            yield answer | {"text": said, "picture": picture, "page": page}

    def _explained(self, model, text: str) -> tuple[str, str, list[str], np.ndarray]:
        """The answer to a text, a title for what it rests on, and each token (L) with what it adds (L,)."""
        found = self._attributed(model, tf.constant([text]))
        probabilities = found["probabilities"].numpy()[0]
        tokens = [token.decode("utf-8", errors="replace") for token in found["tokens"].numpy()[0]]
        said = self._text(probabilities)
        title = f"{said}   (for and against {self.classes[int(probabilities.argmax())]})"
        return said, title, tokens, found["attribution"].numpy()[0]

    def _attributed(self, model, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Probabilities of texts (B,), their tokens (B, L), and what each token adds to the likeliest class (B, L)."""
        ids = self.tokens(texts)
        mask = ids != 0
        # From unknown tokens: from zeros, whose norm is nothing, the first step of the path would be nearly all of it.
        embedded, nothing = (tf.cast(model.encoder.embedding(x), tf.float32) for x in (ids, tf.ones_like(ids)))
        probabilities = self._probabilities_of(model({"tokens": ids}, training=False))
        attribution = integrated_gradients(
            lambda points, mask: model.classify(points, mask),
            embedded,
            tf.argmax(probabilities, -1, tf.int32),
            nothing,
            also=(mask,),
        )
        attribution = tf.where(mask, tf.reduce_sum(attribution, axis=-1), 0.0)
        attribution += tf.gather(model.weigh(ids), tf.argmax(probabilities, -1), axis=2, batch_dims=1)
        return {"probabilities": probabilities, "tokens": self.tokenizer.to_pieces(ids), "attribution": attribution}

    def servable(self, model: keras.Model, options: ExportOptions) -> Servable:
        text = tf.TensorSpec([None], tf.string, name="text")
        names = tf.constant(self.classes)

        def ranked(probabilities):
            shares, best = tf.math.top_k(probabilities, len(self.classes))
            return {"classes": tf.gather(names, best), "probabilities": shares}

        @tf.function(input_signature=[text])
        def classify(text):
            return ranked(self._probabilities_of(model({"tokens": self.tokens(text)}, training=False)))

        @tf.function(input_signature=[text])
        def explain(text):
            found = self._attributed(model, text)
            return ranked(found.pop("probabilities")) | found

        # Lengths and batches as they will come: one text, and several with an empty one.
        several = np.array([*json.loads(self._examples_file.read_text("utf-8")), ""], object)
        examples = [{"text": several[:1]}, {"text": several}]
        return Servable(
            {"serving_default": classify, "explain": explain},
            {"serving_default": examples, "explain": examples},
            [self.tokenizer],
        )


def _macro(figures: dict[str, float]) -> dict[str, float]:
    """Figures in which those that are means over the classes are called so."""
    return {f"macro_{name}" if name in ("precision", "recall", "f1") else name: x for name, x in figures.items()}
