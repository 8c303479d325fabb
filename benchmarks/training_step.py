"""Speed of a training step in Espalier, stock Keras and PyTorch: of the translate model (size tiny), or of others.

    python benchmarks/training_step.py --rounds 10 --steps 5 --torch-python PATH
    python benchmarks/training_step.py --model resnet resnet-bfloat16 cnn mobile --torch-python PATH
    python benchmarks/training_step.py --model speech nlp language --torch-python PATH

All systems start from the same weights and see the same batches; all clip gradients by their global norm, warm up,
decay matrices only, and report the loss after each step (fit: once a turn), and the accuracy where there is one. None
averages its weights. Before anything is timed, three steps without dropout must give the same loss in all of them
(--no-check leaves that out). Models are those that the apps' `train` makes at size tiny, with one schedule of learning
rates for all: the classifier of sentences (nlp), the language model of characters (language), and the speech model,
which in every system takes ready-made spectrograms: its own front end and its masks over them are left out. What is
particular to a model is in benchmarks/cases/. PATH is a Python that has PyTorch; docs/benchmarks.md says how to make
one.
"""

import argparse
import itertools
import operator
import sys
import tempfile
from pathlib import Path

from cases import image, nlp, speech, translate
from cases.case import Case, write_case
from results_files import refuse_to_lose
from rich.console import Console
from side_by_side import Comparison, SystemFailed, Workers, command_line, report

CASES = translate.CASES | image.CASES | speech.CASES | nlp.CASES
CHECKED_STEPS = 3


def check(case: Case, folder: Path, torch_python: Path | None) -> str:
    """Trains a few steps in all systems, with nothing random. Returns what was found.

    Raises:
        SystemFailed: losses differ, or the numbers of parameters.
    """
    settings = case.calm_settings() | {"steps": CHECKED_STEPS}
    write_case(folder, settings, case.make_batches(settings, CHECKED_STEPS), case.make_weights(settings))
    with Workers(case.systems(folder, torch_python)) as workers:
        parameters = workers.common_size()
        losses = {name: answer["loss"] for name, answer in workers.run(CHECKED_STEPS).items()}
    expected = losses[case.ours]
    for name, loss in losses.items():
        if not abs(loss - expected) < case.tolerance * expected:
            raise SystemFailed(f"{name}: mean loss of {CHECKED_STEPS} steps is {loss}, {case.ours} has {expected}")
    apart = max(losses.values()) - min(losses.values())
    return (
        f"checked: {parameters:,} parameters in every system; without dropout the mean loss of the first "
        f"{CHECKED_STEPS} steps is {expected:.5f}, and {apart:.1e} apart at most"
    )


def compare(case: Case, options: argparse.Namespace) -> Comparison:
    """Checks one model, and times it."""
    console = Console()
    settings = case.settings | {"steps": options.steps}
    batches = case.make_batches(settings, options.steps)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if options.check:
            console.print(f"{case.work}: {check(case, folder / 'check', options.torch_python)}")
        write_case(folder / "timed", settings, batches, case.make_weights(settings))
        with Workers(case.systems(folder / "timed", options.torch_python)) as workers:
            versions = workers.versions
            answers = workers.interleave(options.rounds, options.steps)
    amount = case.amount(batches) / options.steps
    return Comparison(case.work, answers, case.ours, amount, case.unit, versions)


def main() -> None:
    parser = command_line(__doc__, "training steps")
    parser.add_argument(
        "--model", nargs="+", choices=CASES, default=["translate"], help="what to train: %(choices)s (translate)"
    )
    parser.add_argument("--torch-python", type=Path, help="a Python that has PyTorch; without it PyTorch is left out")
    parser.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help="compare losses first")
    options = parser.parse_args()
    if options.torch_python is None:
        Console().print("no --torch-python given: PyTorch is left out")
    results = operator.attrgetter("results")
    chosen = sorted((CASES[name] for name in options.model), key=results)
    by_results = [(name, list(cases)) for name, cases in itertools.groupby(chosen, key=results)]
    for name, cases in by_results:
        refuse_to_lose(name, [case.work for case in cases], options.output)
    for name, cases in by_results:
        report(name, [compare(case, options) for case in cases], options.output)


if __name__ == "__main__":
    try:
        main()
    except SystemFailed as error:
        sys.exit(str(error))
