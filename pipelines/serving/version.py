"""One version of a model, from its directory to answers and back to nothing."""

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2

from pipelines.serving.batching import Arrays, Batcher, Parameters, Threads, expired
from pipelines.serving.metrics import Metrics
from pipelines.serving.model import SavedModel
from pipelines.serving.status import Code, StatusError
from pipelines.serving.warmup import warm_up

State = get_model_status_pb2.ModelVersionStatus.State

log = logging.getLogger(__name__)


class Version:
    """One version of a model and where it stands.

    Args:
        model: the model's name.
        number: of the version.
        path: directory of the SavedModel.
        threads: to compute on.
        metrics: to be told.
    """

    def __init__(self, model: str, number: int, path: Path, threads: Threads, metrics: Metrics):
        self.model = model
        self.number = number
        self.path = path
        self.state = State.START
        self.error: StatusError | None = None
        self._threads = threads
        self._metrics = metrics
        self._saved: SavedModel | None = None
        self._batchers: dict[str, Batcher] = {}
        self._seen: frozenset = frozenset()  # what the directory held when it was loaded
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def __str__(self):
        return f"model {self.model} version {self.number}"

    @property
    def signatures(self) -> Mapping:
        """SignatureDefs by name."""
        return self._saved.signatures

    def is_to_load_again(self, path: Path) -> bool:
        """Whether to load it once more, from this path: it was unloaded, lies elsewhere now, or failed and has changed
        since, as somebody was still copying it. Looks at the disk."""
        return self.state == State.END and (
            self.error is None or path != self.path or contents(self.path) != self._seen
        )

    async def load(self, operation_threads: int, batching: str, parameters: Parameters) -> None:
        """Makes the version AVAILABLE, or notes why it is not.

        Args:
            operation_threads: that the operations of one request share.
            batching: which signatures to batch: auto, true or false.
            parameters: of the batches.
        """
        self.state = State.LOADING
        log.info("loading %s from %s", self, self.path)
        try:
            self._saved = await asyncio.to_thread(self._load, operation_threads)
        except StatusError as error:
            self._failed(error)
        except Exception as error:  # whatever a damaged file leads to, the other versions go on
            self._failed(StatusError(Code.INTERNAL, " ".join(f"{type(error).__name__}: {error}".split())))
        else:
            for name, definition in self._saved.signatures.items():
                if batchable(definition, batching):
                    run = functools.partial(self._run, name)
                    self._batchers[name] = Batcher(run, parameters, self._threads, self._metrics.queued)
            self.state = State.AVAILABLE
            log.info("%s is available", self)

    def _load(self, operation_threads: int) -> SavedModel:
        self._seen = contents(self.path)
        saved = SavedModel(self.path, operation_threads)
        try:
            with self._metrics.warming_up(self.path):
                warm_up(saved, self.path)
        except BaseException:
            saved.close()
            raise
        return saved

    def _failed(self, error: StatusError) -> None:
        # The error is kept; the frames that it went through would keep the session with it, and so the weights.
        error.__traceback__ = error.__context__ = None
        self.error, self.state = error, State.END
        log.error("%s cannot be served: %s", self, error.message)

    @contextlib.contextmanager
    def held(self) -> Iterator["Version"]:
        """Keeps the version loaded for a request."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def unload(self) -> None:
        """Lets the requests that hold it end, then frees it: what is loaded next can have its memory. No new requests
        are sent here any more."""
        self.state = State.UNLOADING
        await self._unused.wait()
        for batcher in self._batchers.values():
            batcher.close()
        self._batchers.clear()
        saved, self._saved = self._saved, None
        await asyncio.to_thread(saved.close)
        self.state = State.END
        log.info("%s is unloaded", self)

    def check_names(self, signature: str, names: Collection[str]) -> None:
        """See `SavedModel.check_names`."""
        self._saved.check_names(signature, names)

    async def infer(
        self, signature: str, inputs: Arrays, outputs: Sequence[str] = (), *, deadline: float = math.inf
    ) -> dict[str, np.ndarray]:
        """Answers a request, together with others where that is allowed.

        Args:
            signature: name of one that there is.
            inputs: arrays by name.
            outputs: names of the ones wanted; all of them by default.
            deadline: on `time.monotonic()`.

        Raises:
            StatusError: the request does not fit the signature, came too late, or TensorFlow could not compute it.
        """
        if deadline <= time.monotonic():
            raise expired()
        complete = self._saved.check(signature, inputs, outputs)
        rows = _rows(complete)
        if rows and signature in self._batchers:
            found = await before(deadline, self._batchers[signature].submit(complete, rows, deadline))
            return {name: found[name] for name in outputs} if outputs else found
        return await before(deadline, self._threads.run(self._run, signature, complete, outputs))

    def _run(self, signature: str, inputs: Arrays, outputs: Sequence[str] = ()) -> dict[str, np.ndarray]:
        with self._metrics.computing(self.model):
            return self._saved.run(signature, inputs, outputs)


async def before(deadline: float, work: Awaitable) -> Any:
    """The result of something, if it comes in time. What has not begun by then is never computed.

    Raises:
        StatusError: DEADLINE_EXCEEDED.
    """
    try:
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            return await work
    except TimeoutError:
        raise expired() from None


def batchable(definition, mode: str) -> bool:
    """Whether requests for a signature may be computed together.

    Args:
        definition: a SignatureDef.
        mode: false; true: whatever takes and gives rows; auto: what takes one value a row, and whose answer for a row
            has a fixed shape, so that it cannot depend on the other rows.
    """
    inputs = [tf.TensorShape(info.tensor_shape) for info in definition.inputs.values()]
    outputs = [tf.TensorShape(info.tensor_shape) for info in definition.outputs.values()]
    shapes = inputs + outputs
    rows = inputs and outputs and all(shape.rank is None or (shape.rank and shape[0] is None) for shape in shapes)
    if mode != "auto":
        return mode == "true" and bool(rows)
    return bool(rows) and all(i.rank == 1 for i in inputs) and all(o.rank and o[1:].is_fully_defined() for o in outputs)


def contents(directory: Path) -> frozenset:
    """What a directory holds, to see that it has changed."""
    with contextlib.suppress(OSError):
        stats = [(path, path.stat()) for path in directory.rglob("*")]
        return frozenset((path, found.st_size, found.st_mtime_ns) for path, found in stats)
    return frozenset()


def _rows(inputs: Arrays) -> int:
    """The first dimension of all inputs; 0 where they have none in common."""
    sizes = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else 0
