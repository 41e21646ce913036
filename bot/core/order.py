"""The order of rebuilds: images that are based on other platform images are rebuilt after them.

A parent that is approved offers its direct children. Each of them waits for what the parent pushes, and ends when the
parent ends otherwise. Everything is decided from the rows, so it may be repeated at any time.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace

from bot.core.audit import system_entry
from bot.core.conversations import Subject
from bot.core.holds import HoldKind
from bot.core.images import Mode, PlatformImage
from bot.core.ports import Clock, Store, Wake
from bot.core.rebuilds import WITH_RUN, AuditEntry, Cause, Rebuild, State, braked, new_id

HISTORY = 10  # rebuilds that are looked at for failures in a row
GOES_AHEAD = WITH_RUN | {State.APPROVED}
ENDS = {
    State.FAILED: "failed",
    State.CANCELLED: "was cancelled",
    State.REJECTED: "was rejected",
    State.EXPIRED: "expired",
    State.SUPERSEDED: "was superseded",
}
SKIPPED = "skipped: "

Look = Callable[[Collection[str]], Awaitable[object]]


def parents_first(names: Iterable[str], catalog: Mapping[str, PlatformImage]) -> list[str]:
    """The names, each after the one it is based on; otherwise in the order they came."""

    def depth(name: str) -> int:
        image = catalog.get(name)
        return 1 + depth(image.parent) if image and image.parent else 0

    return sorted(names, key=depth)


class Order:
    """Ties the rebuild of an image to that of its parent. `look` checks the named images now."""

    def __init__(
        self, catalog: Mapping[str, PlatformImage], store: Store, clock: Clock, wake: Wake, look: Look
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._wake = wake
        self._look = look

    async def in_turn(self, rebuild: Rebuild, image: PlatformImage) -> Rebuild | None:
        """An approved rebuild whose children are asked for; None as long as it has to wait for its image's parent.

        Raises Conflict.
        """
        tied = await self._line_up(await self._offer_children(rebuild), image)
        return None if tied.waits_for else tied

    async def _offer_children(self, parent: Rebuild) -> Rebuild:
        """Ask for each child at most once; the row remembers that it was done."""
        children = self._children(parent)
        if parent.offered or not children:
            return parent
        offered = {child.image for child in await self._store.following(parent.id)}
        for image in children:
            if image.name not in offered:
                await self._offer(image, parent)
        return await self._store.save_rebuild(replace(parent, offered=True))

    def _children(self, parent: Rebuild) -> list[PlatformImage]:
        return [image for image in self._catalog.values() if image.parent == parent.image]

    async def _offer(self, image: PlatformImage, parent: Rebuild) -> None:
        if present := await self._store.open_rebuild(image.name):
            await self._let_wait(present, parent)
        elif image.mode is not Mode.NOTIFY and not await self._is_held(image):
            child = await self._request(image, parent)
            # Where the parent's card is, the child is asked for on that one.
            await self._store.add_rebuild(child, self._entry(None, child, "ask"), (Subject.REBUILD,))
            self._changed()

    async def _is_held(self, image: PlatformImage) -> bool:
        hold = await self._store.hold(image.name)
        return hold is not None and hold.kind is HoldKind.HOLD and not hold.is_over(self._clock.now())

    async def _request(self, image: PlatformImage, parent: Rebuild) -> Rebuild:
        now, base = self._clock.now(), self._catalog[parent.image]
        latest = await self._store.latest_verdict(image.name)
        stopped = image.mode is Mode.AUTO and braked(await self._store.history(image.name, HISTORY))
        automatic = image.mode is Mode.AUTO and not stopped
        return Rebuild(
            id=new_id(),
            image=image.name,
            state=State.APPROVED if automatic else State.AWAITING_APPROVAL,
            cause=Cause.PARENT,
            base=str(base.reference(base.tag)),
            old_digest=latest[1].recorded_digest if latest else None,
            support=latest[1].support if latest else None,
            reason="three runs in a row failed, so this one is not queued by itself" if stopped else "",
            after=parent.id,
            waits_for=parent.image,
            created_at=now,
            approved_at=now if automatic else None,
            expires_at=None if automatic else now + image.approval.expires,
        )

    async def _line_up(self, rebuild: Rebuild, image: PlatformImage) -> Rebuild:
        """Wait when the rebuild of the image's parent goes ahead."""
        parent = await self._store.open_rebuild(image.parent) if image.parent else None
        if parent is None or parent.state not in GOES_AHEAD or parent.is_rollback:
            return rebuild
        return await self._let_wait(rebuild, parent)

    async def _let_wait(self, rebuild: Rebuild, parent: Rebuild) -> Rebuild:
        """Unless it has a run, or may have one: then the next check finds what the parent pushed."""
        begun = rebuild.state in WITH_RUN or rebuild.queue_attempts > 0 or rebuild.is_rollback
        if begun or rebuild.after == parent.id:
            return rebuild
        waiting = replace(rebuild, after=parent.id, waits_for=parent.image, problem="", next_attempt_at=None)
        comment = f"after rebuild {parent.id} of {parent.image}"
        saved = await self._store.save_rebuild(waiting, replace(self._entry(rebuild, waiting, "wait"), comment=comment))
        self._changed()
        return saved

    async def settle(self, child: Rebuild) -> None:
        """Let a rebuild that waits go on or end, once what it waits for has ended. Raises Conflict."""
        parent = await self._parent(child) if child.waits_for else None
        if parent is None or parent.is_open:
            return
        if parent.state is State.SUCCEEDED:
            seen = parent.run_finished_at or self._clock.now()
            ready = replace(
                child, waits_for="", new_digest=parent.pushed_digest, base_seen_at=seen, base_before_at=None
            )
            await self._save(child, ready, "go on")
        elif parent.state is not State.SUPERSEDED or parent.successor:
            await self._end(child, State.CANCELLED, _skipped(parent))
        elif child.cause is Cause.PARENT:
            await self._end(child, State.SUPERSEDED, f"{parent.image} is not rebuilt: {parent.ended_reason}")
        else:
            await self._save(child, replace(child, waits_for=""), "go on")

    async def _parent(self, child: Rebuild) -> Rebuild | None:
        """What the child waits for, or whatever took that one's place, but for a rollback: that pushes nothing."""
        parent = await self._store.rebuild(child.after or "")
        while parent and parent.successor:
            successor = await self._store.rebuild(parent.successor)
            if successor and successor.is_rollback:
                return parent
            parent = successor
        return parent

    async def _end(self, child: Rebuild, state: State, reason: str) -> None:
        """A question ends quietly, where it was asked; who approved is told."""
        show = () if child.state is State.AWAITING_APPROVAL else (Subject.REBUILD, Subject.NOTICE)
        ended = replace(child.move(state, self._clock.now()), waits_for="", ended_reason=reason)
        await self._save(child, ended, state.value, show)

    async def _save(self, old: Rebuild, new: Rebuild, action: str, show: tuple[Subject, ...] = ()) -> None:
        await self._store.save_rebuild(new, self._entry(old, new, action), show)
        self._changed()

    async def parent_changed(self, parent: Rebuild) -> None:
        """Look at the children that do not wait for this push or rollback, so that they are asked for now and not in
        a week.

        A child that was rejected before is rejected with the digest that was pushed. Raises Conflict.
        """
        for child in await self._store.following(parent.id):
            if child.state is State.REJECTED and child.waits_for:
                await self._store.save_rebuild(replace(child, waits_for="", new_digest=parent.pushed_digest))
        names = [image.name for image in self._children(parent)]
        if idle := [name for name in names if await self._store.open_rebuild(name) is None]:
            await self._look(idle)

    async def look_again(self, rebuild: Rebuild) -> None:
        """Look at an image that was just rebuilt: its status is told as it is now, and a base that moved meanwhile is
        asked for now and not in a week.
        """
        await self._look([rebuild.image])

    def _changed(self) -> None:
        self._wake.cards()
        self._wake.runs()

    def _entry(self, old: Rebuild | None, new: Rebuild, action: str) -> AuditEntry:
        return system_entry(old, new, action, self._clock)


def _skipped(parent: Rebuild) -> str:
    """Why a child is not built. What a parent was skipped for itself is told to all below it."""
    if parent.ended_reason.startswith(SKIPPED):
        return parent.ended_reason
    reason = f": {parent.ended_reason}" if parent.ended_reason else ""
    return f"{SKIPPED}{parent.image} {ENDS[parent.state]}{reason}"
