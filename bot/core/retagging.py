"""Carrying out rollbacks: no run, only tags."""

from collections.abc import Mapping
from dataclasses import replace

from bot.core.conversations import Subject
from bot.core.holds import Hold, HoldKind
from bot.core.images import PlatformImage
from bot.core.order import Order
from bot.core.ports import Clock, ImageRepository, Store
from bot.core.progress import Progress
from bot.core.rebuilds import AuditEntry, Rebuild, State
from bot.core.rollbacks import Line, move_tags
from bot.errors import PeerError, PeerRefused


class Retagging:
    """Moves the floating tags of an image to the version that was approved."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        repository: ImageRepository,
        order: Order,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._repository = repository
        self._order = order
        self._progress = progress
        self._clock = clock

    async def begin(self, rebuild: Rebuild, image: PlatformImage) -> None:
        """Write down what is about to move, so that the next pass ends what this one cannot. Raises PeerError."""
        assert rebuild.target is not None
        moves = Line(image, await self._repository.tags(image)).moves(rebuild.target)
        moving = replace(rebuild.move(State.VERIFYING, self._clock.now()), moves=moves)
        await self._progress.save(rebuild, moving, "move tags", show=(Subject.REBUILD,))

    async def step(self, rebuild: Rebuild) -> None:
        """Succeeded means: every floating tag points to the approved digest, and the image is on hold."""
        image = self._catalog.get(rebuild.image)
        if image is None:
            await self._progress.end(rebuild, State.FAILED, f"{rebuild.image} is no longer in the catalog")
            return
        if rebuild.next_attempt_at and rebuild.next_attempt_at > self._clock.now():
            return
        try:
            line = await move_tags(self._repository, image, rebuild)
        except PeerRefused as error:
            await self._progress.end(rebuild, State.FAILED, str(error))
        except PeerError as error:
            await self._progress.try_later(rebuild, error)
        else:
            await self._hold_at(rebuild, line)
            await self._order.parent_changed(rebuild)
            await self._progress.end(rebuild, State.SUCCEEDED, "")

    async def _hold_at(self, rebuild: Rebuild, line: Line) -> None:
        """Nothing undoes a rollback until somebody releases the image; a way back to the newest version does so."""
        present, now = await self._store.hold(rebuild.image), self._clock.now()
        entry = AuditEntry(at=now, actor=None, action="hold", image=rebuild.image, rebuild_id=rebuild.id)
        if rebuild.target == next(iter(line.versions.values())):
            if present and present.rollback:
                await self._store.lift_hold(present, replace(entry, action="release", comment=present.reason))
        elif not present or not (present.rollback == rebuild.id or _keeps(present)):
            reason = f"rolled back to {rebuild.version}" + (f": {rebuild.reason}" if rebuild.reason else "")
            by = rebuild.votes[-1].person
            hold = Hold(image=rebuild.image, kind=HoldKind.HOLD, by=by, at=now, reason=reason, rollback=rebuild.id)
            await self._store.set_hold(hold, replace(entry, actor=by, comment=reason))


def _keeps(hold: Hold) -> bool:
    """Whether a hold that a person set keeps the tags where they are already, until a person releases it."""
    return hold.kind is HoldKind.HOLD and hold.until is None and not hold.rollback
