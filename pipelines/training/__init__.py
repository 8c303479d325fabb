"""The training engine: schedule, step, loop, checkpoints."""
