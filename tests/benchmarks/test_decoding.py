"""The decoding benchmark's own side: the case, the SavedModel in a session, and the check of answers."""

import json
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from apps.translate.config import ModelConfig
from apps.translate.model import TranslationTransformer
from benchmarks.peers.espalier_decoding import export, in_streams, session_decoder
from benchmarks.peers.espalier_translate import load
from benchmarks.peers.worker import read_case

FLOAT32, INT8 = "CTranslate2, float32", "CTranslate2, int8"

# A system that answers with the ids it was told.
SCRIPT = """
import json, sys
from benchmarks.peers.worker import serve
serve(lambda steps: (0.1, {"ids": json.loads(sys.argv[1])}), parameters=7, versions={})
"""


@pytest.fixture
def decoding(benchmark):
    return benchmark("decoding")


@pytest.fixture
def exported(decoding, tmp_path):
    """Makes a case of that many beams. Returns its settings and sources, the model, and the SavedModel's folder."""

    def make(beams):
        decoding.make_case(tmp_path / "case", beams, batch=3, steps=2)
        settings, weights, batches = read_case(tmp_path / "case")
        model = TranslationTransformer.from_settings(
            ModelConfig(**settings["model"]), settings["vocabulary_size"], settings["start_id"]
        )
        load(model, weights)
        export(model, settings, tmp_path / "saved_model")
        return settings, batches["source"], model, tmp_path / "saved_model"

    return make


def test_the_saved_model_answers_in_a_session(exported, decoding):
    settings, sources, model, folder = exported(beams=1)
    assert sources.shape == (2, 3, decoding.SOURCE_LENGTH) and sources.min() > decoding.END
    decode = session_decoder(folder)
    ids = decode(sources[1])
    assert ids.shape == (3, decoding.TARGET_LENGTH)
    np.testing.assert_array_equal(in_streams(decode, 2)(sources[1]), ids)
    # Each token is the likeliest after those before it.
    logits = model({"source": sources[1], "target": ids})
    np.testing.assert_array_equal(ids, np.argmax(logits, axis=-1))
    # Answers that repeat a token, or each other, would agree between systems that decode wrongly.
    assert all(len(set(row)) > 5 for row in ids.tolist()) and len(set(map(tuple, ids.tolist()))) == 3
    assert not np.isin(ids, [decoding.PADDING, decoding.END]).any()


def test_nothing_is_left_to_xla(exported):
    *_, folder = exported(beams=4)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    assert "While" in {node.op.removeprefix("Stateless") for node in nodes}  # it does decode
    assert not [node.op for node in nodes if node.op.startswith("Xla")]
    marked = [part.name for part in (*nodes, *functions) if part.attr["_XlaMustCompile"].b]
    assert not marked


@pytest.mark.parametrize(
    ("name", "ids", "message"),
    [
        (FLOAT32, [[5] * 32, [7] * 32], f"{FLOAT32}: only 50.0% of its tokens are those of espalier, SavedModel"),
        (INT8, [[5] * 32, [7] * 31], f"{INT8}: gave 2 answers of [31, 32] tokens, not 2 of 32"),
        (INT8, [[5] * 32], f"{INT8}: gave 1 answers of [32] tokens, not 2 of 32"),
        (INT8, [[5] * 32, [7] * 32], None),  # may differ
    ],
)
def test_answers_are_compared(decoding, name, ids, message):
    answers = {decoding.OURS: [[5] * 32, [6] * 32], name: ids}
    systems = [
        decoding.System(each, [sys.executable, "-c", SCRIPT, json.dumps(told)]) for each, told in answers.items()
    ]
    with decoding.Workers(systems) as workers:
        if message is None:
            assert f"tokens as in {decoding.OURS}: {INT8} 50.0%" in decoding.check(workers, batch=2)
            return
        with pytest.raises(decoding.SystemFailed, match=re.escape(message)):
            decoding.check(workers, batch=2)
