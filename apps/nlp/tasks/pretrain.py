"""What only pretraining knows: how symbols are hidden, the loss of guessing them, and how guesses are shown."""

import math
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from apps.nlp.model import MaskedLanguageModel
from apps.nlp.pages import surprise_page
from apps.nlp.pictures import surprise_picture
from apps.nlp.tasks.common import mean_sums
from apps.nlp.tasks.reading import ReadingTask
from pipelines import losses
from pipelines.batching import epoch_seed
from pipelines.export.servable import Servable
from pipelines.inputs import answered
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions
from pipelines.task import Report, chosen_splits, print_metrics

SHOWN = 8  # texts whose hidden words are guessed in TensorBoard
HIDDEN = "___"  # what stands for a hidden symbol in a text that is typed in
# Of the symbols to be guessed, so many are hidden, and so many are another symbol; the rest stay (Devlin et al. 2019).
REPLACED, RANDOM = 0.8, 0.1
ROWS_AT_ONCE = 16  # copies of a text in which one token each is hidden: bounds the memory


class PretrainTask(ReadingTask):
    """A masked language model: an encoder for `--init-from`."""

    unit = "hidden tokens"
    validation_metrics = ("loss", "accuracy", "perplexity")
    reads_beginnings = False

    @property
    def _hidden_id(self) -> int:
        """The token that hides others: the start mark, which no text has."""
        return self.tokenizer.start_id

    def _token_lists(self, examples):
        """Long texts in several rows: all of them is there to learn from."""
        tokenized = self.tokenizer.tokenize(tf.constant(examples.texts, tf.string))
        texts = np.split(tokenized.flat_values.numpy(), tokenized.row_splits.numpy()[1:-1])
        most = self.config.max_length
        return {"tokens": [ids[begin : begin + most] for ids in texts for begin in range(0, len(ids), most)]}

    def build_model(self) -> keras.Model:
        model = MaskedLanguageModel(self._encoder())
        model({"tokens": ops.ones((1, 2), "int32")})
        return model

    def _hidden(self, batches: tf.data.Dataset, seed: int, batch_size: int) -> tf.data.Dataset:
        """Batches in which some tokens are to be guessed, chosen by the seed, the batch's number and the place.

        Returns:
            Batches of `tokens` (B, L) as the model sees them, `targets` (B, L), zero where nothing is to be guessed,
            and `places` (B, P) of all those where something is: only there are guesses worth their cost.
        """
        config, rows = self.config, self.shard.rows(batch_size)
        first, size = self.tokenizer.end_id + 1, self.tokenizer.vocabulary_size

        def hide(number, batch):
            tokens = batch["tokens"]  # (b, L)
            length = tf.shape(tokens)[1]

            def draws(kind, *shape, **options):
                # Of the whole batch, so that it does not matter how that is divided.
                key = [seed, 4 * tf.cast(number, tf.int32) + kind]
                return tf.random.stateless_uniform([batch_size, *shape], key, **options)[rows]

            may_be = (tokens >= first) & (batch["weight"][:, None] > 0)
            order = tf.argsort(tf.where(may_be, draws(0, length), 2.0))  # (b, L) what may be hidden comes first
            # So many of each row that on average it is the share.
            expected = config.mask_share * tf.reduce_sum(tf.cast(may_be, tf.float32), axis=1)
            count = tf.floor(expected + draws(1))
            chosen = tf.cast(tf.argsort(order), tf.float32) < count[:, None]
            how, others = draws(2, length), draws(3, length, minval=first, maxval=size, dtype=tf.int32)
            seen = tf.where(how < REPLACED, self._hidden_id, tf.where(how < REPLACED + RANDOM, others, tokens))
            most = tf.cast(tf.math.ceil(config.mask_share * tf.cast(length, tf.float32)), tf.int32)
            return {
                "tokens": tf.where(chosen, seen, tokens),
                "targets": tf.where(chosen, tokens, 0),
                "places": order[:, :most],
            }

        return batches.enumerate().map(hide, tf.data.AUTOTUNE)

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        seed = epoch_seed(self.config.seed, epoch)
        return self._hidden(super().train_batches(epoch), seed, self.config.batch_size)

    def validation_batches(self) -> tf.data.Dataset:
        return self._hidden(super().validation_batches(), 0, self.config.batch_size)

    def sums(self, outputs, batch):
        targets = ops.take_along_axis(batch["targets"], batch["places"], axis=1)  # (B, P)
        weight = ops.cast(targets > 0, "float32")
        total = ops.sum(weight)
        return {
            "loss": (ops.sum(losses.smoothed_cross_entropy(outputs, targets) * weight), total),
            "accuracy": (ops.sum(losses.hits(outputs, targets) * weight), total),
        }

    def derived(self, means):
        return {"perplexity": math.exp(min(means["loss"], 700.0))}

    def report(self, model: keras.Model) -> Report:
        texts = self._splits["validation"].texts[:SHOWN]
        lines = []
        for text in texts:
            words = text.split()
            place = len(words) // 2
            asked = " ".join([*words[:place], HIDDEN, *words[place + 1 :]])
            ids = self._with_hidden(tf.constant([asked]))
            filled = self._filled(model, ids)["text"].numpy()[0].decode("utf-8", errors="replace")
            lines.append(f"- {asked}: {filled} (was {words[place] if words else ''})")
        return Report(texts={"guesses": "\n".join(lines)})

    def evaluate(self, model: keras.Model, options: EvaluateOptions) -> dict[str, dict[str, float]]:
        measured = tf.function(lambda batch: self.sums(model(batch, training=False), batch))
        found = {}
        for name in chosen_splits(list(self._splits), options.split):
            batches = self._hidden(self._batches(name, options.batch_size), 0, options.batch_size)
            means, weights = mean_sums(map(measured, batches))
            found[name] = means | self.derived(means)
            print_metrics(f"{name}: {weights['loss']:,.0f} hidden tokens", {"model": found[name]})
        return found

    def _with_hidden(self, texts: tf.Tensor) -> tf.Tensor:
        """Ids (B, L) of texts (B,) in which `___` stands for a symbol to be guessed, in the graph."""
        parts = tf.strings.split(texts, HIDDEN)  # (B, parts)
        tokens = self.tokenizer.tokenize(parts.flat_values)  # each with an end token
        row_ends = tf.cast(parts.row_splits[1:] - 1, tf.int64)
        last = tf.scatter_nd(row_ends[:, None], tf.ones_like(row_ends, tf.bool), [tf.size(parts.flat_values, tf.int64)])
        is_last = tf.gather(last, tokens.value_rowids())
        ids = tokens.flat_values
        ids = tf.where((ids == self.tokenizer.end_id) & ~is_last, self._hidden_id, ids)
        whole = parts.with_flat_values(tokens.with_flat_values(ids)).merge_dims(1, 2)
        return whole[:, : self.config.max_length].to_tensor()

    def _filled(self, model, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Texts (B,) of ids (B, L) whose hidden symbols are the likeliest ones, and how likely those are (B,), a
        geometric mean."""
        log_probabilities = tf.nn.log_softmax(tf.cast(model({"tokens": ids}, training=False), tf.float32))
        marks = tf.range(self.tokenizer.vocabulary_size) <= self.tokenizer.end_id
        log_probabilities = tf.where(marks, -math.inf, log_probabilities)
        hidden = ids == self._hidden_id
        best = tf.argmax(log_probabilities, -1, tf.int32)
        scores = tf.where(hidden, tf.reduce_max(log_probabilities, -1), 0.0)
        count = tf.maximum(tf.reduce_sum(tf.cast(hidden, tf.float32), -1), 1.0)
        filled = self.tokenizer.detokenize(tf.where(hidden, best, ids))
        return {"text": filled, "probability": tf.exp(tf.reduce_sum(scores, -1) / count)}

    def predict(self, model: keras.Model, rows: Sequence[str], options: PredictOptions) -> Iterator[dict]:
        ids_spec = tf.TensorSpec([None, None], tf.int32)
        fill = tf.function(lambda ids: self._filled(model, ids), input_signature=[ids_spec])

        def read(texts):
            ids = self._with_hidden(tf.constant(texts)).numpy()
            return ids, map(self._unanswerable, texts, np.sum(ids == self._hidden_id, axis=1))

        def answer(ids):
            filled = fill(np.stack(ids))
            for text, probability in zip(filled["text"].numpy(), filled["probability"].numpy(), strict=True):
                said = text.decode("utf-8", errors="replace")
                yield {"text": said, "probability": round(float(probability), 4)}

        return answered(rows, options.batch_size, read, answer)

    def _unanswerable(self, text: str, guessed: int) -> str | None:
        """Why a text cannot be filled in, of which so many hidden symbols were read."""
        if HIDDEN not in text:
            return f"nothing is hidden; put {HIDDEN} where a word is to be guessed"
        if guessed < text.count(HIDDEN):
            return (
                f"{HIDDEN} beyond the {self.config.max_length} symbols that are read (--max-length); shorten the text"
            )
        return None

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        for row, text in enumerate(rows, 1):
            answer = {"row": row, "source": text}
            if error := self._error(text):
                yield answer | {"error": error}
                continue
            tokens, log_probabilities = self._surprise(model, text)
            if not len(tokens):
                yield answer | {"error": "nothing in it that can be read"}
                continue
            bits = -log_probabilities / math.log(2)
            said = f"{bits.mean():.2f} bits a token, each hidden in its turn"
            pieces = [token.decode("utf-8", errors="replace") for token in tokens]
            page = surprise_page(pieces, bits, said)
            yield answer | {"text": said, "picture": surprise_picture(pieces, bits, said), "page": page}

    def _surprise(self, model, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens (L,) of a text, and the log-probability of each when it alone is hidden (L,)."""
        ids = self.tokens(tf.constant([text]))[0].numpy()
        places = np.flatnonzero(ids != self.tokenizer.end_id)
        found = np.zeros(len(places), np.float32)
        for begin in range(0, len(places), ROWS_AT_ONCE):
            hidden = places[begin : begin + ROWS_AT_ONCE]
            rows = np.tile(ids, (len(hidden), 1))
            rows[np.arange(len(hidden)), hidden] = self._hidden_id
            logits = tf.gather(model({"tokens": rows}, training=False), hidden, batch_dims=1)  # (rows, V)
            log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
            found[begin : begin + len(hidden)] = tf.gather(log_probabilities, ids[hidden], batch_dims=1)
        return self.tokenizer.to_pieces(ids[places]).numpy(), found

    def servable(self, model: keras.Model, options: ExportOptions) -> Servable:
        spec = tf.TensorSpec([None], tf.string, name="text")
        filled = tf.function(lambda text: self._filled(model, self._with_hidden(text)), input_signature=[spec])
        several = np.array([f"the {HIDDEN} is here", f"{HIDDEN} {HIDDEN}", "nothing hidden", ""], object)
        examples = [{"text": several[:1]}, {"text": several}]
        return Servable({"serving_default": filled}, {"serving_default": examples}, [self.tokenizer])
