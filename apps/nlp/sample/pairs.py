"""Pairs of sentences, each about an event, with a score of how much the two events have in common.

5: the same event, in other words or another voice; 4: elsewhere; 3: somebody else did it, or it was done to another;
2: done by the one to whom it was done; 1: only the place is the same, or only the deed; 0: nothing is.
"""

from collections.abc import Sequence
from typing import NamedTuple

from apps.nlp.sample.grammar import Grammar, sentence

# Each concept is a tuple of words for it.
PEOPLE = (
    ("doctor", "physician"), ("child", "kid"), ("woman", "lady"), ("man", "gentleman"), ("thief", "robber"),
    ("sailor", "seaman"), ("lawyer", "attorney"), ("cook", "chef"), ("writer", "author"), ("teacher", "tutor"),
)  # fmt: skip
THINGS = (
    ("car", "automobile"), ("picture", "painting"), ("coat", "jacket"), ("bicycle", "bike"), ("present", "gift"),
    ("stone", "rock"), ("lamp", "lantern"), ("cup", "mug"), ("carpet", "rug"), ("sofa", "couch"),
)  # fmt: skip
DONE_TO_PEOPLE = (
    ("helped", "assisted"), ("rescued", "saved"), ("followed", "pursued"), ("deceived", "fooled"),
    ("frightened", "scared"), ("hired", "employed"), ("welcomed", "greeted"), ("phoned", "called"),
)  # fmt: skip
DONE_TO_THINGS = (
    ("bought", "purchased"), ("repaired", "mended"), ("found", "discovered"), ("cleaned", "washed"),
    ("wrecked", "destroyed"), ("lifted", "raised"),
)  # fmt: skip
PLACES = (
    ("in the forest", "in the woods"), ("at the shop", "at the store"), ("in the street", "in the road"),
    ("at the harbour", "at the port"), ("in the city", "in the town"), ("by the river", "near the river"),
)  # fmt: skip


class Event(NamedTuple):
    """Who did what to whom, where. Each is a concept."""

    agent: tuple[str, ...]
    deed: tuple[str, ...]
    patient: tuple[str, ...]
    place: tuple[str, ...]


class Pairs(Grammar):
    """Two sentences about one event or about two that have more or less in common."""

    def pair(self) -> tuple[str, str, float]:
        score = self.one(range(6))
        event = self._event(DONE_TO_PEOPLE if score == 2 or self.chance(0.5) else DONE_TO_THINGS)
        other = (self._nothing, self._one_in_common, self._swapped, self._another_role, self._elsewhere, Event._make)[
            score
        ](event)
        first, second = self._words(event), self._words(other)
        while second == first:
            second = self._words(other)
        return first, second, float(score)

    def _event(self, deeds: Sequence[tuple[str, ...]]) -> Event:
        agent = self.one(PEOPLE)
        patient = self.other(PEOPLE, agent) if deeds is DONE_TO_PEOPLE else self.one(THINGS)
        return Event(agent, self.one(deeds), patient, self.one(PLACES))

    def _elsewhere(self, event: Event) -> Event:
        return event._replace(place=self.other(PLACES, event.place))

    def _another_role(self, event: Event) -> Event:
        role = self.one(("agent", "patient"))
        alike = THINGS if getattr(event, role) in THINGS else PEOPLE
        return event._replace(**{role: self.other(alike, event.agent, event.patient)})

    def _swapped(self, event: Event) -> Event:
        return event._replace(agent=event.patient, patient=event.agent)

    def _one_in_common(self, event: Event) -> Event:
        """Another event at the same place, or the same deed of others elsewhere."""
        other = self._nothing(event)
        if self.chance(0.5):
            return other._replace(place=event.place)
        alike = PEOPLE if event.patient in PEOPLE else THINGS
        patient = self.other(alike, event.agent, event.patient, other.agent)
        return other._replace(deed=event.deed, patient=patient)

    def _nothing(self, event: Event) -> Event:
        while set(found := self._event(self.one((DONE_TO_PEOPLE, DONE_TO_THINGS)))) & set(event):
            pass
        return found

    def _words(self, event: Event) -> str:
        agent, deed, patient, place = map(self.one, event)
        said = f"the {patient} was {deed} by the {agent}" if self.chance(0.4) else f"the {agent} {deed} the {patient}"
        return sentence(f"{place}, {said}" if self.chance(0.3) else f"{said} {place}")
