"""Requests of several clients computed together.

Everything here runs in the event loop's thread, so that nothing needs a lock; only the computing itself is done
elsewhere. A batch is open while requests may join it. It is computed when a thread is free and it is full or its time
is up: without a time-out that is at once, so that batches form from what arrives while all threads are at work.
"""

import asyncio
import collections
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipelines.errors import UserError
from pipelines.serving.status import Code, StatusError, invalid

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Parameters:
    """How batches are formed, by TensorFlow Serving's names and with its defaults.

    Args:
        max_batch_size: rows of a batch.
        batch_timeout_micros: how long a batch waits to become full.
        max_enqueued_batches: batches that wait for a thread; what comes on top is refused.
        allowed_batch_sizes: sizes to pad batches to, ascending, the last one `max_batch_size`; none: no padding.
        pad_variable_length_inputs: whether rows of other lengths are padded, with zeros or empty strings, to share
            a batch; otherwise each shape has batches of its own.
        refuse_larger: whether a request of more rows than a batch is refused; otherwise it is computed by itself.
        patience: how long a batch waits, as a share of the time that computing the last one took, for as many requests
            as that one answered: their clients are about to ask again, and else the first of them would go alone. It
            does not wait after a request that was alone.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    refuse_larger: bool = True
    patience: float = 0.0

    @classmethod
    def from_proto(cls, proto) -> "Parameters":
        """Reads a `BatchingParameters`.

        Raises:
            UserError: values that contradict one another.
        """
        given = {
            field.name: getattr(proto, field.name).value for field, _ in proto.ListFields() if field.name in _WHOLE
        }
        found = cls(
            **given,
            allowed_batch_sizes=tuple(proto.allowed_batch_sizes),
            pad_variable_length_inputs=proto.pad_variable_length_inputs,
        )
        if found.max_batch_size < 1 or found.max_enqueued_batches < 1 or found.batch_timeout_micros < 0:
            raise UserError("max_batch_size and max_enqueued_batches start at 1, batch_timeout_micros at 0")
        sizes = found.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != found.max_batch_size):
            raise UserError("allowed_batch_sizes must ascend, and its last one be equal to max_batch_size")
        return found


_WHOLE = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches")


@dataclasses.dataclass(eq=False)
class _Task:
    inputs: Arrays
    rows: int
    deadline: float
    result: asyncio.Future
    queued: float


@dataclasses.dataclass(eq=False)
class _Batch:
    """Tasks that are computed together."""

    due: float
    tasks: list[_Task] = dataclasses.field(default_factory=list)
    rows: int = 0
    full: bool = False
    expected: int = 0  # tasks that it waits for at most

    def is_due(self, now: float) -> bool:
        return self.full or self.due <= now or 0 < self.expected <= len(self.tasks)


class Threads:
    """Computes what waits, oldest first, on a fixed number of threads.

    Args:
        count: how many.
    """

    def __init__(self, count: int):
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="compute")
        self._free = count
        self._waiting: collections.deque[tuple[float, asyncio.Future]] = collections.deque()
        self._queues: list[Batcher] = []

    def add(self, queue: "Batcher") -> None:
        self._queues.append(queue)

    def remove(self, queue: "Batcher") -> None:
        self._queues.remove(queue)

    async def run(self, function: Callable, *arguments: Any) -> Any:
        """Calls a function when a thread is free. If the caller is cancelled before that, it is never called."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((time.monotonic(), turn))
        self.dispatch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the thread came at the same moment
                self.release()
            else:
                self._waiting = collections.deque(entry for entry in self._waiting if entry[1] is not turn)
            raise
        return await self.call(function, *arguments)

    async def call(self, function: Callable, *arguments: Any) -> Any:
        """Calls a function in the thread that the caller has been given, and gives that back afterwards."""
        try:
            job = asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        except BaseException:
            self.release()
            raise
        job.add_done_callback(self._done)
        # Shielded: a caller that is cancelled leaves, and the thread is free only when the function has returned.
        return await asyncio.shield(job)

    def _done(self, job: asyncio.Future) -> None:
        job.exception()  # the caller may have left without hearing of it
        self.release()

    def release(self) -> None:
        """Gives a thread back."""
        self._free += 1
        self.dispatch()

    def dispatch(self) -> None:
        """Gives free threads to what has waited longest: single calls, and batches that are due."""
        while self._free:
            due = [(batch.due, queue, batch) for queue in self._queues if (batch := queue.due())]
            since, queue, batch = min(due, key=lambda entry: entry[0], default=(math.inf, None, None))
            if self._waiting and self._waiting[0][0] <= since:
                turn = self._waiting.popleft()[1]
                if not turn.done():  # else its caller has been cancelled, and has not yet run to take it out
                    self._free -= 1
                    turn.set_result(None)
            elif batch:
                self._free -= 1
                queue.start(batch)
            else:
                return

    def shutdown(self) -> None:
        """Lets the threads end."""
        self._executor.shutdown()


class Batcher:
    """The queue of one signature.

    Args:
        run: computes a batch from named inputs, in any thread.
        parameters: how batches are formed.
        threads: that all queues share.
        waited: told the seconds that each request waited.
    """

    def __init__(
        self,
        run: Callable[[Arrays], dict[str, np.ndarray]],
        parameters: Parameters,
        threads: Threads,
        waited: Callable[[float], None],
    ):
        self._run = run
        self._parameters = parameters
        self._threads = threads
        self._waited = waited
        self._batches: collections.deque[_Batch] = collections.deque()
        self._computing: set[asyncio.Task] = set()
        self._open: dict[tuple, _Batch] = {}  # by the shapes of a row
        self._last = (0, 0.0)  # requests that a batch answered lately, and the seconds it took
        threads.add(self)

    def close(self) -> None:
        self._threads.remove(self)

    def due(self) -> _Batch | None:
        """The oldest batch that is to be computed as soon as there is a thread."""
        now = time.monotonic()
        return next((batch for batch in self._batches if batch.is_due(now)), None)

    def start(self, batch: _Batch) -> None:
        """Computes a batch in the thread that this queue has been given."""
        self._batches.remove(batch)
        self._computing.add(task := asyncio.ensure_future(self._compute(batch)))
        task.add_done_callback(self._computing.discard)

    async def submit(self, inputs: Arrays, rows: int, deadline: float) -> dict[str, np.ndarray]:
        """Computes a request together with others.

        Args:
            inputs: arrays of equal first dimension.
            rows: that dimension.
            deadline: on `time.monotonic()`; a request that it has passed is not computed.

        Raises:
            StatusError: UNAVAILABLE, too much is waiting; or what computing its own rows led to.
        """
        limit = self._parameters.max_batch_size
        if rows > limit and self._parameters.refuse_larger:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {limit}")
        task = _Task(inputs, rows, deadline, asyncio.get_running_loop().create_future(), time.monotonic())
        batch = self._join(task)
        self._threads.dispatch()
        try:
            return await task.result
        except asyncio.CancelledError:
            self._leave(task, batch)
            raise

    def _join(self, task: _Task) -> _Batch:
        shape = self._shape(task.inputs)
        batch = self._open.get(shape)
        if batch and batch.rows + task.rows > self._parameters.max_batch_size:
            batch.full, batch = True, None
        if batch is None:
            if len(self._batches) >= self._parameters.max_enqueued_batches:
                raise StatusError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{len(self._batches)} batches enqueued and max_enqueued_batches is "
                    f"{self._parameters.max_enqueued_batches}",
                )
            batch = self._new_batch(task.queued)
            self._batches.append(batch)
            self._open[shape] = batch
        batch.tasks.append(task)
        batch.rows += task.rows
        batch.full = batch.rows >= self._parameters.max_batch_size
        return batch

    def _leave(self, task: _Task, batch: _Batch) -> None:
        """Takes a task whose client has gone out of a batch that is not computed yet."""
        if batch in self._batches:
            batch.tasks.remove(task)
            batch.rows -= task.rows
            if not batch.tasks:
                self._batches.remove(batch)
                self._close(batch)

    def _close(self, batch: _Batch) -> None:
        """Lets no more tasks join."""
        self._open = {shape: opened for shape, opened in self._open.items() if opened is not batch}

    def _new_batch(self, now: float) -> _Batch:
        requests, seconds = self._last
        if self._parameters.patience and requests > 1:
            batch = _Batch(now + self._parameters.patience * seconds, expected=requests)
        else:
            batch = _Batch(now + self._parameters.batch_timeout_micros / 1e6)
        if batch.due > now:
            # The loop's clock is time.monotonic, and may be a little early.
            asyncio.get_running_loop().call_at(batch.due + 1e-3, self._threads.dispatch)
        return batch

    def _shape(self, inputs: Arrays) -> tuple:
        """Requests for which this is equal can share a batch."""
        if self._parameters.pad_variable_length_inputs:
            return tuple(array.ndim for array in inputs.values())
        return tuple(array.shape[1:] for array in inputs.values())

    async def _compute(self, batch: _Batch) -> None:
        """Computes a batch and answers its requests. Until this begins, requests may still join."""
        self._close(batch)
        now = time.monotonic()
        for task in batch.tasks:
            self._waited(now - task.queued)
        tasks = [task for task in batch.tasks if not task.result.done()]
        try:
            answers = await self._threads.call(self._answers, tasks)
        except Exception as error:
            answers = [error] * len(tasks)
        self._last = len(tasks), time.monotonic() - now
        for task, answer in zip(tasks, answers, strict=True):
            if task.result.done():  # its client has gone meanwhile
                continue
            if isinstance(answer, Exception):
                task.result.set_exception(answer)
            else:
                task.result.set_result(answer)

    def _answers(self, tasks: list[_Task]) -> list[dict[str, np.ndarray] | Exception]:
        """The answer of each task. Where a batch fails, its halves are computed, down to the rows that are to blame."""
        now = time.monotonic()
        if late := [task for task in tasks if task.deadline <= now]:
            rest = iter(self._answers([task for task in tasks if task.deadline > now]))
            return [expired() if task in late else next(rest) for task in tasks]
        if not tasks:
            return []
        try:
            return self._together(tasks)
        except Exception as error:
            if len(tasks) == 1:
                return [error]
            half = len(tasks) // 2
            return self._answers(tasks[:half]) + self._answers(tasks[half:])

    def _together(self, tasks: list[_Task]) -> list[dict[str, np.ndarray]]:
        rows = sum(task.rows for task in tasks)
        size = next((size for size in self._parameters.allowed_batch_sizes if size >= rows), rows)
        if len(tasks) == 1 and size == rows:
            return [self._run(tasks[0].inputs)]
        merged = {name: _merge([task.inputs[name] for task in tasks], size - rows) for name in tasks[0].inputs}
        outputs = self._run(merged)
        for name, array in outputs.items():
            if not array.ndim or array.shape[0] != size:
                raise StatusError(
                    Code.FAILED_PRECONDITION,
                    f"Batched output tensor {name} has shape {list(array.shape)}, its 0th dimension does not equal the "
                    f"sum of the 0th dimension sizes of the input tensors, {size}",
                )
        ends = np.cumsum([task.rows for task in tasks])
        return [
            {name: array[end - task.rows : end] for name, array in outputs.items()}
            for task, end in zip(tasks, ends, strict=True)
        ]


def _merge(arrays: list[np.ndarray], padding_rows: int) -> np.ndarray:
    """Rows one after the other; rows of other lengths are padded, and the first row fills the batch up."""
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        longest = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [_padded(array, longest) for array in arrays]
    if padding_rows:
        arrays = [*arrays, np.repeat(arrays[0][:1], padding_rows, axis=0)]
    return np.concatenate(arrays)


def _padded(array: np.ndarray, lengths) -> np.ndarray:
    empty = b"" if array.dtype == object else 0
    widths = [(0, 0), *((0, int(most - here)) for most, here in zip(lengths, array.shape[1:], strict=True))]
    return np.pad(array, widths, constant_values=empty)


def expired() -> StatusError:
    return StatusError(Code.DEADLINE_EXCEEDED, "the deadline passed before there was an answer")
