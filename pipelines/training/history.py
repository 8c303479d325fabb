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
            kept = [found for found in read(file) if found["step"] <= step]
            write_atomically(file, "".join(f"{json.dumps(found)}\n" for found in kept))
        self._file = open(file, "a", buffering=1)  # noqa: SIM115  (closed in close)

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self._file.close()


def _parsed(line: str) -> dict[str, Any] | None:
    """The object of a line; None for the half line that a kill left."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "step" in found else None


def read(file: Path) -> list[dict[str, Any]]:
    """All objects of a history."""
    return [found for line in file.read_text().splitlines() if (found := _parsed(line))]
