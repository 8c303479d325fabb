"""Pictures have the right shape and show what they are given."""

import numpy as np

from pipelines.interpretation import attention_heatmap


def test_heatmap_grows_with_its_labels_and_is_dark_where_the_weight_is():
    attention_heatmap(np.eye(2), ["$5_{", "$"], ["\\frac", "^^$x$"], "costs $5 or $\\bad$")
    small = attention_heatmap(np.eye(3), list("abc"), list("xyz"), "title")
    large = attention_heatmap(np.full((20, 12), 1 / 12), ["word"] * 12, ["Wort"] * 20)
    assert small.dtype == np.uint8 and small.shape[2] == 3
    assert large.shape[0] > small.shape[0] and large.shape[1] > small.shape[1]
    blue = (small[..., 0] < 60) & (small[..., 2] > 90)  # the darkest blue of the map
    rows, columns = np.nonzero(blue[:, : int(small.shape[1] * 0.8)])  # without the colour bar
    assert np.corrcoef(rows, columns)[0, 1] > 0.85  # the diagonal; 8/9 for three square blocks
