"""The weekly check: APScheduler tells when to look, the database which slot is still to do.

So a slot that was missed while the bot was down is caught up once, and no slot is checked twice.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from bot.core.ports import Clock
from bot.errors import ConfigError

logger = logging.getLogger(__name__)

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = "[a-z]+|[0-7]"
LOOK_AGAIN = timedelta(minutes=5)  # for a slot that another replica claimed and did not finish
LOOK_BACK = (timedelta(minutes=2), timedelta(days=1), timedelta(days=8), timedelta(days=32), timedelta(days=367))


class Schedule:
    """A crontab expression in a time zone. Raises ConfigError when it cannot be read.

    Five fields; a sixth in front, if there is one, is seconds. A day of the month and a day of the week have to be true
    both.
    """

    def __init__(
        self, crontab: str, timezone: str, clock: Clock, check: Callable[[datetime], Awaitable[object]]
    ) -> None:
        self._slots = _Slots(_trigger(crontab), ZoneInfo(timezone))
        self._clock = clock
        self._check = check
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._upcoming: datetime | None = None
        if self.upcoming() is None:
            raise ConfigError([f"SHIPSHAPE_SCHEDULE: {crontab!r} names a time that never comes"])

    async def start(self) -> None:
        """Look for a missed slot soon, and at every slot from now on."""
        # A late start of the job does not matter, since it asks the database what is to do.
        options = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler.add_job(self._job, **options)
        self._scheduler.add_job(self._job, self._slots, **options)
        self._scheduler.add_job(self._job, IntervalTrigger(seconds=int(LOOK_AGAIN.total_seconds())), **options)
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    async def _job(self) -> None:
        """For APScheduler, which takes it for an error when it is stopped while a check is under way."""
        with suppress(asyncio.CancelledError):
            await self.run_due()

    async def run_due(self) -> None:
        """Check the newest slot that is past, if nobody has. An older one that was missed is covered by it."""
        slot = self.latest()
        if slot is None:
            return
        try:
            await self._check(slot)
        except Exception:
            logger.exception("the check for %s failed; it is tried again in %s", slot, LOOK_AGAIN)

    def latest(self) -> datetime | None:
        """The newest slot not after now, in UTC."""
        return self._slots.until(self._clock.now())

    def upcoming(self) -> datetime | None:
        """The first slot after now, in UTC."""
        now = self._clock.now()
        if self._upcoming is None or self._upcoming <= now:
            self._upcoming = self._slots.after(now)
        return self._upcoming


class _Slots(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """The moments of a crontab expression by the clocks of a time zone.

    In the night the clocks are set back, APScheduler's own trigger finds a time twice and then never gets on. So it is
    only asked what clocks show, as if they were never set. A time that they show twice counts once, the first time; one
    that they skip counts as much later as they skip.
    """

    def __init__(self, shown: CronTrigger, zone: ZoneInfo) -> None:
        self._shown = shown
        self._zone = zone

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """APScheduler's question."""
        return self.after(now)

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
        shown = moment.astimezone(self._zone).replace(tzinfo=UTC, fold=0)
        while (shown := self._shown.get_next_fire_time(None, shown)) is not None:
            yield shown.replace(tzinfo=self._zone).astimezone(UTC)
            shown += timedelta(microseconds=1)

    def _set_by(self, moment: datetime) -> timedelta:
        """By how much the clocks are set within three hours of a moment."""
        before, after = ((moment + timedelta(hours=hours)).astimezone(self._zone).utcoffset() for hours in (-3, 3))
        return abs((after or timedelta()) - (before or timedelta()))


def _trigger(crontab: str) -> CronTrigger:
    fields = crontab.split()
    if len(fields) not in (5, 6):
        raise ConfigError([f"SHIPSHAPE_SCHEDULE: {crontab!r} does not have five fields, such as 0 6 * * 1"])
    second = fields.pop(0) if len(fields) == 6 else "0"
    minute, hour, day, month, weekday = fields
    try:
        return CronTrigger(
            second=second,
            minute=minute,
            hour=hour,
            day=day,
            month=month,
            day_of_week=_weekdays(weekday),
            timezone=UTC,
        )
    except ValueError as error:
        raise ConfigError([f"SHIPSHAPE_SCHEDULE: {crontab!r} cannot be read: {error}"]) from None


def _weekdays(field: str) -> str:
    """A list of names, which mean the same to both: crontab counts days from Sunday, APScheduler from Monday.

    https://apscheduler.readthedocs.io/en/3.x/modules/triggers/cron.html
    """
    days = [day for part in field.lower().split(",") for day in _days(part)]
    return ",".join(dict.fromkeys(WEEKDAYS[day] for day in days))


def _days(part: str) -> range:
    """`*`, `*/2`, `1`, `mon`, `1-5` or `mon-fri/2`; Sunday is 0, and 7 too."""
    match = re.fullmatch(rf"(?:\*|({DAY})-({DAY}))(?:/([1-7]))?|({DAY})", part)
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
