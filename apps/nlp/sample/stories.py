"""Short stories of a paragraph: who somebody is, what happens one day, and how it ends.

Pronouns and verbs agree with whom or what they are about, names and things stay the same throughout a story.
"""

from typing import NamedTuple

from apps.nlp.sample.grammar import Grammar, a, sentence


class Person(NamedTuple):
    """Somebody in a story, with the pronouns for them."""

    name: str
    subject: str  # he
    object: str  # him
    possessive: str  # his
    trade: str = ""


NAMES = (
    *((name, "she", "her", "her") for name in "Ada Clara Edith Flora Ida Martha Nora Rosa".split()),
    *((name, "he", "him", "his") for name in "Albert Bruno Felix Hugo Jonas Leo Oscar Walter".split()),
)
TRADES = "baker miller tailor potter gardener fisher shepherd carpenter clockmaker bookseller".split()
CHARACTERS = "patient cheerful stubborn curious careful forgetful generous quiet".split()
HOMES = (
    "at the edge of the forest", "above the harbour", "beside the old mill", "at the end of a narrow street",
    "on a hill outside the town", "in a cottage by the river",
)  # fmt: skip
SEASONS = "spring summer autumn winter".split()
TIMES = "morning evening afternoon night".split()
WEATHER = "the rain fell without a pause,the wind bent every tree,the frost was hard,the fog hid the church".split(",")
HABITS = (
    "walked to the market and back", "swept the steps", "fed {number} geese that were not {their}s",
    "counted the boats on the water", "wrote one line in a small black book", "sang to {their} {number} hens",
)  # fmt: skip
LOST = "silver key,leather purse,brass compass,red umbrella,bundle of letters,gold ring,little wooden horse".split(",")
SPOTS = ("under a bench", "in the grass by the gate", "behind the church", "among the apples", "on the bridge")
ANIMALS = "goat fox hare goose donkey cat dog".split()
STATES = "hungry,lame,lost,wet and tired,very old,no bigger than a loaf of bread".split(",")
FOODS = "a bowl of milk,a piece of cheese,half a loaf,some soup,three carrots,a honey cake".split(",")
TOOLS = "ladder boat saw kettle cart lantern drum".split()
TOWNS = "Ashford Brindle Corwen Dunmore Elmstead".split()
GOODS = "jars of honey,woollen socks,clay pots,wooden spoons,baskets of plums,clocks".split(",")
NUMBERS = "two three four five seven twelve".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ENDINGS = (
    "from that day on the two of them were friends", "{name} never spoke of it again, but {they} often smiled",
    "people in the village still tell the story", "and that, said {name}, was worth more than money",
    "{name} slept well that night", "after that everybody agreed that {name} was {character}",
)  # fmt: skip


class Stories(Grammar):
    """Stories of five to eight sentences, of one of four kinds."""

    def story(self) -> str:
        hero = Person(*self.one(NAMES), trade=self.one(TRADES))
        friend = Person(*self.other(NAMES, hero[:4]), trade=self.other(TRADES, hero.trade))
        character = self.one(CHARACTERS)
        middle = self.one((self._found, self._visitor, self._loan, self._journey))(hero, friend)
        told = [self._opening(hero, character), self._habit(hero), *middle]
        if self.chance(0.7):
            told.append(self.one(ENDINGS).format(name=hero.name, they=hero.subject, character=character))
        return " ".join(map(sentence, told))

    def _opening(self, hero: Person, character: str) -> str:
        home = self.one(HOMES)
        return self.one(
            (
                f"{hero.name} was {a(character)} {hero.trade} who lived {home}",
                f"there was once {a(character)} {hero.trade} named {hero.name}, who lived {home}",
                f"{home} lived {hero.name}, the {hero.trade}, who was known to be {character}",
            )
        )

    def _habit(self, hero: Person) -> str:
        habit = self.one(HABITS).format(number=self.one(NUMBERS), their=hero.possessive)
        habit = habit.replace("hiss", "his")  # "hers", but "his"
        return f"every {self.one(TIMES)} {hero.subject} {habit}, even when {self.one(WEATHER)}"

    def _day(self) -> str:
        return f"one {self.one(SEASONS)} {self.one(TIMES)}"

    def _found(self, hero: Person, friend: Person) -> list[str]:
        thing, weeks = self.one(LOST), self.one(NUMBERS)
        return [
            f"{self._day()} {hero.subject} found {a(thing)} {self.one(SPOTS)}",
            self.one(
                (
                    f"it belonged to {friend.name}, the {friend.trade}, who had missed it for {weeks} weeks",
                    f"{hero.name} asked at {weeks} houses, and at last heard that {friend.name} had lost it",
                )
            ),
            f'"I thought that I would never see it again," said {friend.name} when {hero.name} brought it',
            f"{friend.subject} gave {hero.object} {self.one(FOODS)}, and {self._talk(hero)}",
        ]

    def _visitor(self, hero: Person, friend: Person) -> list[str]:
        animal, food = self.one(ANIMALS), self.one(FOODS)
        return [
            f"{self._day()} {a(animal)} came to {hero.possessive} door, and it was {self.one(STATES)}",
            f"{hero.name} gave it {food}, and it slept beside the fire until {self.one(DAYS)}",
            f"when {friend.name}, the {friend.trade}, asked whose {animal} it was, {self._answer(hero)}",
            self.one(
                (
                    f"the {animal} stayed for {self.one(NUMBERS)} years and followed {hero.object} everywhere",
                    f"in {self.one(SEASONS)} it went away, but it came back with {self.one(NUMBERS)} young ones",
                )
            ),
        ]

    def _loan(self, hero: Person, friend: Person) -> list[str]:
        tool, day = self.one(TOOLS), self.one(DAYS)
        lent = [
            f'{self._day()} {friend.name}, the {friend.trade}, knocked and asked, "May I borrow your {tool}?"',
            f'"You may," said {hero.name}, "if you bring it back by {day}."',
        ]
        if self.chance(0.5):
            return [
                *lent,
                f"{day} came and went, and {friend.name} did not",
                f"when {hero.subject} looked for {friend.object}, the {tool} lay in {self.one(NUMBERS)} pieces",
                f"{friend.name} was so sorry that {friend.subject} made {hero.object} a new one, and it was better",
            ]
        return [
            *lent,
            f"on {day} {friend.subject} brought the {tool} back, and with it {self.one(FOODS)}",
            f"the {tool} was cleaner than it had ever been, and {self._talk(hero)}",
        ]

    def _journey(self, hero: Person, friend: Person) -> list[str]:
        town, goods = self.one(TOWNS), self.one(GOODS)
        return [
            f"{self._day()} {hero.subject} set out for {town} with {self.one(NUMBERS)} {goods} to sell",
            f"the road was long, {self.one(WEATHER)}, and before long {hero.name} was lost",
            f"then {friend.name}, {a(friend.trade)} from {town}, came by with a lantern",
            f'"{town} is behind you," {friend.subject} said, and showed {hero.object} the way',
            f"{hero.name} sold all the {goods} but one, and that one {hero.subject} gave to {friend.name}",
        ]

    def _talk(self, hero: Person) -> str:
        return self.one(("they talked until the candle went out", f"{hero.subject} laughed all the way home"))

    def _answer(self, hero: Person) -> str:
        return self.one(
            (f'{hero.name} said, "Its own, I suppose."', f"{hero.subject} said that {hero.subject} did not know")
        )
