"""Stopping images and letting them go again: what people can ask for. Checks and the runner obey it by themselves."""

from dataclasses import replace
from datetime import timedelta

from bot.core.checks import Status
from bot.core.describing import describe
from bot.core.holds import Hold, HoldKind
from bot.core.images import Digest
from bot.core.people import Person
from bot.core.permissions import Permissions
from bot.core.ports import Clock, Store, Wake
from bot.core.reading import ReadService
from bot.core.rebuilds import AuditEntry, State
from bot.errors import CommandError, Conflict


class HoldService:
    """For approvers of the image only. Methods raise CommandError, whose text is the answer, or Refused."""

    def __init__(self, reads: ReadService, permissions: Permissions, store: Store, clock: Clock, wake: Wake) -> None:
        self._reads = reads
        self._permissions = permissions
        self._store = store
        self._clock = clock
        self._wake = wake

    async def hold(self, name: str, person: Person, reason: str, pause: timedelta | None) -> Hold:
        """Nothing is asked, queued or rebuilt until somebody releases the image, or until the pause is over."""
        await self._permissions.must_be_approver(self._reads.image(name), person, "hold")
        if not reason:
            raise CommandError("A hold needs a reason, for those who find it.")
        return await self._stop(HoldKind.HOLD, name, person, reason, pause)

    async def snooze(self, name: str, person: Person, pause: timedelta, reason: str) -> Hold:
        """The question about the present base comes again after the pause, or when the base moves once more."""
        await self._permissions.must_be_approver(self._reads.image(name), person, "snooze")
        present = await self._reads.hold(name)
        if present and present.kind is HoldKind.HOLD:
            raise CommandError(f"{name} is {present}. Release it first.")
        return await self._stop(HoldKind.SNOOZE, name, person, reason, pause, await self._asked_about(name))

    async def _asked_about(self, name: str) -> Digest | None:
        """The digest of the base that a snooze would be about. Raises CommandError when there is no question."""
        rebuild = await self._store.open_rebuild(name)
        if rebuild and rebuild.state is not State.AWAITING_APPROVAL:
            raise CommandError(f"There is nothing to put off: {describe(rebuild)}.")
        if rebuild and not rebuild.asks_about_base:
            told = f"Only the question about a new base can be put off. Reject {rebuild.id}, or put {name} on hold."
            raise CommandError(told)
        latest = await self._store.latest_verdict(name)
        if rebuild is None and (latest is None or latest[1].status not in (Status.STALE, Status.UNBUILT)):
            raise CommandError(f"There is nothing to put off: nobody is asked about {name}.")
        return (rebuild and rebuild.new_digest) or (latest[1].current_digest if latest else None)

    async def _stop(
        self,
        kind: HoldKind,
        name: str,
        person: Person,
        reason: str,
        pause: timedelta | None,
        digest: Digest | None = None,
    ) -> Hold:
        now = self._clock.now()
        until = now + pause if pause else None
        hold = Hold(image=name, kind=kind, by=person, at=now, until=until, reason=reason, digest=digest)
        entry = replace(self._entry(hold, person, kind.value), new_state=kind)
        if before := await self._reads.hold(name):
            entry = replace(entry, old_state=before.kind, extra={**entry.extra, "instead_of": str(before)})
        await self._store.set_hold(hold, entry)
        await self._show(name)
        return hold

    async def release(self, name: str, person: Person) -> Hold:
        """End a hold or a snooze. The caller checks the image afterwards."""
        await self._permissions.must_be_approver(self._reads.image(name), person, "release")
        hold = await self._store.hold(name)
        if hold is None or not await self._lift(hold, person):
            raise CommandError(f"{name} is not on hold.")
        await self._show(name)
        return hold

    async def _lift(self, hold: Hold, person: Person) -> bool:
        return await self._store.lift_hold(hold, replace(self._entry(hold, person, "release"), old_state=hold.kind))

    async def _show(self, name: str) -> None:
        """The card of the newest rebuild tells of the hold too, so it is delivered anew."""
        for newest in await self._store.history(name, 1):
            try:
                await self._store.save_rebuild(newest)
            except Conflict:
                continue  # whoever was faster made it be delivered
        self._wake.cards()
        self._wake.runs()

    def _entry(self, hold: Hold, person: Person, action: str) -> AuditEntry:
        until = {"until": hold.until.isoformat()} if hold.until else {}
        return AuditEntry(
            at=self._clock.now(),
            actor=person,
            action=action,
            image=hold.image,
            new_digest=hold.digest or "",
            comment=hold.reason,
            extra=until,
        )
