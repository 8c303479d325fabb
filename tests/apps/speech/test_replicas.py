"""Training recordings under every strategy."""

import pytest

from tests.replicas import check_replicas


@pytest.mark.slow  # the translator's test holds the machinery to it in every run
@pytest.mark.parametrize("jits", [("off",), ("off", "on")])
def test_replicas_train_alike(flags, tmp_path, jits):
    check_replicas("speech", flags, tmp_path, jits)
