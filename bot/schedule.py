"""The weekly check: APScheduler tells when to look, the database which slot is still to do.

So a slot that was missed while the bot was down is caught up once, and no slot is checked twice.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from bot.core.ports import Clock
from bot.errors import ConfigError

logger = logging.getLogger(__name__)

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
LOOK_AGAIN = timedelta(minutes=5)  # for a slot that another replica claimed and did not finish
LOOK_BACK = (timedelta(days=1), timedelta(days=8), timedelta(days=32), timedelta(days=367))


class Schedule:
    """A crontab expression in a time zone. Raises ConfigError when it cannot be read.

    Five fields; a sixth in front, if there is one, is seconds.
    """

    def __init__(
        self, crontab: str, timezone: str, clock: Clock, check: Callable[[datetime], Awaitable[object]]
    ) -> None:
        self._trigger = _trigger(crontab, timezone)
        self._clock = clock
        self._check = check
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    async def start(self) -> None:
        """Look for a missed slot now, and at every slot from now on."""
        # A late start of the job does not matter, since it asks the database what is to do.
        options = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler.add_job(self.run_due, self._trigger, **options)
        self._scheduler.add_job(self.run_due, IntervalTrigger(seconds=int(LOOK_AGAIN.total_seconds())), **options)
        self._scheduler.start()
        await self.run_due()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

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
        now = self._clock.now()
        for span in LOOK_BACK:
            latest = None
            slot = self._trigger.get_next_fire_time(None, now - span)
            while slot is not None and slot <= now:
                latest = slot
                slot = self._trigger.get_next_fire_time(slot, slot + timedelta(microseconds=1))
            if latest is not None:
                return self._utc(latest)
        return None

    @staticmethod
    def _utc(slot: datetime | None) -> datetime | None:
        return slot.astimezone(UTC) if slot else None

    def upcoming(self) -> datetime | None:
        """The first slot after now, in UTC."""
        slot = self._trigger.get_next_fire_time(None, self._clock.now() + timedelta(microseconds=1))
        return self._utc(slot)


def _trigger(crontab: str, timezone: str) -> CronTrigger:
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
            timezone=timezone,
        )
    except ValueError as error:
        raise ConfigError([f"SHIPSHAPE_SCHEDULE: {crontab!r} cannot be read: {error}"]) from None


def _weekdays(field: str) -> str:
    """Crontab counts days from Sunday, APScheduler from Monday; names mean the same to both.

    https://apscheduler.readthedocs.io/en/3.x/modules/triggers/cron.html
    """
    parts = []
    for part in field.split(","):
        days, slash, step = part.partition("/")
        first, dash, last = days.partition("-")
        named = _weekday(first) + dash + (_weekday(last) if dash else "")
        parts.append(named + slash + step)
    return ",".join(parts)


def _weekday(day: str) -> str:
    if not day.isdecimal():
        return day
    if int(day) >= len(WEEKDAYS):
        raise ValueError(f"there is no day {day} in a week")
    return WEEKDAYS[int(day)]
