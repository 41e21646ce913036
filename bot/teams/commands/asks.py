"""A command as somebody gave it, and what commands work with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bot.core.answering import AnswerService
from bot.core.asking import AskService
from bot.core.checking import CheckService
from bot.core.conversations import Conversation
from bot.core.deciding import DecideService
from bot.core.holding import HoldService
from bot.core.people import Person
from bot.core.ports import Clock
from bot.core.reading import ImageStatus, ReadService
from bot.core.rebuilds import is_id
from bot.core.retrying import RetryService
from bot.core.rolling_back import RollbackService
from bot.core.subscribing import SubscribeService
from bot.core.timetable import Timetable
from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.drawings import Drawings
from bot.teams.parsing import image_name

ALL = "all"  # no image may be called so


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What commands work with. `drawn` has the last status card of each image, and what it was drawn from."""

    reads: ReadService
    asks: AskService
    decisions: DecideService
    retries: RetryService
    checks: CheckService
    holds: HoldService
    rollbacks: RollbackService
    answers: AnswerService
    subscriptions: SubscribeService
    drawings: Drawings
    clock: Clock
    timetable: Timetable
    deliver: Callable[[], Awaitable[None]]
    drawn: dict[str, tuple[ImageStatus, Card]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One command as somebody gave it: by typing (`text`) or by a button (`data`, with its inputs).

    `identify` asks Teams for the person's principal name, which activities do not carry. Raises PeerError.
    """

    desk: Desk
    person: Person
    identify: Callable[[], Awaitable[Person]]
    conversation: Conversation
    command: str = ""
    text: str = ""
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def pressed(self) -> bool:
        return bool(self.data)

    def target_and_rest(self, rest_key: str) -> tuple[str, str]:
        """The first word and the others, or what the button carries."""
        if self.pressed:
            return self.data.get("target", ""), self.data.get(rest_key, "").strip()
        target, _, rest = self.text.partition(" ")
        return target, rest.strip()

    async def told(self) -> Conversation:
        """The conversation with what it is told about."""
        return await self.desk.subscriptions.present(self.conversation)

    def images(self, *others: str) -> list[str]:
        """The images that were named, checked against the catalog and `others`. Raises CommandError."""
        words = [self.data.get("target", "")] if self.pressed else self.text.replace(",", " ").split()
        names = (*self.desk.reads.catalog, *others)
        return [image_name(word, names, self.command) for word in words if word]


Function = Callable[[Ask], Awaitable[Card | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A line of the table. Who `decides` has to be identified; `hidden` ones are for buttons."""

    name: str
    usage: str
    help: str
    function: Function
    decides: bool = False
    hidden: bool = False


def command(usage: str, help: str, *, decides: bool = False, hidden: bool = False) -> Callable[[Function], Command]:
    """Make a function the command that is named by the first word of its usage."""

    def make(function: Function) -> Command:
        name = usage.partition(" ")[0]
        return Command(name=name, usage=usage, help=help, function=function, decides=decides, hidden=hidden)

    return make


def needs(value: str, usage: str, example: str) -> str:
    """The value. Raises CommandError when nothing was given."""
    if not value:
        raise CommandError(f"Something is missing: {usage}, for example {example}.")
    return value


def rebuild_and_rest(ask: Ask, rest_key: str, usage: str, example: str) -> tuple[str, str]:
    """The id of a rebuild or the image that was named, and the words after it. Raises CommandError."""
    target, rest = ask.target_and_rest(rest_key)
    word = needs(target, usage, example).lower()
    if is_id(word) and word not in ask.desk.reads.catalog:
        return word, rest
    return image_name(target, ask.desk.reads.catalog, ask.command), rest


def image_and_rest(ask: Ask, rest_key: str, usage: str, example: str) -> tuple[str, str]:
    """The image that was named, and the words after it. Raises CommandError."""
    target, rest = ask.target_and_rest(rest_key)
    return image_name(needs(target, usage, example), ask.desk.reads.catalog, ask.command), rest


def first(text: str) -> tuple[str, str]:
    """The first word, and the others."""
    word, _, rest = text.partition(" ")
    return word, rest.strip()


def spelled(at: datetime) -> str:
    """`Monday, 23 November 2026 at 06:00 UTC`"""
    return f"{at:%A, %d %B %Y at %H:%M} UTC"
