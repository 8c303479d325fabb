"""Which versions of which models are served: looked for on the disk, loaded, switched to, drained, unloaded."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config import model_server_config_pb2

from pipelines.export import versions
from pipelines.serving.batching import Parameters, Threads
from pipelines.serving.config_files import PLATFORM
from pipelines.serving.metrics import Metrics
from pipelines.serving.settings import Settings
from pipelines.serving.status import Code, StatusError, invalid
from pipelines.serving.version import State, Version

ENDED_KEPT = 100  # versions that have ended and are still shown in the status

log = logging.getLogger(__name__)


class Model:
    """The versions of one model.

    Args:
        config: a ModelConfig.
    """

    def __init__(self, config: model_server_config_pb2.ModelConfig):
        self.config = config
        self.versions: dict[int, Version] = {}
        self.labels: dict[str, int] = {}
        self.lock = asyncio.Lock()  # held while versions come and go
        self.wanted = True  # by the configuration
        self.unloading: set[asyncio.Task] = set()

    @property
    def available(self) -> list[Version]:
        return [version for version in self.versions.values() if version.state == State.AVAILABLE]

    @property
    def failure(self) -> Version | None:
        """The newest version that could not be loaded, where none is available."""
        failed = [version for version in self.versions.values() if version.error]
        return None if self.available else max(failed, key=lambda version: version.number, default=None)

    def forget(self) -> None:
        """Drops the oldest of the versions that have ended, so that years of new versions do not fill the memory."""
        ended = sorted(number for number, version in self.versions.items() if version.state == State.END)
        for number in ended[:-ENDED_KEPT]:
            del self.versions[number]

    def aspired(self) -> dict[int, Path] | None:
        """The versions that should be served, by number; None where that cannot be told."""
        if not self.wanted:
            return {}
        base = Path(self.config.base_path)
        try:
            if not base.is_dir():
                return None
            found = versions.existing(base)
        except OSError:  # a stale mount, for one
            return None
        policy = self.config.model_version_policy
        match policy.WhichOneof("policy_choice"):
            case "all":
                return found
            case "specific":
                return {number: path for number, path in found.items() if number in policy.specific.versions}
            case _:
                return dict(list(found.items())[-max(policy.latest.num_versions, 1) :])


class Manager:
    """All models.

    Args:
        settings: of the server.
        parameters: of batches.
        threads: to compute on.
        metrics: to be told.
    """

    def __init__(self, settings: Settings, parameters: Parameters, threads: Threads, metrics: Metrics):
        self._settings = settings
        self._parameters = parameters
        self._threads = threads
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        self._background: set[asyncio.Task] = set()
        self._reloading = asyncio.Lock()
        self._loading = asyncio.Lock()  # one version at a time, so that two do not fill the memory at once

    async def configure(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serves the models of a configuration and no others. Returns when new ones have been loaded.

        Raises:
            StatusError: the configuration is wrong, and nothing changes; or a new model cannot be served or a label
                not be set, and everything else is as asked.
        """
        async with self._reloading:
            listed = self._checked(config)
            known = {name for name, model in self._models.items() if model.wanted}
            # A version that is being unloaded cannot be loaded again until that has come to its end.
            returning = [model for name, model in self._models.items() if name in listed and name not in known]
            if unloading := [task for model in returning for task in model.unloading]:
                await asyncio.wait(unloading)
            for name, entry in listed.items():
                model = self._models.setdefault(name, Model(entry))
                model.config, model.wanted = entry, True
            for name, model in self._models.items():
                model.wanted = name in listed
            await asyncio.gather(*(self._reconcile(model) for model in list(self._models.values())))
            errors = [error for name in listed if (error := self._set_labels(self._models[name]))]
            failures = [found for name in listed if name not in known and (found := self._models[name].failure)]
            if failures:
                error = failures[0].error
                names = ", ".join(f"{{name: {failed.model} version: {failed.number}}}" for failed in failures)
                raise StatusError(
                    error.code,
                    f"{len(failures)} servable(s) did not become available: {{{names} due to error: {error.message}}}",
                )
            if errors:
                raise errors[0]

    def _checked(self, config: model_server_config_pb2.ModelServerConfig) -> dict:
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        listed = {}
        for entry in config.model_config_list.config:
            if not entry.name or not entry.base_path:
                raise invalid("a model's configuration needs a name and a base_path")
            if entry.name in listed:
                raise invalid(f"Illegal to list model {entry.name} multiple times in config list")
            # model_type is what model_platform was called before.
            if entry.model_platform != PLATFORM and entry.model_type != model_server_config_pb2.TENSORFLOW:
                raise invalid(f'Model {entry.name} requests unsupported platform "{entry.model_platform}"')
            if not Path(entry.base_path).is_absolute():
                raise invalid(
                    f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
                )
            listed[entry.name] = entry
        return listed

    def _set_labels(self, model: Model) -> StatusError | None:
        """Moves a model's labels to where its configuration wants them. Returns why that cannot be, if so."""
        for label, number in model.config.version_labels.items():
            version = model.versions.get(number)
            available = version is not None and version.state == State.AVAILABLE
            # A label that is in use must not move to what is not there, whatever the flag says.
            stays = model.labels.get(label, number) == number
            if not available and not (stays and self._settings.allow_version_labels_for_unavailable_models):
                return StatusError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label {label} to version {number} of model {model.config.name}, which is not "
                    "currently available for inference",
                )
        model.labels = dict(model.config.version_labels)
        return None

    async def poll(self) -> None:
        """Looks for versions that have come or gone, without end."""
        while self._settings.file_system_poll_wait_seconds > 0:
            await asyncio.sleep(self._settings.file_system_poll_wait_seconds)
            for model in self._models.values():
                if not model.lock.locked():  # polling waits for no one
                    self._in_background(self._reconcile(model))

    async def _reconcile(self, model: Model) -> None:
        """Brings the versions that are served in line with those that should be."""
        async with model.lock:
            aspired, to_load = await asyncio.to_thread(self._look, model)
            if aspired is None:
                # Perhaps a disk that comes back: what is served stays.
                log.warning(
                    "%s: no directory that can be read, for model %s", model.config.base_path, model.config.name
                )
                return
            for number in to_load:
                await self._load(model, number, aspired[number])
            # What is served goes on until something else can take over, or nothing is wanted any more.
            replaced = not aspired or any(version.number in aspired for version in model.available)
            for version in model.available if replaced else []:
                if version.number not in aspired:
                    # Not awaited: its last request may take as long as it likes, and no newer version waits for it.
                    version.state = State.UNLOADING
                    model.unloading.add(task := self._in_background(version.unload()))
                    task.add_done_callback(model.unloading.discard)
            model.forget()

    def _look(self, model: Model) -> tuple[dict[int, Path] | None, list[int]]:
        """What should be served, and what of that is to be loaded; looks at the disk, which may be a slow one."""
        aspired = model.aspired()
        known = model.versions
        newest_first = sorted(aspired or {}, reverse=True)
        return aspired, [n for n in newest_first if n not in known or known[n].is_to_load_again(aspired[n])]

    def _in_background(self, work: Coroutine) -> asyncio.Task:
        task = asyncio.ensure_future(work)
        self._background.add(task)  # which would vanish if nobody held it
        task.add_done_callback(self._background.discard)
        return task

    async def _load(self, model: Model, number: int, path: Path) -> None:
        version = model.versions[number] = Version(model.config.name, number, path, self._threads, self._metrics)
        async with self._loading:
            await version.load(
                self._settings.tensorflow_intra_op_parallelism or 1, self._settings.enable_batching, self._parameters
            )

    def has(self, name: str) -> bool:
        """Whether a model of this name is configured."""
        return name in self._models

    @contextlib.contextmanager
    def handle(self, spec: model_pb2.ModelSpec) -> Iterator[Version]:
        """The version that a request means; it stays loaded meanwhile.

        Raises:
            StatusError: INVALID_ARGUMENT for a missing name or an unknown label, NOT_FOUND for what is not served.
        """
        if not spec.name:
            raise invalid("Missing ModelSpec")
        model = self._models.get(spec.name)
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            if model is None or spec.version_label not in model.labels:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            number = model.labels[spec.version_label]
        else:
            number = spec.version.value
        if choice:
            wanted, called = model and model.versions.get(number), f"Specific({spec.name}, {number})"
        else:
            available = model.available if model else []
            wanted = max(available, key=lambda version: version.number, default=None)
            called = f"Latest({spec.name})"
        if wanted is None or wanted.state != State.AVAILABLE:
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {called}")
        with wanted.held():
            yield wanted

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """How the versions of a model are doing; a label in the request is passed over.

        Raises:
            StatusError: NOT_FOUND.
        """
        if not spec.name:
            raise invalid("Missing ModelSpec")
        model = self._models.get(spec.name)
        known = dict(model.versions) if model else {}
        if spec.WhichOneof("version_choice") == "version":
            number = spec.version.value
            if number not in known:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {number} of model {spec.name}")
            known = {number: known[number]}
        if not known:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, version in sorted(known.items(), reverse=True):
            entry = response.model_version_status.add(version=number, state=version.state)
            entry.status.error_code = version.error.code.value[0] if version.error else 0
            entry.status.error_message = version.error.message if version.error else ""
        return response
