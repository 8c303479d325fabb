"""A plan as it is printed: figures laid out, days to train, and what to do where memory is short."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from apps.nlp.plan.counts import forward_flops, memory, parameters, remedies, trainable, training_flops
from apps.nlp.plan.options import PlanOptions
from apps.nlp.plan.trial import SHORT, check, product_speed
from pipelines.cli import import_tensorflow

TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556


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
