"""How fast one of several workers reads and tokenises its rows of the translator's batches: PAIRS INDEX COUNT.

The sample's sentences are read from a file, checked, shuffled and cut into pieces, as `train` does.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import keras
import tensorflow as tf

from apps.translate.config import TranslateConfig
from apps.translate.task import TranslateTask
from benchmarks.peers.worker import serve
from pipelines.batching import Shard
from pipelines.runs import Run

VOCABULARY = 3000  # as in the sample's recipe


def main() -> None:
    pairs, index, count = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        config = TranslateConfig(vocabulary_size=VOCABULARY, vocabulary_type="bpe", batch_size=pairs)
        task = TranslateTask(config, Run.new("translate", Path(folder) / "run"), Shard(index, count))
        with contextlib.redirect_stdout(sys.stderr):
            task.prepare()
            task.load()
        batches = iter(())

        def read(steps):
            nonlocal batches
            begin = time.perf_counter()
            for _ in range(steps):
                batch = next(batches, None)
                if batch is None:
                    batches = iter(task.train_batches(epoch=0))
                    batch = next(batches)
                batch["source"].numpy()
            return time.perf_counter() - begin, {}

        serve(read, 0, {"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
