"""Pictures of what a model looks at, what it confuses and where it is wrong."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from sklearn.isotonic import isotonic_regression

DPI = 110
LABEL = 32  # characters, beyond which a class name is cut
MOST_COUNTED = 20  # classes, beyond which a confusion matrix shows no numbers
POINTS = 11  # size of recognised symbols
WORDS = ("#1f4e79", "#b3541e")  # one word in blue, the next in brown
MOST_LABELS = 60  # on an axis of a confusion matrix


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
    figure = _figure(1.6 + 0.42 * len(columns), 1.5 + 0.32 * len(rows), title)
    axes = figure.add_subplot()
    picture = axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    # parse_math=False: a dollar sign is a dollar sign.
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    return drawn(figure)


def confusion_matrix_picture(counts: np.ndarray, names: Sequence[str], title: str = "") -> np.ndarray:
    """Draws what a classifier takes for what.

    Colour is the share of a row, on a scale that lets small shares be seen. Up to 20 classes have their counts
    written in; with more than 60 only some are named.

    Args:
        counts: (K, K) integers, rows true, columns predicted.
        names: of the K classes; long ones are cut.
        title: Line above the picture.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    classes = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [_cut(name, LABEL) for name in names]
    side = max(1.5, 0.5 * classes) if classes <= MOST_COUNTED else 10.0  # inches
    margin = 0.9 + 0.075 * max(map(len, labels))
    figure = _figure(side + margin + 0.6, side + margin, title)
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), aspect="auto", interpolation="nearest")
    shown = range(0, classes, -(-classes // MOST_LABELS))
    style = {"parse_math": False, "fontsize": 9 if classes <= MOST_COUNTED else 7}
    axes.set_xticks(shown, [labels[i] for i in shown], rotation=60, ha="right", rotation_mode="anchor", **style)
    axes.set_yticks(shown, [labels[i] for i in shown], **style)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= MOST_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.35 else "black" if count else "silver"
            size = min(9.0, 36.0 / len(str(count)))  # points: a number fills a cell at most
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, label="share of the true class")
    return drawn(figure)


def picture_grid(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 6, title: str = "") -> np.ndarray:
    """Draws pictures side by side, each with its title above.

    Args:
        images: uint8 (H, W, 1) or (H, W, 3), of any sizes; may be none.
        titles: as many, such as "cat 98 %\\n(dog)"; long lines are broken.
        columns: how many in a row, at most.
        title: Line above them all.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    titles = ["\n".join(_wrapped(text, 22)) for text in titles]
    lines = max((text.count("\n") + 1 for text in titles), default=1)
    figure = _figure(1.8 * columns, (1.6 + 0.17 * lines) * rows + 0.4, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, text in zip(grid, images, titles, strict=False):
        _show(axes, image)
        axes.set_title(text, fontsize=9, parse_math=False)
    if not len(images):
        grid[0].text(0.5, 0.5, "none", ha="center", va="center")
    return drawn(figure)


def attribution_picture(image: np.ndarray, cam: np.ndarray, gradients: np.ndarray, title: str = "") -> np.ndarray:
    """Draws a picture, where its class was seen (Grad-CAM) and what spoke for and against it, side by side.

    Args:
        image: uint8 (H, W, 1) or (H, W, 3).
        cam: (h, w) in [0, 1], of any resolution.
        gradients: (H, W, C) attributions to each value; summed over C.
        title: Line above the pictures.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    figure = _figure(10.5, 3.6, title)
    original, seen, spoken = figure.subplots(1, 3)
    for axes, text in ((original, "picture"), (seen, "Grad-CAM"), (spoken, "integrated gradients")):
        axes.set_axis_off()
        axes.set_title(text, fontsize=10)
    _show(original, image)

    _show(seen, _grey(image))
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    style = {"cmap": "plasma", "vmin": 0.0, "vmax": 1.0, "interpolation": "bilinear", "extent": extent}
    heat = seen.imshow(cam, alpha=0.25 + 0.5 * cam, **style)  # cold places let the picture through
    figure.colorbar(heat, ax=seen, fraction=0.046, pad=0.02).solids.set_alpha(1.0)

    parts = gradients.sum(axis=-1)
    # A few extreme pixels would leave all others pale.
    limit = float(np.quantile(np.abs(parts), 0.99)) or float(np.abs(parts).max()) or 1.0
    signed = spoken.imshow(parts, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    bar = figure.colorbar(signed, ax=spoken, fraction=0.046, pad=0.02, extend="both")
    bar.set_label("against  ←  logit  →  for", fontsize=9)
    return drawn(figure)


def alignment_picture(
    log_mel: np.ndarray,
    seconds: float,
    symbols: Sequence[tuple[str, float, float]],
    waveform: np.ndarray,
    title: str = "",
) -> np.ndarray:
    """Draws what was said above what was recognised: waveform, spectrogram, and which symbol when.

    A symbol's time is a box on a strip: grey for the blank between two words, else in the colour of its word, whose
    boundaries go up through the other parts. The symbols' texts stand below, moved aside where they would overlap. More
    seconds or more symbols give a wider picture; made for clips of up to some 30 seconds.

    Args:
        log_mel: (T, M), logarithms of the energy in each frame and mel band, lowest band first.
        seconds: how long the clip is; the frames divide it evenly.
        symbols: what was recognised, in order: text, begin and end in seconds; may be none.
        waveform: (n,) samples of the clip.
        title: Line above the picture.

    Returns:
        RGB picture, uint8, (height, width, 3).
    """
    room = np.array([_inches(text) for text, _, _ in symbols])
    inches = min(max(8.0, 1.6 * seconds, 1.05 * room.sum()), 90.0)  # of the axes, which the margins leave about
    figure = _figure(inches + 0.8, 5.4, title)
    wave, bands, strip = figure.subplots(3, 1, sharex=True, height_ratios=(1.0, 2.3, 0.9))

    _draw_waveform(wave, waveform, seconds, most_strokes=int(inches * DPI))
    extent = (0.0, seconds, 0.0, log_mel.shape[1])
    bands.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    bands.set_ylabel("mel band")

    strip.set(xlim=(0.0, seconds), ylim=(0.0, 1.0), xlabel="seconds", yticks=[], ylabel="recognised")
    strip.xaxis.set_major_locator(MaxNLocator(int(2.0 * inches), steps=[1, 2, 5, 10]))
    if symbols:
        _draw_symbols(strip, symbols, room * seconds / inches, seconds)
    else:
        strip.text(seconds / 2, 0.5, "nothing", ha="center", va="center", color="grey")
    for time in _word_boundaries(symbols):
        bands.axvline(time, color="white", linewidth=0.8, alpha=0.7)
        wave.axvline(time, color="grey", linewidth=0.6, alpha=0.7)
    return drawn(figure)


def _draw_waveform(axes: Axes, waveform: np.ndarray, seconds: float, most_strokes: int) -> None:
    """From the lowest to the highest sample at each point of the picture: a line through all would take seconds."""
    starts = np.linspace(0, len(waveform), min(len(waveform), most_strokes), endpoint=False).astype(int)
    if len(starts):
        lowest, highest = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
        axes.vlines(starts / len(waveform) * seconds, lowest, highest, color="dimgrey", linewidth=0.9)
    axes.axhline(0.0, color="dimgrey", linewidth=0.6)  # strokes of silence have no length
    limit = 1.05 * float(np.abs(waveform).max(initial=1e-3))
    axes.set(ylim=(-limit, limit), ylabel="waveform", yticks=[])


def _draw_symbols(axes: Axes, symbols: Sequence[tuple[str, float, float]], room: np.ndarray, seconds: float) -> None:
    """Boxes where symbols are, and below them their texts, for each of which there is to be so much room (seconds)."""
    shrink = min(1.0, seconds / room.sum())
    room = room * shrink
    centres = np.array([(begin + end) / 2 for _, begin, end in symbols])
    # Their places in a row without gaps, and to these the shifts that bring each as near to its box as order allows.
    row = np.cumsum(room) - room / 2
    places = row + isotonic_regression(centres - row, y_min=0.0, y_max=max(seconds - room.sum(), 0.0))
    words = np.cumsum([text.isspace() for text, _, _ in symbols])
    for (text, begin, end), centre, place, word in zip(symbols, centres, places, words, strict=True):
        colour = "silver" if text.isspace() else WORDS[word % 2]
        axes.broken_barh([(begin, end - begin)], (0.72, 0.28), facecolor=colour, edgecolor="white", linewidth=0.7)
        if not text.isspace():
            axes.plot([centre, place], [0.7, 0.42], color=colour, linewidth=0.6)
            style = {"ha": "center", "va": "baseline", "parse_math": False}
            axes.text(place, 0.15, text, color=colour, fontsize=POINTS * shrink, **style)


def _word_boundaries(symbols: Sequence[tuple[str, float, float]]) -> list[float]:
    """Where words begin and end: what blanks separate."""
    times = []
    for is_blank, word in itertools.groupby(symbols, key=lambda symbol: symbol[0].isspace()):
        if not is_blank:
            word = list(word)
            times += [word[0][1], word[-1][2]]
    return times


def _inches(text: str) -> float:
    """How wide a symbol is, with a little air."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=POINTS), ismath=False)[0] / 72 + 0.035


def _figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches, wider where its title needs it."""
    figure = Figure(figsize=(max(width, 0.085 * len(title)), height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def _show(axes: Axes, image: np.ndarray) -> None:
    """A picture, enlarged without blur."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _grey(image: np.ndarray) -> np.ndarray:
    """Brightness (H, W), so that only the heat has colours."""
    return image[..., 0] if image.shape[-1] == 1 else image @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def _wrapped(text: str, width: int) -> list[str]:
    """Each line of a text as one or two lines of at most so many characters."""
    lines = []
    for line in text.splitlines():
        first, *rest = textwrap.wrap(line, width) or [""]
        lines += [first, _cut(" ".join(rest), width)] if rest else [first]
    return lines


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def drawn(figure: Figure) -> np.ndarray:
    """A figure as an RGB picture, uint8, (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
