"""Pretrained networks to fine-tune: those of KerasHub and of keras.applications, as one model from pixels to maps."""

import sys
from collections.abc import Sequence

import keras
import numpy as np

from pipelines import presets
from pipelines.errors import UserError
from pipelines.presets import line

CACHE = "~/.keras/models"  # where keras.applications keeps what it has downloaded


def load(name: str, size: int, mean: Sequence[float], deviation: Sequence[float]) -> keras.Model:
    """A pretrained network behind its own preprocessing.

    Args:
        name: a directory that KerasHub's `save_to_preset` wrote or one in the format of Hugging Face, a preset of
            KerasHub, or a network of keras.applications, in the spelling of its function.
        size: side S of the pictures.
        mean, deviation: of each channel on a scale from 0 to 1, by which pictures come normalised.

    Returns:
        A model from normalised pictures (B, S, S, 3) to feature maps (B, h, w, c).

    Raises:
        UserError: there is no such network, it cannot be had, or it has no feature maps to give.
    """
    network, scale, offset = application(name, size) if name in applications() else preset(name)
    images = keras.Input((size, size, 3), name="images")
    # Whatever networks do to pixels first is linear: a scale, an offset, and some swap red and blue.
    preprocess = keras.layers.Dense(3, trainable=False, dtype="float32", name="preprocess")
    inputs = preprocess(images)
    pixels_scale, pixels_offset = 255 * np.diag(deviation), 255 * np.asarray(mean)  # back to pixels from 0 to 255
    preprocess.set_weights([pixels_scale @ scale, pixels_offset @ scale + offset])
    try:
        maps = network(inputs)
    except ValueError as error:
        raise UserError(f"--model.backbone {name}: takes no {size} x {size} pictures ({line(error)})") from None
    if len(getattr(maps, "shape", ())) != 4:
        raise UserError(
            f"--model.backbone {name}: gives no feature maps (batch, height, width, channels); take another"
        )
    return keras.Model(images, maps, name="backbone")


def applications() -> list[str]:
    """Names of the networks in keras.applications."""
    return sorted(name for name in vars(keras.applications) if name[0].isupper())


def application(name: str, size: int, weights: str | None = "imagenet") -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network of keras.applications, and its preprocessing as pixels @ scale (3, 3) + offset (3,)."""
    build = getattr(keras.applications, name)
    try:
        network = build(include_top=False, weights=weights, input_shape=(size, size, 3))
    except ValueError as error:
        raise UserError(f"--model.backbone {name}: {line(error)}; set --image-size") from None
    except Exception as error:  # what get_file raises when the network is not there
        raise UserError(
            f"--model.backbone {name}: its weights could not be downloaded ({line(error)}); "
            f"put the file into {CACHE}, or give a directory written by KerasHub's save_to_preset"
        ) from None
    preprocess = sys.modules[build.__module__].preprocess_input
    probes = np.zeros((1, 4, 1, 3), "float32")
    probes[0, 1:, 0] = 255 * np.eye(3)
    black, *primaries = np.asarray(preprocess(probes))[0, :, 0]
    return network, (np.stack(primaries) - black) / 255, black


def preset(name: str) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A backbone of KerasHub, and its preprocessing as `application` gives it; without one, pixels go from 0 to 1."""
    import keras_hub

    backbone = presets.backbone(name, others=applications(), other_kind="network of keras.applications")
    scale, offset = np.full(3, 1 / 255), np.zeros(3)
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(presets.source(name))
    except FileNotFoundError:
        converter = None
    except presets.REFUSALS as error:
        raise UserError(f"--model.backbone {name}: its image converter cannot be read ({line(error)})") from None
    if converter is not None:
        scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
        offset = offset if converter.offset is None else np.broadcast_to(converter.offset, 3)
    return backbone, np.diag(scale), offset
