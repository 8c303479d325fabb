"""What only the translate app knows: its data, vocabulary, loss, and how answers are scored and shown."""

import functools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from apps.translate import data
from apps.translate.baselines import DictionaryBaseline, NearestNeighbourBaseline
from apps.translate.config import (
    GREEDY,
    SearchConfig,
    TranslateConfig,
    TranslateEvaluateOptions,
    TranslateExplainOptions,
    TranslateExportOptions,
    TranslatePredictOptions,
)
from apps.translate.model import TranslationTransformer
from apps.translate.recurrent import RecurrentTranslator
from apps.translate.scores import scores, signatures
from apps.translate.translator import Translation, Translator
from pipelines import losses
from pipelines.batching import bucket_boundaries
from pipelines.config import override
from pipelines.errors import UserError
from pipelines.export.servable import Servable
from pipelines.files import write_atomically
from pipelines.inputs import answered
from pipelines.interpretation import attention_heatmap
from pipelines.task import Report, Task, chosen_splits, print_metrics
from pipelines.text import parallel
from pipelines.text.batches import token_batches
from pipelines.text.tokenizer import Tokenizer, train_sentencepiece

VOCABULARY_SAMPLE = 50_000  # pairs that the vocabulary and the bucket lengths are chosen from
SHUFFLE_BUFFER = 50_000  # pairs; a smaller corpus is shuffled whole
VALIDATION_DECODED = 500  # pairs of the validation split that are translated at each validation
SHOWN = 8  # translations shown in TensorBoard
PICTURED = 2  # attention maps shown in TensorBoard
EXAMPLES = 8  # texts that an export is checked with, and a server warms up on
MODELS = {"transformer": TranslationTransformer, "rnn": RecurrentTranslator}


class TranslateTask(Task):
    """Translation of sentence pairs."""

    config: TranslateConfig
    unit = "tokens"
    validation_metrics = ("loss", "accuracy", "bleu", "chrf")
    maximize = frozenset({"accuracy", "bleu", "chrf"})

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
        lengths = _lengths(tokenizer, sample)
        longest = self.config.max_length
        if lengths.min() > longest:
            raise UserError(f"all pairs are longer than --max-length {longest}; the shortest takes {lengths.min()}")
        buckets = self.config.buckets or bucket_boundaries(lengths, longest)
        left_out = float((lengths > buckets[-1]).mean())
        if left_out:
            print(f"{left_out:.2%} of the pairs are longer than {buckets[-1]} pieces and left out of training")
        if _lengths(tokenizer, self._validation).min() > buckets[-1]:
            raise UserError(f"all validation pairs are longer than {buckets[-1]} pieces; raise --max-length")
        self.config = override(self.config, {"vocabulary_size": size, "buckets": buckets})
        write_atomically(self._fingerprint_file, self._fingerprint + "\n")
        examples = "".join(f"{source}\n" for source, _ in self._validation[: 2 * EXAMPLES])
        write_atomically(self._examples_file, examples)
        return self.config

    @property
    def _examples_file(self):
        """Texts that an export is checked with: it needs the run, and no data beside it."""
        return self.run.assets / "examples.txt"

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
        self._translators: dict[tuple, Translator] = {}

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
        settings, size = self.config.model, self.tokenizer.vocabulary_size
        return MODELS[settings.kind].from_settings(settings, size, self.tokenizer.start_id, self.config.remat)

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        text, found, _ = self._train
        expected = self._fingerprint_file.read_text("utf-8").strip()
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
        translator = self._translator(model, GREEDY)
        rows = translator.tokenize([source for source, _ in self._validation])
        kept = [i for i, row in enumerate(rows) if len(row) <= translator.limit][:VALIDATION_DECODED]
        answers = [best.text for best, *_ in translator.translate([rows[i] for i in kept], self.config.batch_size)]
        pairs = [self._validation[i] for i in kept]
        found = scores(answers, [reference for _, reference in pairs])
        shown = list(zip(pairs, answers, strict=True))[:SHOWN]
        rows = [[cell.replace("|", "&#124;") for cell in (*pair, answer)] for pair, answer in shown]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        table = "\n".join(["| source | reference | translation |", "|---|---|---|", *lines])
        pictures = self._attention_pictures(translator, [source for source, _ in pairs[:PICTURED]])
        images = {f"attention/{i}": picture for i, (_, picture) in enumerate(pictures)}
        return Report({name: found[name] for name in ("bleu", "chrf")}, {"translations": table}, images)

    def _translator(self, model, search: SearchConfig, n_best: int = 1) -> Translator:
        """One translator a model and way to search, so that graphs are traced once and not at every validation."""
        key = (id(model), search, n_best)
        if key not in self._translators:
            self._translators[key] = Translator(model, self.tokenizer, self.config.max_length, search, n_best)
        return self._translators[key]

    def _attention_pictures(self, translator: Translator, sources: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        """The translation of each source, and what was looked at for every one of its tokens."""
        for source in sources:
            found = translator.explain(tf.constant([source]))
            translation = found.translation.numpy()[0].decode("utf-8", errors="replace")
            columns, rows = (
                [piece.decode("utf-8", errors="replace") for piece in tokens.numpy()[0]]
                for tokens in (found.source_tokens, found.translation_tokens)
            )
            yield translation, attention_heatmap(found.attention.numpy()[0], columns, rows, title=translation)

    def evaluate(self, model: keras.Model, options: TranslateEvaluateOptions) -> dict[str, dict[str, float]]:
        found, baselines = {}, self._baselines(options)
        for name in chosen_splits(list(self._splits), options.split):
            if name in self._splits:
                pairs = data.read_split(self._splits[name], self.config.on_bad_example)
            else:
                pairs = self._validation  # held out of the training text
            found[name] = self._evaluate_split(model, name, pairs, options, baselines)
        for metric, signature in signatures().items():
            print(f"{metric}: {signature}")
        return found

    def _baselines(self, options: TranslateEvaluateOptions) -> dict[str, DictionaryBaseline | NearestNeighbourBaseline]:
        """What can be had without a network, fitted to the training text; nothing where that is not asked for."""
        is_sample = self.config.dataset == "sample" and not self.config.train
        if options.baselines == "off" or (options.baselines == "auto" and not is_sample):
            return {}
        text, inspection, _ = self._train
        training = list(parallel.read_pairs(text, inspection))
        return {
            "word-by-word dictionary": DictionaryBaseline().fit(training),
            "nearest training sentence": NearestNeighbourBaseline().fit(training),
        }

    def _evaluate_split(self, model, name, pairs, options, baselines) -> dict[str, float]:
        translator = self._translator(model, options.search)
        rows = translator.tokenize([source for source, _ in pairs])
        too_long = [i for i, row in enumerate(rows) if len(row) > translator.limit]
        if too_long:
            first = f"{name}, pair {too_long[0] + 1}: {self._too_long(rows[too_long[0]])}"
            if self.config.on_bad_example == "fail":
                raise UserError(f"{first}, or pass --on-bad-example skip")
            print(f"{name}: skipped {len(too_long)} of {len(pairs)} pairs that are too long; {first}")
            kept = [i for i, row in enumerate(rows) if len(row) <= translator.limit]
            if not kept:
                raise UserError(f"{name}: no pair is short enough for this model; give shorter texts")
            pairs, rows = [pairs[i] for i in kept], [rows[i] for i in kept]
        sources, references = map(list, zip(*pairs, strict=True))
        answers = translator.translate(rows, options.batch_size, progress=f"translating {name}")
        systems = {"model": [best.text for best, *_ in answers]}
        systems |= {system: baseline.translate(sources) for system, baseline in baselines.items()}
        found = {system: scores(answers, references) for system, answers in systems.items()}
        print_metrics(f"{name}: {len(pairs)} pairs", found, decimals=2)
        return found["model"]

    def _too_long(self, row: np.ndarray) -> str:
        return f"{len(row) - 1} pieces, the model takes {self.config.max_length - 1}; split the text into sentences"

    def predict(self, model: keras.Model, rows: Sequence[str], options: TranslatePredictOptions) -> Iterator[dict]:
        translator = self._translator(model, options.search, options.n_best)

        def read(texts):
            tokens = translator.tokenize(texts)
            return tokens, [self._error(translator, ids) for ids in tokens]

        def answer(tokens):
            return map(_as_json, translator.translate(tokens, options.batch_size))

        return answered(rows, options.batch_size, read, answer)

    def _error(self, translator: Translator, ids: np.ndarray) -> str | None:
        """Why a tokenized text cannot be translated."""
        if len(ids) < 2:  # nothing but the end token
            return "empty text; give a sentence to translate"
        return self._too_long(ids) if len(ids) > translator.limit else None

    def explain(self, model: keras.Model, rows: Sequence[str], options: TranslateExplainOptions) -> Iterator[dict]:
        translator = self._translator(model, options.search)
        for row, (text, ids) in enumerate(zip(rows, translator.tokenize(rows), strict=True), 1):
            answer = {"row": row, "source": text}
            if error := self._error(translator, ids):
                yield answer | {"error": error}
            else:
                ((translation, picture),) = self._attention_pictures(translator, [text])
                yield answer | {"text": translation, "picture": picture}

    def servable(self, model: keras.Model, options: TranslateExportOptions) -> Servable:
        translator = self._translator(model, options.search)
        text = tf.TensorSpec([None], tf.string, name="text")

        @tf.function(input_signature=[text])
        def translate(text):
            translation, score = translator.from_texts(text)
            return {"translation": translation, "score": score}

        @tf.function(input_signature=[text])
        def explain(text):
            return translator.explain(text)._asdict()

        # Lengths and batches as they will come: one text, and several with an empty one.
        limit = translator.limit
        sources = self._examples_file.read_text("utf-8").split("\n")[:-1]
        kept = [s for s, ids in zip(sources, translator.tokenize(sources), strict=True) if len(ids) <= limit]
        several = np.array([*kept[:EXAMPLES], ""], object)
        examples = [{"text": several[:1]}, {"text": several}]
        return Servable(
            {"serving_default": translate, "explain": explain},
            {"serving_default": examples, "explain": examples[:1]},
            [self.tokenizer],
        )


def _lengths(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """(N,) pieces of the longer side of each pair."""
    sides = zip(*pairs, strict=True)
    return np.maximum(*(tokenizer.tokenize(tf.constant(side)).row_lengths().numpy() for side in sides))


def _as_json(translations: Sequence[Translation]) -> dict:
    best, *others = ({"text": t.text, "score": round(t.score, 4)} for t in translations)
    return best | ({"others": others} if others else {})
