"""The image networks in plain PyTorch, as a system to compare: arguments `<case directory> eager|compile`.

Needs PyTorch and NumPy and nothing of the project but `worker.py` and `torch_translate.py`. Written for speed: pictures
channels last, as oneDNN's kernels take them, activations in place, the fused AdamW.

With an even size and a stride of 2, TensorFlow's padding "same" adds its zeros below and to the right, PyTorch's above
and to the left. Instead of padding in an operation of its own, pictures and kernels are turned by half a circle,
outside the time: that is the same network at no cost.
"""

import contextlib
import math
import sys
import time
from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_translate import descend, make_optimizer
from benchmarks.peers.worker import read_case, serve


def convolution(channels, filters, window, stride=1, bias=False, groups=1):
    return nn.Conv2d(channels, filters, window, stride, window // 2, groups=groups, bias=bias)


class Residual(nn.Module):
    """Two convolutions and a way around them, pre-activation."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.norm_1 = nn.BatchNorm2d(channels)
        self.conv_1 = convolution(channels, filters, 3, stride)
        self.norm_2 = nn.BatchNorm2d(filters)
        self.conv_2 = convolution(filters, filters, 3)
        self.stride = stride
        self.shortcut = convolution(channels, filters, 1) if channels != filters else None

    def forward(self, x):
        h = functional.relu(self.norm_1(x), inplace=True)
        if self.shortcut is not None:
            first = self.stride - 1  # of a turned picture
            x = self.shortcut(h[:, :, first :: self.stride, first :: self.stride])
        h = functional.relu(self.norm_2(self.conv_1(h)), inplace=True)
        return x + self.conv_2(h)


class InvertedResidual(nn.Module):
    """A wide depthwise convolution between two narrow ends, and a way around them where they are alike."""

    def __init__(self, channels, filters, stride, expansion=6):
        super().__init__()
        wide = expansion * channels
        self.expand = convolution(channels, wide, 1)
        self.expand_norm = nn.BatchNorm2d(wide)
        self.depthwise = convolution(wide, wide, 3, stride, groups=wide)
        self.depthwise_norm = nn.BatchNorm2d(wide)
        self.contract = convolution(wide, filters, 1)
        self.contract_norm = nn.BatchNorm2d(filters)
        self.has_shortcut = stride == 1 and channels == filters

    def forward(self, x):
        h = functional.relu6(self.expand_norm(self.expand(x)), inplace=True)
        h = functional.relu6(self.depthwise_norm(self.depthwise(h)), inplace=True)
        h = self.contract_norm(self.contract(h))
        return x + h if self.has_shortcut else h


class Flatten(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)  # as the values lie in memory


class AveragePool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def build(settings):
    """Pictures (B, C, S, S) -> logits (B, K)."""
    sizes, channels = settings["model"], settings["channels"]
    parts = OrderedDict()
    if sizes["architecture"] == "cnn":
        for number, filters in ((1, 32), (2, 64)):
            parts[f"conv_{number}"] = convolution(channels, filters, 3, bias=True)
            parts[f"relu_{number}"] = nn.ReLU(inplace=True)
            parts[f"pool_{number}"] = nn.MaxPool2d(2)
            channels = filters
        parts["flatten"] = Flatten()
        parts["dense"] = nn.Linear((settings["size"] // 4) ** 2 * channels, 128)
        parts["relu"] = nn.ReLU(inplace=True)
        channels = 128
    else:
        block = {"resnet": Residual, "mobile": InvertedResidual}[sizes["architecture"]]
        parts["stem"] = convolution(channels, sizes["width"], 3)
        channels = sizes["width"]
        for stage, count in enumerate(sizes["blocks"]):
            for number in range(count):
                filters = sizes["width"] * 2**stage
                stride = 2 if stage and not number else 1
                parts[f"stage_{stage + 1}_{number + 1}"] = block(channels, filters, stride)
                channels = filters
        parts["norm"] = nn.BatchNorm2d(channels)
        parts["relu"] = nn.ReLU(inplace=True)
        parts["pool"] = AveragePool()
    parts["logits"] = nn.Linear(channels, settings["classes"])
    return nn.Sequential(parts)


def load(model, weights):
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    state = {name: value for name, value in model.state_dict().items() if "running" in name or "batches" in name}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        if layer == "dense" and kind == "kernel":
            channels = len(weights["conv_2.bias"])
            side = math.isqrt(len(value) // channels)
            value = value.reshape(side, side, channels, -1)[::-1, ::-1].reshape(value.shape)
        if value.ndim == 4:
            value = value[::-1, ::-1].transpose((2, 3, 0, 1) if layer.endswith("depthwise") else (3, 2, 0, 1))
        elif value.ndim == 2:
            value = value.T
        state[f"{layer}.{names[kind]}"] = torch.from_numpy(np.ascontiguousarray(value))
    model.load_state_dict(state)


def main():
    settings, weights, batches = read_case(sys.argv[1])
    torch.manual_seed(0)
    turned = np.ascontiguousarray(batches["image"][:, :, ::-1, ::-1]).transpose(0, 1, 4, 2, 3)
    images = [torch.from_numpy(batch).contiguous(memory_format=torch.channels_last) for batch in turned]
    labels = torch.from_numpy(batches["label"]).long()
    model = build(settings).to(memory_format=torch.channels_last)
    load(model, weights)
    optimizer, schedule = make_optimizer(settings["optimizer"], model)
    autocast = contextlib.nullcontext()
    if settings["precision"] == "mixed_bfloat16":
        autocast = torch.autocast("cpu", torch.bfloat16)

    def forward(image, label):
        with autocast:
            logits = model(image)
        loss = functional.cross_entropy(logits.float(), label, label_smoothing=settings["label_smoothing"])
        return loss, (logits.argmax(dim=-1) == label).sum()

    if sys.argv[2] == "compile":
        forward = torch.compile(forward)

    def train(steps):
        mean = hits = 0.0
        begin = time.perf_counter()
        for image, label in zip(images[:steps], labels[:steps], strict=True):
            loss, hit = forward(image, label)
            descend(loss, model, optimizer, schedule, settings["optimizer"]["clip_norm"])
            mean += loss.item() / steps
            hits += hit.item() / len(label) / steps
        return time.perf_counter() - begin, {"loss": mean, "accuracy": hits}

    serve(train, sum(p.numel() for p in model.parameters()), {"torch": torch.__version__})


if __name__ == "__main__":
    main()
