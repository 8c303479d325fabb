"""The subword vocabulary: ids that mean what they should, text that survives, errors that help."""

import os

import keras
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.text.tokenizer import UNKNOWN, Tokenizer, train_sentencepiece

COLOURS = ["red", "green", "blue", "grey", "größte"]
ANIMALS = ["dog", "dogs", "cat", "cats", "horse", "Übermut", "walking", "talking"]
SENTENCES = [f"The {colour} {one} sees a {two}." for colour in COLOURS for one in ANIMALS for two in ANIMALS]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("assets") / "vocabulary.model"
    train_sentencepiece(SENTENCES, file)
    return file


@pytest.fixture(scope="module")
def tokenizer(model_file):
    return Tokenizer(model_file)


def test_ids_end_with_the_end_mark_and_come_back_as_text(tokenizer):
    ids = tokenizer.tokenize(tf.constant(SENTENCES))
    assert ids.dtype == tf.int32 and ids.shape.as_list() == [len(SENTENCES), None]
    assert all(row[-1] == tokenizer.end_id and row.count(tokenizer.end_id) == 1 for row in ids.to_list())
    assert ids.flat_values.numpy().max() < tokenizer.vocabulary_size and ids.flat_values.numpy().min() > 1
    padded = ids.to_tensor()
    assert [text.decode() for text in tokenizer.detokenize(padded).numpy()] == SENTENCES


def pieces_of(tokenizer, text):
    return [piece.decode() for piece in tokenizer.to_pieces(tokenizer.tokenize([text]).to_tensor())[0].numpy()]


def test_every_id_beside_the_marks_is_a_piece_of_the_text_or_a_character(model_file, tokenizer):
    pieces = tokenizer._sentencepiece.id_to_string(tf.range(4, tokenizer.vocabulary_size)).numpy()
    text = "".join("\u2581" + sentence.replace(" ", "\u2581") for sentence in SENTENCES)
    assert len(pieces) > 30 and all(piece.decode() in text for piece in pieces)


def test_what_follows_the_end_is_dropped_and_so_are_marks(tokenizer):
    pad, start, end = tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id
    (dog,) = tokenizer.tokenize(tf.constant(["dog"])).to_list()
    rows = [[start, *dog, *dog[:-1]], [*dog[:-1], pad, *dog[:-1]], [end, *dog[:-1]], [pad], []]
    ids = tf.ragged.constant(rows, dtype=tf.int32).to_tensor(pad)
    assert tokenizer.detokenize(ids).numpy().tolist() == [b"dog", b"dog dog", b"", b"", b""]


def test_no_rows_are_no_texts(tokenizer):
    assert tokenizer.detokenize(tf.zeros([0, 3], tf.int32)).shape == (0,)


def test_padding_has_no_piece(tokenizer):
    pieces = tokenizer.to_pieces(tokenizer.tokenize(["dog", "a dog is here"]).to_tensor()).numpy()
    assert pieces[0].tolist().count(b"") == len(pieces[0]) - len(tokenizer.tokenize(["dog"])[0]) > 0
    assert b"" not in pieces[1]


def test_pieces_label_the_ids(tokenizer):
    pieces = pieces_of(tokenizer, "The größte dogs")
    assert pieces[-1] == "</s>" and "".join(pieces[:-1]).replace("\u2581", " ") == " The größte dogs"
    assert len(pieces) == len(tokenizer.tokenize(tf.constant(["The größte dogs"]))[0])


def test_unknown_characters_are_one_unknown_id_and_do_no_harm(tokenizer):
    ids = tokenizer.tokenize(tf.constant(["dog 世 dog", b"\xff\xfe", "", "\0", "</s><pad>"]))
    assert 1 in ids[0].numpy()
    texts = tokenizer.detokenize(ids.to_tensor()).numpy()
    assert texts[0].startswith(b"dog") and texts[0].endswith(b"dog")
    assert all(row.numpy()[:-1].tolist().count(tokenizer.end_id) == 0 for row in ids), "no text spells a mark"


def test_composed_and_decomposed_letters_are_the_same(tokenizer):
    composed, decomposed = tokenizer.tokenize(tf.constant(["gr\u00f6\u00dfte", "gro\u0308\u00dfte"])).to_list()
    assert composed == decomposed and 1 not in composed


def test_capitals_can_be_read_as_small_letters(tmp_path):
    train_sentencepiece(["The Sun", "the sun", "DIE ÄPFEL", "die Äpfel"], tmp_path / "model", fold_case=True)
    ids = Tokenizer(tmp_path / "model").tokenize(tf.constant(["THE SUN", "the sun", "ÄPFEL", "äpfel"])).to_list()
    assert ids[0] == ids[1] and ids[2] == ids[3]
    assert not any(UNKNOWN in row for row in ids)


def test_rare_characters_are_spelled_by_bytes_where_they_are_many(tmp_path):
    ideographs = [chr(0x4E00 + number) for number in range(1000)]
    common = ["".join(ideographs[:200]) * 5] * 1800  # so that the other 800 are under 0.05 % of the text
    train_sentencepiece(common + ideographs, tmp_path / "vocabulary.model")
    tokenizer = Tokenizer(tmp_path / "vocabulary.model")
    text = ideographs[999] + ideographs[0] + "\N{GRINNING FACE}"  # rare, common, never seen
    ids = tokenizer.tokenize(tf.constant([text]))
    assert 1 not in ids.to_list()[0]
    assert tokenizer.detokenize(ids.to_tensor()).numpy()[0].decode() == text


def test_training_repeats_and_is_quiet(model_file, tmp_path, capfd):
    again = tmp_path / "deep" / "again.model"
    assert train_sentencepiece(iter(SENTENCES), again) == Tokenizer(model_file).vocabulary_size
    assert again.read_bytes() == model_file.read_bytes()
    assert os.listdir(again.parent) == ["again.model"]
    assert capfd.readouterr() == ("", "")


def test_automatic_byte_pairs_leave_out_merges_of_no_use(tmp_path):
    size = train_sentencepiece(SENTENCES, tmp_path / "automatic.model", model_type="bpe")
    assert train_sentencepiece(SENTENCES, tmp_path / "larger.model", size + 5, "bpe") == size + 5
    automatic, larger = (Tokenizer(tmp_path / f"{name}.model") for name in ("automatic", "larger"))
    assert [pieces_of(automatic, text) for text in SENTENCES] == [pieces_of(larger, text) for text in SENTENCES]
    train_sentencepiece(SENTENCES, tmp_path / "smaller.model", size - 1, "bpe")
    smaller = Tokenizer(tmp_path / "smaller.model")
    assert [pieces_of(automatic, text) for text in SENTENCES] != [pieces_of(smaller, text) for text in SENTENCES]


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_size_that_the_text_cannot_give_is_refused_with_the_one_it_can(tmp_path, model_type):
    file = tmp_path / "vocabulary.model"
    with pytest.raises(UserError, match="largest possible is ") as caught:
        train_sentencepiece(SENTENCES, file, 5000, model_type)
    largest = int(str(caught.value).split("largest possible is ")[1].split()[0])
    assert not file.exists()
    assert train_sentencepiece(SENTENCES, file, largest, model_type) == largest
    assert train_sentencepiece(SENTENCES, file, largest - 1, model_type) == largest - 1
    assert Tokenizer(file).vocabulary_size == largest - 1


def test_a_size_below_the_alphabet_is_refused_with_the_smallest(tmp_path):
    file = tmp_path / "vocabulary.model"
    with pytest.raises(UserError, match="smallest possible is (\\d+)") as caught:
        train_sentencepiece(SENTENCES, file, 10)
    smallest = int(str(caught.value).split("smallest possible is ")[1].split()[0])
    assert not file.exists()
    assert train_sentencepiece(SENTENCES, file, smallest) == smallest


@pytest.mark.parametrize("sentences", [[], ["", "  "]])
def test_no_text_is_refused(tmp_path, sentences):
    with pytest.raises(UserError, match="no text"):
        train_sentencepiece(sentences, tmp_path / "vocabulary.model")


def test_other_mistakes_in_the_settings(tmp_path):
    with pytest.raises(UserError, match="received 'wordpiece'"):
        train_sentencepiece(SENTENCES, tmp_path / "m", model_type="wordpiece")
    with pytest.raises(UserError, match="received -1"):
        train_sentencepiece(SENTENCES, tmp_path / "m", vocabulary_size=-1)


@pytest.mark.parametrize("content", [None, b"", b"not a model", "cut"])
def test_a_missing_or_damaged_vocabulary_is_named(tmp_path, model_file, content):
    file = tmp_path / "damaged.model"
    if content is not None:
        file.write_bytes(model_file.read_bytes()[:-100] if content == "cut" else content)
    with pytest.raises(UserError, match="damaged.model: .*train the model again"):
        Tokenizer(file)


@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.sampled_from(COLOURS + ANIMALS + ["The", "a", ".", "T", "Üb"]), max_size=12))
def test_any_text_of_known_characters_comes_back(tokenizer, words):
    text = " ".join(words)
    ids = tokenizer.tokenize(tf.constant([text]))
    assert tokenizer.detokenize(ids.to_tensor()).numpy()[0].decode() == text


@pytest.mark.parametrize(
    "reset",
    [lambda: tf.random.set_seed(1), lambda: keras.utils.set_random_seed(1), keras.utils.clear_session],
)
def test_the_vocabulary_outlives_the_kernel_cache(tokenizer, reset):
    texts = tf.constant(SENTENCES[:2])
    in_graph = tf.function(lambda texts: tokenizer.tokenize(texts))
    expected = in_graph(texts).to_list()
    reset()
    assert in_graph(texts).to_list() == tokenizer.tokenize(texts).to_list() == expected


def test_two_vocabularies_are_held_apart(tokenizer, tmp_path):
    train_sentencepiece(["quite another text"], tmp_path / "other.model")
    other = Tokenizer(tmp_path / "other.model")
    assert other.vocabulary_size < tokenizer.vocabulary_size
    for either, text in ((other, "another"), (tokenizer, "dog"), (other, "text")):
        assert either.detokenize(either.tokenize(tf.constant([text])).to_tensor()).numpy() == [text.encode()]


def test_the_vocabulary_travels_with_an_export(tokenizer, tmp_path):
    class Exported(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = tokenizer

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            return self.tokenizer.detokenize(self.tokenizer.tokenize(texts).to_tensor())

    tf.saved_model.save(Exported(), str(tmp_path / "export"))
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    assert loaded(tf.constant(SENTENCES[:3])).numpy().tolist() == [text.encode() for text in SENTENCES[:3]]


RUNNING_TEXT = [
    "First Citizen:\n",
    "\tBefore we  proceed any further,   hear me speak.  \n",
    "\n",
    " All:\n",
    "Speak, …\n",
]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def verbatim(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("running") / "vocabulary.model"
    train_sentencepiece(RUNNING_TEXT, file, model_type=request.param, keep_white_space=True)
    return Tokenizer(file)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(sorted(set("".join(RUNNING_TEXT)))))
def test_running_text_comes_back_exactly(verbatim, text):
    ids = verbatim.tokenize(tf.constant([text])).to_tensor()
    assert 1 not in ids.numpy()
    assert verbatim.detokenize(ids).numpy()[0].decode() == text


def test_running_text_may_be_cut_after_a_newline(verbatim):
    whole = verbatim.tokenize(tf.constant(["".join(RUNNING_TEXT)])).to_list()[0]
    lines = verbatim.tokenize(tf.constant(RUNNING_TEXT)).to_list()
    assert [number for line in lines for number in line[:-1]] + [verbatim.end_id] == whole
