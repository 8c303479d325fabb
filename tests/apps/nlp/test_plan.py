"""What a plan counts is what models, gradients and optimizers really have, and the command says it."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from apps.nlp import plan
from apps.nlp.config import ModelConfig, NlpConfig
from apps.nlp.encoders import TextEncoder
from apps.nlp.language_model import LanguageModel
from apps.nlp.model import MaskedLanguageModel, SentenceEncoder, TextClassifier
from apps.nlp.plan import PlanOptions, counts, report
from layers.lora import add_adapters
from pipelines.training.optimizer import make_optimizer
from pipelines.training.step import TrainStep
from tests.apps.command_line import ROOT, refused, run

GROUPED = ModelConfig(width=24, layers=3, heads=6, kv_heads=2, feedforward=40)
PLAIN = ModelConfig(width=16, layers=2, heads=2, feedforward=64)
SMALL = PlanOptions(
    vocabulary_size=50, max_length=12, batch_size=4, devices=1, classes=3, precision="float32", model=GROUPED
)


def built(options):
    """The model that `train` makes of such a configuration."""
    if options.task == "generate":
        model = LanguageModel.from_settings(options.model, options.vocabulary_size, options.max_length, options.remat)
        adapted = model
    else:
        adapted = TextEncoder.from_settings(options.model, options.vocabulary_size, options.remat)
        adapted.build((None, None))
        evidence = np.zeros((options.vocabulary_size, options.classes), np.float32)
        model = {
            "classify": lambda: TextClassifier(adapted, evidence, dropout=0.1, word_dropout=0.0),
            "similarity": lambda: SentenceEncoder(adapted, np.ones(options.vocabulary_size, np.float32)),
            "pretrain": lambda: MaskedLanguageModel(adapted),
        }[options.task]()
        tokens = ops.ones((1, 2), "int32")
        model({"tokens": tokens, "others": tokens})
    if options.lora:
        add_adapters(adapted, options.lora)
    return model


class SumOfOutputs:
    """A loss that every model can have: what the models compute is counted here, not how well."""

    def sums(self, outputs, batch):
        outputs = tf.cast(outputs, tf.float32)
        return {"loss": (tf.reduce_sum(outputs**2), tf.cast(tf.size(outputs), tf.float32))}


def training_step(options, model):
    shape = [options.batch_size, options.max_length]
    spec = {"tokens": tf.TensorSpec(shape, tf.int32)}
    if options.task == "pretrain":
        spec["places"] = tf.TensorSpec([options.batch_size, options.guesses], tf.int32)
    settings = NlpConfig().optimizer
    return TrainStep(model, SumOfOutputs(), make_optimizer(settings, model, 10), settings, spec, jit=False)


def counted_flops(graph, outputs):
    """Two for each multiplication in the matrix products that the outputs ask for."""
    waiting, seen, found = [output.op for output in outputs], set(), 0
    while waiting:
        op = waiting.pop()
        if op in seen:
            continue
        seen.add(op)
        waiting += [tensor.op for tensor in op.inputs]
        assert not op.type.endswith("Call") and op.type not in ("Einsum", "Conv2D"), op  # nothing hides from the count
        if op.type in ("MatMul", "BatchMatMulV2"):
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            inner = op.inputs[0].shape[-2 if transposed else -1]
            found += 2 * inner * op.outputs[0].shape.num_elements()
    return found


@pytest.mark.parametrize("model", [GROUPED, PLAIN])
@pytest.mark.parametrize("task", ["classify", "similarity", "generate", "pretrain"])
def test_parameters_are_those_of_the_model(task, model):
    options = dataclasses.replace(SMALL, task=task, model=model)
    network = built(options)
    assert sum(counts.parameters(options).values()) == network.count_params()
    found = counts.parameters(options)
    for part, mark in (
        ("attention", "self_attention/"),
        ("feed-forward", "feedforward/"),
        ("embedding", "/embedding/"),
    ):
        assert found[part] == sum(np.prod(v.shape) for v in network.weights if mark in v.path), part


@pytest.mark.parametrize("task", ["classify", "generate", "pretrain"])
def test_what_learns_beside_adapters(task):
    options = dataclasses.replace(SMALL, task=task, lora=3)
    network = built(options)
    assert sum(counts.parameters(options).values()) == network.count_params()
    assert counts.trainable(options) == sum(np.prod(v.shape) for v in network.trainable_weights)


@pytest.mark.parametrize("task, remat", [("generate", False), ("generate", True), ("pretrain", True), ("classify", 0)])
def test_training_has_as_many_flops_as_its_graph(task, remat):
    options = dataclasses.replace(SMALL, task=task, remat=bool(remat))
    step = training_step(options, built(options))
    function = step._pure(False)
    tokens = options.batch_size * options.max_length
    counted = counted_flops(function.graph, function.outputs)
    assert counted == pytest.approx(counts.training_flops(options) * tokens, rel=1e-9)
    if not remat:
        assert counts.training_flops(options) == pytest.approx(3 * sum(counts.forward_flops(options).values()))


def test_training_adapters_takes_fewer_flops():
    options = dataclasses.replace(SMALL, lora=1, batch_size=32)
    function = training_step(options, built(options))._pure(False)
    tokens = options.batch_size * options.max_length
    # Products of adapters by adapters are in the graph, and not in the plan.
    counted = counted_flops(function.graph, function.outputs)
    assert counted == pytest.approx(counts.training_flops(options) * tokens, rel=0.03)
    assert counts.training_flops(options) < 3 * sum(counts.forward_flops(options).values())


@pytest.mark.parametrize("lora", [0, 2])
def test_optimizer_and_gradients_are_as_large_as_planned(lora):
    options = dataclasses.replace(SMALL, lora=lora)
    step = training_step(options, built(options))
    states = [variable.value for variable in step.optimizer.variables if variable.shape.rank] + step.averages
    planned = counts.memory(options)
    assert planned["optimizer"] == sum(state.shape.num_elements() * state.dtype.size for state in states)
    _, gradients, _ = step._pure(False).structured_outputs
    assert planned["gradients"] == sum(gradient.shape.num_elements() * gradient.dtype.size for gradient in gradients)


def test_memory_follows_what_is_computed_at_a_time():
    options = dataclasses.replace(SMALL, batch_size=16)
    plain = counts.memory(options)
    assert counts.memory(dataclasses.replace(options, accumulate=4))["activations"] * 4 == plain["activations"]
    assert counts.memory(dataclasses.replace(options, devices=4))["activations"] * 4 == plain["activations"]
    assert counts.memory(dataclasses.replace(options, devices=4))["optimizer"] == plain["optimizer"]  # a copy each
    assert counts.memory(dataclasses.replace(options, remat=True))["activations"] < plain["activations"] / 2
    half = counts.memory(dataclasses.replace(options, precision="mixed_bfloat16"))
    assert plain["activations"] / 2 < half["activations"] < plain["activations"] * 0.7


def test_remedies_are_enough_and_no_larger_than_needed():
    options = plan.parse(["--device-memory", "40"], "plan")
    ways = list(counts.remedies(options))
    assert ways == ["--accumulate 4", "--remat", "--devices 32"]
    for way in ways:
        remedied = plan.parse(["--device-memory", "40", *way.split()], "plan")
        assert sum(counts.memory(remedied).values()) <= 40e9
    for less in (["--accumulate", "2"], ["--devices", "16"]):
        assert sum(counts.memory(plan.parse(["--device-memory", "40", *less], "plan")).values()) > 40e9


def test_days():
    found = report.figures(plan.parse(["--size", "tiny", "--teraflops", "2", "--utilisation", "0.5"], "plan"))
    assert found["tokens"] == 20 * sum(found["parameters"].values())
    seconds = found["tokens"] * found["flops_per_token"]["training"] / 1e12 / 8
    assert found["days"] == pytest.approx(seconds / 86400)


def test_flags_of_the_model_override_its_size():
    options = plan.parse(["--size", "small", "--model.layers", "9"], "plan")
    assert options.model == ModelConfig(**NlpConfig.generator_sizes["small"] | {"layers": 9})
    assert plan.parse(["--task", "pretrain"], "plan").model == ModelConfig(**NlpConfig.sizes["base"])


def test_a_plan_needs_no_tensorflow():
    script = """
import contextlib, sys
from apps.nlp.app import APP
from pipelines.cli import main
for arguments in (["plan", "--help"], ["plan", "--teraflops", "100", "--json"]):
    with contextlib.suppress(SystemExit):
        main(APP, arguments)
print(sorted({"tensorflow", "keras"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, found, imported = done.stdout.splitlines()
    assert imported == "[]" and "--teraflops" in done.stdout
    assert set(json.loads(found)["memory_per_device"]) == {"weights", "gradients", "optimizer", "activations"}


def test_a_check_run_finds_what_was_counted():
    flags = "--model.width 16 --model.layers 1 --model.heads 2 --model.kv-heads 1 --model.feedforward 32"
    shape = "--vocabulary-size 300 --max-length 64 --batch-size 8 --devices 1 --precision float32"
    code, out, err = run("nlp", "plan", "--measure", "--json", *flags.split(), *shape.split())
    assert code == 0, err
    found = json.loads(out)
    checked = found["check"]
    for exact in ("parameters", "optimizer"):
        assert checked[exact]["predicted"] == checked[exact]["measured"] > 0
    assert 0 < checked["seconds_per_step"]["measured"]
    assert found["flops_per_second"] == checked["flops_per_second"]["measured"]
    assert 0.7 < checked["memory"]["ratio"] < 1.5


def test_it_is_printed():
    code, out, err = run("nlp", "plan", "--teraflops", "300", "--device-memory", "1")
    assert code == 0, err
    for part in ("feed-forward", "training", "activations", "It does not fit into 1 GB", "days on 8 devices"):
        assert part in out


@pytest.mark.parametrize(
    "flags, parts",
    [
        (["--batch-size", "10"], ["--batch-size 10", "multiple of 8"]),
        (["--utilisation", "2"], ["--utilisation 2"]),
        (["--model.encoder", "cnn", "--task", "classify"], ["transformers only"]),
        (["--task", "classify", "--measure"], ["--measure"]),
        (["--model.width", "10"], ["--model.width 10"]),
        (["--device", "4"], ["--device", "did you mean --devices?"]),
        (["--lora", "-1"], ["--lora -1"]),
    ],
)
def test_what_makes_no_sense_gets_one_line(flags, parts):
    refused(run("nlp", "plan", *flags), *parts)
