"""What becomes of bad training examples: training stops at them, or names them and goes on without."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from pipelines.errors import UserError

Key = TypeVar("Key", bound=Hashable)


def report(
    source: str,
    bad: Mapping[Key, str],
    count: int,
    on_bad_example: str,
    kind: str = "row",
    name: Callable[[Key], str] = str,
) -> None:
    """Says what is wrong with examples, or stops because of it.

    Args:
        source: what they are from.
        bad: what is wrong with each bad one, the first one first.
        count: how many examples there are, the bad ones included.
        on_bad_example: fail, or skip.
        kind: what to call an example.
        name: what to call one of the bad ones, from its key.

    Raises:
        UserError: a bad one and "fail"; or none that is good.
    """
    said = "".join(f"; {name(key)}: {complaint}" for key, complaint in list(bad.items())[:1])
    if bad and on_bad_example == "fail":
        raise UserError(f"{said[2:]}; mend or remove it, or pass --on-bad-example skip")
    if len(bad) == count:
        raise UserError(f"{source}: no good {kind} among {count}{said}")
    if bad:
        print(f"{source}: skipped {len(bad)} of {count} {kind}s{said}")
