"""Draw the parts of a clause at random: noun phrases, places and times that fit the verb."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeVar

from apps.translate.sample.lexicon import (
    ADJECTIVES,
    ALL,
    BARE,
    CITIES,
    EVERY,
    HE,
    HER,
    HIS,
    HOME,
    MANY,
    MY,
    NO,
    NOUNS,
    NUMBERS,
    OUR,
    PERSONS,
    PLACES,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    SHE,
    SOME,
    THE,
    THEIR,
    THEY,
    THIS,
    TIMES,
    WE,
    A,
    Adjective,
    Determiner,
    Fixed,
    I,
    Name,
    Noun,
    Pronoun,
)
from apps.translate.sample.meaning import Argument, NounPhrase, Prepositional

Choice = TypeVar("Choice")

# Nobody says "my woman" or "the boy of the baker" and means what the German says.
UNOWNED = frozenset(("man", "woman", "boy", "girl", "policeman", "farmer", "artist"))
KIN = frozenset(("father", "brother", "son", "uncle", "grandfather",
                 "mother", "sister", "daughter", "grandmother"))  # fmt: skip
OWNED_PLACES = frozenset(("room", "kitchen", "office", "house", "garden", "village", "school"))
OWNED = OWNED_PLACES | {"person", "pet", "clothing", "thing", "vehicle", "container", "abstract", "text"}
COLOURS = frozenset(("red", "blue", "green", "yellow", "black", "white"))
BEFORE_COLOUR = frozenset(("old", "new", "big", "small", "beautiful", "expensive"))
ANYWHERE = frozenset(("room", "building", "outdoors", "town", "site", "shore"))
# Where one goes on foot, drives and travels.
GOALS = {
    "goal": ANYWHERE,
    "ride": ANYWHERE - {"room"},
    "far": frozenset(("town", "shore", "mountain", "beach")),
}
# Where verbs happen that do not have to say where.
SETTINGS = {
    "any": ANYWHERE,
    "outside": frozenset(("outdoors", "street", "village", "station")),
    "shops": frozenset(("market", "city", "village", "station", "airport", "museum", "hotel")),
    "meals": frozenset(("kitchen", "garden", "park", "restaurant", "hotel", "school", "hospital")),
    "beds": frozenset(("room", "house", "hotel", "hospital", "garden", "bed", "floor")),
}
SEATS = frozenset(("chair", "bench", "bed"))


class Phrases:
    """Random phrases from one generator.

    Only `random()` and functions of it that are stable across Python versions are used, and every list
    that is drawn from has a fixed order, so a seed gives the same sentences everywhere.
    """

    def __init__(self, rng: random.Random):
        self.rng = rng

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[Choice], weights: Sequence[float] | None = None) -> Choice:
        """One of the options."""
        return self.rng.choices(options, weights)[0]

    def noun(self, kinds: Iterable[str], other_than: Noun | None = None) -> Noun:
        """A noun of one of these kinds, or one that is named; small kinds come as often as large ones."""
        kind = self.pick(sorted(kinds))
        return self.pick([noun for noun in fitting_nouns(kind) if noun is not other_than])

    def subject(self, kinds: frozenset[str]) -> Argument:
        """A subject: a pronoun or name where persons fit, otherwise a noun phrase."""
        if "person" in kinds:
            draw = self.rng.random()
            if draw < 0.22:
                return self.pick(PRONOUNS)
            if draw < 0.32:
                return self.pick(PERSONS)
        return self.noun_phrase(self.noun(kinds), role="subject")

    def object(self, kinds: frozenset[str], owner: Argument, definite: bool = False) -> Argument:
        """An object; possessives in it tend to point to the `owner`, the subject."""
        if "person" in kinds:
            draw = self.rng.random()
            if draw < 0.12:
                return self.pronoun_other_than(owner)
            if draw < 0.2:
                return self.pick([name for name in PERSONS if name != owner])
        noun = self.noun(kinds, other_than=getattr(owner, "noun", None))
        return self.noun_phrase(noun, role="definite" if definite else "object", owner=owner)

    def pronoun_other_than(self, subject: Argument) -> Pronoun:
        """A pronoun that would not have to be reflexive."""
        excluded = (I, WE) if subject in (I, WE) else (subject,)
        return self.pick([pronoun for pronoun in PRONOUNS if pronoun not in excluded])

    def noun_phrase(
        self, noun: Noun, role: str, owner: Argument | None = None, plural: bool | None = None
    ) -> NounPhrase:
        """A noun phrase; its role (subject, object, definite, place, new) limits the determiner."""
        if plural is None:
            share = 0.0 if role == "place" else 0.12 if noun.singular in KIN else 0.35
            plural = bool(noun.plural) and self.chance(share)
        determiner = self._determiner(noun, role, owner, plural)
        adjectives = self._adjectives(noun, 0.2 if role == "place" else 0.4)
        possessor = None
        if determiner is THE and self._ownable(noun) and not plural and self.chance(0.14):
            possessor = self._possessor(noun)
        return NounPhrase(noun, determiner, plural, adjectives, possessor)

    def _ownable(self, noun: Noun) -> bool:
        return noun.fits(OWNED) and noun.singular not in UNOWNED

    def _determiner(self, noun: Noun, role: str, owner: Argument | None, plural: bool) -> Determiner:
        if noun.kind in ("floor", "weather"):
            return THE
        choices = {} if role == "new" else {THE: 9.0, THIS: 2.0}
        if self._ownable(noun) and role != "new" and not (plural and noun.singular in KIN):  # "my mothers"
            choices[self._possessive(owner)] = 4.0
            if noun.singular in KIN:
                choices |= {THE: 3.0, THIS: 0.2}
        if plural and role != "definite":
            choices |= {BARE: 0.7 if role == "subject" else 2.0, MANY: 1.0, SOME: 1.0}
            choices[self.pick(NUMBERS)] = 3.0
        elif noun.plural and role != "definite":
            choices[A] = 1.0 if role == "place" or noun.singular in KIN else 5.0
        elif not noun.plural and role == "object":
            choices[BARE] = 6.0
        if role == "subject":
            choices |= {ALL: 0.6} if plural else {EVERY: 0.7, NO: 0.4}
        return self.pick(list(choices), list(choices.values()))

    def _possessive(self, owner: Argument | None) -> Determiner:
        """A possessive, in three cases out of four the owner's own."""
        if owner is None:
            return self.pick(POSSESSIVES)
        own = {I: MY, WE: OUR, HE: HIS, SHE: HER, THEY: THEIR}.get(pronoun_for(owner) or owner)
        return own if own and self.chance(0.75) else self.pick((MY, OUR))

    def _adjectives(self, noun: Noun, probability: float) -> tuple:
        fitting = fitting_adjectives(noun)
        if not fitting or not self.chance(probability):
            return ()
        first = self.pick(fitting)
        colours = [adjective for adjective in fitting if adjective.english in COLOURS]
        if first.english in BEFORE_COLOUR and colours and self.chance(0.25):
            return first, self.pick(colours)
        return (first,)

    def _possessor(self, noun: Noun) -> NounPhrase:
        """Whose it is: a person, in the German genitive."""
        person = self.pick([entry for entry in NOUNS if entry.kind == "person" and entry != noun])
        determiners = [THE, A, THIS] if person.singular in UNOWNED else [THE, THE, A, THIS, *POSSESSIVES]
        return NounPhrase(person, self.pick(determiners))

    def companion(self, subject: Argument) -> Argument:
        """Somebody with whom or for whom something is done."""
        return self.object(frozenset(("person",)), subject, definite=True)

    def attached(self, noun: Noun) -> Prepositional:
        """What tells a subject from others: "the woman with the hat", "the dog in the garden"."""
        if noun.kind == "person" and self.chance(0.5):
            carried = self.noun(("clothing", "container", "umbrella", "camera", "dog", "cat"))
            return prepositional("with", self.noun_phrase(carried, "place"))
        return self.location(frozenset(("garden", "park", "house", "street", "office", "restaurant")))

    def location(self, kinds: frozenset[str]) -> Prepositional:
        """Where: each place has its own preposition, "in the park" but "at the station"."""
        noun = self.noun(kinds)
        english, german, _ = noun.location
        return Prepositional(english, german, "dat", self.noun_phrase(noun, "place"))

    def place(self, sort: str) -> Fixed | Prepositional:
        """An adverbial of place of the sort that a verb asks for (the `place` of its entry)."""
        match sort:
            case "goal" | "ride" | "far":
                return self._goal(sort)
            case "path" if self.chance(0.5):
                return self._goal("goal")
            case "path":
                return self._related("through", ("forest", "park", "garden", "city", "village"))
            case "source":
                return self._source()
            case "home":
                return self._in_city() if self.chance(0.4) else self.location(frozenset(("town", "house")))
            case "seat":
                return self.location(SEATS)
            case "shore":
                noun = self.noun(("shore",))
                return Prepositional("in", "in", "dat", self.noun_phrase(noun, "place"))
            case "rest" | "onto":
                return self._surface("dat" if sort == "rest" else "acc")
        draw = self.rng.random()
        if draw < 0.12:
            return self.pick(PLACES)
        if draw < 0.2 and sort in ("any", "shops"):
            return self._in_city()
        if draw < 0.35 and sort == "any":
            return self._related(self.pick(("behind", "in front of", "next to")), ("building",))
        return self.location(SETTINGS[sort])

    def _in_city(self) -> Prepositional:
        return Prepositional("in", "in", "dat", self.pick(CITIES))

    def _goal(self, sort: str) -> Fixed | Prepositional:
        draw = self.rng.random()
        if draw < 0.1:
            return HOME
        if draw < 0.25:
            return Prepositional("to", "nach", "dat", self.pick(CITIES))
        noun = self.noun(GOALS[sort])
        german = noun.location[2]
        case = "dat" if german == "zu" else "acc"
        return Prepositional("to", german, case, self.noun_phrase(noun, "place"))

    def _source(self) -> Prepositional:
        if self.chance(0.2):
            return Prepositional("from", "aus", "dat", self.pick(CITIES))
        noun = self.noun(ANYWHERE - {"site"} | {"station", "airport", "market", "beach"})
        german = "aus" if noun.location[1] == "in" else "von"
        return Prepositional("from", german, "dat", self.noun_phrase(noun, "place"))

    def _surface(self, case: str) -> Prepositional:
        """On, in or under a piece of furniture: dative for where, accusative for where to."""
        noun = self.noun(("surface", "floor", "container"))
        english, german, _ = noun.location
        if noun.kind == "surface" and self.chance(0.4):
            english, german = "under", PREPOSITIONS["under"][0]
        return Prepositional(english, german, case, self.noun_phrase(noun, "place"))

    def _related(self, english: str, kinds: Iterable[str]) -> Prepositional:
        return prepositional(english, self.noun_phrase(self.noun(kinds), "place"))

    def time(self, use: str) -> Fixed | Prepositional:
        """When (or in spite of what weather); `use` is the tense or modality that it must go with."""
        draw = self.rng.random()
        if draw < 0.16:
            return self._related(self.pick(("during", "before", "after")), ("event",))
        if draw < 0.24:
            return self._related(self.pick(("because of", "despite")), ("weather",))
        times = [time for time in TIMES if use in time.uses]
        return self.pick(times, [1 / len(time.uses) ** 2 for time in times])  # those with few uses first


def prepositional(english: str, argument: Argument) -> Prepositional:
    """A phrase with one of the prepositions that have a single German counterpart."""
    german, case = PREPOSITIONS[english]
    return Prepositional(english, german, case, argument)


def pronoun_for(argument: Argument) -> Pronoun | None:
    """The pronoun that takes up a person ("she" for Anna); None where German and English differ."""
    match argument:
        case Pronoun():
            return argument if argument in PRONOUNS else None
        case Name(gender=gender):
            return HE if gender == "m" else SHE
        case NounPhrase(noun=noun, plural=plural) if noun.kind == "person":
            if argument.determiner in (NO, EVERY, ALL):
                return None
            if plural:
                return THEY
            return {"m": HE, "f": SHE}.get(noun.gender)
    return None


@cache
def fitting_nouns(kind: str) -> tuple[Noun, ...]:
    """The nouns of a kind, in the order of the lexicon."""
    return tuple(noun for noun in NOUNS if noun.fits(frozenset((kind,))))


@cache
def fitting_adjectives(noun: Noun) -> tuple[Adjective, ...]:
    """The adjectives that can describe a noun."""
    return tuple(adjective for adjective in ADJECTIVES if noun.fits(adjective.kinds))
