"""Training pictures under every strategy."""

import pytest

from tests.apps.image.conftest import TINY
from tests.replicas import check_replicas


@pytest.mark.slow  # the translator's test holds the machinery to it in every run
@pytest.mark.parametrize("jits", [("off",), ("off", "on")])
def test_replicas_train_alike(shapes, tmp_path, jits):
    files = [f"--train={shapes}/train", f"--validation={shapes}/validation"]
    check_replicas("image", [*files, *TINY, "--augmentation.flip"], tmp_path, jits)
