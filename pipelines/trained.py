"""A trained run as the commands take it: its configuration, task and model, with the weights of a checkpoint."""

import dataclasses

import keras

from pipelines.cli import App
from pipelines.config import TrainConfig
from pipelines.options import RunOptions
from pipelines.quantisation import round_weights
from pipelines.runs import Run
from pipelines.task import Task
from pipelines.training.checkpoints import Checkpoints


def prepare_keras(config: TrainConfig) -> None:
    # Before anything draws random numbers or makes a layer.
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)


@dataclasses.dataclass
class Trained:
    """A run's task, and its model with the weights asked for."""

    run: Run
    task: Task
    model: keras.Model
    steps: list[int]  # of the checkpoints that the weights are from, the last one the newest
    quantize: str = "none"  # what large weights are rounded to

    def __str__(self):
        mean = f", mean of {len(self.steps)} checkpoints from step {self.steps[0]}" if len(self.steps) > 1 else ""
        rounded = f", weights rounded to {self.quantize}" if self.quantize != "none" else ""
        return f"run {self.run.path}, checkpoint of step {self.steps[-1]}{mean}{rounded}"


def restore(app: App, options: RunOptions, beside: bool = False) -> Trained:
    """A run's model as the options ask for it.

    Args:
        beside: another model is at work too; seed and types of layers stay what they are for that.

    Raises:
        UserError: there is no such run or checkpoint, it is damaged, or its weights cannot be quantised.
    """
    run = Run.find(app.name, options.run_dir)
    config = run.read_config(app)
    options.check_run(config)
    checkpoints = Checkpoints(run.checkpoints)
    chosen = options.checkpoint
    if chosen == "auto":
        chosen = "newest" if options.average > 1 else "best"
    step = checkpoints.resolve(chosen)
    if not beside:
        prepare_keras(config)
    task = app.task()(config, run)
    task.load()
    model = task.build_model()
    # Averages are what validation saw; without averaging the weights themselves are.
    kind = "averages" if config.optimizer.average_decay else "weights"
    values = {
        kind: [v.value for v in model.trainable_variables],
        "state": [v.value for v in model.non_trainable_variables],
    }
    steps = checkpoints.restore_mean(values, step, options.average)
    if options.quantize == "int8":
        round_weights(model)
    return Trained(run, task, model, steps, options.quantize)
