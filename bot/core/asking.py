"""Asking for rebuilds."""

from dataclasses import dataclass, replace

from bot.core.audit import system_entry
from bot.core.checker import Checker
from bot.core.checks import Status
from bot.core.conversations import Subject
from bot.core.deciding import ATTEMPTS, DecideService
from bot.core.describing import describe
from bot.core.images import PlatformImage
from bot.core.people import Person
from bot.core.permissions import Permissions
from bot.core.ports import Clock, Store, Wake
from bot.core.reading import ReadService
from bot.core.rebuilds import Cause, Rebuild, State, approval_counts, new_id
from bot.errors import CommandError, Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """What became of a wish to rebuild; `attached` when a rebuild was open already."""

    rebuild: Rebuild
    attached: bool


class AskService:
    """Methods raise CommandError, whose text is the answer."""

    def __init__(
        self,
        reads: ReadService,
        decisions: DecideService,
        permissions: Permissions,
        store: Store,
        checker: Checker,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._reads = reads
        self._decisions = decisions
        self._permissions = permissions
        self._store = store
        self._checker = checker
        self._clock = clock
        self._wake = wake

    async def rebuild(self, name: str, person: Person, reason: str, conversation_id: str) -> Requested:
        """Rebuild without comparing with the registry. An approver's wish is a vote; anybody else's is a question."""
        image = self._reads.image(name)
        async with self._permissions.noting(person, "rebuild", name):
            await self._reads.must_not_be_on_hold(name)
            return await self._ask(image, person, reason, conversation_id)

    async def _ask(self, image: PlatformImage, person: Person, reason: str, conversation_id: str) -> Requested:
        for _ in range(ATTEMPTS):
            present = await self._store.open_rebuild(image.name)
            if present and present.is_rollback:
                raise CommandError(f"First things first: {describe(present)}.")
            try:
                if present:
                    joined = await self.attach(image, present, person, reason, conversation_id)
                    return Requested(rebuild=joined, attached=True)
                asked = await self._request(image, person, reason, conversation_id)
                return Requested(rebuild=asked, attached=False)
            except Conflict:
                continue
        raise CommandError(f"{image.name} is being changed by somebody else; try again.")

    async def _request(self, image: PlatformImage, person: Person, reason: str, conversation_id: str) -> Rebuild:
        now = self._clock.now()
        latest = await self._store.latest_verdict(image.name)
        rebuild = Rebuild(
            id=new_id(),
            image=image.name,
            state=State.AWAITING_APPROVAL,
            cause=Cause.REQUESTED,
            base=str(self._checker.base(image)),
            old_digest=latest[1].recorded_digest if latest else None,
            base_seen_at=latest[1].first_seen if latest and latest[1].status is Status.STALE else None,
            support=latest[1].support if latest else None,
            reason=reason,
            conversation_id=conversation_id,
            requested_by=person,
            created_at=now,
            expires_at=now + image.approval.expires,
        )
        rebuild = await self._permissions.with_own_vote(image, rebuild, person)
        entry = replace(system_entry(None, rebuild, "rebuild", self._clock), actor=person)
        await self._store.add_rebuild(rebuild, entry, (Subject.REBUILD,))
        self._wake.cards()
        self._wake.runs()
        return rebuild

    async def attach(
        self, image: PlatformImage, present: Rebuild, person: Person, reason: str, conversation_id: str
    ) -> Rebuild:
        """One active rebuild per image: the wish counts as a vote for a waiting one, and its card is shown here."""
        waiting = present.state is State.AWAITING_APPROVAL
        counts = waiting and not approval_counts(image.approval, present, person)
        if counts and await self._permissions.counts_as_approver(image, person):
            present = await self._decisions.vote(present, person, reason)
        await self._store.show(present, conversation_id)
        self._wake.cards()
        return present
