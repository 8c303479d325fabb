"""What the tasks share: the vocabulary that texts are cut into, and means over batches."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from apps.nlp.config import NlpConfig
from pipelines.config import override
from pipelines.runs import Run
from pipelines.task import Sums
from pipelines.text.character_tokenizer import CharacterTokenizer
from pipelines.text.tokenizer import Tokenizer, train_sentencepiece

VOCABULARY_SAMPLE = 50_000  # lines that pieces are learnt from
LONGEST_LINE = 1000  # characters: a longer one is cut, as SentencePiece leaves out those of more than 4192 bytes


def vocabulary_file(config: NlpConfig, run: Run) -> Path:
    return run.assets / {"characters": "characters.json", "pieces": "sentencepiece.model"}[config.units]


def make_vocabulary(config: NlpConfig, run: Run, texts: Sequence[str], running_text: bool = False) -> NlpConfig:
    """Takes the symbols from texts and writes them into the run.

    Args:
        running_text: whether newlines and blanks in a row belong to the text; of characters they always do.

    Returns:
        The configuration with the size of the vocabulary.
    """
    file = vocabulary_file(config, run)
    if config.units == "characters":
        tokenizer = CharacterTokenizer.of(texts)
        tokenizer.save(file)
        size = tokenizer.vocabulary_size
    else:
        lines = list(_cut(_lines(texts) if running_text else texts))
        if len(lines) > VOCABULARY_SAMPLE:
            chosen = np.random.default_rng(config.seed).permutation(len(lines))[:VOCABULARY_SAMPLE]
            lines = [lines[index] for index in np.sort(chosen)]
        size = train_sentencepiece(
            lines,
            file,
            config.vocabulary_size,
            keep_white_space=running_text,
            fold_case=config.fold_case and not running_text,
        )
    return override(config, {"vocabulary_size": size})


def backbone_directory(run: Run) -> Path:
    """The pretrained encoder and its tokenizer: a run needs what they came from no longer."""
    return run.assets / "backbone"


def load_vocabulary(config: NlpConfig, run: Run):
    """The tokenizer of what `make_vocabulary` wrote, or of a pretrained encoder.

    Raises:
        UserError: the file is missing or damaged.
    """
    if config.model.backbone:
        from apps.nlp.backbone import BackboneTokenizer  # KerasHub takes seconds to import

        return BackboneTokenizer(backbone_directory(run), config.max_length)
    file = vocabulary_file(config, run)
    return CharacterTokenizer.load(file) if config.units == "characters" else Tokenizer(file)


def mean_sums(found: Iterable[Sums]) -> tuple[dict[str, float], dict[str, float]]:
    """The means of what `Task.sums` gives of batches, and their weights."""
    totals: dict[str, np.ndarray] = {}
    for sums in found:
        for metric, pair in sums.items():
            totals[metric] = totals.get(metric, 0.0) + np.array([float(value) for value in pair])
    means = {metric: float(total / max(weight, 1.0)) for metric, (total, weight) in totals.items()}
    return means, {metric: float(weight) for metric, (_, weight) in totals.items()}


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (line + "\n" for line in text.split("\n") if line)


def _cut(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (text[begin : begin + LONGEST_LINE] for begin in range(0, len(text), LONGEST_LINE))
