"""What only similarity knows: pairs and their scores, the loss, and how answers are scored, shown and searched."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from apps.nlp import baselines
from apps.nlp.config import NlpConfig
from apps.nlp.counting import inverse_document_frequencies
from apps.nlp.data import Examples
from apps.nlp.model import SentenceEncoder
from apps.nlp.pictures import shares_picture
from apps.nlp.tasks.reading import ReadingTask
from pipelines.bucketing import by_length
from pipelines.errors import UserError
from pipelines.examples import report
from pipelines.export.servable import Servable
from pipelines.files import write_array, write_atomically
from pipelines.inputs import answered
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions
from pipelines.task import Report, chosen_splits, print_metrics
from pipelines.text.tables import decode, not_text

EXAMPLES = 8  # pairs that an export is checked with, and a server warms up on
SHOWN = 10  # pairs in TensorBoard
SEPARATOR = "\t"  # between the two texts of a pair on the command line
TWO_TEXTS = "takes two texts with a tab between them"


class SimilarityTask(ReadingTask):
    """How alike two texts are, by the angle between their vectors."""

    unit = "pairs"
    validation_metrics = ("loss", "pearson", "spearman")
    maximize = frozenset({"pearson", "spearman"})

    @property
    def _scale_file(self) -> Path:
        """Least and greatest score of training."""
        return self.run.assets / "scale.json"

    @property
    def _rarity_file(self) -> Path:
        """(V,) what each token weighs at first."""
        return self.run.assets / "rarity.npy"

    def prepare(self) -> NlpConfig:
        train = self._splits["train"]
        least, most = float(train.scores.min()), float(train.scores.max())
        if least == most:
            raise UserError(f"{train.source}: all pairs have the score {least:g}; there is nothing to learn")
        write_atomically(self._scale_file, json.dumps({"least": least, "most": most}) + "\n")
        validation = self._splits["validation"]
        shown = list(zip(validation.texts, validation.others, strict=True))[:EXAMPLES]
        write_atomically(self._examples_file, json.dumps(shown, ensure_ascii=False) + "\n")
        config = super().prepare()
        tokens, _ = self._rows("train")
        texts = [*tokens["tokens"], *tokens["others"]]
        write_array(self._rarity_file, inverse_document_frequencies(texts, self.tokenizer.vocabulary_size))
        return config

    def _said(self, examples: Examples) -> str:
        return f"{len(examples):,} pairs"

    def load(self) -> None:
        super().load()
        about = json.loads(self._scale_file.read_text("utf-8"))
        self.least, self.most = about["least"], about["most"]
        self._embedders = {}

    def _columns(self, examples: Examples) -> dict[str, np.ndarray]:
        return {"score": ((examples.scores - self.least) / (self.most - self.least)).astype(np.float32)}

    def build_model(self) -> keras.Model:
        settings = self.config.model
        known = bool(settings.backbone)
        model = SentenceEncoder(self._encoder(), np.load(self._rarity_file), settings.vector_width, pretrained=known)
        model({name: ops.ones((1, 2), "int32") for name in ("tokens", "others")})
        return model

    def sums(self, outputs, batch):
        weight, score = batch["weight"], batch["score"]
        cosine = ops.cast(outputs, "float32")
        loss = ops.square(cosine - score)
        if "teacher" in batch:
            share = self.config.distillation.share
            loss = (1 - share) * loss + share * ops.square(cosine - batch["teacher"])
        return {"loss": (ops.sum(loss * weight), ops.sum(weight))}

    def _embed(self, model):
        """From texts (B,) to unit vectors (B, d), traced once a model."""
        if id(model) not in self._embedders:
            self._embedders[id(model)] = tf.function(
                lambda texts: model.embed(self.tokens(texts), training=False),
                input_signature=[tf.TensorSpec([None], tf.string)],
            )
        return self._embedders[id(model)]

    def _vectors(self, model, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """(N, d) of texts, those of like length together."""
        embed = self._embed(model)
        batches = by_length([len(text) for text in texts], batch_size)
        found = np.concatenate([embed(tf.constant([texts[i] for i in chosen])).numpy() for chosen in batches])
        return found[np.argsort(np.concatenate(batches))]

    def outputs(self, model, examples, batch_size):
        """(N,) cosines."""
        first, second = (self._vectors(model, texts, batch_size) for texts in (examples.texts, examples.others))
        return np.sum(first * second, axis=1)

    def report(self, model: keras.Model) -> Report:
        split = self._splits["validation"]
        cosines = self.outputs(model, split, self.config.batch_size)
        gaps = self._scaled(cosines) - split.scores
        worst = np.argsort(-np.abs(gaps), kind="stable")[:SHOWN]
        lines = [
            f"- {self._scaled(cosines[i]):.2f} (is {split.scores[i]:.2f}): {split.texts[i]} / {split.others[i]}"
            for i in worst
        ]
        return Report(baselines.correlations(split.scores, cosines), {"mistakes": "\n".join(lines)})

    def _scaled(self, cosines):
        """Cosines on the scale of the training scores."""
        return self.least + np.clip(cosines, 0, 1) * (self.most - self.least)

    def evaluate(self, model: keras.Model, options: EvaluateOptions) -> dict[str, dict[str, float]]:
        found = {}
        for name in chosen_splits(list(self._splits), options.split):
            split = self._splits[name]
            scores = baselines.correlations(split.scores, self.outputs(model, split, options.batch_size))
            baseline = baselines.similarity(self._splits["train"], split)
            print_metrics(f"{name}: {len(split)} pairs", {"model": scores, "TF-IDF cosine": baseline})
            found[name] = scores | {f"baseline_{metric}": value for metric, value in baseline.items()}
        return found

    def _pair(self, row: str) -> tuple[str, str] | None:
        parts = row.split(SEPARATOR)
        return tuple(parts) if len(parts) == 2 and all(map(str.strip, parts)) else None

    def predict(self, model: keras.Model, rows: Sequence[str], options) -> Iterator[dict]:
        if options.search:
            return self._search(model, rows, options)

        def read(rows):
            pairs = list(map(self._pair, rows))
            return pairs, [None if pair else f"{TWO_TEXTS}, or --search FILE" for pair in pairs]

        def answer(pairs):
            vectors = self._vectors(model, [text for pair in pairs for text in pair], options.batch_size)
            for cosine in np.prod(vectors.reshape(len(pairs), 2, -1), axis=1).sum(axis=-1).tolist():
                yield {"text": f"{cosine:.4f}", "similarity": round(cosine, 4)}

        return answered(rows, options.batch_size, read, answer)

    def _search(self, model, rows: Sequence[str], options) -> Iterator[dict]:
        """The lines of a file that are nearest to each row."""
        lines = _lines(options.search, options.on_bad_example)
        known = self._vectors(model, lines, options.batch_size)

        def read(texts):
            return texts, map(self._error, texts)

        def answer(texts):
            for cosines in self._vectors(model, texts, options.batch_size) @ known.T:
                best = np.argsort(-cosines, kind="stable")[: options.nearest]
                found = [
                    {"text": f"{cosines[i]:.4f}  {lines[i]}", "line": lines[i], "similarity": float(cosines[i])}
                    for i in best
                ]
                yield found[0] | ({"others": found[1:]} if found[1:] else {})

        yield from answered(rows, options.batch_size, read, answer)

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        for row, text in enumerate(rows, 1):
            answer = {"row": row, "source": text}
            if not (pair := self._pair(text)):
                yield answer | {"error": TWO_TEXTS}
                continue
            shares, *tokens = self._attributed(model, *(tf.constant([side]) for side in pair))
            pieces = [[piece.decode("utf-8", errors="replace") for piece in side.numpy()[0]] for side in tokens]
            said = f"{float(tf.reduce_sum(shares)):z.4f}"
            picture = shares_picture(shares.numpy()[0], *pieces, f"{said}, the sum of what pairs of tokens add")
            yield answer | {"text": said, "picture": picture}

    def _attributed(self, model, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What each pair of tokens adds to the cosine (B, L, M), exactly; and both texts' tokens (B, L), (B, M)."""
        ids = self.tokens(first), self.tokens(second)
        one, other = (model.parts(side) for side in ids)
        return tf.einsum("bld,bmd->blm", one, other), *(self.tokenizer.to_pieces(side) for side in ids)

    def servable(self, model: keras.Model, options: ExportOptions) -> Servable:
        text, first, second = (tf.TensorSpec([None], tf.string, name=name) for name in ("text", "text_a", "text_b"))

        @tf.function(input_signature=[first, second])
        def similarity(text_a, text_b):
            vectors = model.embed(self.tokens(text_a)), model.embed(self.tokens(text_b))
            return {"similarity": tf.reduce_sum(vectors[0] * vectors[1], axis=-1)}

        @tf.function(input_signature=[text])
        def embed(text):
            return {"vector": model.embed(self.tokens(text))}

        @tf.function(input_signature=[first, second])
        def explain(text_a, text_b):
            shares, tokens_a, tokens_b = self._attributed(model, text_a, text_b)
            return {"shares": shares, "tokens_a": tokens_a, "tokens_b": tokens_b}

        # Lengths and batches as they will come: one pair, and several with an empty text.
        pairs = np.array([*json.loads(self._examples_file.read_text("utf-8")), ["", "a"]], object)
        examples = [{"text_a": rows[:, 0], "text_b": rows[:, 1]} for rows in (pairs[:1], pairs)]
        return Servable(
            {"serving_default": similarity, "embed": embed, "explain": explain},
            {"serving_default": examples, "embed": [{"text": pairs[:, 0]}], "explain": examples},
            [self.tokenizer],
        )


def _lines(path: Path, on_bad_example: str) -> list[str]:
    """The lines of a file to search that are not empty."""
    try:
        lines = {f"{path}, line {number}": line for number, line in enumerate(decode(path).split("\n"), 1)}
    except UserError as error:
        raise UserError(f"--search {error}") from None
    lines = {name: line.strip() for name, line in lines.items() if line.strip()}
    bad = {name: wrong for name, line in lines.items() if (wrong := not_text(line))}
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for answers
        report(str(path), bad, len(lines), on_bad_example)
    return [line for name, line in lines.items() if name not in bad]
