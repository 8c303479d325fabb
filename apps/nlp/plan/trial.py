"""What is measured on this machine: how fast products of matrices are, and some steps of a small training."""

import dataclasses
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from apps.nlp.config import NlpConfig
from apps.nlp.plan.counts import memory, parameters, products, training_flops
from apps.nlp.plan.options import PlanOptions
from pipelines.cli import import_tensorflow

FEW, SHORT, CHECK_STEPS = 4000, 256, 20  # symbols, symbols in a sequence, and steps of a check run


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
        dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*"
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
        pairs["memory"] = (sum(bytes_.values()), used)
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
