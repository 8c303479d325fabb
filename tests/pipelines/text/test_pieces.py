"""Pieces go to ids and back, in Python, in the graph and in an export, and are what CTC can write."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.text.pieces import Pieces
from pipelines.text.tokenizer import train_sentencepiece

TEXTS = [
    f"the {a} {b} listened to {c} today" for a in ("old", "young") for b in ("cat", "dog") for c in ("anna", "tom")
]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    file = tmp_path_factory.mktemp("pieces") / "pieces.model"
    train_sentencepiece(TEXTS, file, model_type="bpe", automatic_size=60)
    return Pieces(file)


def written(pieces, rows):
    return [text.decode() for text in pieces.decode_batch(tf.ragged.constant(rows, tf.int32).to_tensor()).numpy()]


def test_text_comes_back_in_fewer_symbols(pieces):
    encoded = [pieces.encode(text) for text in TEXTS]
    assert written(pieces, [ids.tolist() for ids in encoded]) == TEXTS
    assert all(ids.dtype == np.int32 and 0 < ids.min() and ids.max() < pieces.size for ids in encoded)
    assert sum(map(len, encoded)) < 0.7 * sum(map(len, TEXTS))
    assert pieces.size == len(pieces.alphabet) + 1 <= 60


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_blanks_are_nothing_and_any_ids_can_be_written(pieces, data):
    ids = data.draw(st.lists(st.integers(1, pieces.size - 1), max_size=8))
    words = "".join(pieces.alphabet[number - 1] for number in ids).replace("\u2581", " ").split()
    with_blanks = [symbol for number in ids for symbol in (0, number)] + [0]
    assert [text.split() for text in written(pieces, [ids, with_blanks])] == [words, words]


def test_no_text_has_no_ids_and_strange_characters_are_named(pieces):
    assert pieces.encode("").shape == (0,)
    with pytest.raises(ValueError, match=r"'z' \(U\+007A LATIN SMALL LETTER Z\), 'é'"):
        pieces.encode("the zoé")


def test_an_export_writes_the_same(pieces, tmp_path):
    module = tf.Module()
    module.pieces = pieces
    module.write = tf.function(pieces.decode_batch, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path))
    ids = pieces.encode(TEXTS[0])[None]
    assert tf.saved_model.load(str(tmp_path)).write(ids).numpy()[0].decode() == TEXTS[0]


def test_a_damaged_file_is_one_clear_error(tmp_path):
    (tmp_path / "pieces.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="pieces.model: not a SentencePiece vocabulary"):
        Pieces(tmp_path / "pieces.model")
