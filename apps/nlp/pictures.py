"""Pictures of texts, each token on its colour, and of what the tokens of two texts have in common."""

import textwrap
import unicodedata
from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from apps.nlp.pages import MOST_BITS
from pipelines.interpretation import DPI, drawn

COLUMNS = 80  # characters in a line
MOST_LINES = 200  # beyond which a picture ends
CELL = (0.1, 0.22)  # inches, of a character
TITLE_CHARACTER = 0.085  # inches, of the title's, or less
MARGIN = 0.12  # inches, to the left and to the right
BAR = (3.0, 0.72)  # inches, of the colours and what is said about them
MOST_NUMBERS = 400  # pairs of tokens, beyond which a heatmap shows no numbers
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue


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
    return _picture(tokens, contributions, _around_zero(contributions), "adds to the logit", title)


def shares_picture(shares: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "") -> np.ndarray:
    """Draws what each pair of two texts' tokens adds to their similarity: blue brings them together, red apart.

    Args:
        shares: (R, C) of the cosine.
        rows: R pieces of the first text.
        columns: C pieces of the second.
        title: Line above the picture.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    rows, columns = ([_visible(token) for token in side] for side in (rows, columns))
    longest = [max(map(len, side), default=0) for side in (rows, columns)]
    width, height = 0.5 * len(columns) + 0.1 * longest[0] + 1.4, 0.32 * len(rows) + 0.09 * longest[1] + 0.8
    figure = Figure(figsize=(max(width, TITLE_CHARACTER * len(title)), height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    colours = _around_zero(shares)
    axes.imshow(shares, cmap=colours.cmap, norm=colours.norm, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    if shares.size <= MOST_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            ink = _ink(colours.to_rgba(share))
            axes.text(column, row, f"{share:z.2f}", size=8, color=ink, ha="center", va="center")
    figure.suptitle(title, fontsize=10, parse_math=False)
    figure.colorbar(colours, ax=axes, fraction=0.04, pad=0.02)
    return drawn(figure)


def _picture(tokens: Sequence[str], values: np.ndarray, colours: ScalarMappable, label: str, title: str) -> np.ndarray:
    """A text with a title above and what its colours mean below, each of its own height however long the text is."""
    cells = _placed([_visible(token) for token in tokens])
    lines = 1 + max((line for line, _, _, _ in cells), default=0)
    columns = max((column + len(text) for _, column, text, _ in cells), default=1)
    titles = textwrap.wrap(title, int(CELL[0] * COLUMNS / TITLE_CHARACTER))
    above = 0.15 + 0.17 * len(titles)
    width = max(CELL[0] * columns, TITLE_CHARACTER * max(map(len, titles), default=0), BAR[0]) + 2 * MARGIN
    height = above + CELL[1] * lines + BAR[1]

    figure = Figure(figsize=(width, height), dpi=DPI)

    def part(left, bottom, inches_wide, inches_high):
        return figure.add_axes((left / width, bottom / height, inches_wide / width, inches_high / height))

    axes = part(MARGIN, BAR[1], CELL[0] * columns, CELL[1] * lines)
    axes.set(xlim=(0, columns), ylim=(lines, 0))
    axes.set_axis_off()
    figure.text(MARGIN / width, 1 - 0.08 / height, "\n".join(titles), va="top", fontsize=10, parse_math=False)
    for line, column, text, token in cells:
        colour = colours.to_rgba(values[token])
        # A little apart, so that neighbours of one colour can be told.
        place = (column + 0.06, line + 0.05), len(text) - 0.12, 0.9
        axes.add_patch(Rectangle(*place, facecolor=colour, edgecolor="gainsboro", linewidth=0.5))
        for offset, character in enumerate(text):
            place = column + offset + 0.5, line + 0.52
            axes.text(*place, character, size=9, color=_ink(colour), ha="center", va="center", parse_math=False)
    bar = part(MARGIN, 0.45, BAR[0], 0.12)
    extend = "max" if label == "bits" else "neither"
    figure.colorbar(colours, cax=bar, orientation="horizontal", extend=extend)
    bar.tick_params(labelsize=8)
    bar.set_xlabel(label, fontsize=8)
    return drawn(figure)


def _around_zero(values: np.ndarray) -> ScalarMappable:
    """Blue for positive values, red for negative ones, white for zero."""
    most = float(np.max(np.abs(values), initial=0.0)) or 1.0
    return ScalarMappable(Normalize(-most, most), "RdBu")


def _ink(colour: Sequence[float]) -> str:
    """What can be read on a colour."""
    return "white" if np.dot(colour[:3], LUMINANCE) < 0.5 else "black"


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
