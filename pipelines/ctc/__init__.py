"""Connectionist temporal classification: from frames to symbols without knowing which frame says which.

`ctc_loss` trains, `greedy` and `prefix_beam_search` decode. All of it is plain TensorFlow in the graph. Id 0 is the
blank. What a row is answered depends on that row alone.
"""

from pipelines.ctc.automaton import Automaton
from pipelines.ctc.decoding import Transcripts, greedy, prefix_beam_search
from pipelines.ctc.loss import ctc_loss, feasible
from pipelines.ctc.ngram import ngram
from pipelines.ctc.words import word_list

__all__ = [
    "Automaton",
    "Transcripts",
    "ctc_loss",
    "feasible",
    "greedy",
    "ngram",
    "prefix_beam_search",
    "word_list",
]
