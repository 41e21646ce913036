"""People called by name in a message that rings."""

from collections.abc import Iterable
from dataclasses import replace
from xml.sax.saxutils import escape

from bot.core.people import Person
from bot.teams.cards.formats import clean

LONGEST_NAME = 60


def call(people: Iterable[Person]) -> tuple[str, tuple[Person, ...]]:
    """` <at>Alex Wilber</at> <at>Megan Bowen</at>`, escaped, and whom it mentions, under the names that stand there.

    Teams finds who is meant by that text, so people of the same name are told apart. Somebody it cannot mention is
    named all the same.
    """
    named = _told_apart(people)
    words = (f"<at>{escape(person.name)}</at>" if person.mri else escape(person.name) for person in named)
    return "".join(f" {word}" for word in words), tuple(person for person in named if person.mri)


def _told_apart(people: Iterable[Person]) -> list[Person]:
    named: dict[str, Person] = {}
    for person in people:
        name = clean(person.name, LONGEST_NAME).strip()
        if name.lower() in named:
            name = f"{name} ({clean(person.principal_name, LONGEST_NAME) or len(named) + 1})"
        if name:
            named[name.lower()] = replace(person, name=name)
    return list(named.values())
