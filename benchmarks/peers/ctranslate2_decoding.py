"""The translate model in CTranslate2, as a system to compare: arguments
`<case directory> float32|int8 [streams]`.

Needs CTranslate2 and NumPy and nothing of the project but `worker.py` and `sinusoids.py`. CTranslate2 takes tokens as
strings; those of the source are made, and those of the answer read, outside the time. All cores work on the whole
batch; with `streams` each takes a part of it, in one thread (what `espalier_decoding.py` does by that name).
"""

import os
import sys
import tempfile
import time

import ctranslate2
import numpy as np
from ctranslate2.specs import TransformerSpec

from benchmarks.peers.sinusoids import sinusoids
from benchmarks.peers.worker import read_case, serve


def build(settings: dict, weights: dict[str, np.ndarray]) -> TransformerSpec:
    """The model with the case's weights, in the form that CTranslate2's converters make."""
    sizes = settings["model"]
    width = sizes["width"]
    spec = TransformerSpec.from_config((sizes["encoder_layers"], sizes["decoder_layers"]), sizes["heads"])
    length = max(settings["source_length"], settings["target_length"])
    embeddings = weights.pop("embedding.embeddings")

    def norm(part, name):
        part.gamma, part.beta = weights.pop(f"{name}.gamma"), weights.pop(f"{name}.beta")

    def dense(part, name):
        part.weight = np.ascontiguousarray(weights.pop(f"{name}.kernel").T)
        part.bias = weights.pop(f"{name}.bias")

    def attention(part, name, projections):
        norm(part.layer_norm, f"{name}_norm")
        for linear, projection in zip(part.linear, projections, strict=True):
            dense(linear, f"{name}.{projection}")

    for name, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        stack.position_encodings.encodings = sinusoids(length, width)
        for i, layer in enumerate(stack.layer):
            attention(layer.self_attention, f"{name}.{i}.self_attention", ("query_key_value", "output"))
            if name == "decoder":
                attention(layer.attention, f"{name}.{i}.memory_attention", ("query", "key_value", "output"))
            norm(layer.ffn.layer_norm, f"{name}.{i}.feedforward_norm")
            dense(layer.ffn.linear_0, f"{name}.{i}.feedforward.hidden")
            dense(layer.ffn.linear_1, f"{name}.{i}.feedforward.output")
        norm(stack.layer_norm, f"{name}_norm")
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = spec.decoder.projection.weight = embeddings
    if weights:
        raise ValueError(f"weights without a place in the model: {', '.join(weights)}")

    tokens = [str(i) for i in range(settings["vocabulary_size"])]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.unk_token = "1"
    spec.config.bos_token = spec.config.decoder_start_token = str(settings["start_id"])
    spec.config.eos_token = str(settings["end_id"])
    return spec


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    parameters = sum(value.size for value in weights.values())
    spec = build(settings, weights)
    spec.validate()
    spec.optimize()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        cores = len(os.sched_getaffinity(0))
        streams = cores if sys.argv[3:] == ["streams"] else 1
        threads = {"inter_threads": streams, "intra_threads": cores // streams}
        translator = ctranslate2.Translator(folder, compute_type=sys.argv[2], **threads)
    sources = [[[str(i) for i in row] for row in batch] for batch in batches["source"]]
    length = settings["target_length"]

    def run(steps):
        begin = time.perf_counter()
        for source in sources[:steps]:
            answers = translator.translate_batch(
                source,
                beam_size=settings["beams"],
                min_decoding_length=length,
                max_decoding_length=length,
                max_batch_size=-(-len(source) // streams),
                return_scores=True,  # as ours does
            )
        seconds = time.perf_counter() - begin
        return seconds, {"ids": [[int(token) for token in answer.hypotheses[0]] for answer in answers]}

    serve(run, parameters, {"ctranslate2": ctranslate2.__version__})


if __name__ == "__main__":
    main()
