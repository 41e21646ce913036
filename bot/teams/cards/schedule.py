"""When checks are due, and when rebuilds may start."""

from collections.abc import Iterable
from datetime import datetime

from microsoft_teams.cards.core import CardElement, Container

from bot.core.images import PlatformImage
from bot.core.timetable import Timetable
from bot.teams.cards.card import Card, card, fitting, heading, line, more, run
from bot.teams.cards.formats import clean, moment
from bot.teams.cards.states import windows_of
from bot.teams.cards.text import text_card


def schedule_card(told: str, images: Iterable[PlatformImage], timetable: Timetable, *, now: datetime) -> Card:
    """The answer to `schedule`: when the next check is due, then the images with rules of their own."""
    special = [(image, lines) for image in images if (lines := _rules(image, timetable, now))]
    if not special:
        return text_card(told)
    rows = fitting(_image(image, lines) for image, lines in special)
    return card(told, [heading(told), *rows, *more(len(special) - len(rows), "status IMAGE")])


def _rules(image: PlatformImage, timetable: Timetable, now: datetime) -> list[CardElement]:
    due = timetable.upcoming(now, image.name)
    following = [": next ", moment(due)] if due else []
    own = [line("Checked by its own schedule ", clean(str(image.schedule)), *following, ".")] if image.schedule else []
    return [*own, *windows_of(image, now)]


def _image(image: PlatformImage, lines: list[CardElement]) -> CardElement:
    return Container(items=[line(run(image.name, bold=True)), *lines], separator=True, spacing="Medium")
