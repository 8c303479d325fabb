"""Characters go to ids and back, in Python and in the graph; plain form is plain, and stays so."""

import json
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.text.characters import Characters, normalise

any_character = st.characters(exclude_categories=["Cs"])  # half a character of UTF-16 is none
alphabets = st.lists(any_character, min_size=1, max_size=40, unique=True).map("".join)
ENGLISH = Characters(" 'abcdefghijklmnopqrstuvwxyz")


@given(st.data(), alphabets)
def test_text_comes_back(data, alphabet):
    characters = Characters(alphabet)
    text = data.draw(st.text(alphabet))
    ids = characters.encode(text)
    assert ids.dtype == np.int32 and ids.shape == (len(text),)
    assert all(1 <= number < characters.size for number in ids)
    assert characters.decode(ids) == text


@settings(deadline=None)
@given(st.data(), alphabets)
def test_the_graph_writes_what_python_writes(data, alphabet):
    characters = Characters(alphabet)
    length = data.draw(st.integers(0, 8))
    row = st.lists(st.integers(0, len(alphabet)), min_size=length, max_size=length)
    rows = data.draw(st.lists(row, max_size=4))
    ids = np.array(rows, np.int32).reshape(len(rows), length)
    texts = characters.decode_batch(tf.constant(ids))
    assert [text.decode() for text in texts.numpy()] == [characters.decode(row) for row in rows]


def test_ids_are_in_the_order_of_the_alphabet_and_blanks_are_nothing():
    characters = Characters("cab ")
    assert characters.size == 5
    assert characters.encode("a cab").tolist() == [2, 4, 1, 2, 3]
    assert characters.decode([0, 2, 0, 0, 4, 1, 2, 3, 0]) == "a cab"
    assert characters.encode("").shape == (0,) and characters.decode([]) == ""


def test_text_is_written_by_an_exported_function_of_any_shape(tmp_path):
    characters, module = Characters("añ中🎈"), tf.Module()
    module.write = tf.function(characters.decode_batch, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path))
    write = tf.saved_model.load(str(tmp_path)).write
    assert [text.decode() for text in write([[3, 0, 2], [4, 1, 0]]).numpy()] == ["中ñ", "🎈a"]
    assert write(np.zeros([2, 0], np.int32)).numpy().tolist() == [b"", b""]
    assert write(np.zeros([0, 3], np.int32)).shape == (0,)


def test_an_alphabet_is_read_off_texts():
    characters = Characters.of(["der hund", "ein übermut", ""])
    assert characters.alphabet == " bdehimnrtuü"


@given(alphabets)
def test_an_alphabet_is_saved(tmp_path_factory, alphabet):
    file = tmp_path_factory.mktemp("assets") / "alphabet.json"
    Characters(alphabet).save(file)
    assert json.loads(file.read_text("utf-8")) == {"alphabet": alphabet}
    assert Characters.load(file).alphabet == alphabet


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"alphabet.json: the alphabet cannot be read \(No such file or directory\); train the model again"),
        (b"", "alphabet.json: not an alphabet, or a damaged one"),
        (b"\xff\xfe{}", "not an alphabet"),
        (b"[]", "not an alphabet"),
        (b'{"letters": "abc"}', "not an alphabet"),
        (b'{"alphabet": 7}', "not an alphabet"),
        (b'{"alphabet": "abca"}', "not an alphabet"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, complaint):
    file = tmp_path / "alphabet.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        Characters.load(file)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: Characters(""), "Received: alphabet=''"),
        (lambda: Characters("aba"), "each of them once. Received: alphabet='aba'"),
        (lambda: ENGLISH.encode("naïve 3"), r"'3' \(U\+0033 DIGIT THREE\), 'ï' \(U\+00EF LATIN .*\). Received: 'naïve"),
        (lambda: ENGLISH.encode("a\u200bb\x07"), r"U\+0007\), '\\u200b' \(U\+200B ZERO WIDTH SPACE\)"),
        (lambda: ENGLISH.decode([1, 29]), r"Ids are in \[0, 29\). Received: 29"),
        (lambda: ENGLISH.decode([-1]), "Received: -1"),
    ],
)
def test_what_makes_no_sense_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The quick, brown fox!", "the quick brown fox"),
        ("  Don’t\tpanic —\nit‘s  only\u00a0a test… ", "don't panic it's only a test"),
        ("It\u00b4s the dog`s n\u02bcth", "it's the dog's n'th"),
        ("twenty-one well\u2011known and/or", "twenty one well known and or"),
        ("«Größe», sagte Émile; ¿qué?", "größe sagte émile qué"),
        ("e\u0301tude E\u0301TUDE", "étude étude"),
        ("ﬁne ＦＵＬＬ ½ x²", "fine full 1 2 x2"),
        ("ŉ", "'n"),
        ("ДОМ — 家、日本語。", "дом 家日本語"),
        ("ΟΔΥΣΣΕΥΣ ΑΣ.", "οδυσσευς ας"),
        ("हिन्दी, فارسی‌ها", "हिन्दी فارسیها"),
        ("U.S.A. $5 + 20 %", "usa 5 20"),
        ("a.\u0301 ❤\ufe0f b", "a b"),
        ("soft\u00adhyphen", "softhyphen"),
        ("?!", ""),
        ("", ""),
    ],
)
def test_plain_form(text, plain):
    assert normalise(text) == plain


@settings(max_examples=500)
@given(st.text(any_character) | st.text("aΣİ.'’´`-\u0301\u0307\u0323 \u1100\u1161\u11a8ŉ½ﬁ"))
def test_plain_form_is_plain_and_stays_so(text):
    plain = normalise(text)
    assert normalise(plain) == plain
    assert plain == unicodedata.normalize("NFKC", plain) == " ".join(plain.split())
    assert all(c in " '" or unicodedata.category(c)[0] in "LMN" for c in plain)


def test_every_character_there_is_has_one_plain_form():
    every = [chr(point) for point in range(sys.maxunicode + 1) if unicodedata.category(chr(point))[0] not in "C"]
    changed = [c for c in every if normalise(normalise(c)) != normalise(c)]
    assert len(every) > 100_000 and not changed
