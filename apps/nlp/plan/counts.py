"""What is counted from the configuration alone: weights, operations and bytes."""

import dataclasses
from collections.abc import Iterator

from apps.nlp.plan.options import PlanOptions

OPTIMIZER_STATES = 3  # of each weight that learns: two moments, and the moving average
FLOAT = 4  # bytes; weights, gradients and states are float32 in every --precision


def parameters(options: PlanOptions) -> dict[str, int]:
    """How many weights each part of the model has."""
    model, d, kv, vocabulary = options.model, options.model.width, options.kv_width, options.vocabulary_size
    head = {
        "classify": (2 * d + 1 + vocabulary) * options.classes,
        "similarity": (vocabulary + d) * model.vector_width + vocabulary,
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
        columns = model.vector_width if options.task == "similarity" else d
        found.append(Product("head", guesses, d, columns, 1, again=False))
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
    vectors = 3 * options.max_length * model.vector_width * FLOAT
    head = {"classify": 0, "similarity": vectors, "generate": logits, "pretrain": logits}[options.task]
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
