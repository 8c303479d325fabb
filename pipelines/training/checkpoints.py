"""Checkpoints: whole or not there, the newest few and the best, damaged ones passed over.

    checkpoints/00001500/state.index, state.data-*   variables in TensorFlow's bundle format, checksummed
                         progress.json               where training stood

A checkpoint is written into a hidden directory and renamed once it is complete, so that a kill or a
full disk never leaves half of one under its final name.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.files import flush_to_disk

Variables = Mapping[str, Sequence]


@dataclasses.dataclass
class Progress:
    """Where training stands, besides the variables."""

    step: int = 0
    epoch: int = 0
    # Batches of this epoch that are done; a resume skips them.
    batch: int = 0
    # Seconds spent, over all runs of the command.
    seconds: float = 0.0
    # Sums and weights of this epoch's metrics so far.
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    # Step of the last validation, so that a resume does not repeat it.
    validated: int | None = None
    # What it found.
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    # Best validation so far, its step, and how many validations ago that was.
    best: float | None = None
    best_step: int | None = None
    since_best: int = 0


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: Where they are kept.
        keep: How many of the newest to keep, besides the best.
    """

    def __init__(self, directory: Path, keep: int = 3):
        self.directory = Path(directory)
        self.keep = max(keep, 1)

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        return sorted(int(p.name) for p in self.directory.glob("[0-9]*") if p.name.isdigit())

    def path(self, step: int) -> Path:
        return self.directory / f"{step:08d}"

    def save(self, variables: Variables, progress: Progress) -> None:
        """Writes a checkpoint and removes those that are no longer kept.

        Raises:
            UserError: The disk is full; earlier checkpoints stay.
        """
        final, temporary = self.path(progress.step), self.directory / f".writing-{progress.step:08d}"
        self._remove_leftovers()
        temporary.mkdir(parents=True)
        try:
            _bundle(variables).write(str(temporary / "state"))
            (temporary / "progress.json").write_text(json.dumps(dataclasses.asdict(progress)) + "\n")
            for file in temporary.iterdir():
                flush_to_disk(file)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, tf.errors.ResourceExhaustedError) or getattr(error, "errno", 0) == errno.ENOSPC:
                raise UserError(
                    f"{self.directory}: no space left to write the checkpoint of step {progress.step}; "
                    "free some space and give the same command again, it goes on from the last checkpoint"
                ) from None
            raise
        self._publish(temporary, final)
        for step in self.steps()[: -self.keep]:
            if step != progress.best_step:
                self._hide(step, "deleted")
        self._remove_leftovers()

    def _publish(self, complete: Path, final: Path) -> None:
        replaced = None
        if final.exists():  # the step was saved before, in mid-epoch; now training stands at the epoch's end
            replaced = self._hide(int(final.name), "replaced")
        os.replace(complete, final)
        flush_to_disk(self.directory)
        if replaced:
            shutil.rmtree(replaced)

    def _hide(self, step: int, why: str) -> Path:
        """Takes a checkpoint away whole: deleting it file by file under its own name would show half of it."""
        hidden = self.directory / f".{why}-{step:08d}"
        shutil.rmtree(hidden, ignore_errors=True)
        os.replace(self.path(step), hidden)
        return hidden

    def _remove_leftovers(self) -> None:
        """Clears what kills have left behind, and puts back what was about to be replaced."""
        for hidden in self.directory.glob(".replaced-*"):
            final = self.path(int(hidden.name.split("-")[1]))
            if final.exists():
                shutil.rmtree(hidden, ignore_errors=True)
            else:
                os.replace(hidden, final)
        for hidden in (*self.directory.glob(".writing-*"), *self.directory.glob(".deleted-*")):
            shutil.rmtree(hidden, ignore_errors=True)

    def restore_newest(self, variables: Variables) -> Progress | None:
        """Restores from the newest checkpoint that is sound. Returns None when there is none at all.

        Damaged ones are named in a warning, and set aside once a sound one was found.

        Raises:
            UserError: All are damaged.
        """
        self._remove_leftovers()
        damaged = []
        for step in reversed(self.steps()):
            try:
                progress = self.restore(variables, step)
            except UserError as error:
                print(f"warning: {error}; falling back to the one before", file=sys.stderr)
                damaged.append(step)
                continue
            for bad in damaged:
                self._hide(bad, "damaged")
            return progress
        if damaged:
            raise UserError(f"{self.directory}: no checkpoint can be read; choose a new --run-dir")
        return None

    def restore(self, variables: Variables, step: int) -> Progress:
        """Restores variables from the checkpoint of a step.

        Raises:
            UserError: The checkpoint is damaged or does not fit the model.
        """
        try:
            progress = self._progress(step)
            status = _bundle(variables).read(str(self.path(step) / "state"))
            # Prediction wants the weights alone, so what is left in the file needs no warning.
            status.assert_existing_objects_matched().expect_partial()
        except (PermissionError, MemoryError):
            raise
        except Exception as error:  # TensorFlow reports damage by half a dozen types, IndexError among them
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"checkpoint {self.path(step)} is damaged or of another model ({reason[:120]})") from None
        return progress

    def restore_mean(self, variables: Variables, step: int, count: int) -> list[int]:
        """Restores the mean of several checkpoints: that of a step, and those before it.

        Integers, such as counters and seeds, are those of the step itself.

        Returns:
            Their steps, ascending.

        Raises:
            UserError: There are fewer, or one is damaged.

        References:
            Vaswani et al. 2017, Attention Is All You Need, section 6.1. https://arxiv.org/abs/1706.03762
        """
        steps = [found for found in self.steps() if found <= step][-count:]
        if len(steps) < count:
            raise UserError(
                f"--average {count}: {self.directory} holds {len(steps)} checkpoints up to step {step}; "
                f"average fewer, or train with --keep-checkpoints {count}"
            )
        if count == 1:
            self.restore(variables, steps[0])
            return steps
        everything = [variable for group in variables.values() for variable in group]
        floating = [variable for variable in everything if variable.dtype.is_floating]
        sums = [np.zeros(variable.shape, np.float64) for variable in floating]
        for each in steps:
            self.restore(variables, each)
            for total, variable in zip(sums, floating, strict=True):
                total += variable.numpy()
        for total, variable in zip(sums, floating, strict=True):
            variable.assign((total / count).astype(variable.dtype.as_numpy_dtype))
        return steps

    def _best(self, steps: list[int]) -> int:
        """The best step by the newest progress that can be read; without any, the newest step."""
        for step in reversed(steps):
            with contextlib.suppress(OSError, ValueError, TypeError):
                best = self._progress(step).best_step
                return best if best in steps else steps[-1]
        return steps[-1]

    def _progress(self, step: int) -> Progress:
        return Progress(**json.loads((self.path(step) / "progress.json").read_text()))

    def resolve(self, name: str) -> int:
        """The step that `best`, `newest` or a number names.

        Raises:
            UserError: There is no such checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"{self.directory}: no checkpoint yet; train longer, or with a smaller --checkpoint-every")
        if name == "newest":
            return steps[-1]
        if name == "best":
            return self._best(steps)
        if not name.isdigit() or int(name) not in steps:
            raise UserError(f"--checkpoint {name}: there is best, newest, {', '.join(map(str, steps))}")
        return int(name)


def _bundle(variables: Variables) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(**{name: list(group) for name, group in variables.items()})
