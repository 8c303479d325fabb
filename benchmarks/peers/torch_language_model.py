"""A small GPT of characters in plain PyTorch, trained from beginning to end; arguments
`<train.txt> <validation.txt> <settings as JSON>`.

Needs PyTorch and NumPy and nothing of the project. It is the recipe that such programs usually have: learnt positions,
pre-norm blocks with GELU, one matrix for embedding and output, windows drawn at random, AdamW with decay on matrices,
warm-up and a cosine to a tenth. Prints one JSON object: the loss of the whole validation text in windows of the same
length, the seconds of training and of everything, the number of parameters.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.query_key_value(x).chunk(3, dim=-1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, h, T, dh)
        return self.output(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.feedforward_norm = nn.LayerNorm(width, bias=False)
        self.hidden = nn.Linear(width, 4 * width, bias=False)
        self.output = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.output(functional.gelu(self.hidden(self.feedforward_norm(x))))


class Model(nn.Module):
    """Ids (B, T) -> logits (B, T, V)."""

    def __init__(self, vocabulary, length, width, layers, heads):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                # Each block adds to the sum twice: smaller steps keep its variance.
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if name.endswith("output.weight") else 0.02)

    def forward(self, ids):
        x = self.embedding(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.embedding.weight)


def loss_of(model, tokens, targets):
    return functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="sum")


@torch.no_grad()
def validate(model, text, length):
    """Mean loss of the whole text, in windows one after the other."""
    count = len(text) - 1
    whole = count // length * length
    tokens, targets = (text[shift : shift + whole].view(-1, length) for shift in (0, 1))
    total = sum(float(loss_of(model, *rows)) for rows in zip(tokens.split(64), targets.split(64), strict=True))
    if rest := count - whole:
        total += float(loss_of(model, text[None, -rest - 1 : -1], text[None, -rest:]))
    return total / count


def main():
    began = time.perf_counter()
    train, validation = (Path(file).read_text(encoding="utf-8") for file in sys.argv[1:3])
    s = json.loads(sys.argv[3])
    torch.manual_seed(s["seed"])
    ids = {character: number for number, character in enumerate(sorted(set(train + validation)))}
    train, validation = (torch.from_numpy(np.array([ids[c] for c in text])) for text in (train, validation))
    model = Model(len(ids), s["length"], s["width"], s["layers"], s["heads"])
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": s["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=s["learning_rate"], betas=(0.9, 0.99), fused=True)

    def rate(step):
        if step < s["warmup_steps"]:
            return (step + 1) / (s["warmup_steps"] + 1)
        done = (step - s["warmup_steps"]) / (s["steps"] - s["warmup_steps"])
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    step = torch.compile(loss_of) if s["compile"] else loss_of
    offsets = torch.arange(s["length"])
    first = time.perf_counter()
    for _ in range(s["steps"]):
        places = torch.randint(len(train) - s["length"], (s["batch_size"], 1)) + offsets
        loss = step(model, train[places], train[places + 1]) / places.numel()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    trained = time.perf_counter()
    answer = {
        "loss": validate(model, validation, s["length"]),
        "training_seconds": trained - first,
        "seconds": time.perf_counter() - began,
        "parameters": sum(p.numel() for p in model.parameters()),
        "version": torch.__version__,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
