"""Who may decide about an image."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from bot.core.audit import system_entry
from bot.core.images import PlatformImage
from bot.core.people import Person, Vote, is_named
from bot.core.ports import Clock, Members, Store
from bot.core.rebuilds import AuditEntry, Rebuild, State, until_open
from bot.errors import CommandError, PeerError, Refused


class Permissions:
    """Asks the catalog, and Teams for the members of the channels that it names, at the moment of the click."""

    def __init__(self, store: Store, members: Members, clock: Clock) -> None:
        self._store = store
        self._members = members
        self._clock = clock

    async def may_approve(self, image: PlatformImage, person: Person) -> bool:
        """Whether the catalog names the person, or a channel of which they are a member at this moment.

        Raises PeerError when that cannot be told.
        """
        if is_named(image.approval, person):
            return True
        for channel in image.approval.channels:
            if await self._members.in_channel(channel, person):
                return True
        return False

    async def counts_as_approver(self, image: PlatformImage, person: Person) -> bool:
        """Like `may_approve`; who cannot be checked now asks like anybody else."""
        try:
            return await self.may_approve(image, person)
        except PeerError:
            return False

    async def with_own_vote(self, image: PlatformImage, wish: Rebuild, person: Person) -> Rebuild:
        """A new rebuild with the vote of who asks for it, where that counts; approved where it is enough."""
        if not image.approval.self_approve or not await self.counts_as_approver(image, person):
            return wish
        voted = replace(wish, votes=(Vote(person=person, at=wish.created_at, comment=wish.reason),))
        if image.approval.required > 1:
            return voted
        return until_open(voted.move(State.APPROVED, wish.created_at), image.windows, wish.created_at)

    async def must_have_a_say(self, image: PlatformImage, person: Person, action: str, rebuild: Rebuild) -> None:
        """Like `must_be_approver`; who asked for the rebuild has one as well."""
        if rebuild.requested_by is None or rebuild.requested_by.id != person.id:
            await self.must_be_approver(image, person, action, rebuild)

    async def must_be_approver(
        self, image: PlatformImage, person: Person, action: str, rebuild: Rebuild | None = None
    ) -> None:
        """Raises Refused, and leaves an audit row, when the person may not decide about the image."""
        try:
            if await self.may_approve(image, person):
                return
            why = f"Those who may: {await self._members.who(image.approval)}."
        except PeerError as error:
            why = f"Whether you are a member of the team that may cannot be checked now: {error}."
        await self.note_refusal(person, action, image.name, rebuild, why)
        verb = "start" if action == "now" else action
        what = f"{verb} rebuilds of {image.name}" if rebuild else f"{verb} {image.name}"
        raise Refused(f"You may not {what}. {why}")

    @asynccontextmanager
    async def noting(self, person: Person, action: str, image: str) -> AsyncIterator[None]:
        """Notes the refusal of a wish that cannot be met now."""
        try:
            yield
        except Refused:
            raise  # it has its audit row
        except CommandError as error:
            await self.note_refusal(person, action, image, None, str(error))
            raise

    async def note_refusal(self, person: Person, action: str, image: str, rebuild: Rebuild | None, why: str) -> None:
        """Leave an audit row for an attempt that changed nothing."""
        entry = AuditEntry(at=self._clock.now(), actor=person, action="", image=image)
        if rebuild:
            entry = replace(system_entry(rebuild, rebuild, "", self._clock), actor=person)
        await self._store.audit(replace(entry, action=f"{action} refused", comment=why))
