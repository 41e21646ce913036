"""Writing down how rebuilds get on when nobody presses a button."""

import logging
from dataclasses import replace

from bot.core.audit import system_entry
from bot.core.conversations import ALL_CARDS, Subject
from bot.core.ports import Clock, Store, Wake
from bot.core.rebuilds import AuditEntry, Rebuild, State, retry_delay
from bot.errors import PeerError

logger = logging.getLogger(__name__)


class Progress:
    """Saves rebuilds with their audit rows, and has their cards drawn again. Methods raise Conflict."""

    def __init__(self, store: Store, clock: Clock, wake: Wake) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake

    async def save(self, old: Rebuild, new: Rebuild, action: str, show: tuple[Subject, ...] = ()) -> None:
        """Save a move to another state."""
        await self.note(new, system_entry(old, new, action, self._clock), show)

    async def end(self, rebuild: Rebuild, state: State, reason: str, show: tuple[Subject, ...] = ALL_CARDS) -> None:
        """Move to a state that is the last one."""
        ended = replace(rebuild.move(state, self._clock.now()), ended_reason=reason)
        await self.save(rebuild, ended, state.value, show=show)

    async def note(self, rebuild: Rebuild, entry: AuditEntry | None = None, show: tuple[Subject, ...] = ()) -> Rebuild:
        """Save what is known by now, and return it with its new revision."""
        saved = await self._store.save_rebuild(rebuild, entry, show)
        self._wake.cards()
        return saved

    async def supersede(self, old: Rebuild, ended: Rebuild, successor: Rebuild) -> None:
        """Let a new question take the place of a rebuild, which has ended."""
        entries = (
            system_entry(old, ended, "supersede", self._clock),
            system_entry(None, successor, "ask", self._clock),
        )
        await self._store.supersede(ended, successor, *entries, show=(Subject.REBUILD,))
        self._wake.cards()

    async def try_later(self, rebuild: Rebuild, error: PeerError) -> None:
        """Keep the approval, say on the card why nothing happens yet, and try again."""
        wait = retry_delay(max(rebuild.queue_attempts, 1), getattr(error, "retry_after_s", None))
        later = replace(rebuild, problem=str(error), next_attempt_at=self._clock.now() + wait)
        if later.problem != rebuild.problem:
            logger.warning("rebuild %s cannot go on yet: %s", rebuild.id, error)
        await self.note(later, show=(Subject.REBUILD,))
