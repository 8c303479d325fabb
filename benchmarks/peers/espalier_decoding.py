"""Espalier's translate model as a SavedModel that decodes, as a system to compare: `<case directory> streams|default`.

The SavedModel is loaded into a session, as TensorFlow Serving does it, and without XLA, which TensorFlow Serving
lacks. Its signature `decode` takes token ids, so that tokenizers play no part.

A decoding step is hundreds of small operations, and sharing each of them out among threads costs more than it
gains. So `streams` cuts a batch in as many parts as there are cores and decodes them side by side, each in
one thread (TensorFlow Serving: --tensorflow_intra_op_parallelism=1, and requests in parallel); `default` leaves
threads as TensorFlow sets them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from apps.translate.config import ModelConfig
from apps.translate.model import TranslationTransformer
from benchmarks.peers.espalier_translate import load
from benchmarks.peers.worker import read_case, serve
from pipelines.decoding import beam_search, greedy

NEVER = -1  # no token has this id: rows do not end before they are as long as they may be


def export(model: TranslationTransformer, settings: dict, folder: Path) -> None:
    """Writes a SavedModel with the signature `decode`: `source` (B, S) int32 -> `ids` (B, L) int32, the best answer."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="source")])
    def decode(source):
        length, start_id, beams = settings["target_length"], settings["start_id"], settings["beams"]
        state = model.start_decoding(source, length, beams)
        limits = tf.fill(tf.shape(source)[:1], length)
        if beams == 1:
            answers = greedy(model.decode_step, state, limits, start_id, NEVER)
        else:
            answers = beam_search(model.decode_step, state, limits, start_id, NEVER, beams=beams)
        return {"ids": answers.ids[:, 0]}

    module = tf.Module()
    module.tracked = [variable.value for variable in model.variables]  # what TensorFlow Serving finds by name
    tf.saved_model.save(module, folder, signatures={"decode": decode})


def session_decoder(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The SavedModel's `decode` in a session of its own."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def["decode"]
    return session.make_callable(signature.outputs["ids"].name, [signature.inputs["source"].name])


def in_streams(decode: Callable[[np.ndarray], np.ndarray], streams: int) -> Callable[[np.ndarray], np.ndarray]:
    """Decodes parts of a batch side by side."""
    pool = ThreadPoolExecutor(streams)
    return lambda source: np.concatenate(list(pool.map(decode, np.array_split(source, streams))))


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    streams = 0
    if sys.argv[2] == "streams":
        streams = min(len(os.sched_getaffinity(0)), batches["source"].shape[1])
        # Before TensorFlow does anything: its first work fixes the threads of the whole process.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(streams)
    model = TranslationTransformer.from_settings(
        ModelConfig(**settings["model"]), settings["vocabulary_size"], settings["start_id"]
    )
    load(model, weights)
    with tempfile.TemporaryDirectory() as folder:
        export(model, settings, Path(folder))
        decode = session_decoder(Path(folder))
    if streams > 1:
        decode = in_streams(decode, streams)

    def run(steps):
        begin = time.perf_counter()
        for source in batches["source"][:steps]:
            ids = decode(source)
        return time.perf_counter() - begin, {"ids": ids.tolist()}

    serve(run, model.count_params(), {"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
