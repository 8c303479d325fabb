"""The task's own methods: what the served model is given is what training gave it."""

import keras
import numpy as np
import tensorflow as tf

from apps.image.config import ImageConfig, ImageExportOptions
from apps.image.task import ImageTask
from pipelines.image.pictures import shuffled_order
from pipelines.runs import Run


class Witness(keras.Model):
    """Keeps the pictures it was called with, bit for bit."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.seen = tf.Variable(tf.zeros((0, 0, 0, 0)), shape=tf.TensorShape([None] * 4), trainable=False)

    def call(self, images, training=False):
        self.seen.assign(images)
        return tf.zeros((tf.shape(images)[0], self.classes))


def test_the_served_model_is_given_what_training_gives_it(shapes, tmp_path):
    splits = {name: (shapes / name,) for name in ("train", "validation", "test")}
    # A size that is not the pictures' own, so that they are resized.
    task = ImageTask(ImageConfig(**splits, image_size=17, batch_size=24), Run(tmp_path))
    task.prepare()
    task.load()
    witness = Witness(3)
    serve = task.servable(witness, ImageExportOptions()).signatures["serving_default"]
    train, validation = task._splits["train"], task._splits["validation"]
    for pictures, batches, order in (
        (validation, task.validation_batches(), np.arange(len(validation))),
        (train, task.train_batches(epoch=0), shuffled_order(len(train), task.config.seed, 0)),
    ):
        serve(tf.constant([pictures.encoded(int(i)) for i in order[:24]]))
        np.testing.assert_array_equal(witness.seen.numpy(), next(iter(batches))["image"].numpy())
