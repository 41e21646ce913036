"""When checks are due, and the rules of single images: when they are checked, watched and rebuilt."""

from collections.abc import Iterable
from datetime import datetime

from microsoft_teams.cards.core import CardElement, Container

from bot.core.images import PlatformImage
from bot.core.timetable import Timetable
from bot.teams.cards.card import Card, card, fitting, heading, line, more, run
from bot.teams.cards.formats import clean, moment
from bot.teams.cards.text import text_card


def schedule_card(told: str, images: Iterable[PlatformImage], timetable: Timetable, *, now: datetime) -> Card:
    """The answer to `schedule`: when the next check is due, then the images with rules of their own."""
    ruled = [(image, rules(image, timetable.upcoming(now, image.name), now)) for image in images]
    special = [(image, lines) for image, lines in ruled if lines]
    if not special:
        return text_card(told)
    rows = fitting(_image(image, lines) for image, lines in special)
    return card(told, [heading(told), *rows, *more(len(special) - len(rows), "status IMAGE")])


def _image(image: PlatformImage, lines: list[CardElement]) -> CardElement:
    return Container(items=[line(run(image.name, bold=True)), *lines], separator=True, spacing="Medium")


def rules(image: PlatformImage, next_check: datetime | None, now: datetime) -> list[CardElement]:
    """What the catalog says about the times of an image; nothing for one that goes with all others."""
    lines: list[CardElement] = []
    if image.schedule:
        following = [": next ", moment(next_check)] if next_check else []
        lines.append(line("Checked by its own schedule ", clean(str(image.schedule)), *following, "."))
    if image.watch:
        lines.append(line("Watched for security releases every hour."))
    if windows := str(image.windows):
        lines.append(line("Rebuilds start ", clean(windows), ": ", *_opening(image, now), "."))
    return lines


def _opening(image: PlatformImage, now: datetime) -> list[str]:
    if image.windows.is_open(now):
        return ["open now"]
    opening = image.windows.next_open(now)
    return ["opens ", moment(opening)] if opening else ["does not open within a year"]
