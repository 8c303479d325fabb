"""`history.jsonl`: one object a step and one a validation, cut back to the checkpoint on resume."""

import json
from pathlib import Path
from typing import Any

from pipelines.files import write_atomically


class History:
    """Appends to a run's history.

    Args:
        file: `history.jsonl` of the run.
        step: Step to go on from; later objects are from steps that a kill has undone, and go.
    """

    def __init__(self, file: Path, step: int = 0):
        if file.exists():
            kept = [line for line in file.read_text().splitlines() if _step_of(line) <= step]
            write_atomically(file, "".join(f"{line}\n" for line in kept))
        self._file = open(file, "a", buffering=1)  # noqa: SIM115  (closed in close)

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # the half line that a kill left


def read(file: Path) -> list[dict[str, Any]]:
    """All objects of a history."""
    return [json.loads(line) for line in file.read_text().splitlines()]
