"""Labelled pictures: what is said of those that cannot be read."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.image.pictures import Pictures, decode, size_and_channels


def test_paths_that_can_be_none_are_counted_as_bad():
    files = ["none.png", "a\0b.png", "neither.png"]
    pictures = Pictures(("a",), np.zeros(3, np.int32), files=files, source="pictures.csv")
    with pytest.raises(UserError, match="pictures.csv: none of 3 pictures that were tried can be read"):
        size_and_channels(pictures)


def test_bad_ones_are_counted_and_the_first_is_named(capsys):
    contents = [b"text", tf.io.encode_png(np.zeros((4, 4, 1), np.uint8)).numpy(), b"more text"]
    pictures = Pictures(("a",), np.zeros(3, np.int32), contents=contents, source="set")
    assert len(decode(pictures, 4, 1, "skip", 1)) == 1
    said = "set, picture 1: not a JPEG, PNG, BMP, GIF or WebP"
    assert capsys.readouterr().out == f"set: skipped 2 of 3 pictures; {said}\n"
    with pytest.raises(UserError, match=f"^{said}; mend or remove it"):
        decode(pictures, 4, 1, "fail", 1)
    with pytest.raises(UserError, match=f"^set: no good picture among 2; {said}$"):
        decode(pictures.take(np.array([0, 2])), 4, 1, "skip", 1)
