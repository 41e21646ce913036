"""Moves rebuilds along, in passes over everything that is open.

Every step is decided from the row and from the outside truth, so it does not matter what woke it,
how often it is called, or where the process stopped the last time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial

from bot.core.conversations import Subject
from bot.core.following import Following
from bot.core.hints import Hints
from bot.core.holds import stopping
from bot.core.images import PlatformImage
from bot.core.order import Order
from bot.core.ports import Clock, Store
from bot.core.progress import Progress
from bot.core.queueing import Queueing
from bot.core.rebuilds import WITH_RUN, Rebuild, State, is_forgotten
from bot.core.retagging import Retagging
from bot.core.scanning import Scanning
from bot.core.verifying import Verifying
from bot.errors import Conflict, PeerError

logger = logging.getLogger(__name__)

FOLLOWED = frozenset({State.QUEUED, State.RUNNING})

Step = Callable[[Rebuild], Awaitable[None]]


class Pace(StrEnum):
    """How soon the next look is due."""

    IDLE = "idle"  # nothing is under way
    HINTS = "hints"  # all that is under way are scans, or runs whose changes announce themselves
    POLL = "poll"


class Runner:
    """Owns the part of a rebuild's life that nobody has to press a button for."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        queueing: Queueing,
        following: Following,
        verifying: Verifying,
        retagging: Retagging,
        order: Order,
        scanning: Scanning,
        hints: Hints,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._queueing = queueing
        self._following = following
        self._verifying = verifying
        self._retagging = retagging
        self._order = order
        self._scanning = scanning
        self._hints = hints
        self._progress = progress
        self._clock = clock
        self.one_pass = asyncio.Lock()

    async def advance(self) -> Pace:
        """One pass over everything that is open."""
        async with self.one_pass:
            await self._each(await self._store.rebuilds(states={State.AWAITING_APPROVAL}), self._watch)
            await self._each(await self._store.rebuilds(states={State.APPROVED}), self._queueing.step)
            await self._follow(await self._store.rebuilds(states=FOLLOWED))
            await self._each(await self._store.rebuilds(states={State.VERIFYING}), self._finish)
            waiting = await self._store.rebuilds(states={State.AWAITING_APPROVAL, State.APPROVED})
            await self._each(waiting, self._order.settle)
            await self._scanning.advance()
            active = await self._store.rebuilds(states=WITH_RUN | {State.APPROVED})
            return self._pace([each for each in active if not each.waits_for_window and not each.waits_for])

    def _pace(self, under_way: list[Rebuild]) -> Pace:
        if not under_way:
            return Pace.HINTS if self._scanning.pending else Pace.IDLE
        in_azure = all(rebuild.state in FOLLOWED for rebuild in under_way)
        return Pace.HINTS if in_azure and self._hints.relied_on else Pace.POLL

    async def _each(self, rebuilds: list[Rebuild], step: Step) -> None:
        """Run a step for each; the trouble of one is its own and is tried again at the next pass."""
        for rebuild in rebuilds:
            try:
                await step(rebuild)
            except Conflict:
                logger.info("rebuild %s was changed meanwhile", rebuild.id)
            except PeerError as error:
                logger.warning("rebuild %s cannot go on: %s", rebuild.id, error)
                self._hints.missed()
            except Exception:
                logger.exception("rebuild %s cannot go on", rebuild.id)
                self._hints.missed()

    async def _watch(self, rebuild: Rebuild) -> None:
        """A question ends by itself when nobody decides, or its image is stopped or leaves the catalog."""
        now = self._clock.now()
        if rebuild.image not in self._catalog:
            reason = f"{rebuild.image} is no longer in the catalog"
            await self._progress.end(rebuild, State.CANCELLED, reason, show=())
        elif rebuild.is_overdue(now):
            await self._progress.save(rebuild, rebuild.move(State.EXPIRED, now), "expire", show=(Subject.NOTICE,))
        elif hold := stopping(await self._store.hold(rebuild.image), rebuild, now):
            await self._progress.end(rebuild, State.SUPERSEDED, str(hold), show=())
        elif is_forgotten(self._catalog[rebuild.image].approval, rebuild, now):
            reminded = replace(rebuild, reminded_at=now)
            await self._progress.save(rebuild, reminded, "remind", show=(Subject.REMINDER,))

    async def _follow(self, rebuilds: list[Rebuild]) -> None:
        hinted = self._hints.read()
        async for rebuild, run in self._following.look(rebuilds):
            await self._each([rebuild], partial(self._following.step, run=run))
        if await self._moved([rebuild for rebuild in rebuilds if not {rebuild.run_id, None} & hinted]):
            self._hints.missed()

    async def _moved(self, unannounced: list[Rebuild]) -> bool:
        """Whether a look found a change that nothing had hinted at."""
        present = await self._store.rebuilds_by_id(rebuild.id for rebuild in unannounced)
        return any(present[rebuild.id].revision != rebuild.revision for rebuild in unannounced)

    async def _finish(self, rebuild: Rebuild) -> None:
        await (self._retagging if rebuild.is_rollback else self._verifying).step(rebuild)
