"""What a comparison of training steps is about: the same settings, weights and batches for every system."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from side_by_side import System

# How often an idle thread of PyTorch looks for work before it sleeps. By default it does so for milliseconds, which
# on a busy machine can cost PyTorch nine tenths of its speed; to sleep at once (OMP_WAIT_POLICY=passive) costs it a
# fifth on a quiet one. This is as fast as the default on a quiet machine, and hurt far less on a busy one.
TORCH_THREADS = {"GOMP_SPINCOUNT": "10000"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to train, and the systems that train it.

    Args:
        work: what one step is, in words.
        results: name of the files that the figures go to.
        settings: of the model, its loss and its optimizer.
        calm: those of `settings` to change, by path ("model.dropout"), for the comparison of losses before anything is
            timed: nothing random, and updates large enough to show in the loss.
        make_weights: from settings, initial weights by name.
        make_batches: from settings and a number of steps, arrays by name with steps as their first axis.
        amount: from batches, how much they hold of `unit`.
        unit: what is counted: tokens, images ...
        peers: the systems' modules, by what tables call each, with the choice that their last arguments make. The
            first one is what the others are compared with. Names of modules that begin with torch need PyTorch.
        tolerance: how far losses may be apart, relative.
    """

    work: str
    results: str
    settings: Mapping
    calm: Mapping
    make_weights: Callable[[Mapping], dict[str, np.ndarray]]
    make_batches: Callable[[Mapping, int], dict[str, np.ndarray]]
    amount: Callable[[dict[str, np.ndarray]], float]
    unit: str
    peers: Mapping[str, tuple[str, str]]
    tolerance: float = 1e-4

    @property
    def ours(self) -> str:
        """The system that the others are compared with."""
        return next(iter(self.peers))

    def calm_settings(self) -> dict:
        """A copy of the settings with the changes of `calm`."""
        settings = json.loads(json.dumps(self.settings))
        for path, value in self.calm.items():
            *groups, name = path.split(".")
            place = settings
            for group in groups:
                place = place[group]
            place[name] = value
        return settings

    def systems(self, folder: Path, torch_python: Path | None) -> list[System]:
        """Everything that is compared, on what `write_case` put there; without a Python for PyTorch, less."""
        found = []
        for name, (module, choice) in self.peers.items():
            python, environment = sys.executable, {}
            if module.startswith("torch"):
                python, environment = torch_python, TORCH_THREADS
            if python:
                command = [python, "-m", f"benchmarks.peers.{module}", folder, *choice.split()]
                found.append(System(name, command, environment))
        return found


def peers(app: str, with_xla_first: bool = False) -> dict[str, tuple[str, str]]:
    """The eight systems that train an app's model, each with its module and that one's choice."""
    ours = {"espalier, no XLA": (f"espalier_{app}", "off"), "espalier, XLA": (f"espalier_{app}", "on")}
    in_one_call = {f"{name}, one call": (module, f"{choice} together") for name, (module, choice) in ours.items()}
    keras = {"stock Keras fit, no XLA": (f"keras_{app}", "off"), "stock Keras fit, XLA": (f"keras_{app}", "on")}
    if with_xla_first:
        ours, in_one_call, keras = (dict(reversed(each.items())) for each in (ours, in_one_call, keras))
    torch = {"PyTorch, eager": (f"torch_{app}", "eager"), "PyTorch, torch.compile": (f"torch_{app}", "compile")}
    return ours | in_one_call | keras | torch


def write_case(folder: Path, settings: Mapping, batches: dict, weights: Mapping) -> None:
    """What `worker.read_case` reads."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    np.savez(folder / "batches.npz", **batches)
    np.savez(folder / "weights.npz", **weights)
