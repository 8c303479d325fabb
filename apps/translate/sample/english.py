"""Put a meaning into English words: articles, agreement, auxiliaries with do-support, word order."""

from __future__ import annotations

from apps.translate.sample.lexicon import EXIST, Fixed, Name, Pronoun
from apps.translate.sample.meaning import (
    Argument,
    Clause,
    Gap,
    Linked,
    NounPhrase,
    Prepositional,
    Sentence,
    agreement,
    finish,
)

_BE = {("present", "1s"): "am", ("present", "3s"): "is", ("present", "p"): "are",
       ("past", "1s"): "was", ("past", "3s"): "was", ("past", "p"): "were"}  # fmt: skip


def sentence(meaning: Sentence) -> str:
    """The English sentence for a meaning."""
    clause = meaning.clause
    front = []
    if meaning.front:
        front = adverbial(getattr(clause, meaning.front))
    elif meaning.question and meaning.question != "yes-no":
        front = meaning.question.split()
    inverted = bool(meaning.question) and not isinstance(clause.subject, Gap)
    tokens = front + clause_words(clause, inverted, omit=meaning.front)
    if meaning.link:
        if meaning.link_first:
            tokens = [*linked(meaning.link), ",", *tokens]
        else:
            coordinated = meaning.link.conjunction and not meaning.link.conjunction.subordinating
            tokens += ([","] if coordinated else []) + linked(meaning.link)
    return finish(tokens, "?" if meaning.question else ".")


def linked(link: Linked) -> list[str]:
    """A conjunction and its clause, or an infinitive with "to"."""
    if link.conjunction:
        return [link.conjunction.english, *clause_words(link.clause)]
    return ["to", link.clause.verb.english, *_complements(link.clause)]


def clause_words(clause: Clause, inverted: bool = False, omit: str = "") -> list[str]:
    """Subject, verb and complements; `inverted` puts the auxiliary first, `omit` skips a fronted slot."""
    subject = argument(clause.subject, "subject")
    auxiliary, verbs = _verb_group(clause, inverted)
    before = _adverb(clause, "verb")
    if clause.negated:
        if auxiliary == "can" and not inverted:
            auxiliary = "cannot"
        else:
            before.insert(0, "not")
    head = [auxiliary] if auxiliary else []
    order = head + subject if inverted else subject + head
    return order + before + verbs + _complements(clause, omit)


def _verb_group(clause: Clause, inverted: bool) -> tuple[str, list[str]]:
    """The auxiliary ("" if there is none) and the verb forms after it."""
    verb, tense = clause.verb, clause.tense
    who = clause.objects[0] if verb is EXIST else clause.subject
    person = agreement(who)
    support = clause.negated or inverted
    if clause.modal:
        modal = clause.modal
        auxiliary = modal.english if tense == "present" else modal.past
        if auxiliary and not (auxiliary == "must" and clause.negated):  # "must not" would be a prohibition
            return auxiliary, [verb.english]
        infinitive, third, past = modal.phrase
        return _with_support((infinitive, third, past), ["to", verb.english], tense, person, support)
    if tense == "perfect":
        return ("has" if person == "3s" else "have"), [verb.participle]
    if verb.english == "be":
        return _BE[tense, person], []
    forms = (verb.english, third_person(verb.english), verb.past)
    return _with_support(forms, [], tense, person, support)


def _with_support(forms: tuple[str, str, str], rest: list[str], tense: str, person: str, support: bool):
    """A simple tense, or with `support` "does", "do" or "did" and the infinitive."""
    infinitive, third, past = forms
    if support:
        auxiliary = "did" if tense == "past" else "does" if person == "3s" else "do"
        return auxiliary, [infinitive, *rest]
    finite = past if tense == "past" else third if person == "3s" else infinitive
    return "", [finite, *rest]


def third_person(infinitive: str) -> str:
    """The third person singular of a regular verb (and of "have")."""
    if infinitive == "have":
        return "has"
    if infinitive.endswith(("s", "sh", "ch", "x", "o")):
        return infinitive + "es"
    if infinitive.endswith("y") and infinitive[-2] not in "aeiou":
        return infinitive[:-1] + "ies"
    return infinitive + "s"


def _complements(clause: Clause, omit: str = "") -> list[str]:
    """Everything after the verb: particle, objects, predicate, manner, place, time, content."""
    verb = clause.verb
    particle = verb.particle.split()
    objects = [word for item in clause.objects for word in argument(item, "object")]
    if verb.prepositions[0]:
        particle = [verb.prepositions[0]]
    late = verb.splits and clause.objects and isinstance(clause.objects[0], Pronoun)
    tokens = objects + particle if late else particle + objects
    if clause.predicate:
        tokens += _predicate(clause)
    tokens += _adverb(clause, "object")
    ride = isinstance(clause.extra, Fixed)  # "with him to the park", but "to the park by train"
    for slot in ("place", "extra", "time") if ride else ("extra", "place", "time"):
        phrase = getattr(clause, slot)
        if phrase and slot != omit:
            tokens += adverbial(phrase)
        if slot == "place":
            tokens += _adverb(clause, "place")
    if clause.content:
        tokens += linked(clause.content)
    return tokens


def _adverb(clause: Clause, position: str) -> list[str]:
    return [clause.adverb.english] if clause.adverb and clause.adverb.position == position else []


def _predicate(clause: Clause) -> list[str]:
    adjective, degree, than = clause.predicate.adjective, clause.predicate.degree, clause.predicate.than
    if than:
        return [*adjective.comparative.split(), "than", *argument(than, "object")]
    return ([degree.english] if degree else []) + [adjective.english]


def adverbial(phrase: Fixed | Prepositional) -> list[str]:
    """A fixed adverbial or a prepositional phrase."""
    if isinstance(phrase, Fixed):
        return phrase.english.split()
    return [*phrase.english.split(), *argument(phrase.argument, "object")]


def argument(item: Argument, role: str) -> list[str]:
    """A subject ("he") or object ("him"); a gap leaves no words."""
    match item:
        case Gap():
            return []
        case Pronoun():
            return [item.subject if role == "subject" else item.object]
        case Name():
            return [item.english]
        case _:
            return _noun_phrase(item)


def _noun_phrase(phrase: NounPhrase) -> list[str]:
    noun = phrase.noun
    tokens = [adjective.english for adjective in phrase.adjectives]
    tokens.append(noun.plural if phrase.plural else noun.singular)
    determiner = phrase.determiner.plural if phrase.plural else phrase.determiner.singular
    if determiner == "a" and tokens[0].startswith(("a", "e", "i", "o", "u", "honest")):
        determiner = "an"
    if determiner == "all":
        determiner = "all the"
    tokens = determiner.split() + tokens
    if phrase.possessor:
        tokens += ["of", *_noun_phrase(phrase.possessor)]
    if phrase.attached:
        tokens += adverbial(phrase.attached)
    if phrase.relative:
        subject_gap = isinstance(phrase.relative.subject, Gap)
        person = noun.kind == "person"
        pronoun = ("who" if subject_gap else "whom") if person else "that"
        tokens += [pronoun, *clause_words(phrase.relative)]
    return tokens
