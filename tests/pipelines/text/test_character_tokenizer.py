"""Every character of running text is a token and comes back, in the graph and from an export."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.text.character_tokenizer import CharacterTokenizer

any_character = st.characters(exclude_categories=["Cs"])  # half a character of UTF-16 is none
alphabets = st.lists(any_character, min_size=1, max_size=40, unique=True).map("".join)
LETTERS = CharacterTokenizer("b\na\tñ 中🎈c\0")


@settings(deadline=None, max_examples=50)
@given(st.data(), alphabets)
def test_text_comes_back_exactly(data, alphabet):
    tokenizer = CharacterTokenizer(alphabet)
    texts = data.draw(st.lists(st.text(alphabet), max_size=4))
    ids = tokenizer.tokenize(tf.constant(texts, tf.string))
    assert ids.dtype == tf.int32
    for row, text in zip(ids.to_list(), texts, strict=True):
        assert len(row) == len(text) + 1 and row[-1] == tokenizer.end_id
        assert all(4 <= number < tokenizer.vocabulary_size for number in row[:-1])
    found = tokenizer.detokenize(ids.to_tensor())
    assert [text.decode() for text in found.numpy()] == texts


def test_ids_are_marks_and_then_code_points_in_order():
    assert LETTERS.alphabet == "\0\t\n abcñ中🎈" and LETTERS.vocabulary_size == 14
    ids = LETTERS.tokenize(tf.constant(["a\n\n b", "", "🎈\0"])).to_list()
    assert ids == [[8, 6, 6, 7, 9, 3], [3], [13, 4, 3]]


def test_characters_beyond_the_alphabet_and_bytes_that_are_no_text_are_unknown():
    ids = LETTERS.tokenize(tf.constant(["aéa", b"a\xff", "é", "\U0010ffff"]))
    assert ids.to_list() == [[8, 1, 8, 3], [8, 1, 3], [1, 3], [1, 3]]
    assert LETTERS.detokenize(ids.to_tensor()).numpy()[0].decode() == "a\ufffda"


def test_what_follows_the_end_is_dropped_and_marks_are_nothing():
    ids = tf.constant([[2, 8, 0, 9, 3, 8], [3, 8, 8, 8, 8, 8]])
    assert LETTERS.detokenize(ids).numpy().tolist() == [b"ab", b""]
    assert LETTERS.to_pieces(ids[:1, :5]).numpy().tolist() == [[b"<s>", b"a", b"", b"b", b"</s>"]]
    assert LETTERS.to_pieces(tf.constant(1)).numpy() == b"<unk>"


def test_it_travels_with_an_export(tmp_path):
    module = tf.Module()
    module.tokenizer = LETTERS
    strings = [tf.TensorSpec([None], tf.string)]
    module.read = tf.function(lambda texts: LETTERS.tokenize(texts).to_tensor(), input_signature=strings)
    module.write = tf.function(LETTERS.detokenize, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    texts = ["b\t\nñ", "中", ""]
    assert [text.decode() for text in loaded.write(loaded.read(texts)).numpy()] == texts
    assert loaded.write(np.zeros([0, 3], np.int32)).shape == (0,)
    assert loaded.read(np.zeros([0], object)).shape[0] == 0


@given(alphabets)
def test_it_is_saved_and_loaded(tmp_path_factory, alphabet):
    file = tmp_path_factory.mktemp("assets") / "characters.json"
    CharacterTokenizer(alphabet).save(file)
    assert CharacterTokenizer.load(file).alphabet == "".join(sorted(alphabet))


def test_it_is_read_off_texts():
    assert CharacterTokenizer.of(["ab\n", "", "ca"]).alphabet == "\nabc"
    with pytest.raises(UserError, match="no text"):
        CharacterTokenizer.of(["", ""])


@pytest.mark.parametrize("alphabet", ["", "aba"])
def test_an_alphabet_has_each_character_once(alphabet):
    with pytest.raises(ValueError, match=f"each of them once. Received: alphabet='{alphabet}'"):
        CharacterTokenizer(alphabet)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"a.json: the alphabet cannot be read \(No such file or directory\); train the model again"),
        (b"\xff\xfe{}", "a.json: not an alphabet, or a damaged one"),
        (b"[]", "not an alphabet"),
        (json.dumps({"alphabet": 7}).encode(), "not an alphabet"),
        (json.dumps({"alphabet": "aa"}).encode(), "not an alphabet"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, complaint):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        CharacterTokenizer.load(file)
