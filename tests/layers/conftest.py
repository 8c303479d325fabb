"""Random numbers of a test that do not depend on the tests before it."""

import numpy as np
import pytest

from tests.layers.recurrences import RNG


@pytest.fixture(autouse=True)
def same_numbers():
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state
