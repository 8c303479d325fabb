"""Peak memory of training on a large corpus against its first hundredth.

    python benchmarks/memory.py --megabytes 1000

Writes a corpus of that size, trains some steps on all of it and on its first 1 %, each in a process of
its own, and prints the peak resident memory of both. Vocabulary training is part of it: it draws a
sample of bounded size. Exits with 1 when the difference exceeds --limit.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import psutil
from processes import SystemFailed, run
from results_files import RESULTS, bars, save, versions

from apps.translate import sample


def write_corpus(file: Path, size: int) -> None:
    """Writes `size` bytes of sentence pairs, no two alike: sample sentences with numbers between them."""
    rng = random.Random(1)
    pairs = sample.generate(5000, seed=1)
    with open(file, "w") as out:
        written = 0
        while written < size:
            (source, target), number = rng.choice(pairs), rng.randrange(10**9)
            written += out.write(f"{number} {source}\t{number} {target}\n")


def peak_of_training(corpus: Path, directory: Path, steps: int) -> tuple[float, float]:
    """Trains `steps` steps. Returns the peak resident memory in MB and the seconds taken.

    Raises:
        SystemFailed: training ended with an error.
    """
    command = ["-m", "apps.translate", "train", "--train", corpus, "--run-dir", directory]
    command += ["--max-steps", steps, "--jit", "off", "--model.encoder-layers", 1, "--model.decoder-layers", 1]
    done = run(*command, name=f"training on {corpus.name}")
    return done.megabytes, done.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the whole corpus")
    parser.add_argument("--steps", type=int, default=100, help="training steps in each run")
    parser.add_argument("--limit", type=float, default=150.0, help="allowed difference of the peaks in MB")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the figures and the chart")
    options = parser.parse_args()
    print(f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB of memory")
    peaks, rows = [], []
    with tempfile.TemporaryDirectory() as directory:
        for name, megabytes in (("first 1 %", options.megabytes / 100), ("whole", options.megabytes)):
            corpus = Path(directory) / f"{name[:5]}.tsv"
            write_corpus(corpus, int(megabytes * 1e6))
            peak, seconds = peak_of_training(corpus, Path(directory) / f"run-{name[:5]}", options.steps)
            print(f"{name:10} {megabytes:8.0f} MB  peak {peak:7.0f} MB  {seconds:6.0f} s", flush=True)
            peaks.append(peak)
            row = {"work": "translate: training on a large corpus", "system": f"{name}, {megabytes:,.0f} MB"}
            row |= {"value": round(peak, 1), "unit": "MB peak", "ratio": round(peak / peaks[0], 3)}
            rows.append(row | {"megabytes": megabytes, "seconds": round(seconds, 1)})
            corpus.unlink()
    print(f"difference {peaks[1] - peaks[0]:.0f} MB, allowed {options.limit:.0f} MB")
    about = {"steps": options.steps, "limit_megabytes": options.limit}
    save("memory", rows, options.output, versions(), bars(rows), **about)
    sys.exit(peaks[1] - peaks[0] > options.limit)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
