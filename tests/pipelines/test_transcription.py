"""A transcript's figures against edit distances by dynamic programming, and mistakes as a reader sees them."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pipelines.transcription import Edits, TranscriptionFigures, worst

sentences = st.lists(st.sampled_from(["a", "be", "sea", "the", "[/b]", "中文", "x"]), max_size=7).map(" ".join)
test_sets = st.lists(st.tuples(sentences, sentences), max_size=6)


def distance(reference, hypothesis):
    """Levenshtein's, by the textbook's table."""
    row = np.arange(len(hypothesis) + 1)
    for said in reference:
        before, row = row, row.copy()
        row[0] += 1
        for j, heard in enumerate(hypothesis):
            row[j + 1] = min(before[j] + (said != heard), before[j + 1] + 1, row[j] + 1)
    return int(row[-1])


@given(test_sets)
def test_figures_are_edit_distances(pairs):
    references, hypotheses = [said for said, _ in pairs], [heard for _, heard in pairs]
    figures = TranscriptionFigures.of(references, hypotheses)
    for edits, units in ((figures.words, str.split), (figures.characters, list)):
        said, heard = [units(text) for text in references], [units(text) for text in hypotheses]
        assert edits.errors == sum(map(distance, said, heard))
        assert edits.hits + edits.substitutions + edits.deletions == edits.total == sum(map(len, said))
        assert edits.hits + edits.substitutions + edits.insertions == sum(map(len, heard))
        assert edits.rate == pytest.approx(edits.errors / max(edits.total, 1))
    assert figures.sentences == len(pairs)
    assert figures.wrong == sum(said != heard for said, heard in pairs)


def test_figures_by_hand():
    references = ["the cat sat on the mat", "one two", "hello"]
    hypotheses = ["the bat sat the mat now", "one  two ", "hello"]
    figures = TranscriptionFigures.of(references, hypotheses)
    assert figures.words == Edits(hits=7, substitutions=1, deletions=1, insertions=1)
    assert figures.rates() == pytest.approx({"wer": 3 / 9, "cer": 8 / 34, "ser": 1 / 3})


def test_silence_is_a_sentence_too():
    figures = TranscriptionFigures.of(["", "", "a b"], ["", "oh no", "a b"])
    assert figures.words == Edits(2, 0, 0, 2) and figures.rates()["wer"] == 1.0
    assert TranscriptionFigures.of([""], ["oh no"]).rates() == {"wer": 2.0, "cer": 5.0, "ser": 1.0}
    for nothing in ([], [""], ["", " "]):
        assert TranscriptionFigures.of(nothing, nothing).rates() == {"wer": 0.0, "cer": 0.0, "ser": 0.0}
    assert [mistake.row for mistake in worst(["", "", "a b"], ["", "oh no", "a b"], 5)] == [1]
    assert worst([], [], 5) == []


@given(test_sets, st.integers(0, 7))
def test_worst_sentences_come_first_and_hold_all_words(pairs, count):
    references, hypotheses = [said for said, _ in pairs], [heard for _, heard in pairs]
    found = worst(references, hypotheses, count)
    words = [distance(said.split(), heard.split()) for said, heard in pairs]
    characters = [distance(said, heard) for said, heard in pairs]
    wrong = [row for row in range(len(pairs)) if words[row]]
    expected = sorted(wrong, key=lambda row: (-words[row], -characters[row], row))[:count]
    assert [mistake.row for mistake in found] == expected
    for mistake in found:
        assert mistake.errors == words[mistake.row]
        said, heard = zip(*mistake.words, strict=True)
        assert " ".join(filter(None, said)) == references[mistake.row]
        assert " ".join(filter(None, heard)) == hypotheses[mistake.row]


def printed(drawn, width=100):
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(drawn)
    return console.export_text(styles=False).splitlines()


def test_words_stand_above_one_another():
    (mistake,) = worst(["the small dog runs home"], ["a the small frog runs"], 1)
    assert printed(mistake.text()) == [
        "reference   -  the  small  dog   runs  home",
        "hypothesis  a  the  small  frog  runs  ----",
    ]
    assert mistake.markdown().splitlines() == [
        "```",
        "reference  [-] the  small [dog ] runs [home]",
        "hypothesis [a] the  small [frog] runs [----]",
        "```",
    ]


def test_only_wrong_words_are_coloured():
    (mistake,) = worst(["the dog runs"], ["the frog runs now"], 1)
    text = mistake.text()
    coloured = {text.plain[span.start : span.end].strip(): span.style for span in text.spans}
    assert coloured == {
        "reference": "dim",
        "hypothesis": "dim",
        "dog": "bold green",
        "frog": "bold red",
        "---": "dim",
        "now": "bold red",
    }


@given(sentences, sentences, st.integers(16, 60))
def test_columns_stay_aligned_when_lines_are_full(said, heard, width):
    for mistake in worst([said], [heard], 1):
        lines = printed(mistake.text(width), width)
        assert all(cell_len(line) <= width for line in lines) and len(lines) % 2 == 0
        references, hypotheses = lines[::2], lines[1::2]
        assert all(line.startswith("reference ") for line in references)
        assert all(line.startswith("hypothesis") for line in hypotheses)
        assert [w for line in references for w in line.split()[1:] if w.strip("-")] == said.split()
        assert [w for line in hypotheses for w in line.split()[1:] if w.strip("-")] == heard.split()
        code = mistake.markdown(width).splitlines()
        assert code[0] == code[-1] == "```" and "```" not in code[1:-1]
        blocks = "\n".join(code[1:-1]).split("\n\n")
        wrong = 0
        for above, below in map(str.splitlines, blocks):
            # Brackets are in the same columns of both lines, however wide the words are.
            places = [
                [cell_len(line[:i]) for i, c in enumerate(line) if c in "[]" and line[i : i + 3] != "[/b"]
                for line in (above.replace("/b]", "/b "), below.replace("/b]", "/b "))
            ]
            assert places[0] == places[1]
            wrong += len(places[0]) // 2
        assert wrong == mistake.errors


def test_table_shows_the_figures():
    references = ["the cat sat on the mat", "one two", "hello", "same"]
    hypotheses = ["the bat sat the mat now", "one two", "hello", "same"]
    lines = printed(TranscriptionFigures.of(references, hypotheses).table("test: 4 sentences"))
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows == [
        ["words", "10", "8", "1", "1", "1", "0.3000"],
        ["characters", "38", "34", "1", "3", "4", "0.2105"],
        ["sentences", "4", "3", "", "", "", "0.2500"],
    ]
    assert lines[0].strip() == "test: 4 sentences"


@pytest.mark.parametrize("call", [TranscriptionFigures.of, lambda *texts: worst(*texts, 3)])
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match="Received: 2 references, 1 hypotheses"):
        call(["a", "b"], ["a"])
