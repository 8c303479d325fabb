"""The translate model in plain PyTorch, as a system to compare: arguments `<case directory> eager|compile`.

Needs PyTorch and NumPy and nothing of the project but `worker.py` and `sinusoids.py`. Of the usual ways to write it,
this is the fastest that was found for eager mode on CPU: one fused projection and `scaled_dot_product_attention`
(`nn.TransformerEncoderLayer` and its decoder took 5 % more; compiled, the two are alike), and the fused AdamW.
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.sinusoids import sinusoids
from benchmarks.peers.worker import read_case, serve


class Attention(nn.Module):
    def __init__(self, width, heads, crossed=False):
        super().__init__()
        self.heads = heads
        self.crossed = crossed
        if crossed:
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)
        else:
            self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x, memory=None, mask=None, causal=False):
        if self.crossed:
            q, k, v = self.query(x), *self.key_value(memory).chunk(2, dim=-1)
        else:
            q, k, v = self.query_key_value(x).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, h, T, dh)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.output(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, x):
        return self.output(functional.relu(self.hidden(x)))


class Block(nn.Module):
    def __init__(self, sizes, crossed):
        super().__init__()
        width, heads = sizes["width"], sizes["heads"]
        self.crossed = crossed
        self.self_attention_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        if crossed:
            self.memory_attention_norm = nn.LayerNorm(width)
            self.memory_attention = Attention(width, heads, crossed=True)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, sizes["feedforward"])
        self.dropout = nn.Dropout(sizes["dropout"])

    def forward(self, x, mask, memory=None):
        normed = self.self_attention_norm(x)
        if self.crossed:
            x = x + self.dropout(self.self_attention(normed, causal=True))
            x = x + self.dropout(self.memory_attention(self.memory_attention_norm(x), memory, mask))
        else:
            x = x + self.dropout(self.self_attention(normed, mask=mask))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class Transformer(nn.Module):
    """Source ids (B, S) and shifted target ids (B, T) -> logits (B, T, V)."""

    def __init__(self, settings, length):
        super().__init__()
        sizes = settings["model"]
        self.width = sizes["width"]
        self.embedding = nn.Embedding(settings["vocabulary_size"], self.width)
        self.register_buffer("sinusoids", torch.from_numpy(sinusoids(length, self.width)), persistent=False)
        self.dropout = nn.Dropout(sizes["dropout"])
        self.encoder = nn.ModuleList(Block(sizes, crossed=False) for _ in range(sizes["encoder_layers"]))
        self.encoder_norm = nn.LayerNorm(self.width)
        self.decoder = nn.ModuleList(Block(sizes, crossed=True) for _ in range(sizes["decoder_layers"]))
        self.decoder_norm = nn.LayerNorm(self.width)

    def embed(self, ids):
        return self.dropout(self.embedding(ids) * self.width**0.5 + self.sinusoids[: ids.shape[1]])

    def forward(self, source, shifted):
        mask = (source != 0)[:, None, None, :]  # (B, 1, 1, S)
        memory = self.embed(source)
        for block in self.encoder:
            memory = block(memory, mask)
        memory = self.encoder_norm(memory)
        x = self.embed(shifted)
        for block in self.decoder:
            x = block(x, mask, memory)
        return functional.linear(self.decoder_norm(x), self.embedding.weight)


def load(model, weights):
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight", "bias": "bias"}
    state = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        state[f"{layer}.{names[kind]}"] = torch.from_numpy(value.T if kind == "kernel" else value)
    model.load_state_dict(state)


def make_optimizer(settings, model):
    """AdamW with decay on matrices only, and its schedule: linear warm-up, then a fall with the step's square root."""
    named = dict(model.named_parameters())
    decayed = [p for name, p in named.items() if p.dim() > 1 and name != "embedding.weight"]
    spared = [p for name, p in named.items() if p.dim() < 2 or name == "embedding.weight"]
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": spared, "weight_decay": 0.0}]
    betas = settings["beta_1"], settings["beta_2"]
    adam = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=betas, eps=1e-9, fused=True)
    warmup = settings["warmup_steps"]
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda t: min((t + 1) / warmup, (warmup / (t + 1)) ** 0.5))
    return adam, schedule


def descend(loss, model, optimizer, schedule, clip_norm):
    """One update of the weights, gradients clipped by their global norm."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def main():
    settings, weights, batches = read_case(sys.argv[1])
    torch.manual_seed(0)
    sources, targets = torch.from_numpy(batches["source"]).long(), torch.from_numpy(batches["target"]).long()
    shifted = torch.nn.functional.pad(targets[:, :, :-1], (1, 0), value=settings["start_id"])
    model = Transformer(settings, max(sources.shape[-1], targets.shape[-1]))
    load(model, weights)
    optimizer, schedule = make_optimizer(settings["optimizer"], model)

    def forward(source, shifted, target):
        logits = model(source, shifted)
        loss = functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=0, label_smoothing=settings["label_smoothing"]
        )
        hits = (logits.argmax(dim=-1) == target) & (target != 0)
        return loss, hits.sum()

    if sys.argv[2] == "compile":
        forward = torch.compile(forward)

    def train(steps):
        mean = hits = tokens = 0.0
        begin = time.perf_counter()
        for source, start, target in zip(sources[:steps], shifted[:steps], targets[:steps], strict=True):
            loss, hit = forward(source, start, target)
            descend(loss, model, optimizer, schedule, settings["optimizer"]["clip_norm"])
            mean += loss.item() / steps
            hits, tokens = hits + hit.item(), tokens + int((target != 0).sum())
        return time.perf_counter() - begin, {"loss": mean, "accuracy": hits / tokens}

    serve(train, sum(p.numel() for p in model.parameters()), {"torch": torch.__version__})


if __name__ == "__main__":
    main()
