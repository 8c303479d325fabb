"""Pictures have the right shape and show what they are given."""

import warnings

import numpy as np
import pytest

from pipelines.interpretation import (
    alignment_picture,
    attention_heatmap,
    attribution_picture,
    confusion_matrix_picture,
    picture_grid,
)

WILD = ["$5_{", "$", "a name that goes on and on, beyond every margin one would want"]


@pytest.fixture(autouse=True)
def _no_warnings():
    """Matplotlib warns where something has no room."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def share_of(picture, colour, tolerance=12):
    """Which share of a picture's points has a colour, about."""
    return np.mean(np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance)


def test_heatmap_grows_with_its_labels_and_is_dark_where_the_weight_is():
    attention_heatmap(np.eye(2), ["$5_{", "$"], ["\\frac", "^^$x$"], "costs $5 or $\\bad$")
    small = attention_heatmap(np.eye(3), list("abc"), list("xyz"), "title")
    large = attention_heatmap(np.full((20, 12), 1 / 12), ["word"] * 12, ["Wort"] * 20)
    assert small.dtype == np.uint8 and small.shape[2] == 3
    assert large.shape[0] > small.shape[0] and large.shape[1] > small.shape[1]
    blue = (small[..., 0] < 60) & (small[..., 2] > 90)  # the darkest blue of the map
    rows, columns = np.nonzero(blue[:, : int(small.shape[1] * 0.8)])  # without the colour bar
    assert np.corrcoef(rows, columns)[0, 1] > 0.85  # the diagonal; 8/9 for three square blocks


def test_heatmap_is_as_wide_as_its_title():
    narrow, wide = (attention_heatmap(np.eye(2), "ab", "xy", title) for title in ("a", "a title of many words " * 4))
    assert wide.shape[1] > 2 * narrow.shape[1]


def without_bar(picture):
    return picture[:, : int(picture.shape[1] * 0.8)]


def test_confusion_matrix_has_true_classes_in_rows():
    """All of the first class is taken for the last: dark in the upper right corner, not in the lower left one."""
    counts = np.zeros([5, 5], int)
    counts[0, 4] = 7
    picture = confusion_matrix_picture(counts, list("abcde"), "title")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    dark = np.argwhere(np.abs(without_bar(picture).astype(int) - [8, 48, 107]).max(axis=-1) < 8)  # the end of the map
    top, right = dark.mean(axis=0) / picture.shape[:2]
    assert top < 0.3 and right > 0.55


def test_confusion_matrix_writes_counts_for_few_classes_only():
    few, many = (confusion_matrix_picture(np.eye(n, dtype=int), [""] * n) for n in (20, 21))
    inside = [
        picture[picture.shape[0] // 8 : picture.shape[0] // 2, picture.shape[1] // 2 : -200] for picture in (few, many)
    ]
    empty = np.array([247, 251, 255])  # the start of the map; zeros are written on it in silver
    assert share_of(inside[0], empty) < 0.99 and share_of(inside[1], empty) > 0.999


def test_confusion_matrix_colours_by_row():
    """A rare class that is always recognised is as dark as a frequent one."""
    uneven, even = (confusion_matrix_picture(np.diag(counts), ["often", "rare"]) for counts in ([99999, 1], [1, 1]))
    dark = [share_of(without_bar(picture), [8, 48, 107]) for picture in (uneven, even)]
    assert dark[0] == pytest.approx(dark[1], rel=0.1) and dark[1] > 0.1


def test_confusion_matrix_of_any_size_and_with_any_names_stays_readable_in_size():
    confusion_matrix_picture(np.zeros([3, 3], int), WILD, "costs $5 or $\\bad$")
    confusion_matrix_picture(np.array([[1234567]]), ["one"], "a title that is much longer than its matrix is wide")
    large = confusion_matrix_picture(np.eye(300, dtype=int), [f"class {i}" for i in range(300)])
    assert max(large.shape) < 2000


def test_grid_shows_each_picture_unblurred_in_its_place():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    images = [np.full([4 + i, 8, 3], colour, np.uint8) for i, colour in enumerate(colours)]
    picture = picture_grid(images, [*WILD, "cat 98 %\n(dog)", "e"], columns=3, title="worst $mistakes")
    centres = [np.argwhere((picture == colour).all(axis=-1)).mean(axis=0) / picture.shape[:2] for colour in colours]
    assert [tuple((centre * [2, 3]).astype(int)) for centre in centres] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]

    checkers = (np.indices([8, 8]).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    points = picture_grid([checkers], [""])
    assert share_of(points, (0, 0, 0)) > 0.25 and share_of(points, (0, 0, 0)) + share_of(points, (255, 255, 255)) > 0.97


def test_grid_of_nothing_says_so():
    picture = picture_grid([], [], title="worst mistakes: a title that needs its room")
    assert picture.min() < 50 and picture.shape[1] > 300


def test_attributions_are_drawn_where_they_are():
    image = np.full([28, 28, 1], 128, np.uint8)
    cam, gradients = np.zeros([7, 7]), np.zeros([28, 28, 1])
    cam[0, 0] = 1.0  # hot in the upper left corner
    gradients[20:28, 20:28], gradients[:8, 20:28] = 1.0, -1.0  # for below, against above, on the right
    picture = attribution_picture(image, cam, gradients, "$5_{ 98 %")
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    seen = slice(width * 30 // 100, width * 56 // 100)  # the second picture without its bar
    hot = np.argwhere((red - blue)[:, seen] > 60).mean(axis=0)
    assert hot[0] < height * 0.35 and hot[1] < width * 0.08
    spoken = slice(width * 62 // 100, width * 90 // 100)
    above, below = (np.argwhere(found[:, spoken])[:, 0].mean() for found in (blue - red > 60, red - blue > 60))
    assert above < height * 0.4 and below > height * 0.6


def test_attributions_of_a_colour_picture_and_of_nothing():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, [32, 48, 3], np.uint8)
    coloured = attribution_picture(image, rng.random([4, 6]), rng.normal(size=[32, 48, 3]))
    nothing = attribution_picture(image, np.zeros([4, 6]), np.zeros([32, 48, 3]))
    assert coloured.shape == nothing.shape
    third = coloured.shape[1] // 3 - 20  # the original is the same, whatever was found
    assert np.mean(coloured[:, : third - 20] == nothing[:, : third - 20]) > 0.5


BLUE, BROWN, GREY = (31, 78, 121), (179, 84, 30), (192, 192, 192)  # the first word, the second, blanks


def of_colour(picture, colour):
    """Where a colour is, edges that are mixed with another one aside."""
    return np.abs(picture.astype(int) - colour).max(axis=-1) < 8


def boxes(picture, colour):
    """Top, bottom, left and right of the boxes of a colour: the long runs of it in the lower third."""
    found = of_colour(picture, colour)
    found[: picture.shape[0] * 2 // 3] = False
    rows = np.flatnonzero(found.sum(axis=1) > 0.6 * found.sum(axis=1).max())
    columns = np.flatnonzero(found[rows].all(axis=0))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_symbols_are_drawn_when_they_are():
    symbols = [("a", 0.0, 0.5), (" ", 0.5, 0.75), ("m", 1.0, 2.0)]
    picture = alignment_picture(np.zeros([20, 8]), 2.0, symbols, np.zeros(100))
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    top, bottom, left, a_end = boxes(picture, BLUE)
    _, _, begin, right = boxes(picture, BROWN)
    seconds = (np.array([a_end, begin]) - left) / (right - left) * 2.0
    np.testing.assert_allclose(seconds, [0.5, 1.0], atol=0.02)
    grey = np.flatnonzero(of_colour(picture[top : bottom + 1], GREY).all(axis=0))
    np.testing.assert_allclose((grey[[0, -1]] - left) / (right - left) * 2.0, [0.5, 0.75], atol=0.02)
    # Each text is below its box: in the middle, as there is room.
    for colour, middle in ((BLUE, 0.25), (BROWN, 1.5)):
        found = np.flatnonzero(of_colour(picture[bottom + 5 :], colour).any(axis=0))
        assert (found.min() + found.max()) / 2 == pytest.approx(left + (right - left) * middle / 2.0, abs=3)


def test_waveform_and_spectrogram_share_the_time():
    waveform, log_mel = np.zeros(16000, np.float32), np.zeros([100, 40], np.float32)
    waveform[12000:] = np.sin(np.arange(4000))  # the last quarter of the time is loud
    log_mel[75:, 30:], log_mel[0, 0] = 5.0, -5.0  # in the upper quarter of the bands; all else is in between
    picture = alignment_picture(log_mel, 1.0, [("a", 0.0, 0.5), (" ", 0.5, 0.5), ("b", 0.5, 1.0)], waveform)
    _, _, left, _ = boxes(picture, BLUE)
    _, _, _, right = boxes(picture, BROWN)
    loud = np.flatnonzero(of_colour(picture[: picture.shape[0] // 4], (105, 105, 105)).sum(axis=0) > 20)
    bright, middle = (np.argwhere(of_colour(picture, magma)) for magma in ((252, 253, 191), (183, 55, 121)))
    for columns in (loud, bright[:, 1]):
        assert (columns.min() - left) / (right - left) == pytest.approx(0.75, abs=0.02)
        assert columns.max() == pytest.approx(right, abs=4)
    top, bottom = middle[:, 0].min(), middle[:, 0].max()
    assert bright[:, 0].min() == pytest.approx(top, abs=4)  # high bands are above
    assert (bright[:, 0].max() - top) / (bottom - top) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("time", [0.0, 1.0, 1.96])
def test_texts_of_one_moment_are_moved_aside(time):
    picture = alignment_picture(np.zeros([20, 8]), 2.0, [("o", time, time + 0.04)] * 20, np.zeros(100))
    # The strip is as large with a box that can be measured.
    top, bottom, left, right = boxes(alignment_picture(np.zeros([20, 8]), 2.0, [("o", 0.0, 2.0)], np.zeros(100)), BLUE)
    below_lines = slice(bottom + int(1.4 * (bottom - top)), bottom + 2 * (bottom - top))
    inked = (picture[below_lines, left + 2 : right - 1] < 200).any(axis=(0, 2))  # columns, without the strip's frame
    assert np.count_nonzero(np.diff(inked.astype(int), prepend=0) == 1) == 20


def test_longer_clips_and_more_symbols_need_wider_pictures():
    widths = []
    for seconds, count in ((2.0, 5), (10.0, 5), (10.0, 200)):
        times = np.linspace(0, seconds, count + 1)
        symbols = [("m", begin, end) for begin, end in zip(times[:-1], times[1:], strict=True)]
        mel, waveform = np.zeros([int(100 * seconds), 80]), np.zeros(int(16000 * seconds))
        widths.append(alignment_picture(mel, seconds, symbols, waveform).shape[1])
    assert widths[0] < 1000 < widths[1] < 2000 < widths[2] < 5000


def test_silence_and_any_symbol_can_be_drawn():
    nothing = alignment_picture(np.zeros([1, 8]), 0.01, [], np.zeros(0), "costs $5 or $\\bad$")
    assert share_of(nothing[nothing.shape[0] * 3 // 4 :], (128, 128, 128), 60) > 1e-3  # "nothing" stands there
    wild = [(text, 0.1 * i, 0.1 * i + 0.1) for i, text in enumerate(["$5_{", "$", "", "  ", "ß\u0301", "ж" * 50])]
    alignment_picture(np.random.default_rng(0).normal(size=[60, 8]), 0.6, wild, np.zeros(9600), "")
    alignment_picture(np.zeros([9, 8]), 0.1, [("w", 0.05, 0.05)] * 400, np.zeros(10))
