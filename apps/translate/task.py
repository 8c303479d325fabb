"""What only the translate app knows: its data, vocabulary, loss, and how answers are scored and shown."""

import functools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console
from rich.table import Table

from apps.translate import data
from apps.translate.baselines import DictionaryBaseline, NearestNeighbourBaseline
from apps.translate.config import TranslateConfig, TranslateEvaluateOptions
from apps.translate.model import TranslationTransformer
from apps.translate.scores import scores, signatures
from apps.translate.translator import Translator
from pipelines import losses
from pipelines.batching import bucket_boundaries
from pipelines.config import override
from pipelines.errors import UserError
from pipelines.interpretation import attention_heatmap
from pipelines.options import PredictOptions
from pipelines.task import Report, Task
from pipelines.text import parallel
from pipelines.text.batches import token_batches
from pipelines.text.tokenizer import Tokenizer, train_sentencepiece

VOCABULARY_SAMPLE = 50_000  # pairs that the vocabulary and the bucket lengths are chosen from
SHUFFLE_BUFFER = 50_000  # pairs; a smaller corpus is shuffled whole
VALIDATION_DECODED = 500  # pairs of the validation split that are translated at each validation
SHOWN = 8  # translations shown in TensorBoard
PICTURED = 2  # attention maps shown in TensorBoard


class TranslateTask(Task):
    """Translation of sentence pairs."""

    config: TranslateConfig
    unit = "tokens"
    validation_metrics = ("loss", "accuracy", "bleu", "chrf")
    maximize = frozenset({"accuracy", "bleu", "chrf"})

    _cached_translator: Translator | None = None

    @property
    def _model_file(self):
        return self.run.assets / "sentencepiece.model"

    def prepare(self) -> TranslateConfig:
        # Inspecting also checks the rows, before anything is spent on them.
        sample = self._train[1].sample
        sentences = [sentence for pair in sample for sentence in pair]
        size = train_sentencepiece(
            sentences, self._model_file, self.config.vocabulary_size, self.config.vocabulary_type
        )
        tokenizer = Tokenizer(self._model_file)
        lengths = np.maximum(
            *(tokenizer.tokenize(tf.constant(side)).row_lengths().numpy() for side in zip(*sample, strict=True))
        )
        longest = self.config.max_length
        if lengths.min() > longest:
            raise UserError(f"all pairs are longer than --max-length {longest}; the shortest takes {lengths.min()}")
        buckets = self.config.buckets or bucket_boundaries(lengths, longest)
        left_out = float((lengths > buckets[-1]).mean())
        if left_out:
            print(f"{left_out:.2%} of the pairs are longer than {buckets[-1]} pieces and left out of training")
        self.config = override(self.config, {"vocabulary_size": size, "buckets": buckets})
        self._fingerprint_file.write_text(self._fingerprint + "\n")
        return self.config

    @property
    def _fingerprint_file(self):
        return self.run.assets / "training-data.txt"

    @property
    def _fingerprint(self) -> str:
        """What tells one training corpus from another, without reading it twice."""
        text, found, _ = self._train
        sizes = ", ".join(f"{file.name}: {file.stat().st_size} bytes" for file in text.files)
        return f"{sizes}, {found.rows} rows, {found.good} to train on"

    def load(self) -> None:
        self.tokenizer = Tokenizer(self._model_file)

    @functools.cached_property
    def _splits(self):
        return data.splits(self.config, self.run)

    @functools.cached_property
    def _train(self) -> tuple[parallel.ParallelText, parallel.Inspection, list[tuple[str, str]]]:
        """The training text, what is in it, and its held-out pairs where the user gave no validation file."""
        text = self._splits["train"]
        found = parallel.inspect(
            text,
            on_bad_example=self.config.on_bad_example,
            sample_size=VOCABULARY_SAMPLE,
            seed=self.config.seed,
            show_progress=True,
        )
        print(found.summary())
        if "validation" in self._splits:
            return text, found, []
        found, held_out = data.hold_out(text, found)
        print(f"no --validation given: {len(held_out)} training pairs are held out for it")
        return text, found, held_out

    @functools.cached_property
    def _validation(self) -> list[tuple[str, str]]:
        if "validation" not in self._splits:
            return self._train[2]
        return data.read_split(self._splits["validation"], self.config.on_bad_example)

    def build_model(self) -> keras.Model:
        size = self.tokenizer.vocabulary_size
        return TranslationTransformer.from_settings(self.config.model, size, self.tokenizer.start_id, self.config.remat)

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        text, found, _ = self._train
        expected = self._fingerprint_file.read_text().strip()
        if expected != self._fingerprint:
            raise UserError(
                f"{text}: not what this run was trained on ({expected}; now {self._fingerprint}); "
                "restore the file, or choose a new --run-dir"
            )
        return token_batches(
            parallel.dataset(text, found),
            self.tokenizer,
            self.config.buckets,
            self.config.batch_size,
            shuffle_buffer=SHUFFLE_BUFFER,
            seed=self.config.seed,
            epoch=epoch,
            shard=self.shard,
        )

    def validation_batches(self) -> tf.data.Dataset:
        pairs = tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*self._validation, strict=True))))
        return token_batches(pairs, self.tokenizer, self.config.buckets, self.config.batch_size, shard=self.shard)

    def steps_per_epoch(self) -> int:
        # Each bucket's last batch is filled up; how full it is is known only after tokenisation.
        return -(-self._train[1].good // self.config.batch_size) + len(self.config.buckets) // 2

    @property
    def batch_shapes(self) -> int:
        return len(self.config.buckets)

    def sums(self, outputs, batch):
        target = batch["target"]  # (B, T)
        real = ops.cast(ops.not_equal(target, 0), "float32")
        weight = ops.sum(real)
        loss = losses.smoothed_cross_entropy(outputs, target, self.config.label_smoothing)
        return {
            "loss": (ops.sum(loss * real), weight),
            "accuracy": (ops.sum(losses.hits(outputs, target) * real), weight),
        }

    def report(self, model: keras.Model) -> Report:
        pairs = self._validation[:VALIDATION_DECODED]
        translator = self._translator(model)
        rows = translator.tokenize([source for source, _ in pairs])
        kept = [i for i, row in enumerate(rows) if len(row) <= translator.limit]
        answers = [t.text for t in translator.translate([rows[i] for i in kept], self.config.batch_size)]
        pairs = [pairs[i] for i in kept]
        found = scores(answers, [reference for _, reference in pairs])
        shown = list(zip(pairs, answers, strict=True))[:SHOWN]
        rows = [[cell.replace("|", "&#124;") for cell in (*pair, answer)] for pair, answer in shown]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        table = "\n".join(["| source | reference | translation |", "|---|---|---|", *lines])
        images = {
            f"attention/{i}": self._attention_picture(model, source, answer)
            for i, ((source, _), answer) in enumerate(shown[:PICTURED])
            if answer
        }
        return Report({name: found[name] for name in ("bleu", "chrf")}, {"translations": table}, images)

    def _translator(self, model) -> Translator:
        """One translator a model, so that its graphs are traced once and not at every validation."""
        if self._cached_translator is None or self._cached_translator.model is not model:
            lengths = (*self.config.buckets, self.config.max_length)
            self._cached_translator = Translator(model, self.tokenizer, lengths)
        return self._cached_translator

    def _attention_picture(self, model, source: str, target: str) -> np.ndarray:
        """Cross-attention of a translation, averaged over layers and heads."""
        ids = [self.tokenizer.tokenize(tf.constant([text])).to_tensor() for text in (source, target)]
        weights = np.mean(model.attention(*ids).numpy()[0], axis=(0, 1))  # (T, S)
        pieces = [self.tokenizer.pieces(text) for text in (source, target)]
        return attention_heatmap(weights, columns=pieces[0], rows=pieces[1], title=target)

    def evaluate(self, model: keras.Model, options: TranslateEvaluateOptions) -> dict[str, dict[str, float]]:
        found = {}
        for name in self._chosen_splits(options.split):
            if name in self._splits:
                pairs = data.read_split(self._splits[name], options.on_bad_example)
            else:
                pairs = self._validation  # held out of the training text
            found[name] = self._evaluate_split(model, name, pairs, options)
        for metric, signature in signatures().items():
            print(f"{metric}: {signature}")
        return found

    def _chosen_splits(self, split: str) -> list[str]:
        """Names of the splits that `--split` asks for: `test` is the first test split, `all` are all of them."""
        tests = [name for name in self._splits if name not in ("train", "validation")]
        if split in ("test", "all") and not tests:
            print("this run has no test file (--test): the validation split stands in")
            return ["validation"]
        if split in ("test", "all"):
            return tests if split == "all" else tests[:1]
        if split not in (*tests, "validation"):
            known = dict.fromkeys(("test", "all", "validation", *tests))
            raise UserError(f"--split {split}: there is {', '.join(known)}")
        return [split]

    def _evaluate_split(self, model, name, pairs, options) -> dict[str, float]:
        translator = self._translator(model)
        rows = translator.tokenize([source for source, _ in pairs])
        too_long = [i for i, row in enumerate(rows) if len(row) > translator.limit]
        if too_long:
            first = f"{name}, pair {too_long[0] + 1}: {self._too_long(rows[too_long[0]])}"
            if options.on_bad_example == "fail":
                raise UserError(f"{first}, or pass --on-bad-example skip")
            print(f"{name}: skipped {len(too_long)} of {len(pairs)} pairs that are too long; {first}")
            kept = [i for i, row in enumerate(rows) if len(row) <= translator.limit]
            if not kept:
                raise UserError(f"{name}: no pair is short enough for this model; give shorter texts")
            pairs, rows = [pairs[i] for i in kept], [rows[i] for i in kept]
        sources, references = map(list, zip(*pairs, strict=True))
        systems = {"model": [t.text for t in translator.translate(rows, options.batch_size)]}
        is_sample = self.config.dataset == "sample" and not self.config.train
        if options.baselines == "on" or (options.baselines == "auto" and is_sample):
            text, inspection, _ = self._train
            training = list(parallel.read_pairs(text, inspection))
            systems["word-by-word dictionary"] = DictionaryBaseline().fit(training).translate(sources)
            systems["nearest training sentence"] = NearestNeighbourBaseline().fit(training).translate(sources)
        found = {system: scores(answers, references) for system, answers in systems.items()}
        table = Table(title=f"{name}: {len(pairs)} pairs", title_justify="left")
        table.add_column("system")
        for metric in found["model"]:
            table.add_column(metric, justify="right")
        for system, values in found.items():
            table.add_row(system, *(f"{value:.2f}" for value in values.values()))
        Console().print(table)
        return found["model"]

    def _too_long(self, row: np.ndarray) -> str:
        return f"{len(row) - 1} pieces, the model takes {self.config.max_length - 1}; split the text into sentences"

    def predict(self, model: keras.Model, rows: Sequence[str], options: PredictOptions) -> Iterator[dict]:
        translator = self._translator(model)
        for begin in range(0, len(rows), options.batch_size):
            chunk = rows[begin : begin + options.batch_size]
            tokens = translator.tokenize(chunk)
            errors = {}
            for index, ids in enumerate(tokens):
                if len(ids) < 2:  # nothing but the end token
                    errors[index] = "empty text; give a sentence to translate"
                elif len(ids) > translator.limit:
                    errors[index] = self._too_long(ids)
            good = [i for i in range(len(chunk)) if i not in errors]
            answers = dict(zip(good, translator.translate([tokens[i] for i in good], options.batch_size), strict=True))
            for index, text in enumerate(chunk):
                row = {"row": begin + index + 1, "source": text}
                if index in errors:
                    yield row | {"error": errors[index]}
                else:
                    yield row | {"text": answers[index].text, "score": round(answers[index].score, 4)}
