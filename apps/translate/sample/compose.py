"""Compose whole meanings at random: clauses around a verb, relative clauses, links and questions."""

from __future__ import annotations

import random
from dataclasses import replace

from apps.translate.sample.lexicon import (
    ADJECTIVES,
    AGAIN,
    ALL,
    ALREADY,
    ALTHOUGH,
    AND,
    BARE,
    BE,
    BECAUSE,
    BUT,
    CAN,
    CLAUSE_VERBS,
    DEGREES,
    EVERY,
    EXIST,
    FREQUENCIES,
    IF,
    MANNERS,
    MUST,
    NO,
    NOUNS,
    PERSONS,
    RIDES,
    SHOULD,
    SOME,
    THAT,
    THE,
    THERE,
    VERBS,
    WANT,
    WHEN,
    WHETHER,
    WHILE,
    WILL,
    A,
    Adverb,
    Conjunction,
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
)
from apps.translate.sample.phrases import COLOURS, GOALS, SETTINGS, Phrases, prepositional, pronoun_for

PERSON = frozenset(("person",))
# Where there are tables, cars and cats; buildings, forests and lakes are in cities and villages.
SURROUNDINGS = {
    "surface": frozenset(("room", "kitchen", "office")),
    "vehicle": frozenset(("street", "village", "city")),
    "pet": frozenset(("garden", "park", "street")),
}
PASSING = frozenset(("tired", "sick", "hungry", "happy", "sad"))  # states that have a time and a frequency
SAYING = tuple(verb for verb in CLAUSE_VERBS if verb.clause == "that")
ASKING = tuple(verb for verb in CLAUSE_VERBS if verb.clause == "whether")
TRYING = tuple(verb for verb in CLAUSE_VERBS if verb.clause == "to")
KNOW = next(verb for verb in SAYING if verb.english == "know")
ASKABLE = frozenset(("text", "thing", "clothing", "fruit", "drink"))  # what "what" asks for
PERSONAL = tuple(verb for verb in VERBS if "person" in verb.subjects)
TIMED = tuple(verb for verb in VERBS if verb.place != "state")
SETTLED = tuple(verb for verb in VERBS if verb.place in SETTINGS)
MOVING = tuple(verb for verb in VERBS if verb.place in GOALS)
UNINTENDED = frozenset(("dream", "forget", "lose", "hear"))
DOING = tuple(verb for verb in PERSONAL
              if verb.place != "state" and verb.objects and verb.english not in UNINTENDED)  # fmt: skip
LASTING = tuple(verb for verb in DOING if verb.manners)


class Composer:
    """Random sentences' meanings, drawn from one generator."""

    def __init__(self, rng: random.Random):
        self.phrases = Phrases(rng)
        self.chance = self.phrases.chance
        self.pick = self.phrases.pick

    def sentence(self) -> Sentence:
        """One sentence of any pattern."""
        patterns = (self._plain, self._fronted, self._subordinate, self._coordinate, self._content,
                    self._purpose, self._yes_no, self._wh)  # fmt: skip
        return self.pick(patterns, (38, 14, 14, 6, 11, 4, 6, 7))()

    def _plain(self) -> Sentence:
        return Sentence(self.clause(complex_subject=True))

    def _fronted(self) -> Sentence:
        front = "time" if self.chance(0.65) else "place"
        if front == "place" and self.chance(0.25):
            return Sentence(self._existence(self.pick(("present", "past"))), front)
        verb = self.pick(TIMED if front == "time" else SETTLED)
        return Sentence(self.clause(verb=verb, needs=front), front)

    def _subordinate(self) -> Sentence:
        conjunction = self.pick((BECAUSE, ALTHOUGH, IF, WHEN, WHILE), (6, 3, 3, 2, 2))
        present = conjunction in (IF, WHEN) or self.chance(0.6)
        tense = "present" if present else "past"
        first = self.chance(0.45)
        main_tense = self.pick(("present", "will", "modal")) if conjunction is IF else tense
        tenses = (tense, main_tense) if first else (main_tense, tense)
        subject = self.phrases.subject(PERSON)
        opening = self.clause(subject=subject, tense=tenses[0], copula=self._copula_share(conjunction, first))
        closing = self._following(opening, tenses[1], self._copula_share(conjunction, not first))
        sub, main = (opening, closing) if first else (closing, opening)
        return Sentence(main, link=Linked(conjunction, sub), link_first=first)

    def _copula_share(self, conjunction: Conjunction, subordinate: bool) -> float:
        """Reasons and conditions are often states; what somebody does meanwhile is not."""
        return 0.45 if subordinate and conjunction is not WHILE else 0.0

    def _coordinate(self) -> Sentence:
        tense = self.pick(("present", "past"))
        opening = self.clause(tense=tense)
        closing = self._following(opening, tense, 0.1)
        return Sentence(opening, link=Linked(self.pick((AND, BUT)), closing))

    def _following(self, opening: Clause, tense: str, copula: float) -> Clause:
        """A clause that takes up the subject of the one before with a pronoun, or has its own."""
        subject = pronoun_for(opening.subject)
        if subject is None or self.chance(0.35):
            return self.clause(tense=tense, copula=copula)
        return self.clause(tense=tense, subject=subject, copula=copula)

    def _content(self) -> Sentence:
        verbs = self.pick((SAYING, ASKING, TRYING), (5, 2, 2))
        verb = self.pick(verbs)
        tense = self.pick(("present", "past", "perfect"))
        subject = self.phrases.subject(PERSON)
        if verb in TRYING:
            content = Linked(None, self._infinitive(subject, durative=verb.english == "begin"))
            return Sentence(Clause(verb, subject, tense=tense, content=content))
        inner = self.pick(("present", "perfect", "will")) if tense != "past" else "past"
        negated = verb is KNOW and not _is_sweeping(subject) and self.chance(0.5)
        conjunction = WHETHER if verb in ASKING or negated else THAT
        follower = pronoun_for(subject) if self.chance(0.4) else None
        content = Linked(conjunction, self.clause(subject=follower, tense=inner, copula=0.3))
        return Sentence(Clause(verb, subject, tense=tense, negated=negated, content=content))

    def _purpose(self) -> Sentence:
        clause = self.clause(verb=self.pick(MOVING), tense=self.pick(("present", "past", "modal")), bare=True)
        return Sentence(clause, link=Linked(None, self._infinitive(clause.subject)))

    def _infinitive(self, subject: Argument, durative: bool = False) -> Clause:
        verb = self.pick(LASTING if durative else DOING)
        objects = self._objects(verb, subject)
        return self._with_relative(Clause(verb, subject, objects, place=self._required(verb)))

    def _yes_no(self) -> Sentence:
        return Sentence(self.clause(), question="yes-no")

    def _wh(self) -> Sentence:
        word = self.pick(("who", "whom", "what", "why", "when", "where", "how often"))
        match word:
            case "who":
                clause = self.clause(verb=self.pick(PERSONAL), subject=Gap(), bare=True)
                return Sentence(clause, question=word)
            case "whom":
                return Sentence(self._asked_object(PERSON), question=word)
            case "what":
                return Sentence(self._asked_object(ASKABLE), question=word)
            case "where":
                verb = self.pick((*SETTLED, *(verb for verb in VERBS if verb.place in ("home", "rest"))))
                return Sentence(replace(self.clause(verb=verb, bare=True), place=None), question=word)
        tense = self.pick(("present", "past"))
        if word == "why":
            return Sentence(self.clause(tense=tense), question=word)
        verb = self.pick(TIMED)
        return Sentence(self.clause(verb=verb, tense=tense, bare=True), question=word)

    def _asked_object(self, kinds: frozenset[str]) -> Clause:
        """A clause whose only object is asked for."""
        verbs = [verb for verb in VERBS if len(verb.objects) == 1 and not verb.prepositions[0]
                 and "person" in verb.subjects and verb.objects[0] & kinds
                 and ("person" in kinds or verb.cases == ("acc",))]  # fmt: skip
        clause = self.clause(verb=self.pick(verbs), bare=True)
        return replace(clause, objects=(Gap(),))

    def clause(
        self,
        verb: Verb | None = None,
        subject: Argument | None = None,
        tense: str | None = None,
        copula: float = 0.15,
        needs: str = "",
        bare: bool = False,
        complex_subject: bool = False,
    ) -> Clause:
        """A clause.

        `tense` is present, past, perfect, will or modal; `copula` the share of "to be"; `needs` a slot
        ("time", "place") that must be filled; `bare` leaves out every optional adverbial and negation.
        """
        if verb is None:
            if self.chance(copula):
                return self._copula(subject, "past" if tense == "past" else "present")
            if subject is None and not needs and tense in (None, "present", "past") and self.chance(0.03):
                return self._existence(tense or "present")
            verb = self.pick(PERSONAL if subject else VERBS)
        given = subject is not None
        subject = subject or self.phrases.subject(verb.subjects)
        if complex_subject and not given:
            subject = self._complex(subject)
        tense = tense or self.pick(("present", "past", "perfect", "will", "modal"), (34, 27, 14, 12, 13))
        unsuited = ("will", "modal", "perfect") if verb.place == "state" else ("perfect",) if needs else ()
        if tense in unsuited:  # "has seen yesterday" is not English
            tense = "present"
        if tense == "past" and verb.past == verb.english and agreement(subject) != "3s":
            tense = "present" if needs else "perfect"  # "they put" would be present or past
        modal = {"will": WILL}.get(tense)
        if tense == "modal":
            modal = self.pick((CAN, MUST, WANT, SHOULD))
        elif tense == "past" and verb.place != "state" and self.chance(0.15):
            modal = self.pick((CAN, MUST, WANT))
        negated = not bare and not _is_sweeping(subject) and self.chance(0.14)
        objects = self._objects(verb, subject, negated)
        simple_tense = tense if tense in ("past", "perfect") else "present"
        clause = Clause(verb, subject, objects, simple_tense, modal, negated, place=self._required(verb))
        if not bare:
            clause = self._modified(clause, tense, needs)
        return self._with_relative(clause, needs)

    def _objects(self, verb: Verb, subject: Argument, negated: bool = False) -> tuple[Argument, ...]:
        """The verb's objects; under negation only what "nicht" or "kein" can negate plainly."""
        objects: list[Argument] = []
        for case, kinds in zip(verb.cases, verb.objects, strict=True):
            item = self.phrases.object(kinds, subject, definite=negated)
            if case == "dat" and isinstance(item, NounPhrase) and item.determiner is BARE:
                item = replace(item, determiner=SOME if item.plural else THE)
            kein = negated and case == "acc" and not verb.prepositions[0] and isinstance(item, NounPhrase)
            if kein and item.noun.plural and not item.plural and not item.possessor and self.chance(0.4):
                item = replace(item, determiner=A)
            if len(verb.cases) == 2 and case == "acc" and not isinstance(item, NounPhrase):
                item = self.phrases.noun_phrase(self.phrases.noun(kinds), "object", subject)
            objects.append(item)
        return tuple(objects)

    def _required(self, verb: Verb):
        return None if verb.place in ("", "state", *SETTINGS) else self.phrases.place(verb.place)

    def _modified(self, clause: Clause, tense: str, needs: str) -> Clause:
        """Add adverbials: at most one of adverb and time unless the time stands in front."""
        verb = clause.verb
        if verb.place == "state":
            return clause
        place, time, extra = clause.place, None, None
        if verb.place in SETTINGS and (needs == "place" or self.chance(0.3)):
            place = self.phrases.place(verb.place)
        use = "past" if clause.tense == "past" else tense
        if needs == "time" or (tense != "perfect" and self.chance(0.22)):
            time = self.phrases.time(use)
        if verb.place in ("ride", "far") and self.chance(0.25):
            extra = self.pick(RIDES)
        elif verb.extra and self.chance(0.15):
            extra = self._companion(clause)
        adverb = None
        if not clause.negated and not _is_sweeping(clause.subject):
            adverb = self._adverb(verb, tense, time is None)
        return replace(clause, place=place, time=time, extra=extra, adverb=adverb)

    def _companion(self, clause: Clause) -> Prepositional:
        person = self.phrases.companion(clause.subject)
        if clause.verb.extra == "for":
            return prepositional("for", person)
        return prepositional("with" if clause.negated or self.chance(0.75) else "without", person)

    def _adverb(self, verb: Verb, tense: str, free: bool) -> Adverb | None:
        if verb.manners and self.chance(0.25):
            return MANNERS[self.pick(verb.manners)]
        if tense == "perfect" and free and self.chance(0.3):
            return ALREADY
        if free and tense in ("present", "past", "perfect") and self.chance(0.15):
            return self.pick((*FREQUENCIES, AGAIN))
        return None

    def _copula(self, subject: Argument | None, tense: str) -> Clause:
        """Something is so, more so than something else, or somewhere."""
        if subject is None and self.chance(0.2):
            subject = self.phrases.subject(frozenset(("person", "pet", "thing", "clothing", "text")))
            lifeless = isinstance(subject, NounPhrase) and subject.noun.kind not in ("person", "pet")
            place = self.phrases.place("rest" if lifeless else "any")
            return Clause(BE, subject, tense=tense, negated=self._negation(subject), place=place)
        kinds = PERSON if subject else None
        adjective = self.pick([entry for entry in ADJECTIVES if kinds is None or entry.kinds & kinds])
        subject = subject or self.phrases.subject(adjective.kinds)
        if isinstance(subject, NounPhrase):
            subject = replace(subject, adjectives=())
        negated = self._negation(subject)
        degree, than = None, None
        if adjective.comparative and self.chance(0.35):
            than = self._compared(subject)
        elif adjective.english not in COLOURS and self.chance(0.35):
            degree = self.pick(DEGREES)
        predicate = Predicate(adjective, degree, than)
        clause = Clause(BE, subject, tense=tense, negated=negated, predicate=predicate)
        if adjective.english in PASSING and not than and not negated and not _is_sweeping(subject):
            if self.chance(0.3):
                return replace(clause, adverb=self.pick(FREQUENCIES))
            if self.chance(0.3):
                return replace(clause, time=self.phrases.time(tense))
        return clause

    def _negation(self, subject: Argument) -> bool:
        return not _is_sweeping(subject) and self.chance(0.2)

    def _compared(self, subject: Argument) -> Argument:
        """What the subject is compared with: of the same kind, but not the same."""
        if not isinstance(subject, NounPhrase):
            return self.pick([name for name in PERSONS if name != subject])
        nouns = [noun for noun in NOUNS if noun.kind == subject.noun.kind and noun != subject.noun]
        return replace(self.phrases.noun_phrase(self.pick(nouns), "definite", subject), adjectives=())

    def _existence(self, tense: str) -> Clause:
        """There is something somewhere."""
        kinds = ("building", "vehicle", "site", "outdoors", "lake", "river", "surface", "pet")
        noun = self.phrases.noun(kinds)
        phrase = self.phrases.noun_phrase(noun, "new", plural=self.chance(0.6))
        place = self.phrases.location(SURROUNDINGS.get(noun.kind, frozenset(("town",))))
        return Clause(EXIST, THERE, (phrase,), tense=tense, place=place)

    def _complex(self, subject: Argument) -> Argument:
        """A subject that says more of itself: "the woman in the garden", "the dog that sleeps"."""
        if not isinstance(subject, NounPhrase) or subject.possessor:
            return subject
        if self.chance(0.07) and subject.noun.kind in ("person", "pet"):
            return replace(subject, attached=self.phrases.attached(subject.noun))
        return self._relative(subject) if self.chance(0.08) else subject

    def _with_relative(self, clause: Clause, needs: str = "") -> Clause:
        """Sometimes a relative clause on the last object, if nothing comes after it in English.

        What followed could belong to either clause, and German would tell the two apart. Nor may "nicht" or
        an adverb be all that follows the relative clause in German.
        """
        trailing = [clause.place, clause.extra] + ([] if needs == "time" else [clause.time])
        last = clause.objects[-1] if clause.objects else None
        if not isinstance(last, NounPhrase) or last.possessor or any(trailing):
            return clause
        if clause.negated or clause.adverb or not self.chance(0.3):
            return clause
        return replace(clause, objects=(*clause.objects[:-1], self._relative(last)))

    def _relative(self, phrase: NounPhrase) -> NounPhrase:
        noun = phrase.noun
        if _is_sweeping(phrase) or noun.kind in ("weather", "floor"):
            return phrase
        acting = [verb for verb in VERBS if noun.kind in verb.subjects and len(verb.objects) < 2]
        suffering = [verb for verb in VERBS if len(verb.objects) == 1 and not verb.prepositions[0]
                     and "person" in verb.subjects and noun.fits(verb.objects[0])]  # fmt: skip
        gap = Gap(noun, phrase.plural)
        tense = self.pick(("present", "past"))
        if suffering and (not acting or self.chance(0.5)):
            verb = self.pick(suffering)
            subject = self.phrases.subject(PERSON)
            if getattr(subject, "noun", None) == noun:
                subject = self.pick(PERSONS)
            if tense == "past" and verb.past == verb.english and agreement(subject) != "3s":
                tense = "perfect"
            return replace(phrase, relative=Clause(verb, subject, (gap,), tense))
        if not acting:
            return phrase
        verb = self.pick(acting)
        if tense == "past" and verb.past == verb.english and phrase.plural:
            tense = "perfect"
        place = self._required(verb)
        if verb.place in SETTINGS and not verb.objects and self.chance(0.5):
            place = self.phrases.place(verb.place)
        return replace(phrase, relative=Clause(verb, gap, self._objects(verb, gap), tense, place=place))


def _is_sweeping(subject: Argument) -> bool:
    """Subjects such as "no child" and "every dog", which do not go with negation and adverbs."""
    return isinstance(subject, NounPhrase) and subject.determiner in (NO, EVERY, ALL)
