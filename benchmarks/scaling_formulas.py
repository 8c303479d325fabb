"""The arithmetic of training on many devices: steps, batches, failures. `scaling_plan.py` prints what it gives.

A step takes its computing, the optimizer's update, and adding up gradients, one after the other as the code does it:

    T(n) = tokens a device × FLOPs a token / speed  +  36 bytes a parameter / memory bandwidth
           + bytes × (2 (g - 1) / g / within  +  2 (m - 1) / m / between)  +  messages × hops × latency

for m nodes of g devices, n = g m. Batches grow with n up to the critical batch size B*; what has to be read, and the
steps, are those of McCandlish et al. 2018: E = D (1 + B / B*), S = E / B. docs/scaling.md explains each.
"""

import dataclasses
import math

from apps.nlp.config import ModelConfig, NlpConfig
from apps.nlp.plan.counts import FLOAT, OPTIMIZER_STATES, parameters, training_flops
from apps.nlp.plan.options import PlanOptions
from apps.translate.config import TranslateConfig

MESSAGE_BYTES = 32 << 20  # as in pipelines/distribution.py
UPDATE_BYTES = 36  # a parameter: weight, two moments and average are read and written, the gradient is read
VOCABULARY = 32_000


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What is assumed of a cluster. Each field is a flag, and its `help` what the flag says."""

    teraflops: float = dataclasses.field(default=312, metadata={"help": "of a device at best, in bfloat16"})
    utilisation: float = dataclasses.field(default=0.4, metadata={"help": "share of that which training reaches"})
    memory_bandwidth: float = dataclasses.field(default=2000, metadata={"help": "of a device, GB/s"})
    devices_per_node: int = dataclasses.field(default=8, metadata={"help": "devices of a node"})
    within: float = dataclasses.field(default=300, metadata={"help": "GB/s each way, of a device within its node"})
    between: float = dataclasses.field(default=25, metadata={"help": "GB/s each way, of a node to other nodes"})
    latency: float = dataclasses.field(default=20, metadata={"help": "of a hop, microseconds"})
    ring: bool = dataclasses.field(default=False, metadata={"help": "one ring through all nodes, in place of a tree"})
    disk: float = dataclasses.field(default=2, metadata={"help": "GB/s that the shared disk writes and reads"})
    node_mtbf: float = dataclasses.field(default=6000, metadata={"help": "hours until a node fails, in the mean"})
    startup: float = dataclasses.field(default=300, metadata={"help": "seconds to miss a worker, start all, compile"})


@dataclasses.dataclass(frozen=True)
class Model:
    """What is to be trained.

    Args:
        name: in tables.
        parameters: of the model.
        flops: of training, for a token (a target token of the translator, with its source token).
        length: tokens in a row, the least that a device can take.
        tokens: to learn from, in small batches.
        critical_batch: tokens from which on larger batches save few steps.
    """

    name: str
    parameters: int
    flops: float
    length: int
    tokens: float
    critical_batch: float

    @property
    def gradient_bytes(self) -> int:
        return FLOAT * self.parameters

    @property
    def checkpoint_bytes(self) -> int:
        return FLOAT * (1 + OPTIMIZER_STATES) * self.parameters

    def state_bytes(self, devices: int, sharded: bool = False) -> float:
        """Bytes on each device besides activations, in bfloat16; sharded, each has its part of the optimizer's."""
        weights = FLOAT + FLOAT // 2  # and a copy in bfloat16
        gradients = FLOAT * (2 if devices > 1 else 1)  # and the message of them
        return self.parameters * (weights + gradients + FLOAT * OPTIMIZER_STATES / (devices if sharded else 1))


def language_model(name: str, sizes: dict) -> Model:
    options = PlanOptions(
        task="generate", vocabulary_size=VOCABULARY, max_length=1024, model=ModelConfig(**{"kv_heads": 0} | sizes)
    )
    count = sum(parameters(options).values())
    # 20 tokens a parameter (Hoffmann et al. 2022); the critical batch at a loss of 3 nats (Kaplan et al. 2020).
    return Model(name, count, training_flops(options), options.max_length, 20 * count, 2.1e8 / 3 ** (1 / 0.21))


def translator(name: str, sizes: dict, length: int = 64) -> Model:
    """The encoder-decoder Transformer on pairs of so many tokens a side."""
    d, hidden, encoders, decoders = (sizes[k] for k in ("width", "feedforward", "encoder_layers", "decoder_layers"))
    attention, feedforward = 4 * d * d, 2 * d * hidden
    matrices = encoders * (attention + feedforward) + decoders * (2 * attention + feedforward)
    vectors = encoders * (4 * d + hidden + d + 4 * d) + decoders * (8 * d + hidden + d + 6 * d) + 4 * d
    count = VOCABULARY * d + matrices + vectors
    # Each matrix meets one token of a pair of tokens, the output's too; scores: 4 d for each token looked at.
    forward = 2 * (matrices + VOCABULARY * d) + 4 * d * length * (encoders + 2 * decoders)
    # 100,000 steps of 25,000 target tokens (Vaswani et al. 2017); batches of 400,000 still served (Ott et al. 2018).
    return Model(name, count, 3 * forward, length, 2.5e9, 4e5)


def models(critical_batch: float = 0.0) -> list[Model]:
    """Those that are planned for, with a critical batch size of their own or with the one given, in tokens."""
    found = [
        translator("translate base", TranslateConfig.sizes["base"]),
        language_model("language base", NlpConfig.generator_sizes["base"]),
        language_model("language 1 B", {"width": 2048, "layers": 18, "heads": 16, "feedforward": 8192}),
    ]
    return [dataclasses.replace(model, critical_batch=critical_batch or model.critical_batch) for model in found]


def all_reduce_seconds(size: float, devices: int, hardware: Hardware) -> float:
    """Adding up so many bytes: round a ring within nodes, along a tree among them, every message with its hops."""
    g = min(devices, hardware.devices_per_node)
    m = math.ceil(devices / g)
    within, between = 1e9 * hardware.within, 1e9 * hardware.between
    hops = 2 * (g - 1) + (2 * (m - 1) if hardware.ring else 2 * math.ceil(math.log2(m)))
    seconds = size * (2 * (g - 1) / g / within + 2 * (m - 1) / m / between)
    return seconds + math.ceil(size / MESSAGE_BYTES) * hops * 1e-6 * hardware.latency


def checkpoint_interval(write: float, between_failures: float) -> float:
    """Seconds of training between two checkpoints that lose the least (Daly 2006; to first order Young 1974)."""
    if write >= 2 * between_failures:
        return between_failures
    ratio = write / (2 * between_failures)
    return math.sqrt(2 * write * between_failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write


def lost_share(interval: float, write: float, between_failures: float, restart: float) -> float:
    """Share of the time that goes into checkpoints, starts, and steps taken twice (Daly 2006)."""
    mean = between_failures
    useful = interval / (mean * math.exp(restart / mean) * math.expm1((interval + write) / mean))
    return 1 - useful


def plan(model: Model, devices: int, hardware: Hardware, tokens_per_device: float) -> dict:
    """One row: a step with at most so many tokens on each device, the whole training, and failures."""
    critical = model.critical_batch
    rows = max(1, int(min(tokens_per_device, critical / devices) // model.length))
    batch = devices * rows * model.length
    speed = 1e12 * hardware.teraflops * hardware.utilisation
    compute = rows * model.length * model.flops / speed
    update = UPDATE_BYTES * model.parameters / (1e9 * hardware.memory_bandwidth)
    reduce = all_reduce_seconds(model.gradient_bytes, devices, hardware) if devices > 1 else 0.0
    step = compute + update + reduce
    nodes = math.ceil(devices / hardware.devices_per_node)
    failures = 3600 * hardware.node_mtbf / nodes
    write = model.checkpoint_bytes / (1e9 * hardware.disk)
    restart = hardware.startup + nodes * write  # every worker reads the whole checkpoint
    interval = checkpoint_interval(write, failures)
    lost = lost_share(interval, write, failures, restart)
    tokens = model.tokens * (1 + batch / critical)
    return {
        "devices": devices,
        "tokens_per_device": rows * model.length,
        "batch_tokens": batch,
        "compute_ms": 1000 * compute,
        "update_ms": 1000 * update,
        "all_reduce_ms": 1000 * reduce,
        "step_ms": 1000 * step,
        "tokens_per_second": batch / step,
        "rows_per_second": batch / step / model.length,
        "tokens": tokens,
        "steps": tokens / batch,
        "hours": tokens / batch * step / (1 - lost) / 3600,
        "hours_between_failures": failures / 3600,
        "checkpoint_gb": model.checkpoint_bytes / 1e9,
        "checkpoint_write_seconds": write,
        "checkpoint_read_seconds": nodes * write,
        "checkpoint_interval_minutes": interval / 60,
        "lost": lost,
        "state_gb": model.state_bytes(devices) / 1e9,
        "state_gb_sharded": model.state_bytes(devices, sharded=True) / 1e9,
    }
