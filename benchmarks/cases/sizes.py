"""The models whose steps are followed as they grow, and the sizes at which that is done."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained.

    Args:
        app: its name.
        flags: from sizes, the flags of `train`.
        usual: the sizes that a series leaves as they are.
        series: by name, what its size takes.
        length: what the length counts.
    """

    app: str
    flags: Callable[[Mapping[str, float]], list[str]]
    usual: Mapping[str, float]
    series: Mapping[str, Sequence[float]]
    length: str

    def sizes(self, series: str) -> list[dict[str, float]]:
        """The points of a series."""
        values = sorted({*self.series[series], self.usual[series]})
        return [{**self.usual, series: value} for value in values]

    @property
    def floor(self) -> dict[str, float]:
        """The smallest step of all: one row, as short and as narrow as any."""
        return {name: min(self.sizes(name), key=lambda s: s[name])[name] for name in self.series} | {"batch": 1}


def _transformer(sizes: Mapping[str, float], feedforward: int) -> list[str]:
    return [f"--model.width={sizes['width']}", f"--model.feedforward={feedforward * sizes['width']}"]


MODELS = {
    "translate": Model(
        app="translate",
        flags=lambda sizes: _transformer(sizes, 2),
        usual={"batch": 64, "length": 20, "width": 128},
        series={"batch": (16, 256), "length": (10, 40, 160), "width": (64, 256, 512)},
        length="tokens of source and target",
    ),
    "image": Model(
        app="image",
        flags=lambda sizes: [
            "--model.architecture=resnet", f"--image-size={sizes['length']}", f"--model.width={sizes['width']}",
        ],
        usual={"batch": 64, "length": 28, "width": 32},
        series={"batch": (16, 256), "length": (56, 84), "width": (16, 64)},  # from 96 on pictures enter by another stem
        length="pixels, side of a picture",
    ),
    "speech": Model(
        app="speech",
        flags=lambda sizes: [],
        usual={"batch": 16, "length": 3},
        series={"batch": (4, 64), "length": (1, 9)},
        length="seconds of audio",
    ),
    "classify": Model(
        app="nlp",
        flags=lambda sizes: [],
        usual={"batch": 32, "length": 32},
        series={"batch": (8, 128), "length": (8, 128)},
        length="tokens",
    ),
    "language": Model(
        app="nlp",
        flags=lambda sizes: ["--task=generate", f"--max-length={sizes['length']}", *_transformer(sizes, 4)],
        usual={"batch": 16, "length": 64, "width": 128},
        series={"batch": (4, 64), "length": (32, 256), "width": (64, 256)},
        length="characters in a window",
    ),
}  # fmt: skip
