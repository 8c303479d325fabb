"""Pretrained encoders to fine-tune: text backbones of KerasHub behind the interface of `TextEncoder`, and their own
tokenizers in the graph."""

from pathlib import Path

import keras
import keras_hub
import tensorflow as tf
from keras import layers as stock
from keras import ops

from pipelines import presets
from pipelines.errors import UserError
from pipelines.presets import REFUSALS, line
from pipelines.text.tokenizer import LastingTokenizer

MASKS = ("padding_mask", "segment_ids")  # what a backbone may read besides token ids
REMEDY = "; train the model again, or restore the file"


def fetch(name: str, directory: Path, max_length: int) -> None:
    """Keeps a pretrained encoder and its tokenizer in a directory, so that what they came from is needed no longer.

    Args:
        name: a directory that KerasHub's `save_to_preset` wrote, a model in Hugging Face's format (config.json,
            model.safetensors and what its tokenizer needs, as vocab.txt) of a kind that KerasHub has, or a preset of
            KerasHub.
        directory: where they go; `BackboneTokenizer` and `BackboneEncoder.load` read them there.
        max_length: how many symbols of a text are to be read.

    Raises:
        UserError: there is no such preset, it cannot be had, it is of no use as an encoder of texts, or it reads
            fewer symbols.
    """
    source = presets.source(name)
    network = presets.backbone(name, ("models.Backbone", "tokenizers.Tokenizer"))
    try:
        _split(network)
    except ValueError as error:
        raise UserError(f"--model.backbone {name}: {error}; take another") from None
    longest = getattr(network, "max_sequence_length", None)
    if longest and max_length > longest:
        raise UserError(f"--model.backbone {name}: reads {longest} symbols at most; set --max-length {longest}")
    try:
        tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(source)
    except FileNotFoundError as error:
        raise UserError(
            f"--model.backbone {name}: no tokenizer in it ({line(error)}); put that there, or write it by "
            "keras_hub.tokenizers.Tokenizer.from_preset(ORIGINAL).save_to_preset(DIR)"
        ) from None
    except REFUSALS as error:
        raise UserError(f"--model.backbone {name}: its tokenizer cannot be read ({line(error)})") from None
    if (last := max(_pieces(tokenizer))) >= _rows(network):
        raise UserError(
            f"--model.backbone {name}: its tokenizer has ids up to {last}, and its embedding only {_rows(network)} "
            "rows; give a backbone and a tokenizer of one preset"
        )
    network.save_to_preset(str(directory))
    tokenizer.save_to_preset(str(directory))


class BackboneTokenizer(tf.Module):
    """Text to ids as a pretrained encoder knows them, with the interface of `pipelines.text.tokenizer.Tokenizer`.

    An id is KerasHub's and one: 0 is padding, as everywhere in this project, whatever the preset pads with.

    Args:
        directory: what `fetch` wrote.
        max_length: of more ids than this, the last ones before the end id are left out; None for no limit.

    Attributes:
        vocabulary_size: number of ids.
        pad_id, start_id, end_id: the ids of the marks; None where the preset has no such mark.

    Raises:
        UserError: a file is missing or damaged.
    """

    pad_id = 0

    def __init__(self, directory: Path, max_length: int | None = None):
        super().__init__(name="backbone_tokenizer")
        try:
            tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(str(directory))
        except REFUSALS as error:
            raise UserError(f"{directory}: the tokenizer cannot be read ({line(error)}){REMEDY}") from None
        tokenizer.sequence_length = None  # rows end where their texts do
        if isinstance(tokenizer, keras_hub.tokenizers.SentencePieceTokenizer):
            tokenizer.add_bos = tokenizer.add_eos = False
            tokenizer._sentence_piece = LastingTokenizer(tokenizer.proto, out_type=tf.int32)
        self._tokenizer = tokenizer
        # In a graph, KerasHub tokenizes by TensorFlow's operations; outside of one it may do it by Python.
        self._cut = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
        pieces = _pieces(tokenizer)
        self.vocabulary_size = 2 + max(pieces)
        self._names = tf.constant(["", *(pieces.get(number, "") for number in range(max(pieces) + 1))])
        self.start_id, self.end_id = (
            None if number is None else number + 1
            for number in (getattr(tokenizer, f"{mark}_token_id", None) for mark in ("start", "end"))
        )
        self._max_length = max_length

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns UTF-8 strings (B,) into int32 ids (B, None) between the preset's marks. Any bytes are legal: those that
        are not UTF-8 become U+FFFD."""
        ids = self._cut(tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8"))
        ids = tf.ragged.boolean_mask(ids, ids >= 0)  # -1 is a byte that a byte-pair vocabulary lacks
        start, end = (
            tf.fill([tf.size(texts), 0 if mark is None else 1], mark or 0) for mark in (self.start_id, self.end_id)
        )
        if self._max_length is not None:
            ids = ids[:, : self._max_length - start.shape[1] - end.shape[1]]
        return tf.concat([start, ids + 1, end], axis=1)

    def to_pieces(self, ids: tf.Tensor) -> tf.Tensor:
        """The pieces that int32 ids of any shape stand for, as strings; "" for padding."""
        return tf.gather(self._names, ids)


@keras.saving.register_keras_serializable(package="espalier")
class BackboneEncoder(stock.Layer):
    """A pretrained network in place of a `TextEncoder`: from ids of a `BackboneTokenizer` to a state for each token.

    The network is cut in two after the layer that embeds token ids, so that it can be asked what its states rest on.

    Args:
        backbone: a text backbone of KerasHub.

    Call arguments:
        tokens: (B, L) integer ids, 0 being padding.

    Returns:
        States (B, L, d). Those of padding carry no meaning.

    Raises:
        ValueError: the network's graph cannot be cut, or it has no states to give.
    """

    def __init__(self, backbone: keras.Model, **kwargs):
        super().__init__(**kwargs)
        # The whole network is not kept: it may have a pooler, whose weights nothing here would ever train.
        self._backbone_config = keras.saving.serialize_keras_object(backbone)
        self.embedder, self.body = _split(backbone)
        self.settings = {"vocabulary_size": _rows(backbone) + 1}
        self.width = self.body.output.shape[-1]

    @classmethod
    def load(cls, directory: Path) -> "BackboneEncoder":
        """What `fetch` wrote, with its weights, computing in Keras' current dtype.

        Raises:
            UserError: a file is missing or damaged.
        """
        try:
            backbone = keras_hub.models.Backbone.from_preset(str(directory), dtype=keras.config.dtype_policy().name)
        except REFUSALS as error:
            raise UserError(f"{directory}: the encoder cannot be read ({line(error)}){REMEDY}") from None
        return cls(backbone, name="encoder")

    def build(self, tokens_shape=None):
        pass  # the parts are

    def call(self, tokens, training=None):
        return self.encode(self.embedding(tokens), ops.not_equal(tokens, 0), training=training)

    def embedding(self, tokens):
        """What the network makes of ids (B, L) alone: embeddings (B, L, e), with positions in them where the network
        has one layer for both. Their width e need not be that of states."""
        return self.embedder(ops.maximum(tokens - 1, 0))

    def encode(self, embedded, mask, training=None):
        """The states of tokens given by their embeddings (B, L, e), and which of them are real (B, L)."""
        mask = ops.cast(mask, "int32")
        segments = [ops.zeros_like(mask)] * (len(self.body.inputs) - 2)  # there is one text; not every network asks
        return self.body([embedded, mask, *segments], training=training)

    def compute_output_shape(self, tokens_shape):
        return (*tokens_shape, self.width)

    def get_config(self):
        return super().get_config() | {"backbone": self._backbone_config}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"backbone": keras.saving.deserialize_keras_object(config["backbone"])})


def _split(backbone: keras.Model) -> tuple[stock.Layer, keras.Model]:
    """Cuts a functional network after the layer that embeds token ids.

    Returns:
        That layer, and the rest: [embeddings (B, L, e), then those of `MASKS` that it takes] to states (B, L, d).

    Raises:
        ValueError: why that cannot be.
    """
    inputs = {tensor.name: tensor for tensor in backbone.inputs}
    if "decoder_token_ids" in inputs:
        raise ValueError("has an encoder and a decoder, and only networks with one stack of layers can be used")
    if "token_ids" not in inputs:
        raise ValueError(f"reads no texts (its inputs are {', '.join(inputs)})")
    if extra := inputs.keys() - {"token_ids", *MASKS}:
        raise ValueError(f"reads more than a text (its inputs are {', '.join(inputs)}: no use for {min(extra)})")
    if "padding_mask" not in inputs:
        raise ValueError("takes no padding_mask, so that what pads a batch would change its states")
    readers = [
        operation
        for operation in backbone.operations
        if not isinstance(operation, stock.InputLayer)
        and any(tensor is inputs["token_ids"] for tensor in keras.tree.flatten(operation.input))
    ]
    embedded = [tensor for reader in readers for tensor in keras.tree.flatten(reader.output)]
    if len(embedded) != 1 or len(embedded[0].shape) != 3:
        raise ValueError("its token ids go into more than an embedding, and it cannot be cut after that")
    states = backbone.output
    if isinstance(states, dict):
        states = states.get("sequence_output")
    if len(getattr(states, "shape", ())) != 3:
        raise ValueError("gives no state for each token (batch, length, channels)")
    masks = [inputs[name] for name in MASKS if name in inputs]
    return readers[0], keras.Model([*embedded, *masks], states, name="body")


def _rows(backbone: keras.Model) -> int:
    return backbone.token_embedding.input_dim


def _pieces(tokenizer) -> dict[int, str]:
    """What each id of a tokenizer of KerasHub stands for; ids may have gaps."""
    pieces = {tokenizer.token_to_id(piece): piece for piece in tokenizer.get_vocabulary()}
    if not isinstance(tokenizer, keras_hub.tokenizers.BytePairTokenizer):
        return pieces
    # Radford et al. 2019 write every byte as a character that can be seen: itself, or one from 256 on.
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    alphabet = dict(zip(map(chr, seen), seen, strict=True)) | {chr(256 + i): byte for i, byte in enumerate(hidden)}
    return {
        number: bytes(map(alphabet.get, piece)).decode(errors="replace") if set(piece) <= alphabet.keys() else piece
        for number, piece in pieces.items()
    }
