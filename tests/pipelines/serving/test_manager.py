"""Which versions are served, and that changing them costs no request."""

import asyncio
import contextlib
import errno
import gc
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from pipelines.serving.batching import Parameters, Threads
from pipelines.serving.manager import Manager
from pipelines.serving.metrics import Metrics
from pipelines.serving.settings import Settings
from pipelines.serving.status import Code, StatusError
from pipelines.serving.version import State
from tests.pipelines.serving import exports

X = {"x": exports.floats(2.0)}


class Served:
    """A manager with a model `m`, polled as a server does it."""

    def __init__(self, base, **settings):
        self.base = base
        self.threads = Threads(2)
        self.manager = Manager(
            Settings(file_system_poll_wait_seconds=0.05, **settings), Parameters(), self.threads, Metrics()
        )

    async def __aenter__(self):
        self.polling = asyncio.ensure_future(self.manager.poll())
        return self

    async def __aexit__(self, *_):
        self.polling.cancel()
        self.threads.shutdown()

    async def configure(self, policy="", labels="", name="m"):
        entry = f'name: "{name}" base_path: "{self.base}" model_platform: "tensorflow" {policy} {labels}'
        await self.manager.configure(config(entry))

    async def ask(self, **spec):
        with self.manager.handle(model_pb2.ModelSpec(name="m", **spec)) as version:
            return float((await version.infer("serving_default", X))["y"][0])

    def states(self):
        with contextlib.suppress(StatusError):
            response = self.manager.status(model_pb2.ModelSpec(name="m"))
            return {entry.version: State.Name(entry.state) for entry in response.model_version_status}
        return {}

    async def until(self, **states):
        wanted = {int(name[1:]): state for name, state in states.items()}
        for _ in range(400):
            if self.states() == wanted:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"waited for {wanted}, there is {self.states()}")


def config(*entries):
    text = "model_config_list { " + " ".join(f"config {{ {entry} }}" for entry in entries) + " }"
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def label(name, number):
    return f'version_labels {{ key: "{name}" value: {number} }}'


def code_of(error):
    return error.value.code


def test_a_new_version_takes_over_and_no_request_fails_meanwhile(tmp_path, made):
    made("linear", tmp_path / "1", slope=1.0)

    async def scenario():
        answers = []
        async with Served(tmp_path) as served:
            await served.configure()

            async def client():
                while True:
                    answers.append(await served.ask())
                    await asyncio.sleep(0)

            clients = [asyncio.ensure_future(client()) for _ in range(4)]
            await asyncio.sleep(0.2)
            await asyncio.to_thread(made, "linear", tmp_path / "2", slope=2.0)
            await served.until(v1="END", v2="AVAILABLE")
            await asyncio.sleep(0.2)
            for task in clients:
                assert not task.done()  # nor failed
                task.cancel()
        return answers

    answers = asyncio.run(scenario())
    assert set(answers) == {4.0, 6.0} and answers == sorted(answers)


def test_a_damaged_version_never_displaces_a_good_one_and_is_tried_again_when_it_changes(tmp_path, made):
    made("linear", tmp_path / "1", slope=1.0)

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            made("damaged", tmp_path / "2")
            await served.until(v1="AVAILABLE", v2="END")
            (entry,) = served.manager.status(spec(2)).model_version_status
            assert entry.status.error_code and "2" in entry.status.error_message, entry
            assert await served.ask() == 4.0
            shutil.rmtree(tmp_path / "2")
            made("linear", tmp_path / "2", slope=2.0)
            await served.until(v1="END", v2="AVAILABLE")
            assert await served.ask() == 6.0

    asyncio.run(scenario())


def spec(number):
    found = model_pb2.ModelSpec(name="m")
    found.version.value = number
    return found


@pytest.mark.parametrize(("kind", "complaint"), [("compiled", "XLA"), ("damaged", ""), ("linear", "warm-up request")])
def test_what_cannot_be_served_is_refused_when_it_is_loaded(tmp_path, made, kind, complaint):
    directory = made(kind, tmp_path / "1", **({"warmup": 1.0} if kind == "linear" else {}))
    if kind == "linear":
        request = exports.predict_pb2.PredictRequest()
        request.inputs["no_such_input"].CopyFrom(exports.tf.make_tensor_proto([1.0]))
        exports.write_warmup(directory, request)

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()

    with pytest.raises(StatusError, match="did not become available") as error:
        asyncio.run(scenario())
    assert complaint in error.value.message


@pytest.mark.parametrize("kind", ["damaged", "texts"])
def test_a_version_that_cannot_be_served_keeps_no_session(tmp_path, made, kind):
    directory = made(kind, tmp_path / "1")
    if kind == "texts":
        request = exports.predict_pb2.PredictRequest()
        request.inputs["text"].CopyFrom(exports.tf.make_tensor_proto([exports.BAD]))
        exports.write_warmup(directory, request)

    def sessions():
        gc.collect()
        return sum(type(found) is exports.tf.compat.v1.Session for found in gc.get_objects())

    async def scenario():
        async with Served(tmp_path) as served:
            before = sessions()
            with pytest.raises(StatusError):
                await served.configure()
            return sessions() - before, served.states()

    assert asyncio.run(scenario()) == (0, {1: "END"})


def test_a_kind_of_warm_up_request_that_tensorflow_serving_refuses(tmp_path, made):
    exports.write_log(made("linear", tmp_path / "1"), exports.prediction_log_pb2.PredictionLog(session_run_log={}))

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()

    with pytest.raises(StatusError, match="Unsupported log_type for warmup: session_run_log") as error:
        asyncio.run(scenario())
    assert code_of(error) == Code.UNIMPLEMENTED


def test_a_graph_that_is_not_served_is_not_looked_at(tmp_path, made):
    exports.add_graph_for_training(made("linear", tmp_path / "1", slope=1.0))

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            return await served.ask()

    assert asyncio.run(scenario()) == 4.0


def test_an_export_of_keras_is_served_and_batched(tmp_path, made):
    made("keras_model", tmp_path / "1")

    async def scenario():
        async with Served(tmp_path, enable_batching="true") as served:
            await served.configure()
            with served.manager.handle(spec(1)) as version:
                (name,) = version.signatures["serving_default"].inputs
                rows = [np.full([1, 3], n, np.float32) for n in range(5)]
                answers = await asyncio.gather(*(version.infer("serving_default", {name: row}) for row in rows))
        return [next(iter(answer.values())).item() for answer in answers]

    assert asyncio.run(scenario()) == [0.0, 3.0, 6.0, 9.0, 12.0]


def test_deleting_the_newest_falls_back_and_deleting_all_ends_it(tmp_path, made):
    for number in (1, 2):
        made("linear", tmp_path / str(number), slope=float(number))

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            assert served.states() == {2: "AVAILABLE"}
            shutil.rmtree(tmp_path / "2")
            await served.until(v1="AVAILABLE", v2="END")
            assert await served.ask() == 4.0
            tmp_path.rename(tmp_path.with_name("away"))  # a disk that has gone takes nothing along
            await asyncio.sleep(0.3)
            assert await served.ask() == 4.0
            tmp_path.with_name("away").rename(tmp_path)
            shutil.rmtree(tmp_path / "1")
            await served.until(v1="END", v2="END")
            with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)") as error:
                await served.ask()
            assert code_of(error) == Code.NOT_FOUND

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("policy", "available"),
    [
        ("", {3}),
        ("model_version_policy { latest { num_versions: 2 } }", {2, 3}),
        ("model_version_policy { all {} }", {1, 2, 3}),
        ("model_version_policy { specific { versions: 1 versions: 3 } }", {1, 3}),
    ],
)
def test_policies(tmp_path, made, policy, available):
    for number in (1, 2, 3):
        made("linear", tmp_path / str(number), slope=float(number))

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure(policy)
            assert set(served.states()) == available
            for number in available:
                with served.manager.handle(spec(number)) as version:
                    assert (await version.infer("serving_default", X))["y"] == 2 * number + 2
            for number in {1, 2, 3} - available:
                with pytest.raises(StatusError, match=rf"Specific\(m, {number}\)"):
                    with served.manager.handle(spec(number)):
                        pass

    asyncio.run(scenario())


def test_labels(tmp_path, made):
    for number in (1, 2):
        made("linear", tmp_path / str(number), slope=float(number))
    everything = "model_version_policy { all {} }"

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure(everything, label("stable", 1) + label("canary", 2))
            assert await served.ask(version_label="stable") == 4.0
            assert await served.ask(version_label="canary") == 6.0
            await served.configure(everything, label("stable", 2))
            assert await served.ask(version_label="stable") == 6.0
            with pytest.raises(StatusError, match="Unrecognized servable version label: canary") as error:
                await served.ask(version_label="canary")
            assert code_of(error) == Code.INVALID_ARGUMENT
            with pytest.raises(StatusError, match="not currently available for inference") as error:
                await served.configure(everything, label("stable", 7))
            assert code_of(error) == Code.FAILED_PRECONDITION
        async with Served(tmp_path, allow_version_labels_for_unavailable_models=True) as served:
            await served.configure(everything, label("next", 7))
            with pytest.raises(StatusError, match=r"Specific\(m, 7\)"):
                await served.ask(version_label="next")
            made("linear", tmp_path / "7", slope=7.0)
            await served.until(v1="AVAILABLE", v2="AVAILABLE", v7="AVAILABLE")
            assert await served.ask(version_label="next") == 16.0
            shutil.rmtree(tmp_path / "7")
            await served.until(v1="AVAILABLE", v2="AVAILABLE", v7="END")
            await served.configure(everything, label("next", 7))  # where it is already; only moves are refused
            with pytest.raises(StatusError, match="not currently available for inference"):
                await served.configure(everything, label("next", 8))

    asyncio.run(scenario())


def test_a_new_configuration_loads_what_is_new_and_unloads_what_it_omits(tmp_path, made):
    made("linear", tmp_path / "1", slope=1.0)

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            await served.configure(name="other")
            await served.until(v1="END")
            with pytest.raises(StatusError, match=r"Latest\(m\)"):
                await served.ask()
            with served.manager.handle(model_pb2.ModelSpec(name="other")) as version:
                assert (await version.infer("serving_default", X))["y"] == 4.0
            await served.configure()
            assert await served.ask() == 4.0

    asyncio.run(scenario())


def test_a_model_that_comes_back_while_it_unloads_is_loaded_again(tmp_path, made):
    made("linear", tmp_path / "1", slope=1.0)

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            with served.manager.handle(model_pb2.ModelSpec(name="m")):
                await served.configure(name="other")
                assert served.states() == {1: "UNLOADING"}
                back = asyncio.ensure_future(served.configure())
                await asyncio.sleep(0.2)
                assert not back.done()
            await back
            assert await served.ask() == 4.0

    asyncio.run(scenario())


def test_a_disk_that_fails_while_it_is_looked_at_takes_nothing_along(tmp_path, made, monkeypatch, caplog):
    made("linear", tmp_path / "1", slope=1.0)

    def stale(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            with monkeypatch.context() as patch:
                patch.setattr(Path, "is_dir", stale)
                await served.configure()
            assert await served.ask() == 4.0

    asyncio.run(scenario())
    assert f"{tmp_path}: no directory that can be read" in caplog.text


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        (None, "Only ModelConfigList is currently supported"),
        (['name: "m" base_path: "/a" model_platform: "tensorflow"'] * 2, "multiple times"),
        (['name: "m" base_path: "/a" model_platform: "other"'], "unsupported platform"),
        (['name: "m" base_path: "a" model_platform: "tensorflow"'], "absolute path"),
        (['base_path: "/a" model_platform: "tensorflow"'], "needs a name"),
    ],
)
def test_a_wrong_configuration_changes_nothing(tmp_path, made, entries, complaint):
    made("linear", tmp_path / "1", slope=1.0)
    wrong = config(*entries) if entries else model_server_config_pb2.ModelServerConfig()

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            with pytest.raises(StatusError, match=complaint) as error:
                await served.manager.configure(wrong)
            assert code_of(error) == Code.INVALID_ARGUMENT
            assert await served.ask() == 4.0

    asyncio.run(scenario())


def test_a_version_that_is_served_stays_when_its_base_path_changes(tmp_path, made):
    """As in TensorFlow Serving, name and number say what it is."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made("linear", tmp_path / "a" / "1", slope=1.0)
    made("linear", tmp_path / "b" / "1", slope=2.0)

    async def scenario():
        async with Served(tmp_path / "a") as served:
            await served.configure()
            served.base = tmp_path / "b"
            await served.configure()
            assert await served.ask() == 4.0
            made("linear", tmp_path / "b" / "2", slope=3.0)
            await served.until(v1="END", v2="AVAILABLE")
            assert await served.ask() == 8.0

    asyncio.run(scenario())


def test_an_expired_request_is_not_computed(tmp_path, made):
    made("linear", tmp_path / "1")

    async def scenario():
        async with Served(tmp_path, enable_batching="false") as served:
            await served.configure()
            with served.manager.handle(spec(1)) as version, pytest.raises(StatusError) as error:
                await version.infer("serving_default", X, deadline=time.monotonic() - 1)
            assert code_of(error) == Code.DEADLINE_EXCEEDED

    asyncio.run(scenario())


def test_a_broken_model_keeps_no_label_of_another_from_moving(tmp_path, made):
    (tmp_path / "good").mkdir()
    (tmp_path / "broken").mkdir()
    made("linear", tmp_path / "good" / "1", slope=1.0)
    made("damaged", tmp_path / "broken" / "1")

    async def scenario():
        async with Served(tmp_path / "good") as served:
            entry = 'name: "{}" base_path: "{}" model_platform: "tensorflow" {}'
            with pytest.raises(StatusError, match="did not become available"):
                await served.manager.configure(
                    config(
                        entry.format("broken", tmp_path / "broken", ""),
                        entry.format("m", tmp_path / "good", label("stable", 1)),
                    )
                )
            assert await served.ask(version_label="stable") == 4.0

    asyncio.run(scenario())


def test_a_version_in_use_is_not_unloaded(tmp_path, made):
    made("linear", tmp_path / "1", slope=1.0)

    async def scenario():
        async with Served(tmp_path) as served:
            await served.configure()
            with served.manager.handle(model_pb2.ModelSpec(name="m")) as held:
                made("linear", tmp_path / "2", slope=2.0)
                await served.until(v1="UNLOADING", v2="AVAILABLE")
                assert await served.ask() == 6.0
                np.testing.assert_array_equal((await held.infer("serving_default", X))["y"], [4.0])
            await served.until(v1="END", v2="AVAILABLE")

    asyncio.run(scenario())
