"""Maintenance windows: when a rebuild may start, by the clocks of a time zone.

A window is open when no `deny` covers the moment, and an `allow` does or none is given.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
LONGEST_SEARCH = timedelta(days=400)
QUARTERS = frozenset(range(0, DAY_MIN, 15))


def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as Europe
        raise ValueError(f"{name[:40]!r} is not a time zone such as UTC or Europe/Madrid") from None


@dataclass(frozen=True, slots=True)
class Weekly:
    """`mon-fri 08:00-17:00`: minutes of the day on days of the week (Monday is 0), beyond 1440 on the next day."""

    text: str
    days: frozenset[int]
    starts_min: int
    ends_min: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `DAYS HH:MM-HH:MM`. Raises ValueError with what is wrong."""
        days, _, times = text.rpartition(" ")
        match = re.fullmatch(r"(\d\d:\d\d)-(\d\d:\d\d)", times)
        if not match or not days:
            raise ValueError(
                f"{text!r} is neither days with times, such as mon-fri 08:00-17:00,"
                " nor a date or two, such as 2026-12-18..2027-01-06"
            )
        starts, ends = map(_minute, match.groups())
        if starts == DAY_MIN:
            raise ValueError(f"{times!r} starts at the end of the day; 24:00 can only be an end")
        if starts == ends:
            raise ValueError(f"{times!r} is empty; a whole day is 00:00-24:00")
        return cls(text, frozenset(_days(days)), starts, ends if ends > starts else ends + DAY_MIN)

    def covers(self, shown: datetime) -> bool:
        minute, weekday = shown.hour * 60 + shown.minute, shown.weekday()
        since_yesterday = (weekday - 1) % 7 in self.days and minute + DAY_MIN < self.ends_min
        return since_yesterday or (weekday in self.days and self.starts_min <= minute < self.ends_min)


@dataclass(frozen=True, slots=True)
class Dates:
    """`2026-12-18..2027-01-06`, both included, or one date."""

    text: str
    first: date
    last: date

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `DATE` or `DATE..DATE`. Raises ValueError with what is wrong."""
        first, dots, last = text.partition("..")
        dates = cls(text, _date(first), _date(last if dots else first))
        if dates.last < dates.first:
            raise ValueError(f"{text!r} ends before it begins")
        return dates

    def covers(self, shown: datetime) -> bool:
        return self.first <= shown.date() <= self.last


Span = Weekly | Dates


def parse_span(text: str) -> Span:
    """One entry of `allow` or `deny`. Raises ValueError with what is wrong."""
    text = re.sub(r" ?, ?", ",", " ".join(text.lower().split()))
    return Dates.parse(text) if text[:1].isdigit() else Weekly.parse(text)


def _minute(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour * 60 + minute > DAY_MIN:
        raise ValueError(f"{text!r} is not a time from 00:00 to 24:00")
    return hour * 60 + minute


def _days(text: str) -> Iterator[int]:
    """`mon`, `mon-fri`, `sat-mon`, `mon,wed` or `daily`."""
    if text == "daily":
        yield from range(7)
        return
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for day in (first, last) if dash else (first,):
            if day not in WEEKDAYS:
                raise ValueError(f"{day!r} is not a day such as mon, mon-fri or daily")
        start, length = WEEKDAYS.index(first), (WEEKDAYS.index(last or first) - WEEKDAYS.index(first)) % 7
        yield from ((start + offset) % 7 for offset in range(length + 1))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else "")
    except ValueError:
        raise ValueError(f"{text!r} is not a date such as 2026-12-18") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """When a rebuild may start. Without any entry that is always."""

    timezone: str = "UTC"
    allow: tuple[Span, ...] = ()
    deny: tuple[Span, ...] = ()

    @classmethod
    def parse(cls, timezone: str, allow: Iterable[str], deny: Iterable[str]) -> Self:
        """Raises ValueError with what is wrong."""
        zone(timezone)
        return cls(timezone=timezone, allow=tuple(map(parse_span, allow)), deny=tuple(map(parse_span, deny)))

    def is_open(self, at: datetime) -> bool:
        shown = at.astimezone(ZoneInfo(self.timezone))
        if any(span.covers(shown) for span in self.deny):
            return False
        return not self.allow or any(span.covers(shown) for span in self.allow)

    def next_open(self, at: datetime) -> datetime | None:
        """The first moment not before `at` when it is open, in UTC; None when there is none within 400 days."""
        if self.is_open(at):
            return at.astimezone(UTC)
        today = at.astimezone(ZoneInfo(self.timezone)).date()
        for number in range(LONGEST_SEARCH.days):
            moments = sorted(self._edges(today + timedelta(days=number)))
            if opening := next((moment for moment in moments if moment > at and self.is_open(moment)), None):
                return opening
        return None

    def _edges(self, day: date) -> Iterator[datetime]:
        """The moments of a day at which something may open or end, in UTC, some of them twice."""
        local = ZoneInfo(self.timezone)
        midnight = datetime.combine(day, time())
        before, after = ((midnight + timedelta(days=days)).replace(tzinfo=local).utcoffset() for days in (0, 1))
        weekly = [span for span in (*self.allow, *self.deny) if isinstance(span, Weekly)]
        minutes = {0, *(edge % DAY_MIN for span in weekly for edge in (span.starts_min, span.ends_min))}
        # Clocks are set at a quarter of an hour, and what they skip may open at once.
        for minute in minutes if before == after else minutes | QUARTERS:
            for fold in (0, 1):
                shown = (midnight + timedelta(minutes=minute)).replace(tzinfo=local, fold=fold)
                yield shown.astimezone(UTC)

    def __str__(self) -> str:
        """`mon-thu 08:00-17:00, never fri 12:00-24:00 (Europe/Madrid)`; empty without an entry."""
        allow = ", ".join(span.text for span in self.allow)
        deny = ", ".join(span.text for span in self.deny)
        told = ", ".join(filter(None, (allow, f"never {deny}" if deny else "")))
        return f"{told} ({self.timezone})" if told else ""


ALWAYS = Windows()
