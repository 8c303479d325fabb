"""The lexicon of the sample: typed entries, read from the tables in `words.py`, and the closed classes.

Everything here is data with at most one rule of word formation; how words are put together is the
business of `english.py` and `german.py`. There is one object for each entry, so entries are compared and
hashed by identity, which is quick.
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.translate.sample import words

GROUPS = {
    "animate": frozenset(("person", "pet", "beast")),
    "food": frozenset(("fruit", "dish", "baked")),
}


# The verbs whose simple past spoken German keeps; all others take the perfect.
PRETERITES = {"sein": "war", "haben": "hatte", "kennen": "kannte", "mögen": "mochte", "wissen": "wusste",
              "denken": "dachte"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Noun:
    """A noun of both languages; `plural` is empty for mass nouns such as "milk"."""

    singular: str
    plural: str
    german: str
    gender: str  # m, f, n
    genitive: str  # the German singular genitive
    german_plural: str
    kind: str  # semantic class
    weak: bool = False  # "der Junge, den Jungen": takes the plural's form outside the nominative
    location: tuple[str, ...] = ()  # for places: English "in", German "in", German preposition for "to"

    def fits(self, kinds: frozenset[str]) -> bool:
        """Whether the noun, by its kind or by its name, is among `kinds`."""
        return self.kind in kinds or self.singular in kinds


@dataclass(frozen=True, eq=False)
class Adjective:
    """An adjective; the stem is what German endings are added to: "teuer", but "ein teures Auto"."""

    english: str
    german: str
    stem: str
    comparative: str  # empty where the sample does not compare
    german_comparative: str
    kinds: frozenset[str]


@dataclass(frozen=True, eq=False)
class Verb:
    """A verb with its frame: the cases of its objects and the kinds of nouns that it goes with."""

    english: str  # the inflected word: "pick" of "pick up"
    past: str
    participle: str
    particle: str  # "up" of "pick up", "at" of "look at"
    splits: bool  # "picks him up"; but "looks at him"
    german: str  # the infinitive without a separable prefix
    prefix: str  # the separable prefix: "ab" of "abholen"
    german_third: str  # the third person singular, without the prefix
    german_participle: str
    auxiliary: str  # haben, sein
    cases: tuple[str, ...] = ()  # case of each object, in English order
    prepositions: tuple[str, str] = ("", "")  # of the single object: "wait for", "warten auf"
    subjects: frozenset[str] = frozenset()
    objects: tuple[frozenset[str], ...] = ()
    place: str = ""  # see `words.py`
    manners: tuple[str, ...] = ()
    extra: str = ""  # "with" somebody or "for" somebody, where that makes sense
    clause: str = ""  # "that", "whether" or "to" for verbs that take a clause
    preterite: str = ""  # German keeps the simple past for a few verbs: "war", "hatte"

    @property
    def infinitive(self) -> str:
        """The German infinitive: "abholen"."""
        return self.prefix + self.german


@dataclass(frozen=True, eq=False)
class Modal:
    """A modal verb. Where English has no auxiliary form ("wants to", "had to") `phrase` supplies it."""

    english: str  # present auxiliary, empty if there is none
    past: str  # past auxiliary, empty if there is none
    phrase: tuple[str, str, str]  # infinitive, third person and past of the form with "to"
    german: str  # infinitive, which is the plural of the present too
    german_singular: str
    german_past: str  # empty for modals that the sample uses in the present only


@dataclass(frozen=True, eq=False)
class Determiner:
    """A determiner; `pattern` says how it and the adjective after it decline in German."""

    singular: str  # English; empty if it takes plurals only
    plural: str  # English; "-" if it takes singulars only
    german: str  # stem
    pattern: str  # definite, der, ein, strong (declines, adjective strong), bare (does not decline)


@dataclass(frozen=True, eq=False)
class Pronoun:
    """A personal pronoun in all the forms that the sample uses."""

    subject: str
    object: str
    nominative: str
    accusative: str
    dative: str
    agreement: str  # 1s, 3s, p


@dataclass(frozen=True, eq=False)
class Name:
    """A person's or a city's name, the same in every case."""

    english: str
    german: str
    gender: str


@dataclass(frozen=True, eq=False)
class Adverb:
    """An adverb, in English before the verb ("often"), after the object ("slowly") or place ("again")."""

    english: str
    german: str
    position: str  # verb, object, place


@dataclass(frozen=True, eq=False)
class Fixed:
    """An adverbial that does not inflect: "every day", "jeden Tag"; `uses` lists tenses it goes with."""

    english: str
    german: str
    uses: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Conjunction:
    """A conjunction; after a subordinating one the German verb goes last."""

    english: str
    german: str
    subordinating: bool = True


def _kinds(text: str) -> frozenset[str]:
    kinds: set[str] = set()
    for name in text.split(","):
        kinds |= GROUPS.get(name, {name})
    return frozenset(kinds)


def _rows(table: str) -> list[list[str]]:
    return [["" if cell == "-" else cell.replace("_", " ") for cell in line.split()]
            for line in table.strip().splitlines()]  # fmt: skip


def _noun(row: list[str]) -> Noun:
    singular, plural, german, gender, ending, german_plural, kind, *location = row
    weak = ending == "weak"
    genitive = german_plural if weak else german + ending
    return Noun(singular, plural, german, gender, genitive, german_plural, kind, weak, tuple(location))


def _adjective(row: list[str]) -> Adjective:
    *forms, kinds = row
    return Adjective(*forms, _kinds(kinds))


def _verb(english: str, past: str, participle: str, german: str, *forms: str, **frame) -> Verb:
    splits = "+" in english
    word, _, particle = english.replace("+", " ").partition(" ")
    prefix, _, rest = german.rpartition("|")
    frame.setdefault("preterite", PRETERITES.get(german, ""))
    return Verb(word, past, participle, particle, splits, rest, prefix, *forms, **frame)


def _framed_verb(row: list[str]) -> Verb:
    *forms, frame, subjects, objects, place, manners, extra = row
    prepositions, cases = ("", ""), frame
    if "=" in frame:
        english, _, rest = frame.partition("=")
        german, _, cases = rest.partition(",")
        prepositions = (english, german)
    return _verb(
        *forms,
        cases=tuple(filter(None, cases.split(","))),
        prepositions=prepositions,
        subjects=_kinds(subjects),
        objects=tuple(_kinds(part) for part in objects.split("/") if part),
        place=place,
        manners=tuple(filter(None, manners.split(","))),
        extra=extra,
    )


def _clause_verb(row: list[str]) -> Verb:
    *forms, clause = row
    return _verb(*forms, subjects=_kinds("person"), clause=clause)


NOUNS = tuple(_noun(row) for row in _rows(words.NOUNS))
ADJECTIVES = tuple(_adjective(row) for row in _rows(words.ADJECTIVES))
BE = _verb("be", "was", "been", "sein", "ist", "gewesen", "sein")
# "There is" takes its noun in the accusative and an impersonal subject: "es gibt einen Hund".
EXIST = _verb("be", "was", "been", "geben", "gibt", "gegeben", "haben", cases=("acc",), preterite="gab")
VERBS = tuple(_framed_verb(row) for row in _rows(words.VERBS))
CLAUSE_VERBS = tuple(_clause_verb(row) for row in _rows(words.CLAUSE_VERBS))

CAN = Modal("can", "could", ("", "", ""), "können", "kann", "konnte")
MUST = Modal("must", "", ("have", "has", "had"), "müssen", "muss", "musste")
WANT = Modal("", "", ("want", "wants", "wanted"), "wollen", "will", "wollte")
SHOULD = Modal("should", "", ("", "", ""), "sollten", "sollte", "")
WILL = Modal("will", "", ("", "", ""), "werden", "wird", "")
MODALS = (CAN, MUST, WANT, SHOULD, WILL)
FIRST_PERSON = {"sein": "bin", "haben": "habe", "wissen": "weiß", "mögen": "mag"}

THE = Determiner("the", "the", "", "definite")
A = Determiner("a", "-", "ein", "ein")
NO = Determiner("no", "no", "kein", "ein")
THIS = Determiner("this", "these", "dies", "der")
EVERY = Determiner("every", "-", "jed", "der")
ALL = Determiner("", "all", "all", "der")
MANY = Determiner("", "many", "viel", "strong")
SOME = Determiner("", "some", "einig", "strong")
BARE = Determiner("", "", "", "bare")
MY = Determiner("my", "my", "mein", "ein")
OUR = Determiner("our", "our", "unser", "ein")
HIS = Determiner("his", "his", "sein", "ein")
HER = Determiner("her", "her", "ihr", "ein")
THEIR = Determiner("their", "their", "ihr", "ein")
POSSESSIVES = (MY, OUR, HIS, HER, THEIR)
NUMBERS = tuple(Determiner("", english, german, "bare") for english, german in (
    ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"), ("six", "sechs"),
    ("seven", "sieben"), ("eight", "acht"), ("ten", "zehn")))  # fmt: skip

I = Pronoun("I", "me", "ich", "mich", "mir", "1s")  # noqa: E741
HE = Pronoun("he", "him", "er", "ihn", "ihm", "3s")
SHE = Pronoun("she", "her", "sie", "sie", "ihr", "3s")
WE = Pronoun("we", "us", "wir", "uns", "uns", "p")
THEY = Pronoun("they", "them", "sie", "sie", "ihnen", "p")
THERE = Pronoun("there", "", "es", "", "", "3s")
PRONOUNS = (I, HE, SHE, WE, THEY)

PERSONS = tuple(Name(name, name, gender) for name, gender in (
    ("Anna", "f"), ("Maria", "f"), ("Lena", "f"),
    ("Peter", "m"), ("Paul", "m"), ("Martin", "m")))  # fmt: skip
CITIES = tuple(Name(*names, "n") for names in (
    ("Berlin", "Berlin"), ("Hamburg", "Hamburg"), ("Munich", "München"), ("Cologne", "Köln"),
    ("Vienna", "Wien"), ("Paris", "Paris")))  # fmt: skip

FREQUENCIES = tuple(Adverb(english, german, "verb") for english, german in (
    ("often", "oft"), ("always", "immer"), ("never", "nie"),
    ("sometimes", "manchmal"), ("rarely", "selten")))  # fmt: skip
ALREADY = Adverb("already", "schon", "verb")
AGAIN = Adverb("again", "wieder", "place")
MANNERS = {english: Adverb(english, german, "object") for english, german in (
    ("slowly", "langsam"), ("quickly", "schnell"), ("quietly", "leise"), ("loudly", "laut"),
    ("carefully", "vorsichtig"), ("patiently", "geduldig"), ("happily", "fröhlich"))}  # fmt: skip
DEGREES = (Fixed("very", "sehr"), Fixed("too", "zu"))

_ANY = frozenset(("present", "past", "will", "modal"))
TIMES = (
    Fixed("today", "heute", _ANY),
    Fixed("now", "jetzt", frozenset(("present",))),
    Fixed("tomorrow", "morgen", frozenset(("will", "modal"))),
    Fixed("soon", "bald", frozenset(("will",))),
    Fixed("yesterday", "gestern", frozenset(("past",))),
    Fixed("last week", "letzte Woche", frozenset(("past",))),
    Fixed("last year", "letztes Jahr", frozenset(("past",))),
    Fixed("next week", "nächste Woche", frozenset(("will", "modal"))),
    Fixed("next year", "nächstes Jahr", frozenset(("will",))),
    Fixed("every day", "jeden Tag", frozenset(("present", "past"))),
    Fixed("every week", "jede Woche", frozenset(("present", "past"))),
    Fixed("in the morning", "am Morgen", _ANY),
    Fixed("in the evening", "am Abend", _ANY),
    Fixed("at night", "in der Nacht", _ANY),
    Fixed("at midnight", "um Mitternacht", frozenset(("present", "past", "will"))),
    *(Fixed(f"at {english} o'clock", f"um {german} Uhr", _ANY) for english, german in
      (("three", "drei"), ("five", "fünf"), ("eight", "acht"))),
    *(Fixed(f"on {english}", f"am {german}", _ANY) for english, german in (
        ("Monday", "Montag"), ("Tuesday", "Dienstag"), ("Wednesday", "Mittwoch"), ("Thursday", "Donnerstag"),
        ("Friday", "Freitag"), ("Saturday", "Samstag"), ("Sunday", "Sonntag"))),
    *(Fixed(f"in {english}", f"im {german}", frozenset(("present", "past", "will"))) for english, german in (
        ("spring", "Frühling"), ("summer", "Sommer"), ("autumn", "Herbst"), ("winter", "Winter"))),
)  # fmt: skip
PLACES = (Fixed("here", "hier"), Fixed("outside", "draußen"), Fixed("at home", "zu Hause"))
HOME = Fixed("home", "nach Hause")
RIDES = (Fixed("by train", "mit dem Zug"), Fixed("by bus", "mit dem Bus"),
         Fixed("by car", "mit dem Auto"), Fixed("by boat", "mit dem Boot"))  # fmt: skip

BECAUSE = Conjunction("because", "weil")
ALTHOUGH = Conjunction("although", "obwohl")
IF = Conjunction("if", "wenn")
WHEN = Conjunction("when", "wenn")
WHILE = Conjunction("while", "während")
THAT = Conjunction("that", "dass")
WHETHER = Conjunction("whether", "ob")
AND = Conjunction("and", "und", subordinating=False)
BUT = Conjunction("but", "aber", subordinating=False)
CONJUNCTIONS = (BECAUSE, ALTHOUGH, IF, WHEN, WHILE, THAT, WHETHER, AND, BUT)

# English preposition, German preposition, case of the noun phrase after it.
PREPOSITIONS = {
    english: (german, case) for english, german, case in (
        ("with", "mit", "dat"), ("without", "ohne", "acc"),
        ("for", "für", "acc"), ("through", "durch", "acc"),
        ("behind", "hinter", "dat"), ("in front of", "vor", "dat"), ("next to", "neben", "dat"),
        ("under", "unter", "dat"), ("after", "nach", "dat"), ("before", "vor", "dat"),
        ("during", "während", "gen"), ("because of", "wegen", "gen"), ("despite", "trotz", "gen"))
}  # fmt: skip
SIMPLE_PREPOSITIONS = ("in", "on", "at", "to", "from", "of")  # their German depends on the noun
QUESTIONS = {"who": "wer", "whom": "wen", "what": "was", "why": "warum",
             "when": "wann", "where": "wo", "how often": "wie oft"}  # fmt: skip


def lemmas() -> list[str]:
    """The different English words in their dictionary form, sorted; "look at" counts as "look" and "at"."""
    phrases = [entry.singular for entry in (*NOUNS, THE, A, NO, THIS, EVERY, *POSSESSIVES)]
    phrases += [entry.plural for entry in (ALL, MANY, SOME, *NUMBERS)]
    phrases += [f"{entry.english} {entry.particle}" for entry in (*VERBS, *CLAUSE_VERBS, BE)]
    phrases += [entry.english or entry.phrase[0] for entry in MODALS]
    phrases += [entry.subject for entry in (*PRONOUNS, THERE)]
    regular = (*ADJECTIVES, *PERSONS, *CITIES, *FREQUENCIES, *MANNERS.values(), ALREADY, AGAIN, *DEGREES)
    phrases += [entry.english for entry in (*regular, *TIMES, *PLACES, HOME, *RIDES, *CONJUNCTIONS)]
    phrases += [*PREPOSITIONS, *QUESTIONS, *SIMPLE_PREPOSITIONS, "not", "than"]
    return sorted({word for phrase in phrases for word in phrase.split()})
