"""Put a meaning into German clauses: verb second or last, the sentence frame, order of the middle field."""

from __future__ import annotations

from dataclasses import replace

from apps.translate.sample import declension
from apps.translate.sample.lexicon import (
    BARE,
    FIRST_PERSON,
    NO,
    QUESTIONS,
    WILL,
    A,
    Fixed,
    Name,
    Pronoun,
    Verb,
)
from apps.translate.sample.meaning import (
    Argument,
    Clause,
    Gap,
    Linked,
    NounPhrase,
    Predicate,
    Prepositional,
    Sentence,
    agreement,
    finish,
)

Phrase = tuple[list[str], list[str]]  # words, and a relative clause that may move behind the verb

_CONTRACTIONS = {("in", "dem"): "im", ("in", "das"): "ins", ("an", "dem"): "am", ("an", "das"): "ans",
                 ("von", "dem"): "vom", ("zu", "dem"): "zum", ("zu", "der"): "zur"}  # fmt: skip


def sentence(meaning: Sentence) -> str:
    """The German sentence for a meaning."""
    clause, link = meaning.clause, meaning.link
    front = None
    if meaning.front:
        front = adverbial(getattr(clause, meaning.front))
    elif meaning.question and meaning.question != "yes-no":
        front = _question_word(meaning)
    elif link and meaning.link_first:
        front = [*linked(link), ","]
    order = "first" if meaning.question == "yes-no" else "second"
    tokens = clause_words(clause, order, front, omit=meaning.front)
    if link and not meaning.link_first:
        coordinated = link.conjunction and not link.conjunction.subordinating
        comma = [] if coordinated and link.conjunction.german == "und" else [","]
        tokens += comma + linked(link, purpose=True)
    return finish(tokens, "?" if meaning.question else ".")


def _question_word(meaning: Sentence) -> list[str]:
    if meaning.question == "whom" and meaning.clause.verb.cases[-1] == "dat":
        return ["wem"]
    return QUESTIONS[meaning.question].split()


def linked(link: Linked, purpose: bool = False) -> list[str]:
    """A conjunction and its clause, or an infinitive with "zu"; one of purpose opens with "um"."""
    if link.conjunction:
        order = "last" if link.conjunction.subordinating else "second"
        return [link.conjunction.german, *clause_words(link.clause, order)]
    verb = link.clause.verb
    pronouns, middle = _middle(link.clause, "")
    end = [f"{verb.prefix}zu{verb.german}"] if verb.prefix else ["zu", verb.german]
    return (["um"] if purpose else []) + _close([*pronouns, *middle], end)


def clause_words(clause: Clause, order: str, front: list[str] | None = None, omit: str = "") -> list[str]:
    """A clause with its finite verb "first", "second" or "last".

    `front` stands before a second verb; without it the subject does, as it does in every clause with
    the verb last. `omit` names the adverbial slot that already stands in front.
    """
    finite, end = _verbs(clause)
    subject: Phrase = argument(clause.subject, "nom")
    pronouns, middle = _middle(clause, omit)
    if order == "last":
        joined = clause.verb.prefix + finite if end == [clause.verb.prefix] else finite
        end = [] if end == [clause.verb.prefix] else end
        tokens = _close([subject, *pronouns, *middle], [*end, joined])
    elif order == "second" and front is None and not isinstance(clause.subject, Gap):
        tokens = [*subject[0], *subject[1], finite, *_close([*pronouns, *middle], end)]
    else:
        light = isinstance(clause.subject, Pronoun)  # "sieht ihn die Frau", but "sieht sie ihn"
        opening = [subject, *pronouns] if light else [*pronouns, subject]
        tokens = [*(front or []), finite, *_close([*opening, *middle], end)]
    if clause.content:
        tokens += [",", *linked(clause.content)]
    return tokens


def _close(middle: list[Phrase], end: list[str]) -> list[str]:
    """Middle field and closing verbs; the last phrase's relative clause moves behind the verbs."""
    middle = [phrase for phrase in middle if phrase[0]]
    if not middle:
        return end
    words = [word for head, tail in middle[:-1] for word in head + tail]
    last, tail = middle[-1]
    return words + last + end + tail


def _verbs(clause: Clause) -> tuple[str, list[str]]:
    """The finite form and the words that close the clause (prefix, participle or infinitive)."""
    verb, person = clause.verb, agreement(clause.subject)
    if clause.modal:
        modal = clause.modal
        if clause.tense == "past":
            return modal.german_past + ("n" if person == "p" else ""), [verb.infinitive]
        if person == "p":
            return modal.german, [verb.infinitive]
        return ("werde" if modal is WILL and person == "1s" else modal.german_singular), [verb.infinitive]
    if clause.tense == "present":
        return _present(verb, person), ([verb.prefix] if verb.prefix else [])
    if verb.preterite and clause.tense == "past":
        plural = "n" if verb.preterite.endswith("e") else "en"
        return verb.preterite + (plural if person == "p" else ""), []
    auxiliary = {"haben": ("habe", "hat", "haben"), "sein": ("bin", "ist", "sind")}[verb.auxiliary]
    return auxiliary[("1s", "3s", "p").index(person)], [verb.german_participle]


def _present(verb: Verb, person: str) -> str:
    if person == "3s":
        return verb.german_third
    if person == "p":
        return "sind" if verb.german == "sein" else verb.german
    stem = verb.german.removesuffix("n").removesuffix("e")
    return FIRST_PERSON.get(verb.german, stem + "e")


def _middle(clause: Clause, omit: str) -> tuple[list[Phrase], list[Phrase]]:
    """The phrases between the two parts of the verb: pronouns, and the rest without the subject.

    Time precedes the objects; negation and the other adverbs follow definite objects
    but precede an indefinite one and the second of two, and precede place and predicate.
    """
    negated = clause.negated
    objects = list(clause.objects)
    cases = clause.verb.cases
    governed = clause.verb.prepositions[1]
    if negated and objects and not governed and _takes_kein(objects[-1]):
        objects[-1] = replace(objects[-1], determiner=NO)  # "nicht ein" is "kein"
        negated = False
    pronouns, nouns, prepositional_objects = [], [], []
    for item, case in zip(objects, cases, strict=True):
        if governed:
            prepositional_objects.append(_prepositional(governed, item, case))
        else:
            (pronouns if isinstance(item, Pronoun) else nouns).append(argument(item, case))
    adverb: list[Phrase] = [([clause.adverb.german], [])] if clause.adverb else []
    before_last = len(nouns) == 2 or bool(nouns and not _is_definite(objects[-1]))
    split = len(nouns) - 1 if before_last else len(nouns)
    nouns[split:split] = adverb
    time: list[Phrase] = [(adverbial(clause.time), [])] if clause.time and omit != "time" else []
    rest: list[Phrase] = []
    if clause.extra:
        rest.append((adverbial(clause.extra), []))
    if clause.predicate:
        rest.append((_predicate(clause.predicate), []))
    if clause.place and omit != "place":
        rest.append((adverbial(clause.place), []))
    negation: list[Phrase] = [(["nicht"], [])] if negated else []
    return pronouns, [*time, *nouns, *negation, *prepositional_objects, *rest]


def _predicate(predicate: Predicate) -> list[str]:
    adjective = predicate.adjective
    if predicate.than:
        words, tail = argument(predicate.than, "nom")
        return [adjective.german_comparative, "als", *words, *tail]
    return ([predicate.degree.german] if predicate.degree else []) + [adjective.german]


def adverbial(phrase: Fixed | Prepositional) -> list[str]:
    """A fixed adverbial or a prepositional phrase, with the relative clause that it may contain."""
    if isinstance(phrase, Fixed):
        return phrase.german.split()
    words, tail = _prepositional(phrase.german, phrase.argument, phrase.case)
    return words + tail


def _prepositional(preposition: str, item: Argument, case: str) -> Phrase:
    """A preposition and its argument, contracted ("im", "zur") unless a relative clause follows."""
    words, tail = argument(item, case)
    described = isinstance(item, NounPhrase) and item.relative
    if not described and (preposition, words[0]) in _CONTRACTIONS:
        return [_CONTRACTIONS[preposition, words[0]], *words[1:]], tail
    return [preposition, *words], tail


def argument(item: Argument, case: str) -> Phrase:
    """An argument in a case: its words, and its relative clause between commas."""
    match item:
        case Gap():
            return [], []
        case Pronoun():
            return [{"nom": item.nominative, "acc": item.accusative, "dat": item.dative}[case]], []
        case Name():
            return [item.german], []
        case _:
            return _noun_phrase(item, case), _relative(item)


def _noun_phrase(phrase: NounPhrase, case: str) -> list[str]:
    gender = "p" if phrase.plural else phrase.noun.gender
    determiner = declension.determiner(phrase.determiner, gender, case)
    tokens = [determiner] if determiner else []
    tokens += [declension.adjective(item, phrase.determiner, gender, case) for item in phrase.adjectives]
    tokens.append(declension.noun(phrase.noun, phrase.plural, case))
    if phrase.possessor:
        tokens += _noun_phrase(phrase.possessor, "gen")
    if phrase.attached:
        tokens += adverbial(phrase.attached)
    return tokens


def _relative(phrase: NounPhrase) -> list[str]:
    """A relative clause: its pronoun has the gender of the noun and the case of the gap."""
    clause = phrase.relative
    if not clause:
        return []
    case = "nom" if isinstance(clause.subject, Gap) else clause.verb.cases[-1]
    pronoun = declension.relative_pronoun("p" if phrase.plural else phrase.noun.gender, case)
    return [",", pronoun, *clause_words(clause, "last"), ","]


def _is_definite(item: Argument) -> bool:
    """Whether light adverbs follow the object: "liest das Buch oft", but "liest oft ein Buch"."""
    if not isinstance(item, NounPhrase):
        return isinstance(item, Name)
    return item.determiner.pattern in ("definite", "der", "ein") and item.determiner not in (A, NO)


def _takes_kein(item: Argument) -> bool:
    """Whether negation turns the determiner into "kein"."""
    return isinstance(item, NounPhrase) and item.determiner in (A, BARE)
