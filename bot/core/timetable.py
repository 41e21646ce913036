"""When checks are due: crontab expressions, by the clocks of a time zone."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Self
from zoneinfo import ZoneInfo

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LAST_DAY = 32  # `last`, whatever day of the month that is
DAYS_OF_40_YEARS = 14_610  # in which 29 February is every day of the week
LOOK_BACK = (timedelta(minutes=2), timedelta(days=1), timedelta(days=8), timedelta(days=32), timedelta(days=367))


@dataclass(frozen=True, slots=True, kw_only=True)
class Crontab:
    """What clocks show when something is due. A day of the month and a day of the week have to be true both."""

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # Sunday is 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Five fields; a sixth in front, if there is one, is seconds. Raises ValueError with what is wrong."""
        fields = text.split()
        if len(fields) not in (5, 6):
            raise ValueError(f"{text!r} does not have five fields, such as 0 6 * * 1")
        second, minute, hour, day, month, weekday = fields if len(fields) == 6 else ["0", *fields]
        try:
            crontab = cls(
                text=text,
                seconds=tuple(sorted(_numbers(second, 0, 59))),
                minutes=tuple(sorted(_numbers(minute, 0, 59))),
                hours=tuple(sorted(_numbers(hour, 0, 23))),
                days=_numbers(day, 1, 31, {"last": LAST_DAY}),
                months=_numbers(month, 1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
                weekdays=_weekdays(weekday),
            )
        except ValueError as error:
            raise ValueError(f"{text!r} cannot be read: {error}") from None
        if next(crontab.shown_from(datetime(2000, 1, 1)), None) is None:  # noqa: DTZ001 -- what clocks show
            raise ValueError(f"{text!r} names a time that never comes")
        return crontab

    def shown_from(self, shown: datetime) -> Iterator[datetime]:
        """What clocks show when it is due, without a zone, from one such time on for forty years."""
        for number in range(DAYS_OF_40_YEARS):
            day = shown.date() + timedelta(days=number)
            if self._is_on(day):
                yield from self._times(day, shown.time() if number == 0 else time())

    def _is_on(self, day: date) -> bool:
        last = (day + timedelta(days=1)).day == 1
        in_month = day.day in self.days or (last and LAST_DAY in self.days)
        return in_month and day.month in self.months and day.isoweekday() % 7 in self.weekdays

    def _times(self, day: date, first: time) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes if hour >= first.hour else ():
                for second in self.seconds if (hour, minute) >= (first.hour, first.minute) else ():
                    at = time(hour, minute, second)
                    if at >= first:
                        yield datetime.combine(day, at)

    def __str__(self) -> str:
        return self.text


def _numbers(field: str, low: int, high: int, names: Mapping[str, int] | None = None) -> frozenset[int]:
    """`*`, `*/15`, `1`, `1-5`, `1-5/2`, `5/15` and lists of them."""
    return frozenset(number for part in field.lower().split(",") for number in _range(part, low, high, names or {}))


def _range(part: str, low: int, high: int, names: Mapping[str, int]) -> range:
    match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?", part)
    if match is None:
        raise ValueError(f"{part!r} is not a number, a range or a list")
    from_, until, step = match.groups()
    first = _number(from_, low, high, names) if from_ else low
    last = _number(until, low, high, names) if until else first if from_ and not step else high
    if last < first:
        raise ValueError(f"{part!r} ends before it begins")
    if step and not 1 <= int(step) <= high - low:
        raise ValueError(f"{part!r} has a step that is not between 1 and {high - low}")
    return range(first, last + 1, int(step or 1))


def _number(text: str, low: int, high: int, names: Mapping[str, int]) -> int:
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise ValueError(f"{text!r} is not between {low} and {high}")
    return int(text)


def _weekdays(field: str) -> frozenset[int]:
    return frozenset(day % 7 for part in field.lower().split(",") for day in _days(part))


def _days(part: str) -> range:
    """`*`, `*/2`, `1`, `mon`, `1-5` or `mon-fri/2`; Sunday is 0, and 7 too."""
    day = "[a-z]+|[0-7]"
    match = re.fullmatch(rf"(?:\*|({day})-({day}))(?:/([1-7]))?|({day})", part)
    if match is None:
        raise ValueError(f"{part!r} is not a day of the week such as 1, mon or 1-5")
    from_, until, step, only = match.groups()
    first, last = (_day(from_ or only), _day(until or only)) if from_ or only else (0, 6)
    last += 7 if last == 0 < first else 0  # until Sunday
    if last < first:
        raise ValueError(f"{part!r} ends before it begins")
    return range(first, last + 1, int(step or 1))


def _day(text: str) -> int:
    if text.isdecimal():
        return int(text)
    if text not in WEEKDAYS:
        raise ValueError(f"{text!r} is not a day of the week")
    return WEEKDAYS.index(text)


@dataclass(frozen=True, slots=True)
class Slots:
    """The moments of a crontab by the clocks of a time zone.

    A time that clocks show twice counts once, the first time; one that they skip counts as much later as they skip.
    """

    crontab: Crontab
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """The first slot after a moment, in UTC."""
        set_by = self._set_by(moment)
        first = next((slot for slot in self._from(moment - set_by) if slot > moment), None)
        if first is None:
            return None
        # What clocks skip comes out later than what they show next, so the first in their order may not be the first.
        slots = takewhile(lambda slot: slot <= first + set_by, self._from(moment - set_by))
        return min(slot for slot in slots if slot > moment)

    def until(self, moment: datetime) -> datetime | None:
        """The newest slot not after a moment, in UTC; None when there was none for a year."""
        set_by = self._set_by(moment)
        for span in LOOK_BACK:
            slots = takewhile(lambda slot: slot <= moment + set_by, self._from(moment - span - set_by))
            if past := [slot for slot in slots if slot <= moment]:
                return max(past)
        return None

    def _from(self, moment: datetime) -> Iterator[datetime]:
        """The slots in UTC, in the order of what clocks show, from the moment on."""
        for shown in self.crontab.shown_from(moment.astimezone(self.zone).replace(tzinfo=None, fold=0)):
            yield shown.replace(tzinfo=self.zone).astimezone(UTC)

    def _set_by(self, moment: datetime) -> timedelta:
        """By how much the clocks are set within three hours of a moment."""
        before, after = ((moment + timedelta(hours=hours)).astimezone(self.zone).utcoffset() for hours in (-3, 3))
        return abs((after or timedelta()) - (before or timedelta()))


class Timetable:
    """The check of all images, and besides it those of the images that have a schedule of their own."""

    def __init__(self, crontab: Crontab, timezone: str, own: Mapping[str, Crontab] | None = None) -> None:
        self.zone = ZoneInfo(timezone)
        self._all = Slots(crontab, self.zone)
        self._own = {name: Slots(each, self.zone) for name, each in (own or {}).items()}
        self._upcoming: dict[str, datetime] = {}

    def latest(self, now: datetime) -> datetime | None:
        """The newest slot of any schedule not after now, in UTC."""
        return max(filter(None, (slots.until(now) for slots in self._everything())), default=None)

    def after(self, moment: datetime) -> datetime | None:
        """The first slot of any schedule after a moment, in UTC."""
        return min(filter(None, (slots.after(moment) for slots in self._everything())), default=None)

    def upcoming(self, now: datetime, name: str = "") -> datetime | None:
        """The first check of all images after now, or the first one of an image."""
        known = self._upcoming.get(name)
        if known is None or known <= now:
            schedules = filter(None, (self._all, self._own.get(name)))
            known = min(filter(None, (slots.after(now) for slots in schedules)), default=None)
            if known:
                self._upcoming[name] = known
        return known

    def due(self, since: datetime | None, slot: datetime) -> frozenset[str] | None:
        """The images to check at a slot when the one before was at `since`; None for all of them."""
        if _had_one(self._all, since, slot):
            return None
        return frozenset(name for name, slots in self._own.items() if _had_one(slots, since, slot))

    def _everything(self) -> Iterator[Slots]:
        yield self._all
        yield from {slots.crontab: slots for slots in self._own.values()}.values()


def _had_one(slots: Slots, since: datetime | None, slot: datetime) -> bool:
    newest = slots.until(slot)
    return newest is not None and (since is None or newest > since)
