"""Settings that every app's `train` shares, and the rules by which a whole configuration is found.

A configuration is one frozen dataclass tree. Each field's comment is its help text, each field's
name is its flag (`model.dropout` is `--model.dropout`) and its key in a YAML file. Values are
looked up in this order, later ones winning: the dataclass, the named size, the data set's recipe,
the `--config` file, the flags. This module imports no TensorFlow, so that `--help` stays quick.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import tyro
import yaml

from pipelines.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) and its learning-rate schedule."""

    # Peak learning rate, reached at the end of the warm-up.
    learning_rate: float = 2e-3
    # After the warm-up: fall with 1/sqrt(step), along a cosine to zero at the last step, or not at all.
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    # Steps over which the learning rate rises linearly from zero.
    warmup_steps: int = 400
    # Decoupled weight decay of matrices; biases, scales and embeddings are left alone.
    weight_decay: float = 0.01
    # Decay of the first moment.
    beta_1: float = 0.9
    # Decay of the second moment.
    beta_2: float = 0.98
    # Gradients are scaled down to this global norm; 0 leaves them as they are.
    clip_norm: float = 1.0
    # Decay of the moving average of the weights, which validation and all later commands use; 0 turns it off.
    average_decay: float = 0.998
    # Steps at the start in which pretrained weights stay as they are, while the new ones find their place.
    frozen_steps: int = 0
    # Learning rate of pretrained weights after that, as a share of the learning rate of new ones.
    pretrained_rate: float = 0.1

    def check(self) -> None:
        """Raises UserError for values out of range."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "schedule"]
        require_at_least(0, self, *names, prefix="optimizer.")
        require_share(self, "beta_1", "beta_2", "average_decay", prefix="optimizer.")


@dataclasses.dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stop when a validation metric no longer improves. The same metric names the best checkpoint."""

    # Validation metric to watch, as TensorBoard names it (loss, accuracy, bleu ...).
    metric: str = "loss"
    # Validations without improvement before training stops; 0 never stops early.
    patience: int = 0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What `train` needs in every app. An app's own configuration adds its model and its data."""

    # Fields for which `auto`, 0 or an empty list means that the value is chosen and written into config.yaml.
    automatic: ClassVar[frozenset[str]] = frozenset({"jit"})
    # Default settings for a data set by its name; keys as in a YAML file.
    recipes: ClassVar[Mapping[str, Mapping]] = {}
    # Model settings for each named size; keys are fields of `model`.
    sizes: ClassVar[Mapping[str, Mapping]] = {}

    # Directory of the run; default is a new runs/<app>/<time>. An existing run is resumed.
    run_dir: Path | None = None
    # Data set by name; `sample` is embedded, the others are downloaded once (or read from $ESPALIER_DATA).
    dataset: str = "sample"
    # Your own training file(s), instead of a named data set.
    train: tuple[Path, ...] = ()
    # Your own validation file(s).
    validation: tuple[Path, ...] = ()
    # Your own test file(s), which `evaluate` reads.
    test: tuple[Path, ...] = ()
    # What to do with a malformed example: stop with its row number, or count it, name it and go on.
    on_bad_example: Literal["fail", "skip"] = "fail"
    # Named model size; single fields by their own flag (--model.dropout 0.1).
    size: Literal["tiny", "small", "base"] = "tiny"

    # Passes over the training data.
    epochs: int = 10
    # Stop after this many steps, whatever the epoch; 0 sets no limit.
    max_steps: int = 0
    # Stop after this many minutes, start-up and earlier parts of a resumed run included; 0 sets no limit.
    max_minutes: float = 0.0
    # Examples in a step, across all replicas.
    batch_size: int = 64
    # Seed of initial weights, data order and dropout.
    seed: int = 0
    # Write a checkpoint every N steps, besides the one after each validation.
    checkpoint_every: int = 500
    # Newest checkpoints to keep; the best one by the early-stopping metric is kept besides.
    keep_checkpoints: int = 3
    # Validate every N steps; 0 validates after each epoch.
    validate_every: int = 0

    # Replicas: none is one, mirrored is one a device, multi_worker is one or more a process. Auto takes multi_worker
    # where TF_CONFIG is set, mirrored on several devices, else none.
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"
    # Devices by name, such as GPU:0,GPU:1; default is every GPU, or the CPU. CPU:0,CPU:1 rehearses two on one CPU.
    devices: str = ""
    # Seconds that a worker waits for the others to start.
    rendezvous_seconds: float = 300.0
    # Compile the training step with XLA; auto times both on the first batch and takes what ends training sooner.
    jit: Literal["auto", "on", "off"] = "auto"
    # Type in which layers compute; weights stay float32. mixed_float16 scales the loss to keep small gradients.
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    # Compute a step's gradients in N parts, one after the other: the same step in less memory.
    accumulate: int = 1
    # Steps that TensorFlow takes before it returns to Python: saves time where a step takes milliseconds.
    steps_per_call: int = 1
    # Keep only each block's input for the backward pass and compute the rest of it again: less memory, more time.
    remat: bool = False
    # Write a profile of steps A:B for TensorBoard's profiler, such as 10:20.
    profile: str = ""

    optimizer: OptimizerConfig = OptimizerConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()

    def size_settings(self) -> Mapping:
        """Model settings of the named size. An app with several kinds of model gives those of the chosen one."""
        return self.sizes.get(self.size, {})

    def recipe(self) -> Mapping:
        """Default settings that go with the data set. An app with several tasks gives those of the chosen one."""
        return {} if self.train else self.recipes.get(self.dataset, {})

    def check(self) -> None:
        """Raises UserError for values that are of the right type and yet make no sense. Apps add their own."""
        require_at_least(1, self, "epochs", "batch_size", "accumulate", "steps_per_call")
        require_at_least(1, self, "checkpoint_every", "keep_checkpoints")
        require_at_least(0, self, "seed", "max_steps", "max_minutes", "validate_every", "rendezvous_seconds")
        require_at_most(2**32 - 1, self, "seed")  # what NumPy takes
        require_at_least(0, self.early_stopping, "patience", prefix="early_stopping.")
        self.optimizer.check()
        self.profiled_steps()
        self.device_names()
        if (self.validation or self.test) and not self.train:
            raise UserError("--validation and --test go with --train; a named data set has its own")

    def own_files(self) -> dict[str, tuple[Path, ...]]:
        """The user's own files by split, `train` first; none of those that were not given."""
        given = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: paths for split, paths in given.items() if paths}

    def unknown_dataset(self, known: Sequence[str]) -> UserError:
        """What to raise where the data set is none of those that are known."""
        hint = nearest(self.dataset, known)
        return UserError(f"--dataset {self.dataset}: unknown{hint}; for your own files use --train")

    def device_names(self) -> tuple[str, ...]:
        """The devices that `devices` names; none where it is empty."""
        names = tuple(name.strip().upper() for name in self.devices.split(",")) if self.devices else ()
        if len(set(names)) < len(names) or any(not re.fullmatch(r"(CPU|GPU):\d{1,3}", name) for name in names):
            raise UserError(f"--devices {self.devices}: expected different devices such as GPU:0,GPU:1 or CPU:0,CPU:1")
        return names

    def check_replicas(self, replicas: int) -> None:
        """Raises UserError where a batch cannot be dealt out evenly: equal parts keep shapes static."""
        parts = replicas * self.accumulate
        if self.batch_size % parts:
            near = self.batch_size // parts * parts
            raise UserError(
                f"--batch-size {self.batch_size}: takes a multiple of {parts} ({replicas} replicas x --accumulate "
                f"{self.accumulate}), such as {near or parts}"
            )

    def profiled_steps(self) -> tuple[int, int]:
        """The first and the last step of `profile`; (0, 0) where nothing is to be profiled."""
        if not self.profile:
            return (0, 0)
        first, _, last = self.profile.partition(":")
        if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last)):
            raise UserError(f"--profile {self.profile}: expected two steps such as 10:20 (in YAML within quotes)")
        return int(first), int(last)


def require_at_least(least: float, config: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError for the first of the named fields whose value is below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise UserError(f"{_flag(prefix, name)} {getattr(config, name)}: takes a number from {least} on")


def require_at_most(most: float, config: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError for the first of the named fields whose value is above `most`."""
    for name in names:
        if getattr(config, name) > most:
            raise UserError(f"{_flag(prefix, name)} {getattr(config, name)}: takes a number up to {most}")


def require_share(config: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError for the first of the named fields whose value is not from 0 to below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{_flag(prefix, name)} {getattr(config, name)}: takes a share from 0 to below 1")


def require_ascending(config: Any, name: str, most: int | None = None) -> None:
    """Raises UserError unless the lengths that the field lists are above 0, ascending, and no more than `most`."""
    lengths = getattr(config, name)
    if list(lengths) != sorted(set(lengths)) or any(n < 1 or n > (most or n) for n in lengths):
        limit = "" if most is None else f" up to {most}"
        raise UserError(f"{_flag('', name)} {' '.join(map(str, lengths))}: takes ascending lengths from 1 on{limit}")


def _flag(prefix: str, name: str) -> str:
    return f"--{prefix}{name}".replace("_", "-")


# Values that mean "choose for me". On resume they stay with what was chosen.
AUTOMATIC = ("auto", 0, ())

# Where to train. A run notes it, and yet each start says it anew: the next machine may be another one.
OF_EACH_START = {"strategy", "devices", "rendezvous_seconds"}

# A resumed run may change these: they say how long, how carefully and on what to train, not what is trained.
CHANGEABLE = OF_EACH_START | {
    "run_dir", "accumulate", "steps_per_call", "remat", "epochs", "max_steps",
    "max_minutes", "checkpoint_every", "keep_checkpoints", "validate_every", "profile", "early_stopping.patience",
}  # fmt: skip

Config = TypeVar("Config")


def parse(default: Config, arguments: Sequence[str], program: str, where: str = "") -> Config:
    """Applies flags to a configuration.

    Args:
        default: Dataclass instance with the values that hold where no flag says otherwise.
        arguments: Flags, as on a command line. The last one wins.
        program: Command to name in the help text.
        where: File to blame for a wrong value, when the flags were read from one.

    Raises:
        UserError: An unknown flag or a wrong value, in one line.
        SystemExit: After printing help.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            config, unknown = tyro.cli(
                type(default), default=default, args=list(arguments), prog=program, return_unknown_args=True
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_one_line(printed.getvalue(), where)) from None
    if unknown:
        name = unknown[0].split("=")[0]
        known = [f"--{key}".replace("_", "-") for key in _flag_names(type(default))]
        raise UserError(f"unknown argument {name}{nearest(name.replace('_', '-'), known)}; try {program} --help")
    return config


def _flag_names(cls: type, prefix: str = "") -> Iterator[str]:
    """The names of a configuration's fields as flags spell them: a nested one's prefix can be annotated away."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        nested, *notes = typing.get_args(hints[field.name]) or [hints[field.name]]
        if dataclasses.is_dataclass(nested):
            bare = any(getattr(note, "name", None) == "" for note in notes)
            yield from _flag_names(nested, prefix if bare else f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _one_line(box: str, where: str) -> str:
    """The message inside tyro's drawn box."""
    message = re.split(r"─{8,} │|For full helptext", box.split("\n", 1)[-1])[0]
    message = " ".join(re.sub(r"[│╭╮╰╯─]", " ", message).split())
    return f"{where}: {message}" if where else message


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint such as ` (did you mean --epochs?)`, or the whole list where nothing is near."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f" (did you mean {near[0]}?)"
    return f" (known: {', '.join(known)})" if len(known) <= 12 else ""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass tree as {"model.dropout": 0.1, ...}."""
    flat = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = value
    return flat


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass tree as plain nested values that YAML can hold."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def to_flags(values: Mapping, config: Any, where: str = "", prefix: str = "") -> list[str]:
    """Nested plain values as flags, so that one parser checks all types.

    Args:
        values: What a YAML file or a recipe holds.
        config: Dataclass instance whose fields the keys must name.
        where: File to name in errors.
        prefix: Path of `values` in the whole tree, with a closing dot.

    Raises:
        UserError: A key that is no field; the nearest one is suggested.
    """
    flags = []
    fields = {field.name: field for field in dataclasses.fields(config)}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{where}: unknown key '{prefix}{key}'{nearest(str(key), list(fields))}")
        current, flag = getattr(config, key), f"--{prefix}{key}".replace("_", "-")
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: '{prefix}{key}' takes keys of its own ({', '.join(flatten(current))})")
            flags += to_flags(value, current, where, f"{prefix}{key}.")
        elif isinstance(value, bool) and fields[key].type is bool:
            flags.append(flag if value else f"--{prefix}no-{key}".replace("_", "-"))
        elif isinstance(value, bool):  # YAML reads a bare `on` as true
            flags += [flag, "on" if value else "off"]
        elif isinstance(value, list | tuple):
            flags += [flag, *map(str, value)]
        else:
            flags += [flag, str(value)]
    return flags


def from_dict(default: Config, values: Mapping, where: str) -> Config:
    """A configuration from nested plain values, such as `to_dict` makes and YAML holds.

    Args:
        default: Gives the type, and the values that are not among `values`.
        values: What to lay over it.
        where: File or place to name in errors.
    """
    return parse(default, to_flags(values, default, where), "train", where)


def read_yaml(path: Path) -> dict:
    """Reads a mapping from a YAML file. Raises UserError where there is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror.lower()}; write one with train --print-config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected lines such as 'epochs: 3', found {type(values).__name__}")
    return values


def write_yaml(values: Mapping) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def resolve(kind: type[Config], file: Path | None, arguments: Sequence[str], program: str) -> Config:
    """The configuration of a new run: recipe, size, file and flags laid over one another."""
    from_file = read_yaml(file) if file else {}

    def lay_over(base):
        if from_file:
            base = from_dict(base, from_file, str(file))
        return parse(base, arguments, program)

    draft = lay_over(kind())  # names the data set and the size, which decide the defaults
    recipe = draft.recipe()
    size = {"size": draft.size, "model": draft.size_settings()}
    base = parse(kind(), to_flags(size, kind()), program)
    return lay_over(parse(base, to_flags(recipe, base), program))


def resume(saved: Config, file: Path | None, arguments: Sequence[str], program: str, where: str) -> Config:
    """The configuration of a run that exists: what it was started with, and only harmless changes.

    Raises:
        UserError: The arguments ask for something that the run was not trained with.
    """
    asked = override(saved, {key: value for key, value in flatten(type(saved)()).items() if key in OF_EACH_START})
    if file:
        asked = from_dict(asked, read_yaml(file), str(file))
    asked = parse(asked, arguments, program)
    changeable = CHANGEABLE
    if saved.optimizer.schedule == "cosine":
        changeable = CHANGEABLE - {"epochs", "max_steps"}  # the learning rate would jump
    changes = {}
    for (key, old), new in zip(flatten(saved).items(), flatten(asked).values(), strict=True):
        if key in saved.automatic and new in AUTOMATIC:
            new = old
        if new != old and key not in changeable:
            changes[key] = f"--{key.replace('_', '-')} {_shown(new)} (the run has {_shown(old)})"
    if changes:
        raise UserError(
            f"{where} was trained with another configuration: {'; '.join(changes.values())}; "
            "take that back, or choose a new --run-dir"
        )
    kept = {key: value for key, value in flatten(asked).items() if key in changeable}
    return override(saved, kept)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """A copy with some fields changed, named by path as `flatten` names them."""
    here, below = {}, {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            here[head] = value
    nested = {head: override(getattr(config, head), rest) for head, rest in below.items()}
    return dataclasses.replace(config, **here, **nested)
