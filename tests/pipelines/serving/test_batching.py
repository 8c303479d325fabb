"""Batches: what shares one, what waits, what is refused, and that nobody pays for another's bad row."""

import asyncio
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.serving import protos
from pipelines.serving.batching import Batcher, Parameters, Threads
from pipelines.serving.status import Code, StatusError


class Doubling:
    """Doubles numbers, refuses negative ones, and notes the batches it was given."""

    def __init__(self, hold: threading.Event | None = None):
        self.batches = []
        self.hold = hold

    def __call__(self, inputs):
        self.batches.append(inputs["x"].shape[0])
        if self.hold:
            self.hold.wait(10)
        if (inputs["x"] < 0).any():
            raise StatusError(Code.INVALID_ARGUMENT, "a negative number")
        return {"y": inputs["x"] * 2, "length": np.full(len(inputs["x"]), inputs["x"][0].size)}


def batcher(run, threads=1, **parameters):
    return Batcher(run, Parameters(**parameters), Threads(threads), lambda seconds: None)


async def submitted(queue, *rows, deadline=math.inf):
    """The answer or error of each request, all sent at once."""
    arrays = [np.asarray(row, np.float32) for row in rows]
    return await asyncio.gather(
        *(queue.submit({"x": array}, len(array), deadline) for array in arrays), return_exceptions=True
    )


@given(
    requests=st.lists(st.lists(st.integers(-1, 50), min_size=1, max_size=4), min_size=1, max_size=20),
    threads=st.integers(1, 3),
    size=st.integers(4, 8),
)
@settings(max_examples=60, deadline=None)
def test_everyone_gets_their_own_rows_and_their_own_errors(requests, threads, size):
    answers = asyncio.run(
        submitted_to(Doubling(), requests, threads=threads, max_batch_size=size, max_enqueued_batches=100)
    )
    for request, answer in zip(requests, answers, strict=True):
        if min(request) < 0:
            assert isinstance(answer, StatusError) and answer.code == Code.INVALID_ARGUMENT
        else:
            np.testing.assert_array_equal(answer["y"], np.array(request) * 2)


async def submitted_to(run, requests, threads=1, **parameters):
    return await submitted(batcher(run, threads, **parameters), *requests)


def test_what_arrives_while_all_threads_work_is_one_batch():
    async def scenario():
        run = Doubling(hold := threading.Event())
        queue = batcher(run, max_batch_size=8)
        first = asyncio.ensure_future(submitted(queue, [1]))
        await until(lambda: run.batches)
        rest = asyncio.ensure_future(submitted(queue, [2], [3, 4], [5]))
        await asyncio.sleep(0.05)
        hold.set()
        await asyncio.gather(first, rest)
        return run.batches

    assert asyncio.run(scenario()) == [1, 4]


def test_a_batch_waits_until_it_is_full_or_its_time_is_up():
    async def scenario():
        run = Doubling()
        queue = batcher(run, max_batch_size=4, batch_timeout_micros=200_000)
        began = time.monotonic()
        await submitted(queue, [1], [2], [3], [4])
        full = time.monotonic() - began
        await submitted(queue, [1])
        return run.batches, full, time.monotonic() - began - full

    batches, full, alone = asyncio.run(scenario())
    assert batches == [4, 1] and full < 0.15 and 0.2 <= alone < 1


def test_patience_waits_for_clients_that_ask_again_but_not_for_one_that_is_alone():
    class Slow(Doubling):
        def __call__(self, inputs):
            time.sleep(0.2)
            return super().__call__(inputs)

    async def scenario():
        run = Slow()
        queue = batcher(run, max_batch_size=8, patience=0.5)

        async def ask(delay):
            await asyncio.sleep(delay)
            began = time.monotonic()
            await submitted(queue, [1])
            return time.monotonic() - began

        alone = [await ask(0), await ask(0)]
        for _ in range(2):
            await asyncio.gather(*(ask(0.02 * client) for client in range(3)))
        return run.batches, alone

    batches, alone = asyncio.run(scenario())
    assert batches[:2] == [1, 1] and max(alone) < 0.29
    # The first of three goes alone, as nobody was with it before; from then on they wait for one another.
    assert batches[2:] == [1, 2, 2, 1]


def test_a_full_queue_refuses_at_once_and_larger_requests_are_refused():
    async def scenario():
        run = Doubling(hold := threading.Event())
        queue = batcher(run, max_batch_size=2, max_enqueued_batches=1)
        first = asyncio.ensure_future(submitted(queue, [1]))
        await until(lambda: run.batches)
        rest = asyncio.ensure_future(submitted(queue, [2, 2], [3], [1, 2, 3]))
        await asyncio.sleep(0.01)
        hold.set()
        return (await first) + (await rest)

    first, queued, refused, large = asyncio.run(scenario())
    assert first["y"] == [2] and list(queued["y"]) == [4, 4]
    assert refused.code == Code.UNAVAILABLE and "is full" in refused.message
    assert large.code == Code.INVALID_ARGUMENT
    assert large.message == "Task size 3 is larger than maximum input batch size 2"


def test_a_large_request_is_computed_by_itself_where_that_is_allowed():
    run = Doubling()
    (answer,) = asyncio.run(submitted_to(run, [list(range(9))], max_batch_size=4, refuse_larger=False))
    assert len(answer["y"]) == 9 and run.batches == [9]


def test_what_comes_too_late_or_whose_client_has_gone_is_not_computed():
    async def scenario():
        run = Doubling(hold := threading.Event())
        queue = batcher(run, max_batch_size=1)
        first = asyncio.ensure_future(submitted(queue, [1]))
        await until(lambda: run.batches)
        late = asyncio.ensure_future(submitted(queue, [2], deadline=time.monotonic() + 0.02))
        gone = asyncio.ensure_future(submitted(queue, [3]))
        await asyncio.sleep(0.05)
        gone.cancel()
        hold.set()
        return run.batches, await first, await late

    batches, first, (late,) = asyncio.run(scenario())
    assert batches == [1] and late.code == Code.DEADLINE_EXCEEDED


def test_requests_whose_clients_have_gone_leave_no_place_taken():
    async def scenario():
        run = Doubling(hold := threading.Event())
        queue = batcher(run, max_batch_size=2, max_enqueued_batches=1)
        first = asyncio.ensure_future(submitted(queue, [1]))
        await until(lambda: run.batches)
        for _ in range(5):  # one after the other they all find room
            gone = asyncio.ensure_future(submitted(queue, [2, 2]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        last = asyncio.ensure_future(submitted(queue, [3]))
        await asyncio.sleep(0.01)
        hold.set()
        return run.batches, await first, await last

    batches, _, (last,) = asyncio.run(scenario())
    assert batches == [1, 1] and last["y"] == [6]


def test_single_calls_wait_for_a_thread_and_leave_nothing_behind_when_they_are_given_up():
    async def scenario():
        threads, called, hold = Threads(1), [], threading.Event()

        def work(name):
            called.append(name)
            hold.wait(10)
            return name

        first = asyncio.ensure_future(threads.run(work, "first"))
        await until(lambda: called)
        gone = [asyncio.ensure_future(threads.run(work, "gone")) for _ in range(3)]
        last = asyncio.ensure_future(threads.run(work, "last"))
        await asyncio.sleep(0.01)
        first.cancel()  # whose thread goes on, and is not given away meanwhile
        for task in gone:
            task.cancel()
        await asyncio.sleep(0.05)
        assert called == ["first"] and len(threads._waiting) == 1
        hold.set()
        return called, await last

    assert asyncio.run(scenario()) == (["first", "last"], "last")


def test_a_call_given_up_at_the_moment_when_a_thread_becomes_free_does_not_take_it_along():
    async def scenario():
        threads, called, hold = Threads(1), threading.Event(), threading.Event()

        def work():
            called.set()
            hold.wait(10)

        first = asyncio.ensure_future(threads.run(work))
        await until(called.is_set)
        waiting = asyncio.ensure_future(threads.run(work))
        await asyncio.sleep(0)
        hold.set()
        time.sleep(0.05)  # in the loop's own thread: it hears of the end and of the cancelling in the same turn
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await asyncio.gather(first, waiting, return_exceptions=True)
        return await asyncio.wait_for(threads.run(lambda: "answered"), 5)

    assert asyncio.run(scenario()) == "answered"


def test_a_defect_answers_its_requests_and_frees_its_thread():
    async def scenario():
        queue = batcher(Doubling())
        queue._answers = lambda tasks: 1 / 0
        first = await submitted(queue, [1])
        del queue._answers
        return first + await submitted(queue, [2])

    defect, good = asyncio.run(scenario())
    assert isinstance(defect, ZeroDivisionError) and good["y"] == [4]


def test_padding_to_allowed_sizes_is_not_seen_by_clients():
    run = Doubling()
    answers = asyncio.run(submitted_to(run, [[1], [2], [3]], max_batch_size=8, allowed_batch_sizes=(2, 8)))
    assert [list(answer["y"]) for answer in answers] == [[2], [4], [6]]
    assert run.batches == [8]


@pytest.mark.parametrize(("pad", "lengths"), [(True, [[3], [3]]), (False, [[3], [2]])])
def test_rows_of_other_lengths_share_a_batch_only_when_padded(pad, lengths):
    async def scenario():
        run = Doubling(hold := threading.Event())
        queue = batcher(run, max_batch_size=8, pad_variable_length_inputs=pad, max_enqueued_batches=8)
        first = asyncio.ensure_future(submitted(queue, [[9.0]]))
        await until(lambda: run.batches)
        rest = asyncio.ensure_future(submitted(queue, [[1, 2, 3]], [[4, 5]]))
        await asyncio.sleep(0.02)
        hold.set()
        await first
        return await rest

    answers = asyncio.run(scenario())
    assert [list(answer["length"]) for answer in answers] == lengths
    assert answers[1]["y"].tolist() == ([[8, 10, 0]] if pad else [[8, 10]])


def test_a_model_whose_output_is_not_of_rows_answers_one_request_after_the_other():
    def total(inputs):
        return {"sum": inputs["x"].sum()}

    answers = asyncio.run(submitted_to(total, [[1, 2], [3]], max_batch_size=8))
    assert [float(answer["sum"]) for answer in answers] == [3, 3]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"allowed_batch_sizes": [4, 2]}, "must ascend"),
        ({"max_batch_size": {"value": 8}, "allowed_batch_sizes": [2, 4]}, "equal to max_batch_size"),
        ({"max_batch_size": {"value": 0}}, "start at 1"),
    ],
)
def test_parameters_that_contradict_one_another(fields, complaint):
    with pytest.raises(UserError, match=complaint):
        Parameters.from_proto(protos.BatchingParameters(**fields))


def test_parameters_have_the_defaults_of_tensorflow_serving():
    found = Parameters.from_proto(protos.BatchingParameters(max_batch_size={"value": 8}))
    assert found == Parameters(max_batch_size=8, batch_timeout_micros=0, max_enqueued_batches=10)


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")
