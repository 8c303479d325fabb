"""The task's own methods: what the served model is given is what training gave it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from apps.image import data
from apps.image.config import ImageConfig, ImageExportOptions, ModelConfig
from apps.image.task import ImageTask
from pipelines.errors import UserError
from pipelines.image import pictures
from pipelines.image.config import Augmentation
from pipelines.image.decoding import read_images
from pipelines.image.pictures import shuffled_order
from pipelines.runs import Run
from tests.apps.image.conftest import fill


class Witness(keras.Model):
    """Keeps the pictures it was called with, bit for bit."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.seen = tf.Variable(tf.zeros((0, 0, 0, 0)), shape=tf.TensorShape([None] * 4), trainable=False)

    def call(self, images, training=False):
        self.seen.assign(images)
        return tf.zeros((tf.shape(images)[0], self.classes))


def prepared(folder, run, **settings):
    splits = {name: (folder / name,) for name in ("train", "validation", "test")}
    task = ImageTask(ImageConfig(**{**splits, **settings}), Run(run))
    task.config = task.prepare()
    task.load()
    return task


def test_other_classes_than_those_of_the_run_are_refused(tmp_path):
    folder = fill(tmp_path / "train", 4, 0)
    task = prepared(tmp_path, tmp_path / "run", image_size=16, validation=(), test=())
    (folder / "square").rename(folder / "box")
    later = ImageTask(task.config, task.run)
    later.load()
    with pytest.raises(UserError, match="box, .* not the classes this run was trained on .*square.*; restore them"):
        later.validation_batches()
    (folder / "box").rename(folder / "square")
    later.validation_batches()


def test_a_skipped_picture_is_no_example_of_an_export(shapes, tmp_path):
    validation = fill(tmp_path / "validation", 3, 0)
    (validation / "circle" / "!first.png").write_bytes(b"")
    task = prepared(shapes, tmp_path / "run", validation=(validation,), on_bad_example="skip", image_size=16)
    examples = tf.constant([file.read_bytes() for file in task._examples])
    assert len(task._examples) == 8 and read_images(examples, 16, 3).shape == (8, 16, 16, 3)


def test_one_class_in_grey_does_not_make_all_grey(tmp_path):
    folder = fill(tmp_path / "train", 30, 0)
    for file in (folder / "circle").iterdir():
        Image.open(file).convert("L").save(file)
    assert pictures.size_and_channels(data.splits(ImageConfig(train=(folder,)))["train"]) == (20, 3)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"augmentation": Augmentation(crop=16)}, "--augmentation.crop 16"),
        ({"image_size": 3, "model": ModelConfig(architecture="cnn")}, "--image-size 3"),
    ],
)
def test_settings_that_do_not_go_with_the_size(shapes, tmp_path, settings, said):
    with pytest.raises(UserError, match=said):
        prepared(shapes, tmp_path / "run", **{"image_size": 16, **settings})


def test_the_served_model_is_given_what_training_gives_it(shapes, tmp_path):
    # A size that is not the pictures' own, so that they are resized.
    task = prepared(shapes, tmp_path, image_size=17, batch_size=24)
    witness = Witness(3)
    serve = task.servable(witness, ImageExportOptions()).signatures["serving_default"]
    train, validation = task._splits["train"], task._splits["validation"]
    for split, batches, order in (
        (validation, task.validation_batches(), np.arange(len(validation))),
        (train, task.train_batches(epoch=0), shuffled_order(len(train), task.config.seed, 0)),
    ):
        serve(tf.constant([split.encoded(int(i)) for i in order[:24]]))
        np.testing.assert_array_equal(witness.seen.numpy(), next(iter(batches))["image"].numpy())
