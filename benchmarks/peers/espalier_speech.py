"""Espalier's speech model and training step, as a system to compare; `espalier_step.py` has its arguments.
Spectrograms come ready made, for it as for the others.
"""

import sys

import keras
import tensorflow as tf
from keras import ops

from apps.speech.config import ModelConfig, SpecAugmentConfig, SpeechConfig
from apps.speech.model import SpeechRecognizer
from apps.speech.task import SpeechTask
from benchmarks.peers.espalier_step import load, serve_steps
from benchmarks.peers.worker import read_case
from pipelines.config import OptimizerConfig


class SpectrogramRecognizer(SpeechRecognizer):
    """Takes as `audio` what else it would make of it, (B, T, M), and as `audio_length` (B,) how many frames are real.
    It hides nothing of them.
    """

    @classmethod
    def from_settings(cls, settings: ModelConfig, symbols: int) -> "SpectrogramRecognizer":
        model = cls(settings, SpecAugmentConfig(frequency_masks=0, time_masks=0), 16000, symbols)
        model({"audio": ops.zeros((2, 8, settings.bands)), "audio_length": ops.full((2,), 8, "int32")})
        return model

    def mel(self, audio, audio_length):
        return audio, ops.arange(ops.shape(audio)[1])[None] < audio_length[:, None]


def build(settings: dict) -> SpectrogramRecognizer:
    return SpectrogramRecognizer.from_settings(ModelConfig(**settings["model"]), settings["symbols"])


def main() -> None:
    settings, weights, batches = read_case(sys.argv[1])
    keras.utils.set_random_seed(0)
    model = build(settings)
    load(model, weights)
    batches["audio"], batches["audio_length"] = batches.pop("features"), batches.pop("frames")
    data = tf.data.Dataset.from_tensor_slices(batches | {"weight": tf.ones(batches["labels"].shape[:2])})
    data = data.prefetch(tf.data.AUTOTUNE)
    optimizer = OptimizerConfig(average_decay=0.0, **settings["optimizer"])
    task = SpeechTask(SpeechConfig(optimizer=optimizer), run=None)  # only its loss is asked for, which needs no run
    serve_steps(model, task, optimizer, data, sum(value.size for value in weights.values()))


if __name__ == "__main__":
    main()
