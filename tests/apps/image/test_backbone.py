"""Fine-tuning of pretrained networks: a tiny preset saved locally, and preprocessing as the networks expect it."""

import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from apps.image import backbone
from pipelines.errors import UserError

SIZE = 20


@pytest.fixture(scope="session")
def preset(tmp_path_factory):
    """A residual network of 155,000 weights with random ones, as KerasHub saves it, that wants pixels from -1 to 1."""
    import keras_hub

    keras.utils.set_random_seed(5)
    network = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    )
    directory = tmp_path_factory.mktemp("preset")
    network.save_to_preset(str(directory))
    converter = keras_hub.layers.ResNetImageConverter(image_size=(SIZE, SIZE), scale=1 / 127.5, offset=-1.0)
    converter.save_to_preset(str(directory))
    return directory


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory, shapes, preset, command):
    """A run that started from the preset: 5 steps, frozen for the first 4."""
    run = tmp_path_factory.mktemp("runs") / "fine"
    splits = (f"--{name}={shapes / name}" for name in ("train", "validation", "test"))
    schedule = ("--epochs=1", "--batch-size=24", "--checkpoint-every=4", "--optimizer.frozen-steps=4")
    optimizer = ("--optimizer.average-decay=0", "--optimizer.warmup-steps=2", "--jit=off")
    code, _, err = command("train", f"--run-dir={run}", f"--model.backbone={preset}", *splits, *schedule, *optimizer)
    assert code == 0, err
    return run


def kernels(run, step):
    """All kernels of convolutions in a checkpoint."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / f"{step:08d}" / "state"))
    values = [reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "weights" in name]
    return [value for value in values if value.ndim == 4]


def test_frozen_at_first_and_then_trained(fine_tuned):
    original = keras.saving.load_model(fine_tuned / "assets" / "backbone.keras").trainable_variables
    original = [value.numpy() for value in original if len(value.shape) == 4]
    assert len(original) == 6

    def unchanged(step):
        return sum(any(np.array_equal(value, kernel) for value in kernels(fine_tuned, step)) for kernel in original)

    assert unchanged(4) == 6
    assert unchanged(5) == 0


@pytest.mark.parametrize("name", ["explain", pytest.param("export", marks=pytest.mark.slow)])
def test_the_run_stands_alone(fine_tuned, preset, shapes, command, tmp_path, name):
    more = [f"--output={tmp_path}"] if name == "export" else [shapes / "test" / "circle" / "0.png"]
    hidden = preset.rename(preset.with_name("hidden"))
    try:
        code, _, err = command(name, f"--run-dir={fine_tuned}", *more)
    finally:
        hidden.rename(preset)
    assert code == 0, err
    assert list((tmp_path if name == "export" else fine_tuned / "explain").rglob("*.p[bn]*"))


def test_pictures_reach_the_network_as_it_was_trained(preset):
    import keras_hub

    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")
    mean, deviation = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    normalised = (pixels / 255 - mean) / deviation
    expected = keras_hub.models.Backbone.from_preset(str(preset))(pixels / 127.5 - 1)
    found = backbone.load(str(preset), SIZE, mean, deviation)(normalised)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_converter_without_a_scale_leaves_pixels_as_they_are(preset, tmp_path):
    import keras_hub

    shutil.copytree(preset, tmp_path / "preset")
    keras_hub.layers.ResNetImageConverter(image_size=(SIZE, SIZE)).save_to_preset(str(tmp_path / "preset"))
    _, scale, offset = backbone.preset(str(tmp_path / "preset"))
    np.testing.assert_array_equal(scale, np.eye(3))
    assert not offset.any()


def test_without_a_converter_pixels_go_from_0_to_1(preset, monkeypatch):
    import keras_hub

    # So it is with most models in the format of Hugging Face.
    monkeypatch.setattr(keras_hub.layers.ImageConverter, "from_preset", lambda *_: None)
    _, scale, offset = backbone.preset(str(preset))
    np.testing.assert_allclose(scale, np.eye(3) / 255)
    assert not offset.any()


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0"])
def test_preprocessing_of_keras_applications(name):
    network, scale, offset = backbone.application(name, 32, weights=None)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype("float32")
    module = sys.modules[getattr(keras.applications, name).__module__]
    np.testing.assert_allclose(pixels @ scale + offset, module.preprocess_input(pixels.copy()), rtol=1e-4, atol=1e-3)
    assert network.output_shape[-1] > 3


@pytest.mark.parametrize(
    "name, said",
    [
        ("MobileNetV7", "did you mean MobileNetV2"),
        ("resnet_18_imagenot", "did you mean resnet_18_imagenet"),
    ],
)
def test_an_unknown_name(name, said):
    with pytest.raises(UserError, match=said):
        backbone.load(name, 32, [0.5] * 3, [0.5] * 3)


def test_a_directory_that_is_no_preset(tmp_path):
    with pytest.raises(UserError, match="save_to_preset"):
        backbone.load(str(tmp_path), 32, [0.5] * 3, [0.5] * 3)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not a preset"):
        backbone.load(str(tmp_path), 32, [0.5] * 3, [0.5] * 3)


def test_too_small_a_picture():
    with pytest.raises(UserError, match="--image-size"):
        backbone.load("MobileNetV2", 8, [0.5] * 3, [0.5] * 3)
