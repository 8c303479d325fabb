"""Pretrained networks of KerasHub: where they come from, and what is said of those that cannot be had.

KerasHub takes seconds to import, and so only what needs it does.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from pipelines.config import nearest
from pipelines.errors import UserError

# What KerasHub raises for presets that are missing, damaged or of another kind.
REFUSALS = (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, tf.errors.OpError)


def source(name: str) -> str:
    """What KerasHub is to be asked for: a directory that its `save_to_preset` wrote, one in the format of Hugging Face,
    or a preset by its name.

    Raises:
        UserError: a directory without a model.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return name
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}: no config.json in it; takes what KerasHub's save_to_preset wrote, or a model in the format of "
            "Hugging Face"
        )
    return str(path)


def backbone(
    name: str, parts: Sequence[str] = ("models.Backbone",), others: Sequence[str] = (), other_kind: str = ""
) -> keras.Model:
    """A pretrained network.

    Args:
        name: as `source` takes it.
        parts: classes of KerasHub whose presets are needed, for what is said on a machine without a network.
        others: names of networks that are no presets and may have been meant.
        other_kind: what those are.

    Raises:
        UserError: there is no such network, or it cannot be had.
    """
    import keras_hub

    asked = source(name)
    try:
        return keras_hub.models.Backbone.from_preset(asked)
    except REFUSALS as error:
        reason = line(error)
        if Path(asked).is_dir():
            raise UserError(f"{asked}: not a preset that KerasHub can read ({reason})") from None
        if "Unknown preset" in str(error):
            kinds = f"directory, preset of KerasHub or {other_kind}" if others else "directory or preset of KerasHub"
            hint = nearest(name, [*others, *keras_hub.models.Backbone.presets])
            raise UserError(f"--model.backbone {name}: no such {kinds}{hint}") from None
        written = " and ".join(f"keras_hub.{part}.from_preset({name!r}).save_to_preset(DIR)" for part in parts)
        raise UserError(
            f"--model.backbone {name}: could not be downloaded ({reason}); on a machine with a network, write it by "
            f"{written}, and give that DIR here"
        ) from None


def line(error: Exception) -> str:
    """The beginning of what a library says, which may be pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
