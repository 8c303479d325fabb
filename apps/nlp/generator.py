"""From prompts to their continuations with a trained language model: tokens, padding, sampling, text."""

from collections.abc import Iterator, Sequence

import tensorflow as tf

from apps.nlp.config import SamplingConfig
from apps.nlp.language_model import LanguageModel
from pipelines.decoding import sample, sample_one_by_one
from pipelines.text.characters import names
from pipelines.text.tokenizer import UNKNOWN

HALF_A_CHARACTER = "\ufffd"  # what a character of several pieces looks like as long as some of them are missing


class Generator:
    """Continues any number of prompts.

    A prompt is a piece of running text; an empty one is the beginning of a document. Of a prompt longer than what the
    model looks back on, the end is read.

    Args:
        model: A trained model.
        tokenizer: The one it was trained with.
        sampling: How tokens are drawn; the seed and the number of tokens are given with each call.
    """

    def __init__(self, model: LanguageModel, tokenizer, sampling: SamplingConfig):
        self.model = model
        self.tokenizer = tokenizer
        self.sampling = sampling
        # One graph for all lengths.
        self._from_ids = tf.function(
            self._generate,
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.int64),
            ],
        )
        self.surprise = tf.function(self._surprise, input_signature=[tf.TensorSpec([None], tf.string)])

    def continuations(self, prompts: Sequence[str], seeds: Sequence[int], limit: int | None = None) -> list[str]:
        """What follows each prompt, in one batch.

        Args:
            prompts: Texts of known characters.
            seeds: Of each prompt's draws.
            limit: Tokens at most; default is what `sampling` says.
        """
        rows = len(prompts)
        texts = self._from_ids(
            self.prompt_ids(tf.constant(prompts, tf.string)),
            tf.fill([rows], limit or self.sampling.max_tokens),
            tf.fill([rows], self.sampling.temperature),
            tf.constant(seeds, tf.int64),
        )
        return [_decoded(text) for text in texts.numpy()]

    def stream(self, prompt: str, seed: int) -> Iterator[str]:
        """The continuation that `continuations` gives, in parts that can be shown at once."""
        options = self.sampling
        state = tf.function(self.model.start_decoding)(self.prompt_ids(tf.constant([prompt])), options.max_tokens)
        end = self.tokenizer.end_id
        ids, shown = [], ""
        for token in sample_one_by_one(
            self.model.decode_step,
            state,
            options.max_tokens,
            end,
            end,
            seed,
            options.temperature,
            options.top_k,
            options.top_p,
        ):
            ids.append(token)
            text = _decoded(self.tokenizer.detokenize(tf.constant([ids])).numpy()[0])
            whole = text.rstrip(HALF_A_CHARACTER) if token != end and len(ids) < options.max_tokens else text
            yield whole[len(shown) :]
            shown = max(shown, whole, key=len)

    def from_prompts(self, prompts, limits, temperature, seeds):
        """Prompts (B,) to continuations (B,), all in the graph; a prompt with an unknown character is refused by it.

        Args:
            prompts: (B,) strings.
            limits: (B,) int32, tokens at most.
            temperature: (B,) float32.
            seeds: (B,) int64.
        """
        return self._generate(self._known(self.prompt_ids(prompts)), limits, temperature, seeds)

    def prompt_ids(self, prompts: tf.Tensor) -> tf.Tensor:
        """Ids (B, P) of prompts (B,), padded with zeros before them, P at most what the model looks back on."""
        ragged = self.tokenizer.tokenize(prompts)
        # The end id is no part of a prompt; but the beginning of a document is what follows one.
        lengths = tf.maximum(tf.cast(ragged.row_lengths(), tf.int32) - 1, 1)
        longest = tf.reduce_max(tf.concat([[1], lengths], axis=0))
        width = tf.minimum(longest, self.model.context)
        places = tf.range(width) + (lengths - width)[:, None]  # (B, P), negative before a short prompt
        ids = tf.gather(ragged.to_tensor(), tf.maximum(places, 0), batch_dims=1)
        return tf.where(places >= 0, ids, 0)

    def _generate(self, prompt, limits, temperature, seeds):
        state = self.model.start_decoding(prompt, tf.reduce_max(tf.concat([limits, [0]], axis=0)))
        end = self.tokenizer.end_id
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        ids, _ = sample(self.model.decode_step, state, limits, end, end, seeds, temperature, top_k, top_p)
        return self.tokenizer.detokenize(ids[:, 0])

    def _known(self, ids):
        message = "a prompt has characters that the training text has not; leave them out"
        with tf.control_dependencies([tf.debugging.assert_none_equal(ids, UNKNOWN, message=message)]):
            return tf.identity(ids)

    def _surprise(self, texts):
        """How likely each token of some texts was, given those before it.

        Args:
            texts: (B,) strings, each read as a document.

        Returns:
            Tokens (B, T), with "" where texts are shorter, and their log-probabilities (B, T) in nats, 0 there.
        """
        ragged = self.tokenizer.tokenize(texts)
        targets = self._known(ragged[:, :-1].to_tensor())  # (B, T)
        inputs = tf.pad(targets, [[0, 0], [1, 0]], constant_values=self.tokenizer.end_id)[:, :-1]
        # In windows of what the model looks back on, of which the second half counts: the first one is its past.
        half = max(self.model.context // 2, 1)
        rows, length = tf.shape(inputs)[0], tf.shape(inputs)[1]
        frames = (length + half - 1) // half
        padded = tf.pad(inputs, [[0, 0], [half, frames * half - length]])
        parts = tf.reshape(padded, [rows, frames + 1, half])
        tokens = tf.reshape(tf.concat([parts[:, :-1], parts[:, 1:]], axis=2), [rows * frames, 2 * half])
        logits = tf.cast(self.model({"tokens": tokens})[:, half:], tf.float32)
        logits = tf.reshape(logits, [rows, frames * half, self.model.vocabulary_size])[:, :length]
        likely = tf.gather(tf.nn.log_softmax(logits), targets, batch_dims=2)
        return self.tokenizer.to_pieces(targets), tf.where(targets != 0, likely, 0.0)


def unknown(tokenizer, prompt: str) -> str | None:
    """Why a prompt cannot be read, if it has characters that the tokenizer does not know."""
    if UNKNOWN not in tokenizer.tokenize(tf.constant([prompt])).flat_values:
        return None
    strange = sorted({c for c in prompt if UNKNOWN in tokenizer.tokenize(tf.constant([c])).flat_values})
    return f"the training text has no {names(strange)}; leave that out"


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")
