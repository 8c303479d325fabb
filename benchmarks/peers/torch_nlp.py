"""The nlp app's models in plain PyTorch, as a system to compare: arguments `<case directory> eager|compile`.

Needs PyTorch and NumPy and nothing of the project but `worker.py`, `torch_speech.py` and `torch_translate.py`.
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_speech import BidirectionalLSTM, load, turn
from benchmarks.peers.torch_translate import descend, make_optimizer
from benchmarks.peers.worker import read_case, serve


class RecurrentBlock(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        width = sizes["width"]
        self.norm = nn.LayerNorm(width)
        self.recurrent = BidirectionalLSTM(width, width // 2)
        self.dropout = nn.Dropout(sizes["dropout"])

    def forward(self, x, turned):
        return x + self.dropout(self.recurrent(self.norm(x), turned))


class Classifier(nn.Module):
    """Ids (B, L), 0 being padding -> logits (B, K)."""

    def __init__(self, settings):
        super().__init__()
        sizes = settings["model"]
        self.width = sizes["width"]
        self.evidence = nn.Parameter(torch.empty(settings["vocabulary_size"], settings["classes"]))
        self.embedding = nn.Embedding(settings["vocabulary_size"], self.width)
        self.dropout = nn.Dropout(sizes["dropout"])
        self.blocks = nn.ModuleList(RecurrentBlock(sizes) for _ in range(sizes["layers"]))
        self.norm = nn.LayerNorm(self.width)
        self.logits = nn.Linear(2 * self.width, settings["classes"])

    def forward(self, tokens):
        mask = (tokens != 0)[:, :, None]
        lengths = mask.sum(1)  # (B, 1)
        turned = turn(lengths[:, 0], tokens.shape[1])
        x = self.dropout(self.embedding(tokens) * self.width**0.5)
        for block in self.blocks:
            x = block(x, turned)
        x = self.norm(x)
        mean = (x * mask).sum(1) / lengths
        greatest = x.masked_fill(~mask, -3e4).amax(1)
        evidence = functional.embedding(tokens, self.evidence) * mask
        return self.logits(self.dropout(torch.cat([mean, greatest], dim=-1))) + evidence.sum(1)


class Attention(nn.Module):
    """Causal, with rotary positions, and keys and values that several heads share."""

    def __init__(self, sizes, length):
        super().__init__()
        width = sizes["width"]
        self.head = width // sizes["heads"]
        self.parts = [sizes["heads"], sizes["kv_heads"], sizes["kv_heads"]]
        self.query_key_value = nn.Linear(width, sum(self.parts) * self.head)
        self.output = nn.Linear(width, width)
        angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, self.head, 2) / self.head)
        self.register_buffer("cos", angles.cos(), persistent=False)  # (L, dh / 2)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def rotate(self, x):
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin], dim=-1)

    def forward(self, x):
        heads = self.query_key_value(x).unflatten(-1, (-1, self.head)).transpose(1, 2)  # (B, h + 2 h_kv, L, dh)
        q, k, v = heads.split(self.parts, dim=1)
        q, k = self.rotate(q), self.rotate(k)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.output(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, x):
        return self.output(functional.gelu(self.hidden(x)))


class Block(nn.Module):
    def __init__(self, sizes, length):
        super().__init__()
        width = sizes["width"]
        self.self_attention_norm = nn.LayerNorm(width)
        self.self_attention = Attention(sizes, length)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, sizes["feedforward"])
        self.dropout = nn.Dropout(sizes["dropout"])

    def forward(self, x):
        x = x + self.dropout(self.self_attention(self.self_attention_norm(x)))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class LanguageModel(nn.Module):
    """Ids (B, L) -> logits (B, L, V)."""

    def __init__(self, settings):
        super().__init__()
        sizes = settings["model"]
        self.width = sizes["width"]
        self.embedding = nn.Embedding(settings["vocabulary_size"], self.width)
        self.dropout = nn.Dropout(sizes["dropout"])
        self.blocks = nn.ModuleList(Block(sizes, settings["length"]) for _ in range(sizes["layers"]))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, tokens):
        x = self.dropout(self.embedding(tokens) * self.width**0.5)
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.embedding.weight)


def main():
    settings, weights, batches = read_case(sys.argv[1])
    torch.manual_seed(0)
    answers = "label" if settings["task"] == "classify" else "targets"
    tokens, answers = (torch.from_numpy(batches[name]).long() for name in ("tokens", answers))
    model = {"classify": Classifier, "generate": LanguageModel}[settings["task"]](settings)
    load(model, weights)
    optimizer, schedule = make_optimizer(settings["optimizer"], model)

    def forward(tokens, answers):
        logits = model(tokens)
        loss = functional.cross_entropy(logits.flatten(0, -2), answers.flatten())
        return loss, (logits.argmax(dim=-1) == answers).sum()

    if sys.argv[2] == "compile":
        forward = torch.compile(forward)

    def train(steps):
        mean = hits = 0.0
        begin = time.perf_counter()
        for batch, right in zip(tokens[:steps], answers[:steps], strict=True):
            loss, hit = forward(batch, right)
            descend(loss, model, optimizer, schedule, settings["optimizer"]["clip_norm"])
            mean += loss.item() / steps
            hits += hit.item() / right.numel() / steps
        return time.perf_counter() - begin, {"loss": mean, "accuracy": hits}

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    serve(train, parameters, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
