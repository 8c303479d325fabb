"""The speech model in plain PyTorch, as a system to compare: arguments `<case directory> eager|compile`.

Needs PyTorch and NumPy and nothing of the project but `worker.py` and `torch_translate.py`. Its LSTMs have one bias
instead of two: the second one stays zero.
"""

import re
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_translate import descend, make_optimizer
from benchmarks.peers.worker import read_case, serve


def turn(lengths, steps):
    """(B, T, 1) where each row's steps are in a row that is read from its end; padding stays where it is."""
    places, lengths = torch.arange(steps), lengths[:, None]
    return torch.where(places < lengths, lengths - 1 - places, places)[:, :, None]


class BidirectionalLSTM(nn.Module):
    """Two LSTMs over rows (B, T, d) that end in padding, the second one from the end of what is real.

    Turning rows around is faster than packing them, for which PyTorch has no fused loop: no step needs a mask.
    """

    def __init__(self, inputs, units):
        super().__init__()
        self.there = nn.LSTM(inputs, units, batch_first=True)
        self.back = nn.LSTM(inputs, units, batch_first=True)
        for layer in (self.there, self.back):
            layer.bias_hh_l0.requires_grad_(False)

    def forward(self, x, turned):
        y, _ = self.there(x)
        z, _ = self.back(x.gather(1, turned.expand_as(x)))
        return torch.cat([y, z.gather(1, turned.expand_as(z))], dim=-1)


class Block(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.norm = nn.LayerNorm(sizes["width"])
        self.recurrent = BidirectionalLSTM(sizes["width"], sizes["width"])
        self.output = nn.Linear(2 * sizes["width"], sizes["width"])
        self.dropout = nn.Dropout(sizes["dropout"])

    def forward(self, x, turned):
        return x + self.dropout(self.output(self.recurrent(self.norm(x), turned)))


class Recognizer(nn.Module):
    """Features (B, M, F), and how many frames are real (B,) -> logits (B, T, V), and how many steps are real (B,)."""

    def __init__(self, settings):
        super().__init__()
        sizes = settings["model"]
        width = sizes["width"]
        self.convolution_1 = nn.Conv1d(sizes["bands"], width, 3, stride=2, padding=2)
        self.convolution_2 = nn.Conv1d(width, width, 3, stride=2, padding=2)
        self.projection = nn.Linear(width, width)
        self.dropout = nn.Dropout(sizes["dropout"])
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes["layers"]))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, settings["symbols"])

    def forward(self, x, lengths):
        for convolution in (self.convolution_1, self.convolution_2):
            lengths, steps = (lengths + 1) // 2, (x.shape[2] + 1) // 2
            # Padded on both sides; what needs the zeros behind the last step is left off.
            x = functional.relu(convolution(x)[:, :, :steps])
        x = self.dropout(self.projection(x.transpose(1, 2)))
        turned = turn(lengths, x.shape[1])
        for block in self.blocks:
            x = block(x, turned)
        return self.logits(self.norm(x)), lengths


LSTM = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0", "bias": "bias_ih_l0"}
OTHERS = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias", "bias": "bias"}


def rename(name, first_block=0):
    """What a weight is called here."""
    name = re.sub(r"block_(\d+)", lambda found: f"blocks.{int(found[1]) - first_block}", name)
    layer, _, kind = name.rpartition(".")
    if "recurrent." in layer:
        return f"{layer.replace('backward_forward', 'back').replace('forward', 'there')}.{LSTM[kind]}"
    return f"{layer}.{OTHERS[kind]}" if layer else name


def load(model, weights, first_block=0):
    """Sets the weights, of which blocks are counted from `first_block` on."""
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items() if "bias_hh" in name}
    for name, value in weights.items():
        # (in, out) -> (out, in), and (window, in, out) -> (out, in, window)
        value = np.ascontiguousarray(value.T) if name.endswith("kernel") else value
        state[rename(name, first_block)] = torch.from_numpy(value)
    model.load_state_dict(state)


def main():
    settings, weights, batches = read_case(sys.argv[1])
    torch.manual_seed(0)
    features = torch.from_numpy(batches["features"]).transpose(2, 3).contiguous()
    frames, labels, label_lengths = (torch.from_numpy(batches[k]).long() for k in ("frames", "labels", "label_length"))
    model = Recognizer(settings)
    load(model, weights, first_block=1)
    optimizer, schedule = make_optimizer(settings["optimizer"], model)

    def forward(x, lengths, labels, label_lengths):
        logits, steps = model(x, lengths)
        scores = functional.log_softmax(logits, dim=-1).transpose(0, 1)  # (T, B, V)
        return functional.ctc_loss(scores, labels, steps, label_lengths, reduction="sum") / label_lengths.sum()

    if sys.argv[2] == "compile":
        forward = torch.compile(forward)

    def train(steps):
        mean = 0.0
        begin = time.perf_counter()
        for i in range(steps):
            loss = forward(features[i], frames[i], labels[i], label_lengths[i])
            descend(loss, model, optimizer, schedule, settings["optimizer"]["clip_norm"])
            mean += loss.item() / steps
        return time.perf_counter() - begin, {"loss": mean}

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    serve(train, parameters, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
