"""German declension: articles, adjective endings, nouns and relative pronouns in four cases."""

from __future__ import annotations

from apps.translate.sample.lexicon import Adjective, Determiner, Noun

# Rows: gender, or "p" for every plural. Columns: nominative, accusative, dative, genitive.
_CASES = ("nom", "acc", "dat", "gen")
_DEFINITE = {"m": "der den dem des", "f": "die die der der", "n": "das das dem des", "p": "die die den der"}
_RELATIVE = {"m": "der den dem", "f": "die die der", "n": "das das dem", "p": "die die denen"}
_STRONG = {"m": "er en em es", "f": "e e er er", "n": "es es em es", "p": "e e en er"}
_STRONG_ADJECTIVE = _STRONG | {"m": "er en em en", "n": "es es em en"}
_EIN = {"m": "- en em es", "f": "e e er er", "n": "- - em es", "p": "e e en er"}
_MIXED = {"m": "er en en en", "f": "e e en en", "n": "es es en en", "p": "en en en en"}
_WEAK = {"m": "e en en en", "f": "e e en en", "n": "e e en en", "p": "en en en en"}
_ADJECTIVE_AFTER = {"definite": _WEAK, "der": _WEAK, "ein": _MIXED}  # after anything else: strong


def _cell(table: dict[str, str], gender: str, case: str) -> str:
    form = table[gender].split()[_CASES.index(case)]
    return "" if form == "-" else form


def determiner(entry: Determiner, gender: str, case: str) -> str:
    """A determiner before a noun of `gender` ("p": plural); empty for the bare noun."""
    if entry.pattern == "definite":
        return _cell(_DEFINITE, gender, case)
    if entry.pattern == "bare":
        return entry.german
    return entry.german + _cell(_EIN if entry.pattern == "ein" else _STRONG, gender, case)


def adjective(entry: Adjective, after: Determiner, gender: str, case: str) -> str:
    """An adjective after a determiner: weak after "der", mixed after "ein", otherwise strong."""
    return entry.stem + _cell(_ADJECTIVE_AFTER.get(after.pattern, _STRONG_ADJECTIVE), gender, case)


def noun(entry: Noun, plural: bool, case: str) -> str:
    """A noun: what changes is the weak singular, the singular genitive and the dative plural."""
    if plural:
        needs_n = case == "dat" and not entry.german_plural.endswith(("n", "s"))
        return entry.german_plural + ("n" if needs_n else "")
    if case == "gen":
        return entry.genitive
    return entry.german_plural if entry.weak and case != "nom" else entry.german


def relative_pronoun(gender: str, case: str) -> str:
    """The relative pronoun for an antecedent of `gender` ("p": plural): "den", "denen"."""
    return _cell(_RELATIVE, gender, case)
