"""One training step against the same computed by Keras' own optimizer and NumPy."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import OptimizerConfig
from pipelines.training.schedules import learning_rate
from pipelines.training.step import TrainStep, make_optimizer

CONFIG = OptimizerConfig(learning_rate=0.01, warmup_steps=1, clip_norm=0.0, average_decay=0.0, schedule="constant")


def make_step(make_task, line_config, config, jit=False, dropout=0.2):
    keras.utils.set_random_seed(1)
    task = make_task(line_config)
    task.dropout = dropout
    model = task.build_model()
    batches = task.train_batches(0)
    step = TrainStep(model, task, make_optimizer(config, model, 10), config, batches.element_spec, jit)
    return step, next(iter(batches))


def gradients(step, batch):
    """Gradients of the mean loss by plain Keras, with the dropout state that the step will see."""
    values = [v.numpy() for v in step.model.non_trainable_variables]
    with tf.GradientTape() as tape:
        error = step.model(batch, training=True) - batch["y"]
        loss = tf.reduce_mean(error**2)
    found = tape.gradient(loss, step.model.trainable_variables)
    for variable, value in zip(step.model.non_trainable_variables, values, strict=True):
        variable.assign(value)
    return loss, found


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_is_what_keras_would_do(make_task, line_config, jit):
    # XLA draws other random numbers from the same seed, so dropout only stays where both sides run without it.
    step, batch = make_step(make_task, line_config, CONFIG, jit, dropout=0.0 if jit else 0.2)
    loss, expected = gradients(step, batch)
    before = [v.numpy() for v in step.model.trainable_variables]
    result = step(batch)
    total, weight = result["sums"]["loss"]
    np.testing.assert_allclose(total / weight, loss, rtol=1e-5)
    np.testing.assert_allclose(result["gradient_norm"], tf.linalg.global_norm(expected), rtol=1e-5)
    after = [v.numpy() for v in step.model.trainable_variables]
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.01, beta_2=CONFIG.beta_2, epsilon=1e-9)
    reference.exclude_from_weight_decay([v for v in step.model.trainable_variables if len(v.shape) < 2])
    for variable, value in zip(step.model.trainable_variables, before, strict=True):
        variable.assign(value)
    reference.build(step.model.trainable_variables)
    reference.apply(expected)
    for variable, value in zip(step.model.trainable_variables, after, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)


def test_dropout_differs_from_step_to_step(make_task, line_config):
    step, batch = make_step(make_task, line_config, dataclasses.replace(CONFIG, learning_rate=0.0, weight_decay=0.0))
    first, second = (float(step(batch)["sums"]["loss"][0]) for _ in range(2))
    assert first != second


def test_clipping_scales_to_the_global_norm(make_task, line_config):
    # With plain momentum-free Adam the size of a gradient hardly shows: look at the first moment.
    for clip in (0.5, 1e9):
        step, batch = make_step(make_task, line_config, dataclasses.replace(CONFIG, clip_norm=clip))
        _, expected = gradients(step, batch)
        norm = float(tf.linalg.global_norm(expected))
        assert norm > 0.5
        step(batch)
        moment = step.optimizer._momentums[0].numpy() / (1 - CONFIG.beta_1)
        np.testing.assert_allclose(moment, expected[0] * min(1.0, clip / norm), rtol=1e-4, atol=1e-6)


def test_average_follows_the_weights(make_task, line_config):
    step, batch = make_step(make_task, line_config, dataclasses.replace(CONFIG, average_decay=0.5))
    expected = step.model.trainable_variables[0].numpy()
    for t in range(1, 6):
        step(batch)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * step.model.trainable_variables[0].numpy()
    np.testing.assert_allclose(step.averages[0].numpy(), expected, rtol=1e-5)


def test_measuring_changes_nothing(make_task, line_config):
    step, batch = make_step(make_task, line_config, CONFIG)
    before = [v.numpy() for v in step.model.variables]
    compiling, running = step.measure(True, batch)
    assert 0 < running < compiling
    for variable, value in zip(step.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_inverse_square_root():
    rate = learning_rate(OptimizerConfig(learning_rate=0.1, warmup_steps=4), total_steps=100)
    np.testing.assert_allclose([float(rate(t)) for t in (0, 1, 3, 15, 99)], [0.025, 0.05, 0.1, 0.05, 0.02], rtol=1e-5)
    assert type(rate).from_config(rate.get_config()).get_config() == rate.get_config()


def test_constant_after_its_warm_up():
    rate = learning_rate(OptimizerConfig(learning_rate=0.1, warmup_steps=4, schedule="constant"), total_steps=100)
    np.testing.assert_allclose([float(rate(t)) for t in (0, 1, 3, 99)], [0.025, 0.05, 0.1, 0.1], rtol=1e-5)


def test_cosine_reaches_zero_at_the_end():
    rate = learning_rate(OptimizerConfig(learning_rate=0.1, warmup_steps=10, schedule="cosine"), total_steps=110)
    np.testing.assert_allclose([float(rate(t)) for t in (0, 5, 10, 60, 110)], [0, 0.05, 0.1, 0.05, 0], atol=1e-6)
