"""Subword tokenisation in the graph: a SentencePiece vocabulary, trained once, turns text into ids and back.

One vocabulary serves source and target, so that names and numbers can be copied and the model can tie its
embeddings. Text is normalised by NFKC with SentencePiece's additions (`nmt_nfkc`): case is kept, a composed
and a decomposed "ü" are the same, and runs of white space become one space. What that changes in a reference
translation is typography ("…" becomes "..."), which is rare; what it avoids is unknown characters.

A language model writes running text, in which lines and blanks count: `keep_white_space` trains a vocabulary that
changes nothing, and from which text comes back as it was.
"""

import collections
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import sentencepiece
import tensorflow as tf
import tensorflow_text
from tensorflow_text.python.ops.sentencepiece_tokenizer import gen_sentencepiece_tokenizer as operations

from pipelines.errors import UserError
from pipelines.files import write_atomically

PAD, UNKNOWN, START, END = range(4)
AUTOMATIC_SIZE = 8000  # Kudo and Richardson's choice for translation; a small text gives fewer pieces
RARE_SHARE = 0.0005  # of a text's characters; SentencePiece's recommendation for rich character sets
BYTE_VALUES = 256
# How SentencePiece is told to leave a text alone.
_AS_IT_IS = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["\n"],
}


def train_sentencepiece(
    sentences: Iterable[str],
    model_file: Path,
    vocabulary_size: int = 0,
    model_type: str = "unigram",
    automatic_size: int = AUTOMATIC_SIZE,
    keep_white_space: bool = False,
    fold_case: bool = False,
) -> int:
    """Trains a subword vocabulary and writes it to a file, all of it or nothing.

    The same sentences give the same file. Ids are 0 padding, 1 unknown, 2 start, 3 end; pieces follow.

    Every character of the text gets a piece, and one that the text never showed becomes the unknown id. But
    where more characters are rare (together under 0.05 % of the text) than there are byte values, rare and
    unseen characters are spelled by bytes: 256 pieces cost less than theirs.

    Args:
        sentences: the text, both languages together; held in memory, so pass a sample of a large corpus.
        model_file: where the vocabulary goes.
        vocabulary_size: number of ids. 0 is automatic: `automatic_size`, or as many as are of use to the text.
        model_type: "unigram" (Kudo 2018) or "bpe" (Sennrich et al. 2016).
        automatic_size: see above.
        keep_white_space: leave the text as it is, newlines and blanks in a row too. A newline is a piece of its own, so
            that a text may be cut after one; only U+2581, by which SentencePiece writes a blank, becomes one. Long
            texts are to be cut: more than 4192 bytes at once are not looked at.
        fold_case: read capitals as small letters; text does not come back as it was.

    Returns:
        The number of ids.

    Raises:
        UserError: no text, or a size that the text cannot give.

    References:
        Kudo and Richardson, "SentencePiece: A simple and language independent subword tokenizer and
        detokenizer for Neural Text Processing", 2018.
    """
    if model_type not in ("unigram", "bpe"):
        raise UserError(f'the tokenizer\'s model type is "unigram" or "bpe", received {model_type!r}')
    if vocabulary_size < 0:
        raise UserError(f"the vocabulary size is a positive number, or 0 for automatic, received {vocabulary_size}")
    sentences = list(sentences)
    rule = {"normalization_rule_name": "nmt_nfkc_cf" if fold_case else "nmt_nfkc"}
    options = {"model_type": model_type} | (_AS_IT_IS if keep_white_space else rule)
    if _rare_characters(map(str.casefold, sentences) if fold_case else sentences) > BYTE_VALUES:
        options |= {"character_coverage": 1 - RARE_SHARE, "byte_fallback": True}
    model = _train(sentences, vocabulary_size, automatic_size, options)
    if model_type == "bpe" and not vocabulary_size:
        model = _train(sentences, _useful_size(model, sentences), automatic_size, options)
    write_atomically(Path(model_file), model)
    return sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()


def _train(sentences: list[str], vocabulary_size: int, automatic_size: int, options: Mapping) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocabulary_size or automatic_size,
            hard_vocab_limit=bool(vocabulary_size),
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=START,
            eos_id=END,
            num_threads=1,  # sums of several threads would depend on their timing
            minloglevel=2,  # errors only, and those are raised
            **{"character_coverage": 1.0, **options},
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocabulary_size)) from error
    return model.getvalue()


def _useful_size(model: bytes, sentences: list[str]) -> int:
    """The least size of a byte-pair vocabulary that cuts a text as this one does.

    Byte-pair pieces stand in the order of their merges, before the single characters. In a text of few words
    the merges go on when they are of no more use; those after the last one that occurs are dead weight.
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    occurring = {number for sentence in sentences for number in processor.encode(sentence)}
    merges = [
        number
        for number in range(END + 1, processor.get_piece_size())
        if len(processor.id_to_piece(number)) > 1 and not processor.is_byte(number)
    ]
    last = max(occurring.intersection(merges), default=END)
    return processor.get_piece_size() - sum(number > last for number in merges)


class Tokenizer(tf.Module):
    """Text to ids and back, in the graph, by a trained SentencePiece vocabulary.

    A tf.Module, so that an export which holds one carries the vocabulary with it.

    Args:
        model_file: what `train_sentencepiece` wrote.

    Attributes:
        vocabulary_size: number of ids.
        pad_id, start_id, end_id: the ids of the marks.

    Raises:
        UserError: the file is missing or damaged.
    """

    pad_id, start_id, end_id = PAD, START, END

    def __init__(self, model_file: str | os.PathLike):
        super().__init__(name="tokenizer")
        try:
            model = Path(model_file).read_bytes()
        except OSError as error:
            raise UserError(
                f"{model_file}: the vocabulary cannot be read ({error.strerror}); train the model again, or "
                "restore the file"
            ) from error
        try:
            self._sentencepiece = LastingTokenizer(model, out_type=tf.int32, add_eos=True)
            self.vocabulary_size = int(self._sentencepiece.vocab_size())
        except tf.errors.OpError as error:
            raise UserError(
                f"{model_file}: not a SentencePiece vocabulary, or a damaged one; train the model again, or "
                "restore the file"
            ) from error

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Turns UTF-8 strings (B,) into int32 ids (B, None), the end id last. Any bytes are legal."""
        return self._sentencepiece.tokenize(texts)

    def detokenize(self, ids: tf.Tensor) -> tf.Tensor:
        """Turns int32 ids (B, T) into strings (B,).

        What follows the first end id is dropped, and so are padding and start ids.
        """
        before_end = tf.cumsum(tf.cast(ids == END, tf.int32), axis=1) == 0  # (B, T)
        kept = tf.ragged.boolean_mask(ids, before_end & (ids != PAD) & (ids != START))
        return self._sentencepiece.detokenize(kept)[: tf.shape(ids)[0]]  # of no rows it makes one

    def to_pieces(self, ids: tf.Tensor) -> tf.Tensor:
        """The pieces that int32 ids of any shape stand for, as strings; "" for padding."""
        return tf.where(ids == PAD, "", self._sentencepiece.id_to_string(ids))


class LastingTokenizer(tensorflow_text.SentencepieceTokenizer):
    """A tokenizer that survives tf.random.set_seed and keras.utils.clear_session.

    Both empty TensorFlow's cache of kernels, and the library's vocabulary dies with the kernel that made it
    ("Resource localhost/_0_SentencepieceOp does not exist"; tensorflow/text issue 570). A vocabulary with a
    name of its own belongs to the process instead; the name is its digest, so equal ones are held once.
    """

    def __init__(self, model: bytes, **options):
        super().__init__(model, **options)
        self._model_resource = _Vocabulary(model)
        self.vocab_size()  # made now: at its first use it would be a part of whatever graph is being traced


class _Vocabulary(tf.saved_model.experimental.TrackableResource):
    """The vocabulary as a resource of the process, which an export recreates when it is loaded."""

    def __init__(self, model: bytes):
        super().__init__()
        self._model = model

    def _create_resource(self):
        name = hashlib.sha256(self._model).hexdigest()
        return operations.sentencepiece_op(model=self._model, shared_name=name)


def _rare_characters(sentences: Iterable[str]) -> int:
    """Counts the distinct characters that together make up less than RARE_SHARE of a text."""
    counts: collections.Counter[str] = collections.Counter()
    for sentence in sentences:
        counts.update(unicodedata.normalize("NFKC", sentence))
    budget = RARE_SHARE * counts.total()
    rare = 0
    for count in sorted(counts.values()):
        budget -= count
        if budget < 0:
            break
        rare += 1
    return rare


def _explain(message: str, vocabulary_size: int) -> str:
    """Says what a trainer's error means to the user who gave the text and the size."""
    if found := re.search(r"too high .* value <= (\d+)", message):
        return (
            f"a vocabulary of {vocabulary_size} is more than the text gives; the largest possible is "
            f"{found[1]} (0 chooses automatically)"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"a vocabulary of {vocabulary_size} cannot hold the text's characters; the smallest possible is "
            f"{found[1]} (0 chooses automatically)"
        )
    if "sentences_.empty()" in message or "all_chars_count" in message:
        return "there is no text to train a vocabulary on (empty lines and lines over 4192 bytes do not count)"
    return f"the vocabulary could not be trained: {message}"
