"""From the bytes of a recording to the samples that a model takes: one function for training and for the SavedModel.

    audio = read_audio(contents, sample_rate=16000)               # scalar string -> (n,) float32
    audio, lengths = read_audios(contents, sample_rate=16000)     # (B,) string -> (B, N) float32, (B,) int32

What is taken, `wav.read_wav` says: WAVs of any depth, rate and number of channels. They are mixed to one channel and
brought to the wanted rate (`resampling.resample`); mono of that rate passes through bit for bit.
"""

import tensorflow as tf

from pipelines.audio import headers
from pipelines.audio.resampling import resample
from pipelines.audio.wav import read_wav
from pipelines.graph import refusal, require

PARALLEL = 4  # recordings of a request that are read at a time


@tf.autograph.experimental.do_not_convert
def read_audio(contents: tf.Tensor, sample_rate: int, most_seconds: float | None = headers.MOST_SECONDS) -> tf.Tensor:
    """Reads one recording.

    Args:
        contents: The bytes of a WAV, scalar string.
        sample_rate: Of the result, in Hz.
        most_seconds: Longer ones are refused, before they are decoded; None takes any length.

    Returns:
        (n,) float32, n > 0, full scale from -1 to 1.

    Raises:
        tf.errors.InvalidArgumentError: when the bytes are no WAV, a damaged one, or one that is not taken. `reason`
            makes a line of it.
    """
    samples, rate = read_wav(contents, most_seconds)
    return resample(samples, rate, sample_rate)


@tf.autograph.experimental.do_not_convert
def read_audios(
    contents: tf.Tensor, sample_rate: int, most_seconds: float | None = headers.MOST_SECONDS
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads a batch of recordings, (B,) string, as `read_audio` does.

    Returns:
        The samples, filled up with zeros to the longest, (B, N) float32, and how many each has, (B,) int32.
    """
    return _batch(lambda one: read_audio(one, sample_rate, most_seconds), contents)


@tf.autograph.experimental.do_not_convert
def resampled(waveforms: tf.Tensor, rates: tf.Tensor, sample_rate: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `read_audios`, of samples (B, n) float32 and how many of them a second has, (B,) int32.

    Raises:
        tf.errors.InvalidArgumentError: a rate is not one of a recording, or samples are NaN or infinite.
    """

    def one(row):
        samples, rate = row
        known = (rate >= headers.LEAST_RATE) & (rate <= headers.MOST_RATE)
        rate = require(known, rate, lambda: tf.strings.format(_of_waveform(headers.RATE), rate))
        samples = require(
            tf.reduce_all(tf.abs(samples) <= headers.LOUDEST), samples, lambda: _of_waveform(headers.NOT_NUMBERS)
        )
        return resample(samples, rate, sample_rate)

    return _batch(one, (waveforms, rates))


def _of_waveform(complaint: str) -> str:
    return complaint.replace("a WAV", "a waveform")


def _batch(read, sources) -> tuple[tf.Tensor, tf.Tensor]:
    rows = tf.map_fn(
        read,
        sources,
        fn_output_signature=tf.RaggedTensorSpec((None,), tf.float32, ragged_rank=0),
        parallel_iterations=PARALLEL,
    )
    return rows.to_tensor(), tf.cast(rows.row_lengths(), tf.int32)


def reason(error: tf.errors.OpError) -> str:
    """What `read_audio` found wrong, in a few words and without TensorFlow's names of nodes."""
    return refusal(error.message) or " ".join(error.message.split())
