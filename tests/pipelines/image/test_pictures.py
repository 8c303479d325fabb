"""Labelled pictures: what is said of those that cannot be read."""

import numpy as np
import pytest

from pipelines.errors import UserError
from pipelines.image.pictures import Pictures, size_and_channels


def test_paths_that_can_be_none_are_counted_as_bad():
    files = ["none.png", "a\0b.png", "neither.png"]
    pictures = Pictures(("a",), np.zeros(3, np.int32), files=files, source="pictures.csv")
    with pytest.raises(UserError, match="pictures.csv: none of 3 pictures that were tried can be read"):
        size_and_channels(pictures)
