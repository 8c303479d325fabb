"""The translate model in Hugging Face transformers (PyTorch), as a system to compare: argument `<case directory>`.

Its M2M100 has this very architecture: norms before each sub-layer, scaled embeddings shared by source, target and
output, and no bias on the output. Only its table of positions is replaced, because it lays sines and cosines out in
another order. Needs transformers, PyTorch and NumPy and nothing of the project but `worker.py` and `sinusoids.py`.
"""

import sys
import time

import numpy as np
import torch
import transformers
from transformers import M2M100Config, M2M100ForConditionalGeneration

from benchmarks.peers.sinusoids import sinusoids
from benchmarks.peers.worker import read_case, serve

NAMES = {
    "self_attention_norm": "self_attn_layer_norm",
    "self_attention.output": "self_attn.out_proj",
    "memory_attention_norm": "encoder_attn_layer_norm",
    "memory_attention.query": "encoder_attn.q_proj",
    "memory_attention.output": "encoder_attn.out_proj",
    "feedforward_norm": "final_layer_norm",
    "feedforward.hidden": "fc1",
    "feedforward.output": "fc2",
}
# Projections that are one matrix here and several there.
FUSED = {
    "self_attention.query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "memory_attention.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}


def build(settings: dict) -> M2M100ForConditionalGeneration:
    sizes = settings["model"]
    length = max(settings["source_length"], settings["target_length"])
    config = M2M100Config(
        vocab_size=settings["vocabulary_size"],
        max_position_embeddings=length,
        d_model=sizes["width"],
        encoder_layers=sizes["encoder_layers"],
        decoder_layers=sizes["decoder_layers"],
        encoder_ffn_dim=sizes["feedforward"],
        decoder_ffn_dim=sizes["feedforward"],
        encoder_attention_heads=sizes["heads"],
        decoder_attention_heads=sizes["heads"],
        activation_function="relu",
        pad_token_id=0,
        bos_token_id=settings["start_id"],
        decoder_start_token_id=settings["start_id"],
        eos_token_id=settings["end_id"],
    )
    model = M2M100ForConditionalGeneration(config).eval()
    for stack in (model.model.encoder, model.model.decoder):
        table = stack.embed_positions.weights  # row 0 is that of padding
        table[1 : length + 1] = torch.from_numpy(sinusoids(length, sizes["width"]))
    return model


def load(model: M2M100ForConditionalGeneration, weights: dict[str, np.ndarray]) -> None:
    kinds = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    state = {"model.shared.weight": weights.pop("embedding.embeddings")}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        value = value.T if kind == "kernel" else value
        stack, _, rest = layer.partition(".")
        if layer in ("encoder_norm", "decoder_norm"):
            targets = [f"{layer.removesuffix('_norm')}.layer_norm"]
        else:
            index, _, part = rest.partition(".")
            targets = [f"{stack}.layers.{index}.{own}" for own in FUSED.get(part, (NAMES.get(part),))]
        for target, own in zip(targets, np.split(value, len(targets)), strict=True):
            state[f"model.{target}.{kinds[kind]}"] = own
    found = model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, False)
    tied = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"}
    if found.unexpected_keys or set(found.missing_keys) - tied:
        raise ValueError(f"weights do not fit the model: {found}")


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    model = build(settings)
    load(model, weights)
    sources = torch.from_numpy(batches["source"]).long()
    masks = torch.ones_like(sources)
    length = settings["target_length"]
    options = {"num_beams": settings["beams"], "do_sample": False, "min_new_tokens": length, "max_new_tokens": length}

    @torch.inference_mode()
    def run(steps):
        begin = time.perf_counter()
        for source, mask in zip(sources[:steps], masks[:steps], strict=True):
            ids = model.generate(input_ids=source, attention_mask=mask, **options)
        return time.perf_counter() - begin, {"ids": ids[:, 1:].tolist()}  # without the start token

    parameters = sum(parameter.numel() for parameter in model.parameters())
    serve(run, parameters, {"torch": torch.__version__, "transformers": transformers.__version__})


if __name__ == "__main__":
    main()
