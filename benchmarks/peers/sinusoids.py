"""The table of positions that the other systems share, since theirs differ in layout. Needs NumPy and nothing else."""

import numpy as np


def sinusoids(length: int, width: int) -> np.ndarray:
    """Sines and cosines in turns (Vaswani et al. 2017), float32 (length, width)."""
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width).astype("float32")
