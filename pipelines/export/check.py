"""Whether TensorFlow Serving will run a SavedModel, found out in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import UserError
from pipelines.export.versions import existing

PROGRAM = Path(__file__).with_name("session.py")


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was found out.

    Args:
        signatures: how many recorded requests were replayed, by signature.
        operations: nodes that were looked at.
    """

    signatures: Mapping[str, int]
    operations: int

    def __str__(self):
        replayed = ", ".join(f"{name} {n} times" for name, n in sorted(self.signatures.items()) if n)
        silent = sorted(name for name, count in self.signatures.items() if not count)
        lines = [f"{self.operations:,} operations, all of which TensorFlow Serving runs"]
        if replayed:
            lines.append(f"answers as recorded: {replayed}")
        if silent:
            lines.append(f"not run, for want of warm-up requests: {', '.join(silent)}")
        return "; ".join(lines)


def require_saved_model(directory: Path) -> None:
    """Raises UserError where there is no SavedModel, and names the one that was meant, if it is near."""
    if (directory / "saved_model.pb").is_file():
        return
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; give that of a SavedModel, which holds a saved_model.pb")
    versions = [version for version in existing(directory).values() if (version / "saved_model.pb").is_file()]
    hint = f"; give a version, such as {versions[-1]}" if versions else ""
    raise UserError(f"{directory}: no SavedModel (no saved_model.pb){hint}")


def check(directory: Path) -> Checked:
    """Looks for what TensorFlow Serving refuses, loads the SavedModel as it does, and replays recorded requests.

    Args:
        directory: holds a saved_model.pb.

    Raises:
        UserError: something is wrong with it, without its path.
    """
    # -P: not even from the working directory can this project be imported. On the processor, where the answers that
    # are compared are from; a graphics card multiplies with fewer digits.
    process = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), str(directory)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        said = process.stderr.strip().splitlines()[-1:]
        raise UserError(": ".join([f"the check broke off with code {process.returncode}", *said]))
    found = json.loads(lines[-1])
    if problems := found["problems"]:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}")
    return Checked(found["signatures"], found["operations"])
