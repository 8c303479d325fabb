"""Pictures of what a model looks at."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def attention_heatmap(weights: np.ndarray, columns: Sequence[str], rows: Sequence[str], title: str = "") -> np.ndarray:
    """Draws attention weights as a labelled heatmap.

    Args:
        weights: (len(rows), len(columns)), each row sums to 1: what the row's token attends to.
        columns: Tokens attended to.
        rows: Tokens that attend.
        title: Line above the picture.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    figure = Figure(figsize=(1.6 + 0.42 * len(columns), 1.5 + 0.32 * len(rows)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    # parse_math=False: a dollar sign is a dollar sign.
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
