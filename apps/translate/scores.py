"""BLEU and chrF as people quote them: by sacrebleu, with the signatures that make them comparable."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp


def scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Corpus scores from 0 to 100: `bleu` and `chrf` as written, `bleu_lowercase` with case ignored.

    References:
        Papineni et al. 2002 (BLEU), Popovic 2015 (chrF), Post 2018 (sacrebleu).
    """
    try:
        return {name: metric.corpus_score(hypotheses, [references]).score for name, metric in _metrics().items()}
    finally:
        # They keep each sentence that they ever cut, tens of MB in the course of a training.
        for tokenizer in (Tokenizer13a, TokenizerRegexp):
            tokenizer.__call__.cache_clear()


def signatures() -> dict[str, str]:
    """What sacrebleu says of each score with one reference: tokenisation, case, smoothing, version."""
    found = {}
    for name, metric in _metrics().items():
        metric.corpus_score(["a"], [["a"]])  # a signature knows its references only after a score
        found[name] = str(metric.get_signature())
    return found


def _metrics():
    return {"bleu": BLEU(), "chrf": CHRF(), "bleu_lowercase": BLEU(lowercase=True)}
