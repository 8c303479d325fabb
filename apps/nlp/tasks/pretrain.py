"""What only pretraining knows: how symbols are hidden, the loss of guessing them, and how guesses are shown."""

import math
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from rich.console import Console
from rich.table import Table

from apps.nlp.model import MaskedLanguageModel
from apps.nlp.pictures import surprise_picture
from apps.nlp.tasks.reading import ReadingTask
from pipelines import losses
from pipelines.export.servable import Servable
from pipelines.options import EvaluateOptions, ExplainOptions, ExportOptions, PredictOptions
from pipelines.task import Report, chosen_splits

SHOWN = 8  # texts whose hidden words are guessed in TensorBoard
HIDDEN = "___"  # what stands for a hidden symbol in a text that is typed in
# Of the symbols to be guessed, so many are hidden, and so many are another symbol; the rest stay (Devlin et al. 2019).
REPLACED, RANDOM = 0.8, 0.1


class PretrainTask(ReadingTask):
    """A masked language model: an encoder for `--init-from`."""

    unit = "hidden tokens"
    validation_metrics = ("loss", "accuracy", "perplexity")

    @property
    def _hidden_id(self) -> int:
        """The token that hides others: the start mark, which no text has."""
        return self.tokenizer.start_id

    def build_model(self) -> keras.Model:
        model = MaskedLanguageModel(self._encoder())
        model({"tokens": ops.ones((1, 2), "int32")})
        return model

    def _hidden(self, batches: tf.data.Dataset, seed: int) -> tf.data.Dataset:
        """Batches in which some tokens are to be guessed, chosen by the seed, the batch's number and the place."""
        config, rows = self.config, self.shard.rows(self.config.batch_size)
        first = self.tokenizer.end_id + 1

        def hide(number, batch):
            tokens = batch["tokens"]  # (b, L)
            # Of the whole batch, so that it does not matter how that is divided.
            shape = [config.batch_size, tf.shape(tokens)[1]]
            draws = [
                tf.random.stateless_uniform(shape, [seed, 3 * tf.cast(number, tf.int32) + k])[rows] for k in (0, 1)
            ]
            others = tf.random.stateless_uniform(
                shape, [seed, 3 * tf.cast(number, tf.int32) + 2], first, self.tokenizer.vocabulary_size, tf.int32
            )[rows]
            chosen = (draws[0] < config.mask_share) & (tokens >= first) & (batch["weight"][:, None] > 0)
            seen = tf.where(
                draws[1] < REPLACED, self._hidden_id, tf.where(draws[1] < REPLACED + RANDOM, others, tokens)
            )
            return {
                "tokens": tf.where(chosen, seen, tokens),
                "targets": tf.where(chosen, tokens, 0),
                "weight": tf.cast(chosen, tf.float32),
            }

        return batches.enumerate().map(hide, tf.data.AUTOTUNE)

    def train_batches(self, epoch: int) -> tf.data.Dataset:
        return self._hidden(super().train_batches(epoch), self.config.seed * 10_000 + epoch + 1)

    def validation_batches(self) -> tf.data.Dataset:
        return self._hidden(super().validation_batches(), 0)

    def sums(self, outputs, batch):
        targets, weight = batch["targets"], batch["weight"]
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
            filled = self._filled(model, tf.constant([asked]))["text"].numpy()[0].decode("utf-8", errors="replace")
            lines.append(f"- {asked}: {filled} (was {words[place] if words else ''})")
        return Report(texts={"guesses": "\n".join(lines)})

    def evaluate(self, model: keras.Model, options: EvaluateOptions) -> dict[str, dict[str, float]]:
        measured = tf.function(lambda batch: self.sums(model(batch, training=False), batch))
        found = {}
        for name in chosen_splits(list(self._splits), options.split):
            totals = {"loss": np.zeros(2), "accuracy": np.zeros(2)}
            for batch in self._hidden(self._batches(name, self.config.batch_size), 0):
                for metric, pair in measured(batch).items():
                    totals[metric] += [float(value) for value in pair]
            means = {metric: total / max(weight, 1.0) for metric, (total, weight) in totals.items()}
            found[name] = means | self.derived(means)
            table = Table(title=f"{name}: {totals['loss'][1]:,.0f} hidden tokens", title_justify="left")
            for metric in found[name]:
                table.add_column(metric, justify="right")
            table.add_row(*(f"{value:.4f}" for value in found[name].values()))
            Console().print(table)
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

    def _filled(self, model, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Texts (B,) whose hidden symbols are the likeliest ones, and how likely those are (B,), a geometric mean."""
        ids = self._with_hidden(texts)
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
        for row, text in enumerate(rows, 1):
            answer = {"row": row, "source": text}
            if HIDDEN not in text:
                yield answer | {"error": f"nothing is hidden; put {HIDDEN} where a word is to be guessed"}
                continue
            found = self._filled(model, tf.constant([text]))
            filled = found["text"].numpy()[0].decode("utf-8", errors="replace")
            yield answer | {"text": filled, "probability": round(float(found["probability"][0]), 4)}

    def explain(self, model: keras.Model, rows: Sequence[str], options: ExplainOptions) -> Iterator[dict]:
        for row, text in enumerate(rows, 1):
            answer = {"row": row, "source": text}
            if error := self._error(text):
                yield answer | {"error": error}
                continue
            tokens, log_probabilities = (x.numpy() for x in self._surprise(model, tf.constant(text)))
            bits = -log_probabilities / math.log(2)
            said = f"{bits.mean():.2f} bits a token, each hidden in its turn"
            pieces = [token.decode("utf-8", errors="replace") for token in tokens]
            yield answer | {"text": said, "picture": surprise_picture(pieces, bits, said)}

    def _surprise(self, model, text: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The tokens (L,) of a text, and the log-probability of each when it alone is hidden (L,)."""
        ids = self.tokens(text[None])[0, :-1]  # without the end
        hidden = tf.eye(tf.size(ids), dtype=tf.bool)
        rows = tf.where(hidden, self._hidden_id, ids[None])  # (L, L), a token hidden in each
        rows = tf.pad(rows, [[0, 0], [0, 1]], constant_values=self.tokenizer.end_id)
        log_probabilities = tf.nn.log_softmax(tf.cast(model({"tokens": rows}, training=False), tf.float32))
        own = tf.boolean_mask(log_probabilities[:, :-1], hidden)  # (L, V), of each where it is hidden
        return self.tokenizer.to_pieces(ids), tf.gather(own, ids, batch_dims=1)

    def servable(self, model: keras.Model, options: ExportOptions) -> Servable:
        spec = tf.TensorSpec([None], tf.string, name="text")
        filled = tf.function(lambda text: self._filled(model, text), input_signature=[spec])
        several = np.array([f"the {HIDDEN} is here", f"{HIDDEN} {HIDDEN}", "nothing hidden", ""], object)
        examples = [{"text": several[:1]}, {"text": several}]
        return Servable({"serving_default": filled}, {"serving_default": examples}, [self.tokenizer])
