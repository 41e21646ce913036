"""Hints that a run changed: they say where to look, never what is there. Lost, doubled and late ones do no harm."""

from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.ports import Clock, Store, Wake
from bot.core.rebuilds import WITH_RUN

RELIED_ON = timedelta(minutes=10)  # so long after a hint the next change is expected to announce itself
REMEMBERED = timedelta(days=30)


class Outcome(StrEnum):
    """What became of a hint, or of an event."""

    TAKEN = "taken"
    REPEATED = "repeated"
    IGNORED = "ignored"


class Hints:
    """Takes hints about runs, and knows whether they can be relied on at the moment."""

    def __init__(self, store: Store, clock: Clock, wake: Wake) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self._latest: datetime | None = None
        self._runs: set[int | None] = set()

    async def take(self, delivery_id: str, run_id: int | None) -> Outcome:
        """Have the run looked at. None is a run that the hint does not name: all that are under way are looked at.

        A run that none of our open rebuilds has is ignored, and so is a delivery that was taken before.
        """
        under_way = await self._store.rebuilds(states=WITH_RUN)
        if not any(run_id in (None, rebuild.run_id) for rebuild in under_way):
            return Outcome.IGNORED
        now = self._clock.now()
        if not await self._store.first_delivery(delivery_id, now, remembered=REMEMBERED):
            return Outcome.REPEATED
        self._latest = now
        self._runs.add(run_id)
        self._wake.runs()
        return Outcome.TAKEN

    def read(self) -> set[int | None]:
        """The runs that were hinted at since the last call."""
        runs, self._runs = self._runs, set()
        return runs

    def missed(self) -> None:
        """Something changed without a hint, or could not be read after one: nothing is relied on until the next."""
        self._latest = None

    @property
    def relied_on(self) -> bool:
        return self._latest is not None and self._clock.now() - self._latest <= RELIED_ON
