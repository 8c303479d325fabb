"""Pictures of texts, each token on its colour."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DPI = 110
COLUMNS = 80  # characters in a line
MOST_LINES = 200  # beyond which a picture ends
CELL = (0.1, 0.22)  # inches, of a character
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue
MOST_BITS = 8.0  # at and above which a token is as dark as can be: it was given 1 chance in 256


def surprise_picture(tokens: Sequence[str], bits: np.ndarray, title: str = "") -> np.ndarray:
    """Draws a text on the colours of its tokens' surprise: white for what was certain to come, red for what was not.

    Args:
        tokens: T pieces of the text; newlines begin new lines, and blanks are dots.
        bits: (T,), the negative binary logarithm of each token's probability.
        title: Line above the text.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    return _picture(tokens, bits, ScalarMappable(Normalize(0.0, MOST_BITS), "Reds"), "bits", title)


def contribution_picture(tokens: Sequence[str], contributions: np.ndarray, title: str = "") -> np.ndarray:
    """Draws a text on the colours of what its tokens add to an answer: blue for it, red against it.

    Args:
        tokens: T pieces of the text.
        contributions: (T,) in units of logits.
        title: Line above the text.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    most = float(np.max(np.abs(contributions), initial=0.0)) or 1.0
    colours = ScalarMappable(Normalize(-most, most), "RdBu")
    return _picture(tokens, contributions, colours, "adds to the logit", title)


def _picture(tokens: Sequence[str], values: np.ndarray, colours: ScalarMappable, label: str, title: str) -> np.ndarray:
    cells = _placed([_visible(token) for token in tokens])
    lines = 1 + max((line for line, _, _, _ in cells), default=0)
    figure = Figure(figsize=(CELL[0] * COLUMNS + 1.2, CELL[1] * lines + 0.9), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlim=(0, COLUMNS), ylim=(lines, 0))
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    for line, column, text, token in cells:
        colour = colours.to_rgba(values[token])
        axes.add_patch(Rectangle((column, line), len(text), 1, facecolor=colour, linewidth=0))
        ink = "white" if np.dot(colour[:3], LUMINANCE) < 0.5 else "black"
        for offset, character in enumerate(text):
            place = column + offset + 0.5, line + 0.55
            axes.text(*place, character, size=9, color=ink, ha="center", va="center", parse_math=False)
    figure.colorbar(
        colours, ax=axes, fraction=0.02, pad=0.01, label=label, extend="max" if label == "bits" else "neither"
    )
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _visible(token: str) -> str:
    """A token as it can be seen: SentencePiece's blank and the usual one are dots, a newline is an arrow."""
    token = token.replace("\u2581", "·").replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return "".join("�" if unicodedata.category(character).startswith("C") else character for character in token)


def _placed(texts: Sequence[str]) -> list[tuple[int, int, str, int]]:
    """Line, column, text and token number of each piece that is drawn; a token is broken where a line is full."""
    cells, line, column = [], 0, 0
    for token, text in enumerate(texts):
        while text:
            part, text = text[: COLUMNS - column], text[COLUMNS - column :]
            cells.append((line, column, part, token))
            column += len(part)
            if column == COLUMNS or part.endswith("↵"):
                line, column = line + 1, 0
            if line == MOST_LINES:
                return cells
    return cells
