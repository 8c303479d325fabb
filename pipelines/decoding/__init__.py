"""From a model that predicts one token to whole sequences, inside the graph and with static shapes.

A model decodes step by step (`DecodingStep`). `greedy` and `sample` follow one hypothesis a row,
`beam_search` several. What a row is answered depends on that row alone, never on what shares its batch.
"""

from pipelines.decoding.beam import beam_search, length_normaliser
from pipelines.decoding.single import greedy, sample, sample_one_by_one
from pipelines.decoding.step import Answers, DecodingStep, Frontier, longest_limit

__all__ = [
    "Answers",
    "DecodingStep",
    "Frontier",
    "beam_search",
    "greedy",
    "length_normaliser",
    "longest_limit",
    "sample",
    "sample_one_by_one",
]
