"""What only the speech app knows: its recordings, alphabet, loss, and how transcripts are scored and shown."""

import functools
import io
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console
from rich.progress import Progress

from apps.speech import data
from apps.speech.config import (
    GREEDY,
    SearchConfig,
    SpeechConfig,
    SpeechEvaluateOptions,
    SpeechExportOptions,
    SpeechPredictOptions,
)
from apps.speech.model import SpeechRecognizer, steps
from apps.speech.transcriber import PART, Transcriber, Transcript, padded
from layers import LogMelSpectrogram
from pipelines import interpretation, transcription
from pipelines.audio import clips as recordings
from pipelines.audio.clips import Clips
from pipelines.audio.headers import read_header
from pipelines.audio.reading import read_audios, resampled
from pipelines.audio.writing import write_wav
from pipelines.batching import epoch_seed
from pipelines.bucketing import batch_count
from pipelines.config import override
from pipelines.ctc.automaton import Automaton
from pipelines.ctc.loss import ctc_loss
from pipelines.ctc.ngram import ngram
from pipelines.ctc.words import word_list
from pipelines.errors import UserError
from pipelines.examples import report
from pipelines.export.servable import Servable
from pipelines.files import write_atomically
from pipelines.inputs import answered
from pipelines.options import ExplainOptions
from pipelines.task import Report, Task, chosen_splits
from pipelines.text.characters import Characters, normalise
from pipelines.text.pieces import Pieces
from pipelines.text.tokenizer import train_sentencepiece
from pipelines.transcription import TranscriptionFigures

VALIDATION_DECODED = 500  # clips of the validation split that are transcribed at each validation
SHOWN = 8  # worst transcripts in TensorBoard
PICTURED = 3  # alignments and recordings in TensorBoard
EXAMPLES = 6  # clips that an export is checked with, and a server warms up on
# Symbols that the language model looks at together. Its tables grow with the number of symbols.
NGRAM_ORDER = {"characters": 5, "pieces": 2}
AUTOMATIC_PIECES = 256


class SpeechTask(Task):
    """Transcription of recordings."""

    config: SpeechConfig
    unit = "symbols"
    validation_metrics = ("loss", "wer", "cer")
    takes_files = True

    @property
    def _symbols_file(self) -> Path:
        return self.run.assets / {"characters": "characters.json", "pieces": "pieces.model"}[self.config.units]

    @property
    def _ngram_file(self) -> Path:
        """How symbols follow one another in the training transcripts."""
        return self.run.assets / "ngram.npz"

    @property
    def _examples(self) -> list[Path]:
        return sorted((self.run.assets / "examples").glob("*.wav"))

    def prepare(self) -> SpeechConfig:
        config = override(self.config, {"sample_rate": self.config.sample_rate or data.sample_rate(self.config)})
        self.config = config
        _check_spectrogram(config)
        train = self._splits["train"]
        texts = [normalise(text) for text in train.texts]
        if not any(texts):
            raise UserError(f"{train.source}: no letter and no digit in any transcript")
        if config.units == "characters":
            Characters.of(texts).save(self._symbols_file)
        else:
            size = train_sentencepiece(
                texts, self._symbols_file, config.vocabulary_size, automatic_size=AUTOMATIC_PIECES
            )
            self.config = config = override(config, {"vocabulary_size": size})
        self.load()
        encoded = [self.symbols.encode(text) for text in texts]
        ngram(encoded, self.symbols.size, NGRAM_ORDER[config.units]).save(self._ngram_file)
        lengths = self._train.samples.lengths
        self.config = override(
            config, {"buckets": config.buckets or recordings.bucket_lengths(lengths, config.sample_rate)}
        )
        hours = float(lengths.sum()) / config.sample_rate / 3600
        print(f"{train.source}: {len(self._train)} clips, {hours:.2f} hours, {self.symbols.size - 1} {config.units}")
        for index in range(min(EXAMPLES, len(self._validation))):
            write_atomically(self.run.assets / "examples" / f"{index}.wav", self._validation.encoded(index))
        return self.config

    def load(self) -> None:
        self.symbols = (Characters.load if self.config.units == "characters" else Pieces)(self._symbols_file)
        self._transcribers: dict[tuple, Transcriber] = {}

    @functools.cached_property
    def _splits(self) -> dict[str, Clips]:
        return data.splits(self.config)

    @functools.cached_property
    def _train(self) -> Clips:
        return self._readable(self._read(self._splits["train"]))

    @functools.cached_property
    def _validation(self) -> Clips:
        return self._readable(self._read(self._splits["validation"]))

    def _read(self, found: Clips) -> Clips:
        config = self.config
        return recordings.decode(found, config.sample_rate, config.most_seconds, config.on_bad_example)

    def _readable(self, found: Clips) -> Clips:
        """Those clips that can be learnt from: their transcript is in the alphabet and short enough for them."""
        good, bad = [], {}
        for index, text in enumerate(found.texts):
            try:
                ids = self.symbols.encode(normalise(text))
                if not len(ids):
                    raise ValueError(f"no letter and no digit in its transcript, {text!r}")
            except ValueError as error:
                bad[index] = str(error)
                continue
            there = self._steps(found.samples.lengths[index])
            needed = len(ids) + int(np.sum(ids[1:] == ids[:-1]))
            if needed > there:
                said = f"{needed} steps are needed for its transcript, and it has {there}"
                bad[index] = f"{said}: check it, or lower --model.subsampling"
            else:
                good.append(index)
        report(found.source, bad, len(found), self.config.on_bad_example, "clip", found.name)
        return found.take(np.array(good)) if bad else found

    def _steps(self, samples: int) -> int:
        """Steps that the model makes of so many samples, at their fewest: augmentation may shorten them."""
        fewest = int(samples / (1 + self.config.augmentation.speed))
        return steps(self.config.model, self.config.sample_rate, fewest)

    @functools.cached_property
    def _train_labels(self) -> list[np.ndarray]:
        return self._labels(self._train)

    @functools.cached_property
    def _validation_labels(self) -> list[np.ndarray]:
        return self._labels(self._validation)

    def _labels(self, found: Clips) -> list[np.ndarray]:
        return [self.symbols.encode(normalise(text)) for text in found.texts]

    def _batches(self, found: Clips, labels: list[np.ndarray], **options) -> tf.data.Dataset:
        config = self.config
        return recordings.batches(
            found, labels, config.sample_rate, config.buckets, config.batch_size, self.shard, **options
        )

    def build_model(self) -> keras.Model:
        config = self.config
        return SpeechRecognizer.from_settings(config.model, config.spec_augment, config.sample_rate, self.symbols.size)

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(self.config.seed, epoch)
        order = np.random.default_rng(seed).permutation(len(self._train))
        augmentation = self.config.augmentation
        return self._batches(self._train, self._train_labels, order=order, augmentation=augmentation, seed=seed)

    def validation_batches(self) -> tf.data.Dataset:
        return self._batches(self._validation, self._validation_labels)

    def steps_per_epoch(self) -> int:
        return batch_count(self._train.samples.lengths, self.config.buckets, self.config.batch_size)

    @property
    def batch_shapes(self) -> int:
        return len(self.config.buckets)

    def sums(self, outputs, batch):
        lengths = ops.cast(batch["label_length"], "int32")
        loss = ctc_loss(outputs["logits"], outputs["lengths"], batch["labels"], lengths)  # (B,)
        weight = batch["weight"]
        # Per symbol, so that long and short clips count for what there is to learn from them.
        return {"loss": (ops.sum(loss * weight), ops.sum(ops.cast(lengths, "float32") * weight))}

    def report(self, model: keras.Model) -> Report:
        found = self._validation.take(np.arange(min(VALIDATION_DECODED, len(self._validation))))
        transcriber = self._transcriber(model, GREEDY)
        references = [normalise(text) for text in found.texts]
        audio = [found.audio(index) for index in range(len(found))]
        answers = [answer.text for answer in transcriber.transcribe(audio, self.config.batch_size)]
        rates = TranscriptionFigures.of(references, answers).rates()
        worst = transcription.worst(references, answers, SHOWN)
        shown = range(min(PICTURED, len(found)))
        return Report(
            {name: rates[name] for name in ("wer", "cer")},
            {"worst": "\n\n".join(mistake.markdown() for mistake in worst) or "no mistakes"},
            {f"alignment/{index}": self._alignment(transcriber, audio[index])[1] for index in shown},
            {f"clip/{index}": (audio[index], self.config.sample_rate) for index in shown},
        )

    def _transcriber(self, model: keras.Model, search: SearchConfig) -> Transcriber:
        """One transcriber a model and way to search, so that graphs are traced once and not at every validation."""
        key = (id(model), search)
        if key not in self._transcribers:
            self._transcribers[key] = Transcriber(
                model, self.symbols, self.config.sample_rate, search, self._biases(search)
            )
        return self._transcribers[key]

    def _biases(self, search: SearchConfig) -> list[Automaton]:
        """What a beam search leans on: the n-gram model of the training transcripts, a list of words."""
        found = []
        if search.language_model:
            found.append(Automaton.load(self._ngram_file).weighted(search.language_model, search.symbol_bonus))
        if search.words:
            found.append(self._known_words(search))
        return found

    def _known_words(self, search: SearchConfig) -> Automaton:
        if self.config.units == "pieces":
            raise UserError("--search.words goes with a model of characters, and this one writes pieces of words")
        if " " not in self.symbols.alphabet:
            raise UserError("--search.words: this model writes no blank, and so no words to look for")
        try:
            # Split in the plain form: of "twenty-one" it makes two words.
            words = set(normalise(search.words.read_text(encoding="utf-8-sig")).split())
        except OSError as error:
            raise UserError(f"--search.words {search.words}: {error.strerror.lower()}") from None
        except UnicodeDecodeError as error:
            raise UserError(
                f"--search.words {search.words}: not UTF-8 ({error.reason} at byte {error.start})"
            ) from None
        known = [word for word in sorted(words) if set(word) <= set(self.symbols.alphabet)]
        if not known:
            raise UserError(f"{search.words}: no word in it that the alphabet can spell")
        (separator,) = self.symbols.encode(" ")
        return word_list(map(self.symbols.encode, known), self.symbols.size, int(separator), search.word_penalty)

    def evaluate(self, model: keras.Model, options: SpeechEvaluateOptions) -> dict[str, dict[str, float]]:
        transcriber = self._transcriber(model, options.search)
        found = {}
        for name in chosen_splits(list(self._splits), options.split):
            split = self._validation if name == "validation" else self._read(self._splits[name])
            references = [normalise(text) for text in split.texts]
            audio = [split.audio(index) for index in range(len(split))]
            answers = [a.text for a in transcriber.transcribe(audio, options.batch_size, f"transcribing {name}")]
            figures = TranscriptionFigures.of(references, answers)
            console = Console()
            console.print(figures.table(f"{name}: {len(split)} clips"))
            for mistake in transcription.worst(references, answers, options.worst):
                console.print(f"[dim]{split.name(mistake.row)}[/dim]", highlight=False)
                console.print(mistake.text(console.width))
            found[name] = figures.rates()
        return found

    def predict(self, model: keras.Model, rows: Sequence[str], options: SpeechPredictOptions) -> Iterator[dict]:
        transcriber = self._transcriber(model, options.search)

        def read(files):
            return zip(*(self._heard(transcriber, Path(file)) for file in files), strict=True)

        def answer(heard):
            clips = [clip for clip in heard if not isinstance(clip, Transcript)]
            found = iter(transcriber.transcribe(clips, options.batch_size))
            for one in heard:
                transcript = one if isinstance(one, Transcript) else next(found)
                yield {"text": transcript.text, "confidence": round(transcript.confidence, 4)}

        return answered(rows, options.batch_size, read, answer)

    def _heard(self, transcriber: Transcriber, file: Path) -> tuple[np.ndarray | Transcript | None, str]:
        """The samples of a recording that can share a batch with others, or the transcript of a long one; or why there
        is neither."""
        try:
            with open(file, "rb") as contents:
                seconds = read_header(contents).seconds
            if seconds <= PART:
                return transcriber.read_file(file, PART), ""
            with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
                bar = progress.add_task(file.name, total=seconds)
                return transcriber.transcribe_file(file, lambda done, _: progress.update(bar, completed=done)), ""
        except OSError as error:
            return None, f"{file}: {error.strerror.lower()}; give the path of a WAV"
        except ValueError as error:
            return None, f"{file}: {error}"

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        transcriber = self._transcriber(model, GREEDY)
        for number, row in enumerate(rows, 1):
            answer = {"row": number, "source": Path(row).name}
            try:
                audio = transcriber.read_file(Path(row), self.config.most_seconds)
            except OSError as error:
                yield answer | {"error": f"{row}: {error.strerror.lower()}; give the path of a WAV"}
            except ValueError as error:
                yield answer | {"error": f"{row}: {error}"}
            else:
                text, picture = self._alignment(transcriber, audio)
                yield answer | {"text": text, "picture": picture}

    def _alignment(self, transcriber: Transcriber, audio: np.ndarray) -> tuple[str, np.ndarray]:
        """The transcript of a clip, and a drawing of which character was heard when."""
        found = transcriber.explain(*padded([audio]))
        text = found.transcript.numpy()[0].decode()
        seconds = len(audio) / self.config.sample_rate
        step = self.config.model.hop_ms * self.config.model.subsampling / 1000
        symbols = [symbol.decode() for symbol in found.symbols.numpy()[0]]
        return text, interpretation.alignment_picture(
            found.spectrogram.numpy()[0], seconds, _spans(symbols, step), audio, text
        )

    def _heard_examples(self, most_seconds: float) -> list[bytes]:
        """Recordings that an export takes, which may be for shorter ones than the run's; a silence where none is."""
        found = [file.read_bytes() for file in self._examples]
        kept = [contents for contents in found if read_header(io.BytesIO(contents)).seconds <= most_seconds]
        rate = self.config.sample_rate
        return kept or [write_wav(np.zeros(rate // 10, np.int16), rate)]

    def servable(self, model: keras.Model, options: SpeechExportOptions) -> Servable:
        transcriber = self._transcriber(model, options.search)
        rate, most = self.config.sample_rate, options.most_seconds
        contents = tf.TensorSpec([None], tf.string, name="audio_bytes")
        waveform = tf.TensorSpec([None, None], tf.float32, name="waveform")
        rates = tf.TensorSpec([None], tf.int32, name="sample_rate")

        def answered(answer, audio, lengths):
            # TensorFlow's convolutions fail on no rows, or rows of nothing: one of silence is added, and taken off.
            missing, rows = tf.cast(tf.equal(tf.shape(audio), 0), tf.int32), tf.size(lengths)
            found = answer(tf.pad(audio, [[0, missing[0]], [0, missing[1]]]), tf.pad(lengths, [[0, missing[0]]]))
            return {name: value[:rows] for name, value in found.items()}

        def heard(audio, lengths):
            transcript, confidence = transcriber.decode(*transcriber.log_probabilities(audio, lengths))
            return {"transcript": transcript, "confidence": confidence}

        def explained(audio, lengths):
            return transcriber.explain(audio, lengths)._asdict()

        @tf.function(input_signature=[contents])
        def transcribe(audio_bytes):
            return answered(heard, *read_audios(audio_bytes, rate, most))

        @tf.function(input_signature=[waveform, rates])
        def transcribe_waveform(waveform, sample_rate):
            return answered(heard, *resampled(waveform, sample_rate, rate))

        @tf.function(input_signature=[contents])
        def explain(audio_bytes):
            return answered(explained, *read_audios(audio_bytes, rate, most))

        several = np.array([*self._heard_examples(most), None], object)[:-1]
        examples = [{"audio_bytes": several[:1]}, {"audio_bytes": several}]
        silence = {"waveform": np.zeros((1, 8000), np.float32), "sample_rate": np.array([8000], np.int32)}
        return Servable(
            {"serving_default": transcribe, "waveform": transcribe_waveform, "explain": explain},
            {"serving_default": examples, "waveform": [silence], "explain": examples[:1]},
            [self.symbols] if self.config.units == "pieces" else [],
        )


def _check_spectrogram(config: SpeechConfig) -> None:
    """Refuses bands that do not go with the sample rate, once that is known."""
    model = config.model
    try:
        LogMelSpectrogram(config.sample_rate, model.frame_ms, model.hop_ms, model.bands)
    except ValueError:
        raise UserError(
            f"--model.bands {model.bands}: too many for frames of {model.frame_ms:g} ms at {config.sample_rate} Hz; "
            "give fewer, or a longer --model.frame-ms"
        ) from None


def _spans(symbols: Sequence[str], step: float) -> list[tuple[str, float, float]]:
    """Runs of equal symbols with their beginnings and ends in seconds; blanks, which are empty, are left out."""
    spans, begin = [], 0
    for symbol, run in itertools.groupby(symbols):
        end = begin + len(list(run))
        if symbol:
            spans.append((symbol, begin * step, end * step))
        begin = end
    return spans
