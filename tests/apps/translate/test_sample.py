"""The embedded sample: hand-written translations for its grammar, and what a training set has to promise."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.translate import sample
from apps.translate.sample import english, german, phrases
from apps.translate.sample import lexicon as lex
from apps.translate.sample.meaning import (
    Clause,
    Gap,
    Linked,
    NounPhrase,
    Predicate,
    Prepositional,
    Sentence,
)


def the_noun(singular):
    return next(entry for entry in lex.NOUNS if entry.singular == singular)


def the_adjective(english):
    return next(entry for entry in lex.ADJECTIVES if entry.english == english)


def the_verb(infinitive):
    """By its German infinitive: English names are shared ("know": kennen, wissen)."""
    return next(entry for entry in (*lex.VERBS, *lex.CLAUSE_VERBS, lex.BE) if entry.infinitive == infinitive)


def a_noun(singular, determiner=lex.THE, *adjectives, plural=False, **more):
    found = tuple(the_adjective(word) for word in adjectives)
    return NounPhrase(the_noun(singular), determiner, plural, found, **more)


def does(infinitive, subject, *objects, **more):
    return Clause(the_verb(infinitive), subject, objects, **more)


def is_(subject, adjective, degree=None, than=None, **more):
    return Clause(lex.BE, subject, predicate=Predicate(the_adjective(adjective), degree, than), **more)


def where(singular, preposition=None, case="dat", determiner=lex.THE, *adjectives, **more):
    here, there, _ = the_noun(singular).location or ("", "", "")
    place = a_noun(singular, determiner, *adjectives, **more)
    return Prepositional(*(preposition or (here, there)), case, place)


def time(text):
    return next(entry for entry in lex.TIMES if entry.english == text)


MAN, WOMAN, CHILD, DOG = (a_noun(word) for word in ("man", "woman", "child", "dog"))
ANNA = lex.PERSONS[0]
BOOK = a_noun("book", lex.A)
OFTEN = lex.FREQUENCIES[0]
SLOWLY = lex.MANNERS["slowly"]
DOG_GAP = Gap(the_noun("dog"))
MAN_GAP = Gap(the_noun("man"))
WAIT_FOR = next(verb for verb in lex.VERBS if verb.prepositions == ("for", "auf"))
TIRED = is_(lex.HE, "tired")

HAND_WRITTEN = [
    # Gender, number, and the three kinds of adjective endings.
    (Sentence(does("sehen", MAN, a_noun("dog", lex.THE, "big"))),
     "The man sees the big dog.", "Der Mann sieht den großen Hund."),
    (Sentence(does("kaufen", WOMAN, a_noun("apple", lex.A, "red"))),
     "The woman buys a red apple.", "Die Frau kauft einen roten Apfel."),
    (Sentence(does("trinken", lex.WE, a_noun("tea", lex.BARE, "hot"))),
     "We drink hot tea.", "Wir trinken heißen Tee."),
    (Sentence(does("kaufen", a_noun("girl", lex.THIS, "small"), a_noun("car", lex.A, "expensive", "black"))),
     "This small girl buys an expensive black car.",
     "Dieses kleine Mädchen kauft ein teures schwarzes Auto."),
    (Sentence(does("essen", CHILD, a_noun("egg", lex.NUMBERS[0], "delicious", plural=True))),
     "The child eats two delicious eggs.", "Das Kind isst zwei leckere Eier."),
    (Sentence(does("schlafen", a_noun("woman", lex.ALL, "old", plural=True))),
     "All the old women sleep.", "Alle alten Frauen schlafen."),
    (Sentence(does("lesen", lex.I, a_noun("letter", lex.MANY, "long", plural=True))),
     "I read many long letters.", "Ich lese viele lange Briefe."),
    (Sentence(does("arbeiten",
              a_noun("uncle", lex.OUR), place=where("kitchen", None, "dat", lex.MY, "dark"))),
     "Our uncle works in my dark kitchen.", "Unser Onkel arbeitet in meiner dunklen Küche."),
    # Weak nouns, the genitive, the dative plural.
    (Sentence(does("einladen", ANNA, a_noun("boy", lex.EVERY, "young"))),
     "Anna invites every young boy.", "Anna lädt jeden jungen Jungen ein."),
    (Sentence(does("schlafen", a_noun("dog", possessor=a_noun("neighbour")))),
     "The dog of the neighbour sleeps.", "Der Hund des Nachbarn schläft."),
    (Sentence(does("suchen", MAN, a_noun("hat", possessor=a_noun("child", lex.HER)))),
     "The man looks for the hat of her child.", "Der Mann sucht den Hut ihres Kindes."),
    (Sentence(does("danken", lex.THEY, a_noun("child", lex.THEIR, plural=True))),
     "They thank their children.", "Sie danken ihren Kindern."),
    # Dative verbs, ditransitives, prepositional objects.
    (Sentence(does("helfen", WOMAN, MAN)), "The woman helps the man.", "Die Frau hilft dem Mann."),
    (Sentence(does("geben", MAN, CHILD, BOOK)),
     "The man gives the child a book.", "Der Mann gibt dem Kind ein Buch."),
    (Sentence(does("zeigen", lex.SHE, lex.HE, a_noun("picture"))),
     "She shows him the picture.", "Sie zeigt ihm das Bild."),
    (Sentence(Clause(WAIT_FOR, ANNA, (a_noun("bus"),))),
     "Anna waits for the bus.", "Anna wartet auf den Bus."),
    # Tense: the English past and perfect are a German perfect, except for a few verbs.
    (Sentence(does("sehen", MAN, DOG, tense="past")),
     "The man saw the dog.", "Der Mann hat den Hund gesehen."),
    (Sentence(does("sehen", MAN, DOG, tense="perfect")),
     "The man has seen the dog.", "Der Mann hat den Hund gesehen."),
    (Sentence(does("gehen", lex.I, place=lex.HOME, tense="past")),
     "I went home.", "Ich bin nach Hause gegangen."),
    (Sentence(is_(a_noun("wolf", plural=True), "hungry", tense="past")),
     "The wolves were hungry.", "Die Wölfe waren hungrig."),
    (Sentence(does("haben", lex.WE, a_noun("plan", lex.A), tense="past")),
     "We had a plan.", "Wir hatten einen Plan."),
    # Modal verbs and the future.
    (Sentence(does("lesen", CHILD, BOOK, modal=lex.CAN)),
     "The child can read a book.", "Das Kind kann ein Buch lesen."),
    (Sentence(does("arbeiten", MAN, modal=lex.MUST, negated=True)),
     "The man does not have to work.", "Der Mann muss nicht arbeiten."),
    (Sentence(does("schlafen", lex.SHE, modal=lex.WANT, tense="past")),
     "She wanted to sleep.", "Sie wollte schlafen."),
    (Sentence(does("besuchen", lex.I, a_noun("city"), modal=lex.WILL, time=time("tomorrow")), front="time"),
     "Tomorrow I will visit the city.", "Morgen werde ich die Stadt besuchen."),
    # Separable verbs.
    (Sentence(does("aufstehen", lex.I)), "I get up.", "Ich stehe auf."),
    (Sentence(does("abholen", WOMAN, lex.HE)), "The woman picks him up.", "Die Frau holt ihn ab."),
    (Sentence(does("anrufen", a_noun("friend", lex.MY), ANNA, tense="past")),
     "My friend called Anna.", "Mein Freund hat Anna angerufen."),
    # Negation.
    (Sentence(does("schlafen", DOG, negated=True)), "The dog does not sleep.", "Der Hund schläft nicht."),
    (Sentence(does("sehen", MAN, WOMAN, negated=True, tense="past")),
     "The man did not see the woman.", "Der Mann hat die Frau nicht gesehen."),
    (Sentence(does("kaufen", MAN, BOOK, negated=True)),
     "The man does not buy a book.", "Der Mann kauft kein Buch."),
    (Sentence(does("gehen", lex.WE, place=where("park", ("to", "in"), "acc"), negated=True)),
     "We do not go to the park.", "Wir gehen nicht in den Park."),
    (Sentence(does("öffnen", lex.SHE, a_noun("door"), modal=lex.CAN, negated=True)),
     "She cannot open the door.", "Sie kann die Tür nicht öffnen."),
    (Sentence(does("trinken", a_noun("child", lex.NO), a_noun("coffee", lex.BARE))),
     "No child drinks coffee.", "Kein Kind trinkt Kaffee."),
    # Prepositions, their cases and contractions.
    (Sentence(does("liegen", a_noun("key"), place=where("table"))),
     "The key lies on the table.", "Der Schlüssel liegt auf dem Tisch."),
    (Sentence(does("legen", lex.HE, a_noun("key"), place=where("table", case="acc"))),
     "He puts the key on the table.", "Er legt den Schlüssel auf den Tisch."),
    (Sentence(does("fahren", MAN, place=where("station", ("to", "zu")))),
     "The man drives to the station.", "Der Mann fährt zum Bahnhof."),
    (Sentence(does("laufen", DOG, place=where("house", ("to", "in"), "acc"), tense="past")),
     "The dog ran to the house.", "Der Hund ist ins Haus gelaufen."),
    (Sentence(does("bleiben", lex.WE, time=where("rain", ("because of", "wegen"), "gen"),
              place=lex.PLACES[2])),
     "We stay at home because of the rain.", "Wir bleiben wegen des Regens zu Hause."),
    (Sentence(does("kommen", ANNA, place=where("beach", ("from", "von")))),
     "Anna comes from the beach.", "Anna kommt vom Strand."),
    # Verb second: something else in front.
    (Sentence(does("lesen", WOMAN, BOOK, time=time("today")), front="time"),
     "Today the woman reads a book.", "Heute liest die Frau ein Buch."),
    (Sentence(does("spielen", a_noun("child", plural=True), place=where("garden")), front="place"),
     "In the garden the children play.", "Im Garten spielen die Kinder."),
    (Sentence(does("treffen", WOMAN, lex.HE, time=time("on Monday")), front="time"),
     "On Monday the woman meets him.", "Am Montag trifft ihn die Frau."),
    (Sentence(Clause(lex.EXIST, lex.THERE, (a_noun("river", lex.A),), place=where("forest")), front="place"),
     "In the forest there is a river.", "Im Wald gibt es einen Fluss."),
    # Adverbs: behind a definite object, before an indefinite one.
    (Sentence(does("lesen", lex.HE, a_noun("book"), adverb=OFTEN)),
     "He often reads the book.", "Er liest das Buch oft."),
    (Sentence(does("essen", lex.HE, a_noun("orange", lex.A), adverb=SLOWLY)),
     "He eats an orange slowly.", "Er isst langsam eine Orange."),
    # Comparison.
    (Sentence(is_(ANNA, "young", than=a_noun("doctor"), negated=True)),
     "Anna is not younger than the doctor.", "Anna ist nicht jünger als der Arzt."),
    (Sentence(is_(a_noun("camera"), "expensive", lex.DEGREES[1])),
     "The camera is too expensive.", "Die Kamera ist zu teuer."),
    # Subordinate clauses: verb last, and inversion after them.
    (Sentence(does("schlafen", MAN), link=Linked(lex.BECAUSE, TIRED)),
     "The man sleeps because he is tired.", "Der Mann schläft, weil er müde ist."),
    (Sentence(does("schlafen", lex.HE), link=Linked(lex.IF, is_(MAN, "tired")), link_first=True),
     "If the man is tired, he sleeps.", "Wenn der Mann müde ist, schläft er."),
    (Sentence(does("arbeiten", lex.I), link=Linked(lex.ALTHOUGH, does("anrufen", WOMAN, lex.I))),
     "I work although the woman calls me.", "Ich arbeite, obwohl die Frau mich anruft."),
    (Sentence(does("wissen", lex.THEY,
              content=Linked(lex.THAT, does("lesen", CHILD, BOOK, tense="perfect")))),
     "They know that the child has read a book.", "Sie wissen, dass das Kind ein Buch gelesen hat."),
    (Sentence(does("fragen", lex.SHE,
              content=Linked(lex.WHETHER, does("helfen", lex.WE, MAN, modal=lex.CAN)))),
     "She asks whether we can help the man.", "Sie fragt, ob wir dem Mann helfen können."),
    (Sentence(does("tanzen", ANNA), link=Linked(lex.AND, does("lachen", lex.PERSONS[3]))),
     "Anna dances, and Peter laughs.", "Anna tanzt und Peter lacht."),
    # Relative clauses: gender of the noun, case of the gap; the verb frame closes before them.
    (Sentence(does("schlafen", a_noun("dog", relative=does("sehen", ANNA, DOG_GAP)))),
     "The dog that Anna sees sleeps.", "Der Hund, den Anna sieht, schläft."),
    (Sentence(does("sehen", lex.WE, a_noun("man", relative=does("helfen", WOMAN, MAN_GAP)), tense="past")),
     "We saw the man whom the woman helps.", "Wir haben den Mann gesehen, dem die Frau hilft."),
    (Sentence(does("arbeiten", lex.I, place=where("house",
              relative=does("kennen", lex.HE, Gap(the_noun("house")))))),
     "I work in the house that he knows.", "Ich arbeite in dem Haus, das er kennt."),
    # Infinitives.
    (Sentence(does("versuchen", MAN, content=Linked(None, does("aufräumen", MAN, a_noun("room"))))),
     "The man tries to tidy up the room.", "Der Mann versucht, das Zimmer aufzuräumen."),
    (Sentence(does("reisen", ANNA, place=Prepositional("to", "nach", "dat", lex.CITIES[4])),
              link=Linked(None, does("kaufen", ANNA, BOOK))),
     "Anna travels to Vienna to buy a book.", "Anna reist nach Wien, um ein Buch zu kaufen."),
    # Questions.
    (Sentence(does("sehen", WOMAN, DOG), question="yes-no"),
     "Does the woman see the dog?", "Sieht die Frau den Hund?"),
    (Sentence(does("helfen", MAN, Gap()), question="whom"), "Whom does the man help?", "Wem hilft der Mann?"),
    (Sentence(does("sehen", Gap(), DOG, tense="past"), question="who"),
     "Who saw the dog?", "Wer hat den Hund gesehen?"),
    (Sentence(does("lesen", lex.SHE, Gap(), tense="past"), question="what"),
     "What did she read?", "Was hat sie gelesen?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs():
    return sample.generate(4000, seed=5)


@pytest.fixture(scope="module")
def splits():
    return sample.splits()


@pytest.mark.parametrize(("meaning", "source", "target"), HAND_WRITTEN, ids=lambda value: str(value)[:40])
def test_hand_written_translations(meaning, source, target):
    assert english.sentence(meaning) == source
    assert german.sentence(meaning) == target


@pytest.mark.parametrize(
    ("infinitive", "third"), [("go", "goes"), ("watch", "watches"), ("carry", "carries"), ("buy", "buys")]
)
def test_english_third_person(infinitive, third):
    assert english.third_person(infinitive) == third


def test_indefinite_article_looks_at_the_next_word():
    for words, expected in ((a_noun("egg", lex.A), "an egg"), (a_noun("egg", lex.A, "big"), "a big egg")):
        assert english.sentence(Sentence(does("essen", lex.WE, words))) == f"We eat {expected}."


def test_every_noun_declines_to_a_known_pattern():
    for noun in lex.NOUNS:
        assert noun.gender in "mfn" and noun.german[0].isupper()
        assert bool(noun.plural) == bool(noun.german_plural)
        if noun.gender == "f":
            assert noun.genitive == noun.german
        elif noun.weak:
            assert noun.genitive == noun.german_plural and noun.german_plural.endswith("n")
        else:
            assert noun.genitive.endswith("s")


def test_every_kind_that_a_word_asks_for_exists():
    known = {noun.kind for noun in lex.NOUNS} | {noun.singular for noun in lex.NOUNS}
    wanted = [kinds for verb in lex.VERBS for kinds in (verb.subjects, *verb.objects)]
    wanted += [adjective.kinds for adjective in lex.ADJECTIVES]
    wanted += [*phrases.SETTINGS.values(), *phrases.GOALS.values(), phrases.SEATS]
    assert not frozenset().union(*wanted) - known


def test_no_english_form_names_two_nouns():
    forms = Counter(form for noun in lex.NOUNS for form in (noun.singular, noun.plural) if form)
    assert not [form for form, count in forms.items() if count > 1]


def test_lexicon_has_three_hundred_words():
    words = sample.vocabulary()
    assert len(words) == len(set(words)) >= 300
    assert {"man", "big", "see", "because", "often", "with"} <= set(words)


def test_every_lemma_is_frequent(splits):
    """Each noun, adjective and verb, in all its forms, is seen often enough to be learnt."""
    counts = Counter(word for source, _ in splits["train"] for word in sample.normalised(source).split())
    for noun in lex.NOUNS:
        assert counts[noun.singular] + counts[noun.plural] >= 60, noun.singular
    for adjective in lex.ADJECTIVES:
        assert counts[adjective.english] >= 60, adjective.english
    for verb in lex.VERBS:
        forms = {verb.english, english.third_person(verb.english), verb.past, verb.participle}
        assert sum(counts[form] for form in forms) >= 60, verb.english


def test_same_seed_same_sentences_in_another_process(pairs):
    program = "from apps.translate import sample; print(sample.generate(200, seed=5))"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                           env={"PYTHONHASHSEED": "1", "PYTHONIOENCODING": "utf-8"})  # fmt: skip
    assert child.stdout.strip() == str(pairs[:200])


def test_another_seed_gives_other_sentences(pairs):
    assert sample.generate(50, seed=6) != pairs[:50]


def test_german_is_a_function_of_english():
    """No English sentence, met again in any run, has a second translation."""
    translations: dict[str, str] = {}
    for seed in range(4):
        for source, target in sample.generate(4000, seed=100 + seed):
            assert translations.setdefault(sample.normalised(source), target) == target


def test_splits_are_disjoint_and_complete(splits):
    sizes = {name: len(part) for name, part in splits.items()}
    assert sizes == {"train": 20_000, "validation": 500, "test": 500}
    keys = [sample.normalised(source) for part in splits.values() for source, _ in part]
    assert len(set(keys)) == len(keys)


def test_held_out_words_are_known(splits):
    counts = Counter(word for _, target in splits["train"] for word in sample.normalised(target).split())
    for name in ("validation", "test"):
        for _, target in splits[name]:
            assert min(counts[word] for word in sample.normalised(target).split()) >= sample.SEEN_AT_LEAST


def test_splits_refuse_a_training_set_too_small():
    with pytest.raises(ValueError, match="ask for more training sentences"):
        sample.splits(train=50, validation=100, test=100)


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_sentences_are_well_formed(seed):
    for source, target in sample.generate(40, seed):
        assert sample.SHORTEST <= len(source.split()) <= sample.LONGEST
        assert (source[-1] == "?") == (target[-1] == "?") and source[-1] in ".?"
        for sentence in (source, target):
            assert sentence[0].isupper() and sentence == " ".join(sentence.split())
            assert not any(mark in sentence for mark in (" ,", ",,", ",.", ",?", "-", "_", "+", "|"))
        words = target.rstrip(".?").replace(",", "").split()
        assert not {"None", "a", "the"} & set(words)
        contracted = ("in dem", "in das", "an dem", "an das", "von dem", "zu dem", "zu der")
        assert not any(f" {pair} " in f" {target} " for pair in contracted) or "," in target
