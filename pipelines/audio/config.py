"""How training clips are changed at random. Imports no TensorFlow, so that `--help` stays quick."""

import dataclasses

from pipelines.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of training clips, made anew in each epoch; all off by default."""

    # Play clips up to this share faster or slower, in whole percents, which also moves their pitch (Ko et al. 2015).
    speed: float = 0.0
    # Probability that noise is added to a clip.
    noise: float = 0.0
    # How loud the noise may be: the least ratio of the clip's power to the noise's, in decibels.
    least_snr: float = 10.0
    # How soft the noise may be, likewise.
    most_snr: float = 30.0
    # Make clips up to this many decibels louder or softer.
    gain: float = 0.0

    def check(self, prefix: str = "augmentation.") -> None:
        """Raises UserError for a value out of range, naming its flag, which begins with `prefix`."""
        for name, most in {"speed": 0.5, "noise": 1, "gain": 40}.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"--{prefix}{name} {getattr(self, name)}: takes a number from 0 to {most}")
        if not -40 <= self.least_snr <= self.most_snr <= 100:
            raise UserError(
                f"--{prefix}least-snr {self.least_snr} --{prefix}most-snr {self.most_snr}: "
                "take numbers from -40 to 100, the first no larger than the second"
            )
