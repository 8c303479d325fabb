"""What only the language model's task knows: its stream of tokens, loss, and how text is written, scored and shown."""

import functools
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console
from rich.progress import track

from apps.nlp import baselines, data
from apps.nlp.config import NlpConfig, NlpExportOptions, NlpPredictOptions, SamplingConfig
from apps.nlp.generator import Generator, unknown
from apps.nlp.language_model import LanguageModel
from apps.nlp.pages import surprise_page
from apps.nlp.pictures import surprise_picture
from apps.nlp.tasks import inheritance
from apps.nlp.tasks.common import load_vocabulary, make_vocabulary, mean_sums
from apps.nlp.windows import token_stream, window_count, windows
from layers.lora import add_adapters
from pipelines import losses
from pipelines.batching import epoch_seed
from pipelines.errors import UserError
from pipelines.export.servable import Servable
from pipelines.files import write_atomically
from pipelines.inputs import answered
from pipelines.options import EvaluateOptions, ExplainOptions
from pipelines.task import Report, Task, chosen_splits, print_metrics

SHOWN = 4  # continuations in TensorBoard
SHOWN_TOKENS = 128  # of each of them
EXAMPLES = 4  # prompts that an export is checked with, and a server warms up on
PROMPT = 24  # characters of such a prompt
MOST_COUNTED = 5_000_000  # characters that the baseline counts: some seconds


class GenerateTask(Task):
    """A language model of running text."""

    config: NlpConfig
    unit = "tokens"
    validation_metrics = ("loss", "accuracy", "bits_per_character", "perplexity")
    streams = True

    @property
    def _prompts_file(self) -> Path:
        """Prompts that an export is checked with: it needs the run, and no data beside it."""
        return self.run.assets / "prompts.json"

    def prepare(self) -> NlpConfig:
        train, validation = self._splits["train"], self._splits["validation"]
        if not any(train.texts):
            raise UserError(f"{train.source}: there is no text in it; give a file that has some")
        if self.config.init_from:
            self.config = inheritance.take_encoder(self.config, self.run)
        elif self.config.teacher:
            self.config = inheritance.take_vocabulary(self.config, self.run, self.config.teacher)
        else:
            self.config = make_vocabulary(self.config, self.run, train.texts, running_text=True)
        self.load()
        print(
            f"{train.source}: {len(train.texts):,} documents, {sum(map(len, train.texts)):,} characters, "
            f"{len(self._train):,} tokens; a vocabulary of {self.tokenizer.vocabulary_size:,} {self.config.units}"
        )
        write_atomically(self._prompts_file, json.dumps(self._known_prompts(validation.texts)) + "\n")
        return self.config

    def _known_prompts(self, documents: Sequence[str]) -> list[str]:
        """Beginnings of the documents' lines, all of whose characters are known, of every part of the documents."""
        lines = [line[:PROMPT].rstrip() for document in documents for line in document.split("\n") if line.strip()]
        chosen = lines[:: max(1, len(lines) // (4 * EXAMPLES))]
        return [line for line in chosen if not unknown(self.tokenizer, line)][:EXAMPLES] or [""]

    def load(self) -> None:
        self.tokenizer = load_vocabulary(self.config, self.run)
        self._generators: dict[tuple, Generator] = {}
        # What a token adds to the text; the end of a document adds nothing.
        ids = tf.range(self.tokenizer.vocabulary_size)[:, None]
        texts = [text.decode("utf-8", errors="replace") for text in self.tokenizer.detokenize(ids).numpy()]
        self._characters = np.array([len(text) for text in texts], np.float32)

    @functools.cached_property
    def _splits(self):
        return data.splits(self.config)

    def _stream(self, split: str) -> np.ndarray:
        stream = token_stream(self._splits[split].texts, self.tokenizer)
        if len(stream) <= 2:
            raise UserError(f"{self._splits[split].source}: there is no text in it; give a file that has some")
        return stream

    @functools.cached_property
    def _train(self) -> np.ndarray:
        return self._stream("train")

    @functools.cached_property
    def _validation(self) -> np.ndarray:
        return self._stream("validation")

    def build_model(self) -> keras.Model:
        config = self.config
        model = LanguageModel.from_settings(
            config.model, self.tokenizer.vocabulary_size, context=config.max_length, remat=config.remat
        )
        inheritance.begin(model, self.run)
        if config.lora:
            add_adapters(model, config.lora)
        return model

    def pretrained(self, model):
        # Adapters are new: what they stand beside does not learn at all.
        return model.trainable_variables if self.config.init_from and not self.config.lora else ()

    @functools.cached_property
    def _teacher(self) -> LanguageModel:
        """The model to learn from. It reads every batch beside the one that learns: too much to keep what it says."""
        teacher = inheritance.earlier(self.config.teacher)
        if teacher.task.config.task != "generate":
            raise UserError(f"--teacher {self.config.teacher}: learnt to {teacher.task.config.task}, not this task")
        if not inheritance.same_vocabulary(teacher, self.config, self.run):
            raise UserError(f"--teacher {self.config.teacher}: has another vocabulary than --init-from")
        return teacher.model

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        config = self.config
        seed = epoch_seed(config.seed, epoch)
        found = windows(self._train, config.max_length, config.batch_size, seed, self.shard)
        if not config.teacher:
            return found
        self._teacher  # noqa: B018  loaded here: replicas are asked for batches where their variables are made
        return found.map(lambda batch: batch | {"taught": tf.ones(tf.shape(batch["tokens"])[:1])})

    def validation_batches(self) -> tf.data.Dataset:
        return windows(self._validation, self.config.max_length, self.config.batch_size, shard=self.shard)

    def steps_per_epoch(self) -> int:
        return -(-window_count(self._train, self.config.max_length) // self.config.batch_size)

    def sums(self, outputs, batch):
        targets = batch["targets"]
        real = ops.cast(targets != 0, "float32")
        loss = surprise = losses.smoothed_cross_entropy(outputs, targets)
        if "taught" in batch:
            taught, share = self.config.distillation, self.config.distillation.share
            wanted = ops.stop_gradient(self._teacher({"tokens": batch["tokens"]}, training=False))
            loss = (1 - share) * loss + share * losses.distillation(outputs, wanted, taught.temperature)
        weight = ops.sum(real)
        characters = ops.sum(ops.take(self._characters, targets) * real)
        return {
            "loss": (ops.sum(loss * real), weight),
            "accuracy": (ops.sum(losses.hits(outputs, targets) * real), weight),
            "bits_per_character": (ops.sum(surprise * real) / math.log(2), characters),
        }

    def derived(self, means):
        return {"perplexity": math.exp(min(means["loss"], 700.0))}

    def report(self, model: keras.Model) -> Report:
        prompts = json.loads(self._prompts_file.read_text("utf-8"))[:SHOWN]
        generator = self._generator(model, SamplingConfig())
        texts = generator.continuations(prompts, range(len(prompts)), SHOWN_TOKENS)
        shown = [f"**{_quoted(prompt)}**\n\n{_quoted(text)}" for prompt, text in zip(prompts, texts, strict=True)]
        return Report(texts={"continuations": "\n\n---\n\n".join(shown)})

    def _generator(self, model, sampling: SamplingConfig) -> Generator:
        """One generator a model and way to sample, so that graphs are traced once and not at every validation."""
        key = (id(model), sampling)
        if key not in self._generators:
            self._generators[key] = Generator(model, self.tokenizer, sampling)
        return self._generators[key]

    def evaluate(self, model: keras.Model, options: EvaluateOptions) -> dict[str, dict[str, float]]:
        @tf.function
        def measured(batch):
            return self.sums(model(batch, training=False), batch)

        found = {}
        for name in chosen_splits(list(self._splits), options.split):
            stream = self._stream(name)
            batches = windows(stream, self.config.max_length, options.batch_size)
            console = Console(stderr=True)
            shown = track(batches, f"reading {name}", total=len(batches), console=console, transient=True)
            means, _ = mean_sums(map(measured, shown))
            found[name] = self.derived(means) | means
            print_metrics(f"{name}: {len(stream) - 1:,} tokens", {"model": found[name]})
            found[name] |= self._baseline(name)
        return found

    def _baseline(self, name: str) -> dict[str, float]:
        """What counting characters reaches on a split, if they can be counted in a few seconds."""
        train, split = self._splits["train"], self._splits[name]
        if sum(map(len, (*train.texts, *split.texts))) > MOST_COUNTED:
            return {}
        baseline = baselines.generate(train, split)
        # Of a character each: a perplexity is to be compared with that of a model of characters only.
        print("n-gram baseline: " + ", ".join(f"{metric} {value:.4f}" for metric, value in baseline.items()))
        return {f"baseline_{metric}": value for metric, value in baseline.items()}

    def predict(self, model: keras.Model, rows: Sequence[str], options: NlpPredictOptions) -> Iterator[dict]:
        generator = self._generator(model, options.sampling)
        seeds = itertools.count(options.sampling.seed)  # a row's own, whatever becomes of those before it

        def read(prompts):
            return zip(prompts, seeds, strict=False), [unknown(self.tokenizer, prompt) for prompt in prompts]

        def answer(asked):
            return ({"text": text} for text in generator.continuations(*zip(*asked, strict=True)))

        return answered(rows, options.batch_size, read, answer)

    def stream(self, model: keras.Model, row: str, options: NlpPredictOptions) -> Iterator[dict]:
        generator = self._generator(model, options.sampling)
        if error := unknown(self.tokenizer, row):
            yield {"row": 1, "source": row, "error": error}
            return
        for part in generator.stream(row, options.sampling.seed):
            yield {"row": 1, "source": row, "text": part}

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        generator = self._generator(model, SamplingConfig())
        for row, text in enumerate(rows, 1):
            answer = {"row": row, "source": text}
            error = unknown(self.tokenizer, text) if text else "empty text; give one to read"
            if error:
                yield answer | {"error": error}
                continue
            tokens, log_probabilities = (found.numpy()[0] for found in generator.surprise(tf.constant([text])))
            bits = -log_probabilities / math.log(2)
            said = f"{bits.mean():.2f} bits a token, {bits.sum() / len(text):.2f} a character"
            pieces = [token.decode("utf-8", errors="replace") for token in tokens]
            page = surprise_page(pieces, bits, said)
            yield answer | {"text": said, "picture": surprise_picture(pieces, bits, said), "page": page}

    def servable(self, model: keras.Model, options: NlpExportOptions) -> Servable:
        sampling = options.sampling
        generator = self._generator(model, sampling)
        prompt = tf.TensorSpec([None], tf.string, name="prompt")

        @tf.function(input_signature=[prompt])
        def continued(prompt):
            rows = tf.shape(prompt)
            limits, temperature = tf.fill(rows, sampling.max_tokens), tf.fill(rows, sampling.temperature)
            seeds = tf.fill(rows, tf.constant(sampling.seed, tf.int64))
            return {"text": generator.from_prompts(prompt, limits, temperature, seeds)}

        @tf.function(
            input_signature=[
                prompt,
                tf.TensorSpec([None], tf.int32, name="max_tokens"),
                tf.TensorSpec([None], tf.float32, name="temperature"),
                tf.TensorSpec([None], tf.int64, name="seed"),
            ]
        )
        def generate(prompt, max_tokens, temperature, seed):
            limits = tf.clip_by_value(max_tokens, 0, options.most_tokens)
            return {"text": generator.from_prompts(prompt, limits, temperature, seed)}

        @tf.function(input_signature=[prompt])
        def explain(prompt):
            tokens, log_probability = generator.surprise(prompt)
            return {"tokens": tokens, "log_probability": log_probability}

        # Lengths and batches as they will come: one prompt, and several with an empty one.
        several = np.array([*json.loads(self._prompts_file.read_text("utf-8")), ""], object)
        examples = [{"prompt": several[:1]}, {"prompt": several}]
        count = len(several)
        asked = {
            "prompt": several,
            "max_tokens": np.arange(count, dtype=np.int32) * 8,
            "temperature": np.linspace(0, 1, count, dtype=np.float32),
            "seed": np.arange(count, dtype=np.int64),
        }
        return Servable(
            {"serving_default": continued, "generate": generate, "explain": explain},
            {"serving_default": examples, "generate": [asked], "explain": examples},
            [self.tokenizer],
        )


def _quoted(text: str) -> str:
    """A text as Markdown that shows it as it is, lines and all."""
    for character, instead in (("&", "&amp;"), ("<", "&lt;"), ("*", "&#42;"), ("_", "&#95;"), ("`", "&#96;")):
        text = text.replace(character, instead)
    return text.replace("\n", "<br>") or "(nothing)"
