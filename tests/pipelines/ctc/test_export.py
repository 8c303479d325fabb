"""Decoders in a SavedModel, loaded as TensorFlow Serving loads it."""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session

from pipelines.ctc import greedy, ngram, prefix_beam_search, word_list
from pipelines.export import session
from tests.pipelines.ctc.reference import random_log_probs

SIZE = 6
BIASES = [
    ngram([[1, 2, 3], [2, 3, 5, 1]], SIZE).weighted(0.3, 0.5),
    word_list([(1, 2), (3,)], SIZE, separator=5, penalty=1.0),
]


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, SIZE], tf.float32, name="log_probs"),
        tf.TensorSpec([None], tf.int32, name="lengths"),
    ]
)
def decode(log_probs, lengths):
    best = greedy(log_probs, lengths)
    found = prefix_beam_search(log_probs, lengths, beams=4, top=2, biases=BIASES)
    answers = {f"greedy_{name}": value for name, value in best._asdict().items()}
    return answers | {f"beam_{name}": value for name, value in found._asdict().items()}


def requests():
    for rows, frames in ((3, 25), (1, 4), (2, 0)):
        lengths = np.arange(frames, frames - rows, -1).clip(0)
        yield {"log_probs": random_log_probs(rows, rows, frames, SIZE), "lengths": lengths}


def test_a_session_answers_as_the_trainer(tmp_path):
    module = tf.Module()
    module.decode = decode
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": decode})
    expected = [{name: value.numpy() for name, value in decode(**feeds).items()} for feeds in requests()]
    with tf.Graph().as_default(), tf.compat.v1.Session() as loaded:
        meta = tf.compat.v1.saved_model.load(loaded, ["serve"], str(tmp_path))
        core = session.registered(pywrap_tf_session, op_def_pb2)
        assert session.refused_operations(meta.graph_def, core) == []
        signature = meta.signature_def["serving_default"]
        outputs = {name: info.name for name, info in signature.outputs.items()}
        for feeds, answers in zip(requests(), expected, strict=True):
            found = loaded.run(outputs, {signature.inputs[name].name: value for name, value in feeds.items()})
            assert found.keys() == answers.keys()
            for name, value in answers.items():
                np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
