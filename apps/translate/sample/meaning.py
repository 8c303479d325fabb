"""Meanings: what a sentence says, built once and then put into words by `english.py` and `german.py`.

The two languages share this tree (a synchronous grammar): nothing in it is a word order, a case ending
or an auxiliary. A `Gap` is the place from which a relative pronoun or a question word was taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.translate.sample.lexicon import (
    THE,
    Adjective,
    Adverb,
    Conjunction,
    Determiner,
    Fixed,
    Modal,
    Name,
    Noun,
    Pronoun,
    Verb,
)


@dataclass(frozen=True)
class NounPhrase:
    """A noun with what surrounds it: "my two old friends", "the dog of the neighbour that sleeps"."""

    noun: Noun
    determiner: Determiner = THE
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    possessor: NounPhrase | None = None
    attached: Prepositional | None = None  # "the woman with the hat"
    relative: Clause | None = None  # a clause in which the subject or the last object is a `Gap`


@dataclass(frozen=True)
class Gap:
    """An argument that was moved to the front; `noun` is None when somebody asks "who" or "what"."""

    noun: Noun | None = None
    plural: bool = False


Argument = NounPhrase | Pronoun | Name | Gap


@dataclass(frozen=True)
class Prepositional:
    """A preposition in both languages and its argument, in the case that the German one asks for."""

    english: str
    german: str
    case: str
    argument: Argument


@dataclass(frozen=True)
class Predicate:
    """What "to be" ascribes: "tired", "too old", "older than the house"."""

    adjective: Adjective
    degree: Fixed | None = None
    than: Argument | None = None


@dataclass(frozen=True)
class Linked:
    """A clause behind a conjunction; without one it is an infinitive: "to buy a book"."""

    conjunction: Conjunction | None
    clause: Clause


@dataclass(frozen=True)
class Clause:
    """Somebody does something to something, sometime, somewhere."""

    verb: Verb
    subject: Argument
    objects: tuple[Argument, ...] = ()
    tense: str = "present"  # present, past, perfect; German has one tense for the last two
    modal: Modal | None = None
    negated: bool = False
    adverb: Adverb | None = None
    time: Fixed | Prepositional | None = None
    extra: Fixed | Prepositional | None = None  # "with my friend", "for the child", "by train"
    place: Fixed | Prepositional | None = None
    predicate: Predicate | None = None
    content: Linked | None = None  # what is said, asked or tried


@dataclass(frozen=True)
class Sentence:
    """A main clause, its order and at most one further clause."""

    clause: Clause
    front: str = ""  # "time" or "place": which adverbial opens the sentence
    question: str = ""  # "yes-no" or a question word
    link: Linked | None = None  # an infinitive here is one of purpose: "um ein Buch zu kaufen"
    link_first: bool = False


def agreement(argument: Argument) -> str:
    """Person and number that a verb agrees with: "1s", "3s" or "p" (every plural)."""
    if isinstance(argument, Pronoun):
        return argument.agreement
    return "p" if isinstance(argument, NounPhrase | Gap) and argument.plural else "3s"


def finish(tokens: list[str], mark: str) -> str:
    """Join words and commas, begin with a capital letter and end with `mark`."""
    text = ""
    for token in tokens:
        if token != ",":
            text += " " + token
        elif not text.endswith(","):
            text += ","
    text = text.removesuffix(",").strip()
    return text[0].upper() + text[1:] + mark
