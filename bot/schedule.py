"""The scheduled checks: APScheduler tells when to look, the database which slot is still to do.

So a slot that was missed while the bot was down is caught up once, and no slot is checked twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from bot.core.ports import Clock
from bot.core.timetable import Timetable

logger = logging.getLogger(__name__)

LOOK_AGAIN = timedelta(minutes=5)  # for a slot that another replica claimed and did not finish
STOPPING_S = 15


class Schedule:
    """Looks for a slot that is due whenever the timetable has one, and a little later again."""

    def __init__(
        self,
        timetable: Timetable,
        clock: Clock,
        check: Callable[[datetime], Awaitable[object]],
        watch: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._timetable = timetable
        self._clock = clock
        self._check = check
        self._watch = watch
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._looking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Look for a missed slot soon, and at every slot from now on."""
        # A late start of the job does not matter, since it asks the database what is to do.
        options = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler.add_job(self._job, **options)
        self._scheduler.add_job(self._job, _Trigger(self._timetable), **options)
        self._scheduler.add_job(self._job, IntervalTrigger(seconds=int(LOOK_AGAIN.total_seconds())), **options)
        self._scheduler.start()

    async def stop(self) -> None:
        """Look no more, and end a look that is under way. It gives its slot back, for which it needs the database."""
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)  # APScheduler cancels its jobs at the loop's next turn, and waits for none
        if self._looking:
            await asyncio.wait(self._looking, timeout=STOPPING_S)

    async def _job(self) -> None:
        """For APScheduler, which takes it for an error when it is stopped while a check is under way."""
        look = asyncio.create_task(self.run_due())
        self._looking.add(look)
        look.add_done_callback(self._looking.discard)
        with suppress(asyncio.CancelledError):
            await look

    async def run_due(self) -> None:
        """Check what the newest slot that is past stands for, if nobody has; it covers older ones that were missed.

        Then watch between the checks.
        """
        slot = self._timetable.latest(self._clock.now())
        try:
            if slot:
                await self._check(slot)
        except Exception:
            logger.exception("the check for %s failed; it is tried again in %s", slot, LOOK_AGAIN)
        try:
            if self._watch:
                await self._watch()
        except Exception:
            logger.exception("the watch failed; it looks again in an hour")


class _Trigger(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """The timetable as APScheduler asks for it. Its own trigger for crontabs hangs when clocks are set back."""

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        return self._timetable.after(now)
