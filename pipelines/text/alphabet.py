"""An alphabet in a file: what two kinds of symbols are made of."""

import json
from pathlib import Path
from typing import Self

from pipelines.errors import UserError
from pipelines.files import write_atomically


class Alphabetical:
    """Something whose one argument is its `alphabet`, every character once."""

    alphabet: str

    @classmethod
    def load(cls, file: Path) -> Self:
        """From what `save` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            return cls(json.loads(Path(file).read_text("utf-8"))["alphabet"])
        except OSError as error:
            reason = f"the alphabet cannot be read ({error.strerror})"
        except (ValueError, KeyError, TypeError):  # not UTF-8 or JSON, or nothing that was saved
            reason = "not an alphabet, or a damaged one"
        raise UserError(f"{file}: {reason}; train the model again, or restore the file")

    def save(self, file: Path) -> None:
        """Writes the alphabet as JSON, all of it or nothing."""
        write_atomically(Path(file), json.dumps({"alphabet": self.alphabet}, ensure_ascii=False) + "\n")
