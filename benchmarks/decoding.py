"""Speed of decoding with the translate model (size tiny): Espalier's SavedModel, CTranslate2 and Hugging Face.

    python benchmarks/decoding.py --peer-python PATH
    python benchmarks/decoding.py --peer-python PATH --beam 4 --batch 64 --rounds 20

Every combination of --beam and --batch is a comparison of its own. Sources are 20 random tokens, and every answer has
32: no system may end earlier, so that all do the same work. Speed is that of the best hypothesis alone, in tokens a
second. Espalier runs without XLA in a session, as TensorFlow Serving would run it: once with the batch cut in as many
parts as there are cores, and one thread for each, and once with the threads that TensorFlow sets by default.
CTranslate2 runs in both layouts, too: all cores for the whole batch, and a thread for each part.

All systems have the same weights and the same architecture, norms before each sub-layer; before anything is
timed, their answers are compared, and those in float32 must agree with Espalier's (--no-check leaves that out). How
many of the tokens in int8 do says nothing about quality: weights are random, and next tokens nearly as likely as
each other. PATH is a Python that has the peers; docs/benchmarks.md says how to make one.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
from cases.case import TORCH_THREADS, write_case
from cases.translate import SETTINGS, make_weights
from results_files import refuse_to_lose
from rich.console import Console
from side_by_side import Comparison, System, SystemFailed, Workers, command_line, report

OURS = "espalier, SavedModel"
INT8 = "CTranslate2, int8"
SOURCE_LENGTH, TARGET_LENGTH = 20, 32  # tokens
PADDING, END = 0, 3  # ids
AGREEMENT = 0.95  # of tokens at least; two continuations that are nearly as likely may change places


def make_settings(beams: int) -> dict:
    """What the systems are told of the model and of the search."""
    lengths = {"source_length": SOURCE_LENGTH, "target_length": TARGET_LENGTH}
    shape = {name: SETTINGS[name] for name in ("model", "vocabulary_size", "start_id")}
    return shape | lengths | {"end_id": END, "beams": beams}


def make_case(folder: Path, beams: int, batch: int, steps: int) -> None:
    """Weights and sources without padding, int32 (steps, batch, length)."""
    settings = make_settings(beams)
    weights = make_weights(SETTINGS)
    # Peers forbid the end token by a rule, Espalier never asks for it. A row of zeros makes its logit 0, which is far
    # below the best of thousands: so nobody would choose it anyway, nor padding, and all search the same tokens.
    weights["embedding.embeddings"][[PADDING, END]] = 0
    rng = np.random.default_rng(2)
    # Otherwise the shared embedding would make the likeliest token the one before it, and answers would show little.
    weights["decoder_norm.gamma"] *= rng.choice([-1, 1], SETTINGS["model"]["width"])
    source = rng.integers(END + 1, settings["vocabulary_size"], (steps, batch, SOURCE_LENGTH), "int32")
    write_case(folder, settings, {"source": source}, weights)


def systems(case: Path, peer_python: Path | None) -> list[System]:
    """Everything that is compared, on the case in that folder."""

    def system(name, module, *choice, python=peer_python, environment=TORCH_THREADS):
        return System(name, [python, "-m", f"benchmarks.peers.{module}", case, *choice], environment)

    found = [
        system(OURS, "espalier_decoding", "streams", python=sys.executable, environment={}),
        system("espalier, default threads", "espalier_decoding", "default", python=sys.executable, environment={}),
    ]
    if peer_python:
        found += [
            system("CTranslate2, float32", "ctranslate2_decoding", "float32"),
            system("CTranslate2, float32, a thread a part", "ctranslate2_decoding", "float32", "streams"),
            system(INT8, "ctranslate2_decoding", "int8"),
            system("Hugging Face, PyTorch", "transformers_decoding"),
        ]
    return found


def check(workers: Workers, batch: int) -> str:
    """Lets all systems decode one batch. Returns what was found.

    Raises:
        SystemFailed: an answer has another length, numbers of parameters differ, or answers in float32 do.
    """
    parameters = workers.common_size()
    answers = {name: answer["ids"] for name, answer in workers.run(1).items()}
    shares = []
    for name, ids in answers.items():
        lengths = sorted({len(answer) for answer in ids})
        if len(ids) != batch or lengths != [TARGET_LENGTH]:
            raise SystemFailed(f"{name}: gave {len(ids)} answers of {lengths} tokens, not {batch} of {TARGET_LENGTH}")
        agreement = np.mean(np.equal(ids, answers[OURS]))
        if agreement < AGREEMENT and name != INT8:
            raise SystemFailed(f"{name}: only {agreement:.1%} of its tokens are those of {OURS}")
        if name != OURS:
            shares.append(f"{name} {agreement:.1%}")
    return f"checked: {parameters:,} parameters in every system; tokens as in {OURS}: {'; '.join(shares) or 'alone'}"


def compare(beams: int, batch: int, options: argparse.Namespace) -> Comparison:
    """One combination."""
    search = _search(beams)
    with tempfile.TemporaryDirectory() as directory:
        case = Path(directory) / "case"
        make_case(case, beams, batch, options.steps)
        with Workers(systems(case, options.peer_python)) as workers:
            if options.check:
                Console().print(f"{search}, batch {batch}: {check(workers, batch)}")
            answers = workers.interleave(options.rounds, options.steps)
            versions = workers.versions
    amount = batch * TARGET_LENGTH
    return Comparison(_work(beams, batch), answers, ours=OURS, amount=amount, unit="tokens", versions=versions)


def _search(beams: int) -> str:
    return f"beam {beams}" if beams > 1 else "greedy"


def _work(beams: int, batch: int) -> str:
    return f"translate tiny, {_search(beams)}, batch {batch}, {SOURCE_LENGTH} → {TARGET_LENGTH} tokens"


def main() -> None:
    parser = command_line(__doc__, "batches decoded")
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 4], help="beams, 1 for greedy (1 and 4)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64], help="sentences in a batch (1 and 64)")
    parser.add_argument("--peer-python", type=Path, help="a Python that has the peers; without it they are left out")
    parser.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help="compare answers first")
    options = parser.parse_args()
    if options.peer_python is None:
        Console().print("no --peer-python given: CTranslate2 and Hugging Face are left out")
    combinations = list(itertools.product(options.beam, options.batch))
    refuse_to_lose("decoding", [_work(*each) for each in combinations], options.output)
    report("decoding", [compare(beams, batch, options) for beams, batch in combinations], options.output)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
