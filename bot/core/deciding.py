"""Deciding about rebuilds: approve, reject, cancel, start now."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from bot.core.audit import system_entry
from bot.core.conversations import Subject
from bot.core.describing import describe
from bot.core.images import PlatformImage
from bot.core.people import Person, Vote, is_same
from bot.core.permissions import Permissions
from bot.core.ports import Clock, Pipelines, Store, Wake
from bot.core.reading import ReadService
from bot.core.rebuilds import Rebuild, State, approval_counts, until_open
from bot.errors import CommandError, Conflict, Refused

ATTEMPTS = 5  # how often a change is decided anew when somebody else was faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one of several decisions: the rebuild, or why it was not decided about.

    `required` is how many approvals the image needs.
    """

    image: str
    rebuild: Rebuild | None = None
    refusal: str = ""
    required: int = 1


Decision = Callable[[Rebuild], Awaitable[Rebuild]]


class DecideService:
    """Methods raise CommandError, whose text is the answer, or `Refused` when the person may not."""

    def __init__(
        self,
        reads: ReadService,
        permissions: Permissions,
        store: Store,
        pipelines: Pipelines,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._reads = reads
        self._permissions = permissions
        self._store = store
        self._pipelines = pipelines
        self._clock = clock
        self._wake = wake

    async def approve(self, which: str, person: Person, comment: str = "") -> Rebuild:
        """One vote for a waiting rebuild, named by its id or image; with the last needed vote it is approved."""
        return await self.decide(which, person, "approve", lambda rebuild: self.vote(rebuild, person, comment))

    async def vote(self, rebuild: Rebuild, person: Person, comment: str) -> Rebuild:
        """Like `approve`, of the rebuild as it was read. Raises Conflict as well."""
        image = self._still_there(rebuild)
        await self._permissions.must_be_approver(image, person, "approve", rebuild)
        self._must_wait(rebuild)
        if not rebuild.is_rollback:
            await self._reads.must_not_be_on_hold(image.name)
        if objection := approval_counts(image.approval, rebuild, person):
            raise CommandError(objection)
        now = self._clock.now()
        voted = replace(rebuild, votes=(*rebuild.votes, Vote(person=person, at=now, comment=comment)))
        if len(voted.votes) < image.approval.required:
            return await self.save(rebuild, voted, person, "approve", comment)
        approved = until_open(voted.move(State.APPROVED, now), image.windows, now)
        return await self.save(rebuild, approved, person, "approve", comment, (Subject.REBUILD,))

    async def reject(self, which: str, person: Person, reason: str) -> Rebuild:
        """End a waiting rebuild; its digest is not asked for again."""
        return await self.decide(which, person, "reject", lambda rebuild: self._reject(rebuild, person, reason))

    async def _reject(self, rebuild: Rebuild, person: Person, reason: str) -> Rebuild:
        await self._permissions.must_be_approver(self._still_there(rebuild), person, "reject", rebuild)
        self._must_wait(rebuild)
        if not reason:
            raise CommandError("A rejection needs a reason, for those who ask why.")
        rejected = replace(rebuild.move(State.REJECTED, self._clock.now()), ended_by=person, ended_reason=reason)
        wished = rebuild.requested_by is not None and not is_same(rebuild.requested_by, person)
        return await self.save(rebuild, rejected, person, "reject", reason, (Subject.NOTICE,) if wished else ())

    async def decide_each(
        self, waiting: Iterable[Rebuild], decide: Callable[[str], Awaitable[Rebuild]]
    ) -> list[Outcome]:
        """The same decision about several rebuilds, by their ids. What cannot be decided does not stop the others."""
        outcomes = []
        for rebuild in waiting:
            image = self._reads.catalog.get(rebuild.image)
            outcome = Outcome(image=rebuild.image, required=image.approval.required if image else 1)
            try:
                outcomes.append(replace(outcome, rebuild=await decide(rebuild.id)))
            except CommandError as error:
                outcomes.append(replace(outcome, refusal=str(error)))
        return outcomes

    async def cancel(self, which: str, person: Person) -> Rebuild:
        """End a rebuild that has not finished: at once before it is queued, by asking Azure DevOps afterwards."""
        asked: set[str] = set()
        return await self.decide(which, person, "cancel", lambda rebuild: self._cancel(rebuild, person, asked))

    async def _cancel(self, rebuild: Rebuild, person: Person, asked: set[str]) -> Rebuild:
        """`asked` are those that Azure was asked to end, whose end may be seen before it is known whose wish it was."""
        await self._permissions.must_have_a_say(self._reads.image(rebuild.image), person, "cancel", rebuild)
        reason = f"cancelled by {person.name}"
        if rebuild.id in asked and rebuild.state is State.CANCELLED and rebuild.ended_by is None:
            named = replace(rebuild, ended_by=person, ended_reason=reason)
            return await self.save(rebuild, named, person, "cancel")
        if not rebuild.is_open or rebuild.state is State.VERIFYING:
            raise CommandError(f"Nothing to cancel: {describe(rebuild)}.")
        if rebuild.run_id is None:
            await self._cancel_unconfirmed(rebuild)
            ended = replace(rebuild.move(State.CANCELLED, self._clock.now()), ended_by=person, ended_reason=reason)
            return await self.save(rebuild, ended, person, "cancel", "", (Subject.REBUILD,))
        await self._pipelines.cancel(rebuild.run_project, rebuild.run_id)
        asked.add(rebuild.id)
        return await self.save(rebuild, replace(rebuild, ended_by=person, ended_reason=reason), person, "cancel")

    async def _cancel_unconfirmed(self, rebuild: Rebuild) -> None:
        """Nobody would follow a run that Azure queued without us having heard of it. Raises PeerError."""
        image = self._reads.catalog.get(rebuild.image)
        if image and rebuild.queue_attempts and (run := await self._pipelines.find(image.pipeline, rebuild.id)):
            await self._pipelines.cancel(run.project, run.id)

    async def now(self, which: str, person: Person, comment: str = "") -> Rebuild:
        """Start an approved rebuild outside of its maintenance window."""
        return await self.decide(which, person, "now", lambda rebuild: self._now(rebuild, person, comment))

    async def _now(self, rebuild: Rebuild, person: Person, comment: str) -> Rebuild:
        image, now = self._reads.image(rebuild.image), self._clock.now()
        await self._permissions.must_be_approver(image, person, "now", rebuild)
        await self._reads.must_not_be_on_hold(image.name)
        if not until_open(rebuild, image.windows, now).waits_for_window:
            raise CommandError(f"Nothing waits for a maintenance window: {describe(rebuild)}.")
        override = Vote(person=person, at=now, comment=comment)
        started = until_open(replace(rebuild, override=override), image.windows, now)
        return await self.save(rebuild, started, person, "now", comment, (Subject.REBUILD,))

    async def decide(self, which: str, person: Person, action: str, decision: Decision) -> Rebuild:
        """Decide anew when somebody else was faster, and always about the rebuild that was meant at first."""
        for _ in range(ATTEMPTS):
            rebuild = await self._reads.find(which)
            which = rebuild.id
            try:
                return await decision(rebuild)
            except Conflict:
                continue
            except Refused:
                raise  # it has its audit row
            except CommandError as error:
                await self._permissions.note_refusal(person, action, rebuild.image, rebuild, str(error))
                raise
        raise CommandError("Somebody else is changing this rebuild; look at its card and try again.")

    async def save(
        self,
        old: Rebuild,
        new: Rebuild,
        person: Person,
        action: str,
        comment: str = "",
        show: tuple[Subject, ...] = (),
    ) -> Rebuild:
        """Save what a person decided, with its audit row. Raises Conflict."""
        entry = replace(system_entry(old, new, action, self._clock), actor=person, comment=comment)
        saved = await self._store.save_rebuild(new, entry, show)
        self._wake.cards()
        self._wake.runs()
        return saved

    def _still_there(self, rebuild: Rebuild) -> PlatformImage:
        """The image of a rebuild, which may have left the catalog since it was asked for."""
        if rebuild.image not in self._reads.catalog:
            raise CommandError(f"Nothing to decide: {rebuild.image} is no longer in the catalog.")
        return self._reads.catalog[rebuild.image]

    def _must_wait(self, rebuild: Rebuild) -> None:
        """A card can be pressed a year later: the row decides, not the button."""
        if rebuild.is_overdue(self._clock.now()):
            again = "It can be asked for again" if rebuild.is_rollback else "The next check asks again"
            raise CommandError(f"Too late: the request for {rebuild.image} has expired. {again}.")
        if rebuild.state is not State.AWAITING_APPROVAL:
            raise CommandError(f"Nothing to decide: {describe(rebuild)}.")
