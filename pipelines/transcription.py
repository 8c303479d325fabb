"""How good transcripts are: word and character error rates, what the errors are, and where most of them lie."""

import dataclasses
from collections.abc import Iterator, Sequence

import jiwer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

MARKS = ("reference ", "hypothesis")  # equally wide
GAP = "-"
STYLES = ("bold green", "bold red")  # what should have been recognised, and what was


@dataclasses.dataclass(frozen=True)
class Edits:
    """What turns references into hypotheses in the fewest steps, counted in words or in characters."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def total(self) -> int:
        """Words or characters of the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors for each word or character of the references; where they have none, the errors themselves."""
        return self.errors / max(self.total, 1)


@dataclasses.dataclass(frozen=True)
class TranscriptionFigures:
    """Figures of a test set.

    Blanks in a row count as one, and those around a sentence not at all. References may be empty (silence): what is
    heard there are insertions.

    Args:
        words, characters: the edits of all sentences together; characters include the blanks between words.
        sentences: how many there are.
        wrong: how many of them have an error.
    """

    words: Edits
    characters: Edits
    sentences: int
    wrong: int

    @classmethod
    def of(cls, references: Sequence[str], hypotheses: Sequence[str]) -> "TranscriptionFigures":
        """From what was said and what was recognised.

        Raises:
            ValueError: where there are not as many hypotheses as references.
        """
        references, hypotheses = _checked(references, hypotheses)
        wrong = sum(said != heard for said, heard in zip(references, hypotheses, strict=True))
        words = jiwer.process_words(references, hypotheses)
        characters = jiwer.process_characters(references, hypotheses)
        return cls(_edits(words), _edits(characters), len(references), wrong)

    def rates(self) -> dict[str, float]:
        """The figures by which transcripts are compared, as fractions: word, character and sentence error rate."""
        return {"wer": self.words.rate, "cer": self.characters.rate, "ser": self.wrong / max(self.sentences, 1)}

    def table(self, title: str = "") -> Table:
        """To be printed: a row for words, one for characters, one for sentences."""
        table = Table(title=title or None, title_justify="left")
        table.add_column("")
        for name in ("total", "correct", "substituted", "deleted", "inserted", "error rate"):
            table.add_column(name, justify="right")
        rates = self.rates()
        for name, edits, rate in (("words", self.words, "wer"), ("characters", self.characters, "cer")):
            counts = (edits.total, edits.hits, edits.substitutions, edits.deletions, edits.insertions)
            table.add_row(name, *map(str, counts), f"{rates[rate]:.4f}")
        right = self.sentences - self.wrong
        table.add_row("sentences", str(self.sentences), str(right), "", "", "", f"{rates['ser']:.4f}")
        return table


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A sentence that was not recognised as it was said, word by word.

    Args:
        row: which of the test set it is.
        words: pairs of what was said and what was recognised; "" where a word has no counterpart.
    """

    row: int
    words: tuple[tuple[str, str], ...]

    @property
    def errors(self) -> int:
        return sum(said != heard for said, heard in self.words)

    def text(self, width: int = 80) -> Text:
        """To be printed: two lines, one word above the other, the wrong ones coloured.

        Args:
            width: columns, beyond which two further lines begin.
        """
        drawn = Text(no_wrap=True)
        for block in self._blocks(width):
            for side, mark in enumerate(MARKS):
                drawn.append("\n" if drawn else "").append(mark, "dim")
                for pair, columns in block:
                    drawn.append("  ").append(_filled(pair[side], columns), _style(pair, side))
                drawn.rstrip()
        return drawn

    def markdown(self, width: int = 100) -> str:
        """The same two lines as a Markdown block of code, the wrong words in brackets."""
        lines = []
        for block in self._blocks(width):
            for side, mark in enumerate(MARKS):
                cells = (
                    f"[{_filled(pair[side], columns)}]" if pair[0] != pair[1] else f" {_filled(pair[side], columns)} "
                    for pair, columns in block
                )
                lines.append(f"{mark} {''.join(cells)}".rstrip())
            lines.append("")
        return "\n".join(["```", *lines[:-1], "```"])

    def _blocks(self, width: int) -> Iterator[list[tuple[tuple[str, str], int]]]:
        """The pairs with the columns that each takes, as many at a time as fit into a line."""
        block, room = [], width - len(MARKS[0])
        for pair in self.words:
            columns = max(cell_len(word) for word in pair)
            if block and room < columns + 2:
                yield block
                block, room = [], width - len(MARKS[0])
            block.append((pair, columns))
            room -= columns + 2
        yield block


def worst(references: Sequence[str], hypotheses: Sequence[str], count: int) -> list[Mistake]:
    """The sentences with the most word errors; of equally many, those with the most character errors first.

    Args:
        references: what was said.
        hypotheses: as many, what was recognised.
        count: how many are asked for; there may be fewer, as sentences without errors are none.

    Raises:
        ValueError: where there are not as many hypotheses as references.
    """
    references, hypotheses = _checked(references, hypotheses)
    found = jiwer.process_words(references, hypotheses)
    aligned = zip(found.references, found.hypotheses, found.alignments, strict=True)
    mistakes = [Mistake(row, tuple(_pairs(*sentence))) for row, sentence in enumerate(aligned)]

    def order(mistake):
        pair = references[mistake.row], hypotheses[mistake.row]
        return -mistake.errors, -_edits(jiwer.process_characters(*pair)).errors, mistake.row

    return sorted((mistake for mistake in mistakes if mistake.errors), key=order)[:count]


def _pairs(reference: list[str], hypothesis: list[str], chunks) -> Iterator[tuple[str, str]]:
    for chunk in chunks:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "delete":
            heard = [""] * len(said)
        elif chunk.type == "insert":
            said = [""] * len(heard)
        yield from zip(said, heard, strict=True)


def _filled(word: str, columns: int) -> str:
    """A word as wide as its column, or a gap as wide."""
    return word + " " * (columns - cell_len(word)) if word else GAP * columns


def _style(pair: tuple[str, str], side: int) -> str:
    if pair[0] == pair[1]:
        return ""
    return STYLES[side] if pair[side] else "dim"


def _edits(found: jiwer.WordOutput | jiwer.CharacterOutput) -> Edits:
    return Edits(found.hits, found.substitutions, found.deletions, found.insertions)


def _checked(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[str], list[str]]:
    if len(references) != len(hypotheses):
        raise ValueError(
            f"Each reference needs a hypothesis. Received: {len(references)} references, {len(hypotheses)} hypotheses"
        )
    return [" ".join(text.split()) for text in references], [" ".join(text.split()) for text in hypotheses]
