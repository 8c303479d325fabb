"""One recurrent layer of PyTorch, as a system to compare: argument `<case directory>`.

Needs PyTorch and NumPy and nothing of the project but `worker.py`.
"""

import sys
import time

import numpy as np
import torch

from benchmarks.peers.worker import read_case, serve

ORDER = {"LSTM": [0, 1, 2, 3], "GRU": [1, 0, 2]}  # which gate of Keras' layout is which of PyTorch's


def load(layer, weights):
    """Sets the weights. PyTorch's LSTM has two biases that are always added: the second becomes zero."""
    order = ORDER[type(layer).__name__]

    def arrange(value):
        gates = np.split(value, len(order), axis=-1)
        return torch.from_numpy(np.concatenate([gates[k] for k in order], axis=-1).T.copy())

    bias = weights["bias"] if weights["bias"].ndim == 2 else np.stack([weights["bias"], 0 * weights["bias"]])
    names = {"weight_ih_l0": weights["kernel"], "weight_hh_l0": weights["recurrent_kernel"]}
    names |= {"bias_ih_l0": bias[0], "bias_hh_l0": bias[1]}
    layer.load_state_dict({name: arrange(value) for name, value in names.items()})


def main():
    settings, weights, batches = read_case(sys.argv[1])
    units = settings["units"]
    layer = getattr(torch.nn, settings["layer"])(units, units, batch_first=True)
    load(layer, weights)
    data = [torch.from_numpy(x) for x in batches["inputs"]]

    def run(steps):
        begin = time.perf_counter()
        for x in data[:steps]:
            x.requires_grad_(settings["backward"])
            with torch.set_grad_enabled(settings["backward"]):
                loss = layer(x)[0].square().mean()
            tensors = [layer.weight_ih_l0, layer.weight_hh_l0, x]
            gradients = []
            if settings["backward"]:
                # The biases' gradients are computed too, as those of all parameters are.
                gradients = torch.autograd.grad(loss, [*tensors, layer.bias_ih_l0, layer.bias_hh_l0])
            loss = loss.item()
        seconds = time.perf_counter() - begin
        norms = [float(torch.linalg.norm(gradient)) for gradient in gradients]
        if norms:
            kernel, recurrent, x, *biases = norms
            # Keras' GRU has the same two biases as one array; its LSTM has one bias.
            norms = [kernel, recurrent, np.hypot(*biases) if settings["layer"] == "GRU" else biases[0], x]
        return seconds, {"loss": loss, "norms": norms}

    serve(run, sum(p.numel() for p in layer.parameters()), {"torch": torch.__version__})


if __name__ == "__main__":
    main()
