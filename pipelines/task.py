"""What an app must say about its task; everything else is shared machinery.

The machinery calls these methods and never asks which app it serves. A batch is a dict of tensors
with static shapes that the model is called with. Losses and metrics are returned as pairs
`(sum, weight)`, so that masked rows, accumulation and replicas add up exactly: the value shown is
the sum of sums over the sum of weights.
"""

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from pipelines.batching import WHOLE, Shard
from pipelines.config import TrainConfig
from pipelines.errors import UserError
from pipelines.export.servable import Servable
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions
from pipelines.runs import Run

Sums = dict[str, tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass
class Report:
    """What a validation shows: numbers, and things to look at in TensorBoard.

    Args:
        metrics: Scalars by name.
        texts: Markdown by name.
        images: Pictures by name, uint8 of shape (height, width, 3).
        audio: Recordings by name: samples (n,) from -1 to 1, and their rate in Hz.
    """

    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    images: dict[str, Any] = dataclasses.field(default_factory=dict)
    audio: dict[str, tuple[Any, int]] = dataclasses.field(default_factory=dict)


def chosen_splits(splits: Sequence[str], asked: str) -> list[str]:
    """Names of the splits that `evaluate --split` asks for: `test` is the first test split, `all` are all of them.

    Args:
        splits: names of those that there are; the validation split may be held out of training and not among them.
        asked: the flag's value.

    Raises:
        UserError: there is no such split.
    """
    tests = [name for name in splits if name not in ("train", "validation")]
    if asked in ("test", "all") and not tests:
        print("this run has no test split (--test): the validation split stands in")
        return ["validation"]
    if asked in ("test", "all"):
        return tests if asked == "all" else tests[:1]
    if asked not in (*tests, "validation"):
        known = dict.fromkeys(("test", "all", "validation", *tests))
        raise UserError(f"--split {asked}: there is {', '.join(known)}")
    return [asked]


def print_metrics(title: str, found: Mapping[str, Mapping[str, float]], decimals: int = 4) -> None:
    """Prints a table of metrics, a row a system; one system alone needs no name.

    Args:
        title: line above the table.
        found: metrics by name, for each system.
        decimals: of each value.
    """
    table = Table(title=title, title_justify="left")
    if len(found) > 1:
        table.add_column("system")
    for metric in next(iter(found.values())):
        table.add_column(metric.replace("_", " "), justify="right")
    for system, values in found.items():
        name = (system,) if len(found) > 1 else ()
        table.add_row(*name, *(f"{value:.{decimals}f}" for value in values.values()))
    Console().print(table)


class Task(abc.ABC):
    """One app's side of the contract.

    Args:
        config: The run's configuration.
        run: Where assets are kept.
        shard: Which rows of every batch this process trains on; all of them where it trains alone.
    """

    # What the loss' weight counts, for the progress bar: tokens, examples ...
    unit = "examples"
    # What a validation measures: the names in `sums` and in the report's metrics.
    validation_metrics: tuple[str, ...] = ("loss",)
    # Metrics for which more is better; of all others less is.
    maximize: frozenset[str] = frozenset({"accuracy"})
    # Whether the rows to predict and to explain are paths of files, of which a folder stands for those in it.
    takes_files: bool = False
    # Whether `stream` gives the answer to a single row in parts, for someone who watches.
    streams: bool = False

    def __init__(self, config: TrainConfig, run: Run, shard: Shard = WHOLE):
        self.config = config
        self.run = run
        self.shard = shard

    @abc.abstractmethod
    def prepare(self) -> TrainConfig:
        """Checks the data and makes the assets of a new run. Returns the configuration with `auto` fields resolved."""

    @abc.abstractmethod
    def load(self) -> None:
        """Reads the assets that `prepare` made; called once before the methods below."""

    @abc.abstractmethod
    def build_model(self) -> keras.Model:
        """A built model that takes a batch."""

    def pretrained(self, model: keras.Model) -> Sequence[keras.Variable]:
        """Weights of the model that come from an earlier training: they are frozen at first, and then learn slower."""
        return ()

    @abc.abstractmethod
    def train_batches(self, epoch: int) -> tf.data.Dataset:
        """This process' rows of each batch of one epoch, in an order fixed by the seed and the epoch.

        Every shard has equally many batches, of few static shapes: what is missing in the last one is masked.
        """

    @abc.abstractmethod
    def validation_batches(self) -> tf.data.Dataset:
        """This process' rows of each batch of the validation split."""

    @abc.abstractmethod
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has, for the progress bar; an estimate will do."""

    @property
    def batch_shapes(self) -> int:
        """How many shapes batches come in: XLA compiles the step once for each."""
        return 1

    @abc.abstractmethod
    def sums(self, outputs: Any, batch: Mapping[str, tf.Tensor]) -> Sums:
        """The `loss` and other metrics of some rows of a batch as sums with their weights. Pure: it runs inside XLA.

        The weight of the loss is how much there is to learn from: real target tokens, real rows ...
        """

    def derived(self, means: Mapping[str, float]) -> dict[str, float]:
        """What a validation shows that follows from the means of `sums` over its split."""
        return {}

    def callbacks(self) -> Sequence[keras.callbacks.Callback]:
        """Keras callbacks to train with. Every worker has its own: one that writes files belongs on `shard.index` 0."""
        return ()

    def report(self, model: keras.Model) -> Report:
        """What a validation shows besides loss and metrics: decoded samples, their scores, pictures."""
        return Report()

    @abc.abstractmethod
    def evaluate(self, model: keras.Model, options: EvaluateOptions) -> dict[str, dict[str, float]]:
        """Prints a table for each split asked for. Returns metrics by split."""

    @abc.abstractmethod
    def predict(self, model: keras.Model, rows: Sequence[str], options: PredictOptions) -> Iterable[dict[str, Any]]:
        """Answers inputs in order. Each answer is a JSON object; its `text` is what is shown without --json.

        It names its `row`, from 1 on, and either answers or says in `error` why it cannot. Where several answers were
        asked for, `others` are objects with the `text` of the next best ones.
        """

    def stream(self, model: keras.Model, row: str, options: PredictOptions) -> Iterable[dict[str, Any]]:
        """The answer to one row, whose `text` is a part of what `predict` answers, the next one each time."""
        return self.predict(model, [row], options)

    @abc.abstractmethod
    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterable[dict[str, Any]]:
        """As `predict`; an answer also has its `source` and a `picture`, uint8 of shape (height, width, 3). The same
        may be there as a `page` of HTML."""

    @abc.abstractmethod
    def servable(self, model: keras.Model, options: ExportOptions) -> Servable:
        """What an export of the model can be asked for."""
