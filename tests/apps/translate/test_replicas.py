"""Training under every strategy, and what happens when a worker is lost."""

from tests.apps.translate.conftest import TINY
from tests.replicas import check_replicas


def test_replicas_train_alike(corpus, tmp_path):
    files = [f"--train={corpus}/train.tsv", f"--validation={corpus}/validation.tsv"]
    one_shape = ["--max-length=40", "--buckets", "40"]
    check_replicas("translate", [*files, *TINY, "--model.dropout=0", *one_shape], tmp_path)
