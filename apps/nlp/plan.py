"""What training a transformer would take, before anything is trained: weights, arithmetic, memory and days.

python -m apps.nlp plan --size base --devices 8 --teraflops 312                 a language model on 8 such devices
python -m apps.nlp plan --size tiny --measure                                   and how far to trust the figures here

All figures are counted from the configuration alone. Replicas are copies: each device holds all weights, gradients and
optimizer states, and only a step's sequences are divided among them. `--measure` trains the same network for some
steps and lays what was counted beside what was measured.
"""

import dataclasses
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from apps.nlp.config import ModelConfig, NlpConfig, TaskName
from pipelines import config
from pipelines.cli import import_tensorflow
from pipelines.config import require_at_least
from pipelines.errors import UserError

TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556
OPTIMIZER_STATES = 3  # of each weight that learns: two moments, and the moving average
FEW, SHORT, CHECK_STEPS = 4000, 256, 20  # symbols, symbols in a sequence, and steps of a check run
FLOAT = 4  # bytes; weights, gradients and states are float32 in every --precision


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """What training a transformer takes: parameters, FLOPs a token, memory by part, days. Nothing is trained."""

    # What it is to learn; see `train --help`.
    task: TaskName = "generate"
    # Named model size; single fields by their own flag (--model.layers 24).
    size: Literal["tiny", "small", "base"] = "base"
    # Symbols in the vocabulary.
    vocabulary_size: int = 32_000
    # Symbols in a sequence.
    max_length: int = 1024
    # Classes, of --task classify.
    classes: int = 2
    # Sequences in a step, across all devices; a pair of texts is two.
    batch_size: int = 512
    # Devices to train on.
    devices: int = 8
    # Type in which layers compute; weights stay float32.
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "mixed_bfloat16"
    # Keep only each block's input for the backward pass and compute the rest of it again.
    remat: bool = False
    # Compute a step's gradients in N parts, one after the other.
    accumulate: int = 1
    # Train low-rank adapters of this rank only; 0 trains all weights.
    lora: int = 0
    # Tokens to train on; 0 takes 20 a parameter (Hoffmann et al. 2022).
    tokens: int = 0
    # What a device can do at best, in 10^12 operations a second; 0 times matrix products on this machine.
    teraflops: float = 0.0
    # Share of --teraflops that training reaches.
    utilisation: float = 0.4
    # Memory of a device in GB (10^9 bytes), to see whether it is enough; 0 leaves that out.
    device_memory: float = 0.0
    # Train this network for some steps on this machine, on short sequences, and compare with what was counted for them.
    measure: bool = False
    # Print one JSON object.
    json: bool = False

    model: ModelConfig = ModelConfig()

    def check(self) -> None:
        """Raises UserError for what `train` would refuse too, and for values that no plan can be made of."""
        require_at_least(1, self, "vocabulary_size", "devices", "classes")
        require_at_least(0, self, "tokens", "teraflops", "device_memory")
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation {self.utilisation}: takes a share above 0 and up to 1")
        if self.model.encoder != "transformer" or self.model.backbone:
            raise UserError("plan: counts transformers only; leave --model.encoder and --model.backbone out")
        if self.measure and self.task != "generate":
            raise UserError(f"--measure: trains a language model; with --task {self.task}, leave it out")
        as_trained = NlpConfig(
            **{
                name: getattr(self, name)
                for name in ("task", "size", "vocabulary_size", "max_length", "batch_size", "precision", "accumulate")
            },
            model=self.model,
        )
        as_trained.check()
        as_trained.check_replicas(self.devices)
        require_at_least(0, self, "lora")

    @property
    def rows(self) -> int:
        """Sequences that a device computes at a time."""
        return self.batch_size // (self.devices * self.accumulate)

    @property
    def kv_width(self) -> int:
        """Width of all keys of a token, and of all its values."""
        return self.model.width // self.model.heads * (self.model.kv_heads or self.model.heads)

    @property
    def guesses(self) -> int:
        """Symbols of a sequence at which a symbol is guessed: all, or those that pretraining hides."""
        return math.ceil(NlpConfig().mask_share * self.max_length) if self.task == "pretrain" else self.max_length


def parse(arguments: Sequence[str], program: str) -> PlanOptions:
    """The options, in which flags of the model override what its size says."""
    draft = config.parse(PlanOptions(), arguments, program)
    sizes = NlpConfig(task=draft.task, size=draft.size).size_settings()
    options = config.parse(PlanOptions(model=ModelConfig(**sizes)), arguments, program)
    options.check()
    return options


def parameters(options: PlanOptions) -> dict[str, int]:
    """How many weights each part of the model has."""
    model, d, kv, vocabulary = options.model, options.model.width, options.kv_width, options.vocabulary_size
    head = {
        "classify": (2 * d + 1 + vocabulary) * options.classes,
        "similarity": d * d + vocabulary,
        "generate": 0,  # the embedding's matrix once more
        "pretrain": d * d + d + vocabulary,
    }
    return {
        "embedding": vocabulary * d,
        "attention": model.layers * ((d + 1) * (d + 2 * kv) + (d + 1) * d),
        "feed-forward": model.layers * ((d + 1) * model.feedforward + (model.feedforward + 1) * d),
        "norms": model.layers * 4 * d + 2 * d + (2 * d if options.task == "pretrain" else 0),
        "head": head[options.task],
        "adapters": model.layers * options.lora * ((d + d + 2 * kv) + 2 * d + 2 * (d + model.feedforward)),
    }


def trainable(options: PlanOptions) -> int:
    """How many weights learn. Adapters leave what is new to a task, its head, to learn as a whole."""
    parts = parameters(options)
    if not options.lora:
        return sum(parts.values())
    norm = 2 * options.model.width if options.task == "pretrain" else 0
    return parts["adapters"] + parts["head"] + norm


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of matrices in the forward pass, (batch, rows, inner) by (batch, inner, columns), `count` times.

    `learns`: the second matrix gets a gradient, as well as the first. `again`: remat computes it a second time.
    """

    part: str
    rows: int
    inner: int
    columns: int
    count: int
    batch: int = 1
    learns: bool = True
    again: bool = True

    @property
    def flops(self) -> int:
        return 2 * self.count * self.batch * self.rows * self.inner * self.columns


def products(options: PlanOptions, sequences: int = 1) -> list[Product]:
    """The products that reading some sequences takes. Hidden keys are computed too: causal masks save nothing."""
    model, length, d = options.model, options.max_length, options.model.width
    tokens, kv_heads = sequences * length, model.kv_heads or model.heads
    # As in `MultiHeadAttention`: query heads that share a key head are further rows of one product.
    shared, key = model.heads // kv_heads * length, d // model.heads
    found = [
        Product("projections", tokens, d, d + 2 * options.kv_width, model.layers),
        Product("scores", shared, key, length, model.layers, sequences * kv_heads),
        Product("scores", shared, length, key, model.layers, sequences * kv_heads),
        Product("projections", tokens, d, d, model.layers),
        Product("feed-forward", tokens, d, model.feedforward, model.layers),
        # Nothing on the way back asks for the result of a block's last product.
        Product("feed-forward", tokens, model.feedforward, d, model.layers, again=False),
    ]
    guesses = sequences * options.guesses
    if options.task in ("similarity", "pretrain"):
        found.append(Product("head", guesses, d, d, 1, again=False))
    if options.task == "classify":
        found.append(Product("head", sequences, 2 * d, options.classes, 1, again=False))
    if options.task in ("generate", "pretrain"):
        found.append(Product("head", guesses, d, options.vocabulary_size, 1, learns=not options.lora, again=False))
    return found


def forward_flops(options: PlanOptions) -> dict[str, float]:
    """Floating-point operations of the forward pass for a token, by part: two for each multiplication in a product."""
    found: dict[str, float] = {}
    for product in products(options):
        found[product.part] = found.get(product.part, 0.0) + product.flops / options.max_length
    return found


def training_flops(options: PlanOptions) -> float:
    """The same of a training step: each product has two on the way back, one for each of its matrices.

    Under --lora the products of adapters by adapters, once a step and not for each token, are left out.
    """
    every = products(options)
    found = sum(each.flops * (2 + each.learns + (options.remat and each.again)) for each in every)
    if options.lora:  # nothing before the first block learns
        found -= every[0].flops / every[0].count
    return found / options.max_length


def activations(options: PlanOptions) -> int:
    """Bytes of what a device keeps for the backward pass, of the sequences that it computes at a time.

    Counted as XLA keeps it. Of a block: what its norms, projections and sums gave, queries, keys and values, the
    attention's probabilities, and what the derivative of gelu needs, four times the hidden units.
    """
    model, d = options.model, options.model.width
    half = options.precision != "float32"
    size = FLOAT // 2 if half else FLOAT
    # The softmax is computed in float32 whatever the precision, and multiplied by in the layers' type.
    probabilities = model.heads * options.max_length * (FLOAT + size if half else FLOAT)
    block = options.max_length * (probabilities + (6 * d + 2 * options.kv_width + 4 * model.feedforward) * size)
    states = options.max_length * d * size
    logits = options.guesses * options.vocabulary_size * size
    head = {"classify": 0, "similarity": 3 * states, "generate": logits, "pretrain": logits}[options.task]
    if options.remat:  # of one block at a time; the head's have gone when the first is computed again
        return options.rows * ((model.layers + 3) * states + max(head, block))
    return options.rows * (model.layers * block + 3 * states + head)


def memory(options: PlanOptions) -> dict[str, int]:
    """Bytes that training takes on each device, by part."""
    total, learning = sum(parameters(options).values()), trainable(options)
    # Gradients that wait for the next part's, or as the message that travels to other replicas, are there twice.
    copies = 2 if options.accumulate > 1 or options.devices > 1 else 1
    return {
        "weights": FLOAT * total + (0 if options.precision == "float32" else FLOAT // 2 * total),
        "gradients": FLOAT * learning * copies,
        "optimizer": FLOAT * learning * OPTIMIZER_STATES,
        "activations": activations(options),
    }


def remedies(options: PlanOptions) -> Iterator[str]:
    """Flags with which a device's memory is enough: of each kind the smallest change."""
    parts = [n for n in range(1, options.rows + 1) if options.rows % n == 0]
    ways = [
        [{"accumulate": options.accumulate * n} for n in parts],
        [{"remat": True, "accumulate": options.accumulate * n} for n in parts],
        [{"devices": options.devices * n} for n in parts],
    ]
    for way in ways:
        for changes in way:
            if sum(memory(dataclasses.replace(options, **changes)).values()) <= options.device_memory * 1e9:
                changes = {name: value for name, value in changes.items() if value != getattr(options, name)}
                yield " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in changes.items())
                break


def figures(options: PlanOptions) -> dict[str, Any]:
    """Everything that is printed, as numbers: weights, operations, bytes, tokens, days."""
    parts, on_device = parameters(options), memory(options)
    tokens = options.tokens or TOKENS_A_PARAMETER * sum(parts.values())
    found = {
        "parameters": parts,
        "trainable": trainable(options),
        "flops_per_token": {"forward": forward_flops(options), "training": training_flops(options)},
        "memory_per_device": on_device,
        "tokens": tokens,
        "steps": -(-tokens // (options.batch_size * options.max_length)),
    }
    if options.device_memory:
        found["fits"] = sum(on_device.values()) <= options.device_memory * 1e9
        found["remedies"] = [] if found["fits"] else list(dict.fromkeys(remedies(options)))
    if options.measure:
        found["check"] = check(options)
        speed, source = found["check"]["flops_per_second"]["measured"], "what training the check run reached here"
    elif options.teraflops:
        speed = options.teraflops * 1e12 * options.utilisation
        source = f"{options.utilisation:.0%} of {options.teraflops:g} teraflops"
    else:
        import_tensorflow()
        speed = product_speed(dataclasses.replace(options, max_length=min(options.max_length, SHORT)), 1)
        source = f"what matrix products alone reach here in {options.precision}; give --teraflops for another device"
    days = tokens * training_flops(options) / (speed * options.devices) / 86_400
    return found | {"flops_per_second": speed, "source": source, "days": days}


def product_speed(options: PlanOptions, sequences: int) -> float:
    """FLOP/s that this machine reaches in the products of a forward pass alone, one after the other, with XLA."""
    import tensorflow as tf

    seconds, kind = 0.0, tf.as_dtype(options.precision.removeprefix("mixed_"))
    every = products(options, sequences)
    for each in every:
        multiply = tf.function(tf.matmul, jit_compile=True)
        left = tf.cast(tf.random.normal([each.batch, each.rows, each.inner]), kind)
        right = tf.cast(tf.random.normal([each.batch, each.inner, each.columns]), kind)
        multiply(left, right)  # compiles
        # A number is asked for, since an accelerator's result may be returned before it is computed.
        seconds += each.count * fastest(lambda f=multiply, a=left, b=right: f(a, b)[0, 0, 0].numpy(), 5)
    return sum(each.flops for each in every) / seconds


def fastest(work: Callable, repeats: int, limit: float = 60.0) -> float:
    """Seconds that work takes when nothing disturbs it: the least of some repeats, fewer once `limit` has passed."""
    seconds, begin = [], time.perf_counter()
    while len(seconds) < repeats and (not seconds or time.perf_counter() - begin < limit):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def check(options: PlanOptions) -> dict[str, dict[str, float]]:
    """Trains the network on random tokens, few and short sequences of them in float32. What was counted, and found."""
    small = {"vocabulary_size": min(options.vocabulary_size, FEW), "max_length": min(options.max_length, SHORT)}
    alone = {"batch_size": 8, "devices": 1, "accumulate": 1, "precision": "float32", "lora": 0}
    options = dataclasses.replace(options, **small, **alone)
    with tempfile.TemporaryDirectory() as folder:
        # XLA accounts for its memory in a file, if it is told so before TensorFlow comes.
        dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*forward_backward.*"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {dump}".strip()
        import_tensorflow()
        found = _train(options)
        reports = [file.read_text() for file in Path(folder).glob("*memory-usage-report.txt")]
    bytes_ = memory(options)
    operations = training_flops(options) * options.batch_size * options.max_length
    speed = product_speed(options, options.batch_size)
    pairs = {
        "parameters": (sum(parameters(options).values()), found["parameters"]),
        "optimizer": (bytes_["optimizer"], found["optimizer"]),
        "seconds_per_step": (operations / speed, found["seconds"]),
        "flops_per_second": (speed, operations / found["seconds"]),
    }
    if reports:
        used = max(int(re.search(r"Total bytes used: (\d+)", report)[1]) for report in reports)
        pairs["gradient_memory"] = (sum(bytes_.values()) - bytes_["optimizer"], used)
    return {
        name: {"predicted": counted, "measured": measured, "ratio": measured / counted}
        for name, (counted, measured) in pairs.items()
    }


def _train(options: PlanOptions) -> dict[str, float]:
    """Some steps as `train` takes them. What the model and the optimizer hold, and the seconds of a step."""
    import tensorflow as tf

    from apps.nlp.language_model import LanguageModel
    from pipelines import losses
    from pipelines.training.optimizer import make_optimizer
    from pipelines.training.step import TrainStep

    class NextToken:
        def sums(self, logits, batch):
            targets = batch["targets"]
            count = tf.cast(tf.size(targets), tf.float32)
            loss, hits = losses.smoothed_cross_entropy(logits, targets), losses.hits(logits, targets)
            return {"loss": (tf.reduce_sum(loss), count), "accuracy": (tf.reduce_sum(hits), count)}

    settings, shape = NlpConfig().optimizer, [options.batch_size, options.max_length]
    model = LanguageModel.from_settings(options.model, options.vocabulary_size, options.max_length, options.remat)
    optimizer = make_optimizer(settings, model, total_steps=CHECK_STEPS)
    spec = {name: tf.TensorSpec(shape, tf.int32) for name in ("tokens", "targets")}
    step = TrainStep(model, NextToken(), optimizer, settings, spec, jit=True)
    batch = {name: tf.random.uniform(shape, 1, options.vocabulary_size, tf.int32) for name in spec}

    def train():
        float(step(batch)["sums"]["loss"][0])

    train()  # compiles
    states = [variable.value for variable in optimizer.variables if variable.shape.rank] + step.averages
    return {
        "parameters": model.count_params(),
        "optimizer": sum(state.shape.num_elements() * state.dtype.size for state in states),
        "seconds": fastest(train, CHECK_STEPS),
    }


def run(options: PlanOptions) -> None:
    """Prints the plan."""
    found = figures(options)
    if options.json:
        print(json.dumps(found))
        return
    model, flops, on_device = options.model, found["flops_per_token"], found["memory_per_device"]
    total, training = sum(found["parameters"].values()), flops["training"]
    _table(
        f"{options.task}: {model.layers} layers of {model.width}, {model.heads} heads, feed-forward "
        f"{model.feedforward}, {options.vocabulary_size:,} symbols; {found['trainable']:,} parameters learn",
        ("part", "parameters"),
        [(name, f"{count:,}") for name, count in (found["parameters"] | {"together": total}).items() if count],
    )
    rows = flops["forward"] | {"forward": sum(flops["forward"].values()), "training": training}
    _table(
        f"a token, in sequences of {options.max_length} (products with hidden keys are computed too)",
        ("part", "million FLOPs"),
        [(name, f"{value / 1e6:,.2f}") for name, value in rows.items()],
    )
    _table(
        f"memory of each device, {options.rows} sequences at a time, {options.precision}, with XLA; "
        "weights, gradients and optimizer are whole on each",
        ("part", "GB"),
        [(name, f"{n / 1e9:,.3f}") for name, n in (on_device | {"together": sum(on_device.values())}).items()],
    )
    if options.device_memory:
        print(_said_of_memory(options, found))
    if options.measure:
        rows = [(name.replace("_", " "), *map(_shown, pair.values())) for name, pair in found["check"].items()]
        columns = "", "predicted", "measured", "measured / predicted"
        _table("trained here, 8 short sequences a step in float32; predicted of products alone", columns, rows)
    print(
        f"{found['tokens']:,} tokens are {found['steps']:,} steps of {options.batch_size} sequences: "
        f"{found['days']:,.3g} days on {options.devices} device{'s' * (options.devices > 1)} of "
        f"{found['flops_per_second'] / 1e12:,.3g} teraflops, {found['source']}"
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    print(title)
    Console().print(table)


def _shown(value: float) -> str:
    return f"{value:,.3g}" if value < 1e3 else f"{value:,.0f}"


def _said_of_memory(options: PlanOptions, found: dict[str, Any]) -> str:
    if found["fits"]:
        return f"It fits into {options.device_memory:g} GB."
    if found["remedies"]:
        ways = ", or with ".join(found["remedies"])
        return f"It does not fit into {options.device_memory:g} GB. It would with {ways}."
    return (
        f"It does not fit into {options.device_memory:g} GB, and neither --remat, --accumulate nor more devices are "
        "enough: take a smaller --size, or --lora."
    )
