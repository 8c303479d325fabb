"""What holds for all tests: where real data lies, two logical CPUs, and no deadlines on a busy machine."""

import os
from pathlib import Path

import hypothesis
import tensorflow as tf

# Tests that need real data sets take them from beside the checkout, skip elsewhere, and never download.
BESIDE = Path(__file__).parents[1].parent / "shared" / "data"
if BESIDE.is_dir():
    os.environ.setdefault("ESPALIER_DATA", str(BESIDE))

# Before TensorFlow computes anything: later the CPU can no longer be cut in two, as `--devices CPU:0,CPU:1` does.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

hypothesis.settings.register_profile("espalier", deadline=None)
hypothesis.settings.load_profile("espalier")
