"""From recordings to text with a trained model: batches, scores of symbols step by step, search, text."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from apps.speech.config import SearchConfig
from apps.speech.model import SpeechRecognizer
from pipelines.audio import headers
from pipelines.audio.reading import read_audio, reason
from pipelines.bucketing import by_length
from pipelines.ctc.automaton import Automaton
from pipelines.ctc.decoding import greedy, prefix_beam_search
from pipelines.text.characters import Characters
from pipelines.text.pieces import Pieces

PART = 20.0  # seconds of a long recording that the model hears at once
OVERLAP = 4.0  # seconds that neighbours share: at its ends a part lacks what comes before or after


@dataclasses.dataclass(frozen=True)
class Transcript:
    """What was heard, and how sure the model is of a symbol, from 0 to 1."""

    text: str
    confidence: float


class Explanation(NamedTuple):
    """Which symbol was heard when.

    Args:
        transcript: (B,) string, of the greedy search.
        spectrogram: (B, F, M) float32.
        symbols: (B, T) string, the likeliest of each step; empty where that is the blank, and after a row's end.
        probabilities: (B, T) float32, theirs.
    """

    transcript: tf.Tensor
    spectrogram: tf.Tensor
    symbols: tf.Tensor
    probabilities: tf.Tensor


class Transcriber:
    """Transcribes any number of recordings of any length.

    Args:
        model: a trained model.
        symbols: those that it was trained to write.
        sample_rate: that it was trained with, in Hz.
        search: how transcripts are sought.
        biases: what a beam search leans on besides the model.
    """

    def __init__(
        self,
        model: SpeechRecognizer,
        symbols: Characters | Pieces,
        sample_rate: int,
        search: SearchConfig,
        biases: Sequence[Automaton] = (),
    ):
        self.model = model
        self.symbols = symbols
        self.sample_rate = sample_rate
        self.search = search
        self.biases = [Automaton(*map(tf.constant, bias)) for bias in biases]
        rows = [tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)]
        scores = [tf.TensorSpec([None, None, symbols.size], tf.float32), tf.TensorSpec([None], tf.int32)]
        # One graph for all lengths.
        self.log_probabilities = tf.function(self._log_probabilities, input_signature=rows)
        self.find = tf.function(self._find, input_signature=scores)
        self.decode = tf.function(self._decode, input_signature=scores)
        self.explain = tf.function(self._explain, input_signature=rows)
        self._read = tf.function(
            lambda contents: read_audio(contents, sample_rate, None), input_signature=[tf.TensorSpec([], tf.string)]
        )

    def _log_probabilities(self, audio, lengths):
        """(B, N) and (B,) -> (B, T, V) and (B,)."""
        outputs = self.model({"audio": audio, "audio_length": lengths}, training=False)
        return tf.nn.log_softmax(outputs["logits"]), outputs["lengths"]

    def _find(self, log_probabilities, lengths):
        """(B, T, V) and (B,) -> ids (B, L), how many each has (B,), and confidences (B,)."""
        if self.search.beams > 1:
            found = prefix_beam_search(log_probabilities, lengths, self.search.beams, biases=self.biases)
        else:
            found = greedy(log_probabilities, lengths)
        return found.ids[:, 0], found.lengths[:, 0], found.confidences[:, 0]

    def _decode(self, log_probabilities, lengths):
        """(B, T, V) and (B,) -> texts (B,) and confidences (B,)."""
        ids, _, confidences = self._find(log_probabilities, lengths)
        return self.symbols.decode_batch(ids), confidences

    def _explain(self, audio, lengths) -> Explanation:
        log_probabilities, steps = self._log_probabilities(audio, lengths)
        best = tf.argmax(log_probabilities, -1, tf.int32)  # (B, T)
        real = tf.sequence_mask(steps, tf.shape(best)[1])
        symbols = tf.gather(tf.constant(["", *self.symbols.alphabet]), tf.where(real, best, 0))
        probabilities = tf.where(real, tf.exp(tf.reduce_max(log_probabilities, -1)), 0.0)
        transcript = self.symbols.decode_batch(greedy(log_probabilities, steps).ids[:, 0])
        spectrogram, _ = self.model.mel(audio, lengths)
        return Explanation(transcript, tf.cast(spectrogram, tf.float32), symbols, probabilities)

    def transcribe(self, clips: Sequence[np.ndarray], batch_size: int, progress: str = "") -> list[Transcript]:
        """Transcripts of clips (n,), in their order; clips of similar lengths share a batch.

        Args:
            clips: samples of each.
            batch_size: clips in a batch.
            progress: what to call the work in a progress bar; without it there is none.
        """
        found: list[Transcript | None] = [None] * len(clips)
        batches = by_length([len(clip) for clip in clips], batch_size)
        for chosen in track(batches, progress, console=Console(stderr=True), transient=True, disable=not progress):
            texts, confidences = self.decode(*self.log_probabilities(*padded([clips[i] for i in chosen])))
            for index, text, confidence in zip(chosen, texts.numpy(), confidences.numpy(), strict=True):
                found[index] = Transcript(text.decode(), float(confidence))
        return found

    def read(self, contents: bytes) -> np.ndarray:
        """Samples (n,) of a WAV.

        Raises:
            ValueError: it cannot be used. The message says why in a few words.
        """
        try:
            return self._read(tf.constant(contents)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(reason(error)) from None

    def read_file(self, path: Path, most_seconds: float) -> np.ndarray:
        """As `read`, of a file of at most so many seconds; raises an OSError too."""
        with open(path, "rb") as file:
            headers.read_header(file, most_seconds)
            file.seek(0)
            return self.read(file.read())

    def transcribe_file(self, path: Path, heard=lambda seconds, total: None) -> Transcript:
        """The transcript of a WAV of any length, which is heard part by part: memory does not grow with it.

        Only the scores of symbols are kept, a few kilobytes a second. Where parts overlap, each gives the half that is
        nearer to its middle.

        Args:
            path: the file.
            heard: is told the seconds heard so far, and of how many.

        Raises:
            OSError, ValueError: it cannot be read or used.
        """
        with open(path, "rb") as file:
            total = headers.read_header(file).seconds
            scores = np.concatenate(list(self._parts(file, total, heard)))
        ids, counts, confidences = [], [], []
        for stretch in _stretches(scores, self.model.steps(round(PART * self.sample_rate))):
            found, count, confidence = self.find(stretch[None], np.array([len(stretch)], np.int32))
            ids.append(found.numpy()[0])
            counts.append(max(int(count.numpy()[0]), 1))
            confidences.append(float(confidence.numpy()[0]))
        # Pieces lose the blank that a text begins with, and so all stretches are one text.
        (text,) = self.symbols.decode_batch(tf.constant(np.concatenate(ids)[None])).numpy()
        # The confidence of a stretch is a geometric mean over its symbols; so is that of all.
        logarithm = np.average(np.log(np.maximum(confidences, 1e-30)), weights=counts)
        return Transcript(text.decode(), float(np.exp(logarithm)))

    def _parts(self, file, total: float, heard) -> Iterator[np.ndarray]:
        """What each part adds to the scores (T, V)."""
        half = self.model.steps(round(OVERLAP / 2 * self.sample_rate))
        before = None  # the part before, whose end is known to be shared once there is another
        for start, contents in headers.parts(file, PART, OVERLAP):
            audio = self.read(contents)
            (scores,), _ = self.log_probabilities(*padded([audio]))
            heard(min(start + len(audio) / self.sample_rate, total), total)
            if before is not None:
                yield before[:-half]
            before = scores.numpy()[half if start else 0 :]
        yield before


def _stretches(scores: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """Cuts scores (T, V) where there is most likely a blank, so that a search over hours stays small.

    No symbol is cut in two, since a blank is none; spaces are symbols like others.
    """
    begin = 0
    while len(scores) - begin > longest:
        middle = begin + longest // 2
        end = middle + int(np.argmax(scores[middle : begin + longest, 0]))
        yield scores[begin:end]
        begin = end
    yield scores[begin:]


def padded(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips (n,) as rows of one array (B, N), and how long each is (B,)."""
    lengths = np.array([len(clip) for clip in clips], np.int32)
    rows = np.zeros((len(clips), lengths.max()), np.float32)
    for row, clip in zip(rows, clips, strict=True):
        row[: len(clip)] = clip
    return rows, lengths
