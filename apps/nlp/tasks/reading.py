"""What the tasks that read texts share: rows of token ids, their batches, and an encoder to begin with."""

import functools
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from apps.nlp import data, rows
from apps.nlp.config import NlpConfig
from apps.nlp.data import Examples
from apps.nlp.encoders import TextEncoder
from apps.nlp.tasks import inheritance
from apps.nlp.tasks.common import backbone_directory, load_vocabulary, make_vocabulary
from layers.lora import add_adapters
from pipelines.batching import bucket_boundaries, epoch_seed
from pipelines.bucketing import batch_count
from pipelines.config import override
from pipelines.errors import UserError
from pipelines.files import write_array
from pipelines.task import Task


class ReadingTask(Task):
    """A task about texts, alone or in pairs, of which at most `max_length` symbols are read."""

    config: NlpConfig
    reads_beginnings = True  # of texts that are longer than the limit, and not their other parts

    def prepare(self) -> NlpConfig:
        train = self._splits["train"]
        if name := self.config.model.backbone:
            from apps.nlp.backbone import fetch  # KerasHub takes seconds to import

            fetch(name, backbone_directory(self.run), self.config.max_length)
        elif self.config.init_from:
            self.config = inheritance.take_encoder(self.config, self.run)
        else:
            self.config = make_vocabulary(self.config, self.run, [*train.texts, *(train.others or ())])
        self.load()
        if self.config.teacher:
            self._ask_teacher(train)
        lengths = self._lengths("train")
        # A text as long as the limit may have been cut there.
        cut = int((lengths >= self.config.max_length).sum())
        self.config = override(
            self.config, {"buckets": self.config.buckets or bucket_boundaries(lengths, self.config.max_length)}
        )
        print(f"{train.source}: {self._said(train)}; a vocabulary of {self.tokenizer.vocabulary_size:,}")
        if cut and self.reads_beginnings:
            limit = self.config.max_length
            print(f"{cut:,} texts reach --max-length {limit}: what is beyond that is not read")
        return self.config

    def _ask_teacher(self, train: Examples) -> None:
        """Keeps what the teacher answers to the training texts: a resumed run needs it no longer."""
        teacher = inheritance.earlier(self.config.teacher)
        if teacher.task.config.task != self.config.task:
            raise UserError(f"--teacher {self.config.teacher}: learnt to {teacher.task.config.task}, not this task")
        self.check_teacher(teacher.task)
        print(f"asks the teacher about {len(train):,} {self.unit}")
        write_array(self._teacher_file, teacher.task.outputs(teacher.model, train, self.config.batch_size))

    def check_teacher(self, teacher: "ReadingTask") -> None:
        """Raises UserError where a teacher's answers mean something else than this task's."""

    def outputs(self, model: keras.Model, examples: Examples, batch_size: int) -> np.ndarray:
        """(N, ...) what a model says of examples, in their order, as `sums` takes it."""
        raise UserError(f"--task {self.config.task} has no answers to learn from")

    def _said(self, examples: Examples) -> str:
        """What there is to learn from, in a few words."""
        return f"{len(examples):,} texts"

    def load(self) -> None:
        self.tokenizer = load_vocabulary(self.config, self.run)

    @functools.cached_property
    def _splits(self) -> dict[str, Examples]:
        return data.splits(self.config)

    def tokens(self, texts: tf.Tensor) -> tf.Tensor:
        """Ids (B, L) of texts (B,), in the graph; what is longer than the limit is cut."""
        return self.tokenizer.tokenize(texts)[:, : self.config.max_length].to_tensor()

    def _ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text."""
        if not len(texts):
            return []
        found = self.tokenizer.tokenize(tf.constant(texts, tf.string))[:, : self.config.max_length]
        return np.split(found.flat_values.numpy(), found.row_splits.numpy()[1:-1])

    def _token_lists(self, examples: Examples) -> dict[str, list[np.ndarray]]:
        """The lists of ids that a batch has."""
        lists = {"tokens": self._ids(examples.texts)}
        return lists if examples.others is None else lists | {"others": self._ids(examples.others)}

    @functools.lru_cache(maxsize=8)  # noqa: B019  a task lives as long as its process
    def _rows(self, split: str) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
        examples = self._splits[split]
        columns = self._columns(examples)
        if split == "train" and self.config.teacher:
            columns["teacher"] = np.load(self._teacher_file)
            if len(columns["teacher"]) != len(examples):
                raise UserError(f"{examples.source}: not the rows that the teacher was asked about; begin a new run")
        return self._token_lists(examples), columns

    def _columns(self, examples: Examples) -> dict[str, np.ndarray]:
        """What a batch has besides tokens."""
        return {}

    def _lengths(self, split: str) -> np.ndarray:
        return rows.lengths_of(*self._rows(split)[0].values())

    def _batches(self, split: str, batch_size: int, **options) -> tf.data.Dataset:
        tokens, columns = self._rows(split)
        return rows.batches(tokens, columns, self.config.buckets, batch_size, **options)

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        count = len(self._rows("train")[0]["tokens"])
        order = np.random.default_rng(epoch_seed(self.config.seed, epoch)).permutation(count)
        return self._batches("train", self.config.batch_size, shard=self.shard, order=order)

    def validation_batches(self) -> tf.data.Dataset:
        return self._batches("validation", self.config.batch_size, shard=self.shard)

    def steps_per_epoch(self) -> int:
        return batch_count(self._lengths("train"), self.config.buckets, self.config.batch_size)

    @property
    def batch_shapes(self) -> int:
        return len(self.config.buckets)

    @property
    def _examples_file(self) -> Path:
        """Texts that an export is checked with: it needs the run, and no data beside it."""
        return self.run.assets / "examples.json"

    @property
    def _teacher_file(self) -> Path:
        """What the teacher says of each training row."""
        return self.run.assets / "teacher.npy"

    def _encoder(self) -> TextEncoder:
        """An encoder with what it begins with."""
        config = self.config
        if config.model.backbone:
            from apps.nlp.backbone import BackboneEncoder

            encoder = BackboneEncoder.load(backbone_directory(self.run))
        else:
            encoder = TextEncoder.from_settings(config.model, self.tokenizer.vocabulary_size, config.remat)
            encoder.build((None, None))
            inheritance.begin(encoder, self.run)
        if config.lora:
            add_adapters(encoder, config.lora)
        return encoder

    def pretrained(self, model: keras.Model) -> Sequence[keras.Variable]:
        # Adapters are new: what they stand beside does not learn at all.
        begun = (self.config.init_from or self.config.model.backbone) and not self.config.lora
        return model.encoder.trainable_variables if begun else ()

    def _error(self, text: str) -> str | None:
        """Why a text cannot be answered."""
        return None if text.strip() else "empty text; give one to read"
