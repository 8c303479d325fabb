"""One training step against the same computed by Keras' own optimizer and NumPy, alone and on two replicas."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import OptimizerConfig, TrainConfig
from pipelines.distribution import Distribution
from pipelines.training.loss_scale import LossScale
from pipelines.training.optimizer import make_optimizer
from pipelines.training.schedules import learning_rate
from pipelines.training.step import TrainStep

CONFIG = OptimizerConfig(learning_rate=0.01, warmup_steps=1, clip_norm=0.0, average_decay=0.0, schedule="constant")


def make_step(
    make_task,
    line_config,
    config,
    jit=False,
    dropout=0.2,
    normalised=False,
    distribution=None,
    pretrained=False,
    **options,
):
    keras.utils.set_random_seed(1)
    task = make_task(line_config)
    task.dropout, task.normalised = dropout, normalised
    batches = task.train_batches(0)
    distribution = distribution or Distribution()
    with distribution.scope():
        model = task.build_model()
        # As if the first layer, a kernel and a bias, had been trained before.
        late = model.trainable_variables[:2] if pretrained else ()
        optimizer = make_optimizer(config, model, 10, late)
        step = TrainStep(
            model, task, optimizer, config, batches.element_spec, jit, distribution, pretrained=late, **options
        )
    return step, next(iter(batches))


@pytest.fixture(scope="module")
def mirrored():
    return Distribution.start(TrainConfig(strategy="mirrored", devices="CPU:0,CPU:1"))


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


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("two, parts", [(False, 1), (True, 2)])
def test_pretrained_weights_are_frozen_and_then_learn_slower(make_task, line_config, mirrored, jit, two, parts):
    config = dataclasses.replace(CONFIG, frozen_steps=2, pretrained_rate=0.1)
    step, batch = make_step(
        make_task, line_config, config, jit, distribution=mirrored if two else None, pretrained=True, accumulate=parts
    )
    values = [[v.numpy() for v in step.model.trainable_variables]]
    for frozen in (True, True, False):
        step.frozen = frozen
        step(batch)
        values.append([v.numpy() for v in step.model.trainable_variables])
    for before, after in ((0, 1), (1, 2)):
        for variable in (0, 1):
            np.testing.assert_array_equal(values[before][variable], values[after][variable])
        for variable in (2, 3):
            assert np.all(values[before][variable] != values[after][variable])
    # Adam's very first step goes as far as the learning rate says, whatever the gradient's size.
    for variable in (0, 1):
        np.testing.assert_allclose(np.abs(values[3][variable] - values[2][variable]), 0.1 * 0.01, rtol=1e-3)


def test_average_follows_the_weights(make_task, line_config):
    step, batch = make_step(make_task, line_config, dataclasses.replace(CONFIG, average_decay=0.5))
    expected = step.model.trainable_variables[0].numpy()
    for t in range(1, 6):
        step(batch)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * step.model.trainable_variables[0].numpy()
    np.testing.assert_allclose(step.averages[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("jit, two, parts", [(False, False, 1), (True, False, 1), (True, True, 2)])
def test_several_steps_in_a_call_are_the_same_steps(make_task, line_config, mirrored, jit, two, parts):
    options = {"distribution": mirrored if two else None, "accumulate": parts, "normalised": True}
    config = dataclasses.replace(CONFIG, average_decay=0.9)
    found = {}
    for together in (False, True):
        step, _ = make_step(make_task, line_config, config, jit, **options)
        batches = list(step.task.train_batches(0))[:3]
        results = step.several(batches, (True, False)) if together else [step(b, (True, False)) for b in batches]
        sums = [float(value) for result in results for pair in result["sums"].values() for value in pair]
        wishes = [result["wishes"].numpy().tolist() for result in results]
        found[together] = sums, wishes, [v.numpy() for v in (*step.model.variables, *step.averages)]
    assert found[False][1] == found[True][1] == [[2.0 if two else 1.0, 0.0]] * 3
    np.testing.assert_allclose(found[True][0], found[False][0], rtol=1e-6)
    for one, other in zip(found[False][2], found[True][2], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-7)


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


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("two, parts", [(True, 1), (False, 4), (True, 2)])
def test_replicas_and_parts_make_the_same_step(make_task, line_config, mirrored, jit, two, parts):
    config = dataclasses.replace(CONFIG, clip_norm=0.5, average_decay=0.5)
    alone, batch = make_step(make_task, line_config, config, jit, dropout=0.0)
    divided, _ = make_step(
        make_task, line_config, config, jit, 0.0, distribution=mirrored if two else None, accumulate=parts
    )
    for _ in range(3):
        expected, found = alone(batch), divided(batch)
        for name in ("gradient_norm", "learning_rate"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
        for name, pair in expected["sums"].items():
            np.testing.assert_allclose(found["sums"][name], pair, rtol=1e-5)
    # Adam hardly notices gradients that are twice too large; its moments do.
    for name in ("_momentums", "_velocities"):
        for a, b in zip(getattr(divided.optimizer, name), getattr(alone.optimizer, name), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-8)
    for a, b in zip(divided.averages, alone.averages, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)
    assert divided.distribution.drifted([v.value for v in divided.model.trainable_variables]) == []


def test_wishes_are_counted_over_replicas(make_task, line_config, mirrored):
    step, batch = make_step(make_task, line_config, CONFIG, distribution=mirrored)
    assert step(batch, (True, False))["wishes"].numpy().tolist() == [2, 0]


@pytest.mark.parametrize("jit", [False, True])
def test_replicas_drop_different_units(make_task, line_config, mirrored, jit):
    # Twice the same rows: without the replica's number in the seeds both halves would have the same loss.
    step, batch = make_step(make_task, line_config, CONFIG, jit, dropout=0.5, distribution=mirrored)
    twice = {name: tf.concat([rows[:8], rows[:8]], axis=0) for name, rows in batch.items()}
    found = []

    @tf.function
    def one_by_one(batch):
        values = [[tf.convert_to_tensor(v) for v in group] for group in step._variables()]
        return mirrored.strategy.run(lambda: step._accumulated(batch, *values, tf.constant(1.0)))

    step._pure(jit)
    sums, _, changes = one_by_one(twice)
    found = [float(loss) for loss in sums["loss"][0].values]
    assert found[0] != pytest.approx(found[1], rel=1e-3)
    seeds = [value.values for value in changes.values() if value.values[0].dtype.is_integer]
    assert seeds
    for first, second in seeds:  # and yet the generators stay in step
        np.testing.assert_array_equal(first, second)


def test_statistics_are_averaged_over_replicas(make_task, line_config, mirrored):
    step, batch = make_step(make_task, line_config, CONFIG, dropout=0.0, normalised=True, distribution=mirrored)
    weights = [v.numpy() for v in step.model.trainable_variables]
    hidden = np.tanh(batch["x"].numpy() @ weights[0] + weights[1])
    step(batch)
    mean, variance = (v for v in step.model.non_trainable_variables if "moving" in v.path)
    np.testing.assert_allclose(mean.numpy(), 0.01 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    of_each = np.mean([half.var(0) for half in np.split(hidden, 2)], axis=0)
    np.testing.assert_allclose(variance.numpy(), 0.99 + 0.01 * of_each, rtol=1e-4)
    for variable in (mean, variance):
        np.testing.assert_array_equal(*(component.numpy() for component in variable.value.values))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("two", [False, True])
def test_an_overflow_is_skipped_and_halves_the_loss_scale(make_task, line_config, mirrored, two, jit):
    config = dataclasses.replace(CONFIG, average_decay=0.5)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        where = mirrored if two else None
        step, batch = make_step(make_task, line_config, config, jit, distribution=where, scale_loss=True)
    finally:
        keras.config.set_dtype_policy("float32")
    good = step(batch)
    assert good["applied"] and np.isfinite(good["gradient_norm"])
    everything = [*step.model.variables, *step.optimizer.variables]
    before = [v.numpy() for v in everything] + [a.numpy() for a in step.averages]
    step.loss_scale.value.assign(2.0**20)  # the gradients of the sum of squares are beyond 65504
    overflow = step(batch)
    assert not overflow["applied"]
    assert step.loss_scale.value.numpy() == 2.0**19
    after = [v.numpy() for v in everything] + [a.numpy() for a in step.averages]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    while not step(batch)["applied"]:
        pass
    assert not np.array_equal(before[0], step.model.trainable_variables[0].numpy())


def test_loss_scale_grows_after_good_steps():
    scale = LossScale(initial=8.0, growth_steps=3)
    seen = []
    for finite in (True, True, True, True, False, True, True, True):
        scale.follow(tf.constant(finite))
        seen.append(float(scale.value.numpy()))
    assert seen == [8, 8, 16, 16, 8, 8, 8, 16]


@pytest.mark.parametrize("jit", [False, True])
def test_float16_finds_the_gradients_of_float32(make_task, line_config, jit):
    exact, batch = make_step(make_task, line_config, CONFIG, jit, dropout=0.0)
    norm = exact(batch)["gradient_norm"]
    keras.config.set_dtype_policy("mixed_float16")
    try:
        step, _ = make_step(make_task, line_config, CONFIG, jit, dropout=0.0, scale_loss=True)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(step(batch)["gradient_norm"], norm, rtol=0.02)
