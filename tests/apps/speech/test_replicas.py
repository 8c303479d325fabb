"""Training recordings under every strategy."""

import pytest

from tests.replicas import check_replicas


@pytest.mark.parametrize("jits", [("off",), pytest.param(("off", "on"), marks=pytest.mark.slow)])
def test_replicas_train_alike(flags, tmp_path, jits):
    check_replicas("speech", flags, tmp_path, jits)
