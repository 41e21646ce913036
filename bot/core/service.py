"""What people can ask of the bot. Every door ends in one of these methods; checks are in `checking`.

Methods that a person may call take that person and raise `CommandError`, whose text is the answer,
or `Refused` when the person may not.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot.core.audit import system_entry
from bot.core.checker import Checker
from bot.core.checks import Status, Verdict
from bot.core.conversations import Conversation, Subject
from bot.core.holds import Hold, HoldKind, in_force
from bot.core.images import PlatformImage
from bot.core.order import parents_first
from bot.core.ports import Clock, Members, Pipelines, Store, Wake
from bot.core.queueing import other_run
from bot.core.rebuilds import (
    OPEN,
    WINDOW_CLOSED,
    AuditEntry,
    Cause,
    Person,
    Rebuild,
    State,
    Vote,
    approval_counts,
    is_named,
    new_id,
    until_open,
)
from bot.errors import CommandError, Conflict, PeerError, PeerRefused, PeerUnavailable, Refused

ATTEMPTS = 5  # how often a change is decided anew when somebody else was faster
HISTORY = 10
STATUS_LIVES = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatus:
    """All that is known about one image. `checked_at` is None when it was never checked.

    `approvers` are those who may approve, as the end of a sentence; empty where nobody asked.
    """

    image: PlatformImage
    checked_at: datetime | None
    verdict: Verdict | None
    open: Rebuild | None
    history: tuple[Rebuild, ...]
    hold: Hold | None = None
    approvers: str = ""

    @property
    def in_use(self) -> str | None:
        """The version tag that its floating tags point to, where that is not the newest version."""
        newest, in_use = (self.verdict.version_tag, self.verdict.in_use_tag) if self.verdict else (None, None)
        for rebuild in reversed(self.history):
            later = rebuild.ended_at and self.checked_at and rebuild.ended_at >= self.checked_at
            if rebuild.state is State.SUCCEEDED and later:
                in_use = rebuild.version_tag
                newest = newest if rebuild.is_rollback else in_use
        return in_use if in_use != newest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Rebuilds, newest first. `newest` when there are no newer ones, `older` when there are older ones.

    `hold` is what stops the image now, where the page is of one.
    """

    rebuilds: tuple[Rebuild, ...]
    newest: bool
    older: bool
    hold: Hold | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """What became of a wish to rebuild; `attached` when a rebuild was open already."""

    rebuild: Rebuild
    attached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one of several decisions: the rebuild, or why it was not decided about.

    `required` is how many approvals the image needs.
    """

    image: str
    rebuild: Rebuild | None = None
    refusal: str = ""
    required: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    changes: int
    at: datetime
    status: ImageStatus


Decision = Callable[[Rebuild], Awaitable[Rebuild]]


class Service:
    """The abilities of the bot, over the ports."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        checker: Checker,
        pipelines: Pipelines,
        members: Members,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self.catalog = catalog
        self._store = store
        self._checker = checker
        self._pipelines = pipelines
        self._members = members
        self._clock = clock
        self._wake = wake
        self._statuses: dict[str, _Read] = {}

    # Deciding

    async def approve(self, which: str, person: Person, comment: str = "") -> Rebuild:
        """One vote for a waiting rebuild, named by its id or image; with the last needed vote it is approved."""
        return await self._decide(which, person, "approve", lambda rebuild: self._approve(rebuild, person, comment))

    async def _approve(self, rebuild: Rebuild, person: Person, comment: str) -> Rebuild:
        image = self._still_there(rebuild)
        await self.must_be_approver(image, person, "approve", rebuild)
        self._must_wait(rebuild)
        if not rebuild.is_rollback:
            await self.must_not_be_on_hold(image.name)
        if objection := approval_counts(image.approval, rebuild, person):
            raise CommandError(objection)
        now = self._clock.now()
        voted = replace(rebuild, votes=(*rebuild.votes, Vote(person=person, at=now, comment=comment)))
        if len(voted.votes) < image.approval.required:
            return await self._save(rebuild, voted, person, "approve", comment)
        approved = until_open(voted.move(State.APPROVED, now), image.windows, now)
        return await self._save(rebuild, approved, person, "approve", comment, (Subject.REBUILD,))

    async def reject(self, which: str, person: Person, reason: str) -> Rebuild:
        """End a waiting rebuild; its digest is not asked for again."""
        return await self._decide(which, person, "reject", lambda rebuild: self._reject(rebuild, person, reason))

    async def _reject(self, rebuild: Rebuild, person: Person, reason: str) -> Rebuild:
        await self.must_be_approver(self._still_there(rebuild), person, "reject", rebuild)
        self._must_wait(rebuild)
        if not reason:
            raise CommandError("A rejection needs a reason, for those who ask why.")
        rejected = replace(rebuild.move(State.REJECTED, self._clock.now()), ended_by=person, ended_reason=reason)
        return await self._save(rebuild, rejected, person, "reject", reason)

    async def decide_each(
        self, waiting: Iterable[Rebuild], decide: Callable[[str], Awaitable[Rebuild]]
    ) -> list[Outcome]:
        """The same decision about several rebuilds, by their ids. What cannot be decided does not stop the others."""
        outcomes = []
        for rebuild in waiting:
            image = self.catalog.get(rebuild.image)
            outcome = Outcome(image=rebuild.image, required=image.approval.required if image else 1)
            try:
                outcomes.append(replace(outcome, rebuild=await decide(rebuild.id)))
            except CommandError as error:
                outcomes.append(replace(outcome, refusal=str(error)))
        return outcomes

    async def cancel(self, which: str, person: Person) -> Rebuild:
        """End a rebuild that has not finished: at once before it is queued, by asking Azure DevOps afterwards."""
        return await self._decide(which, person, "cancel", lambda rebuild: self._cancel(rebuild, person))

    async def _cancel(self, rebuild: Rebuild, person: Person) -> Rebuild:
        if rebuild.requested_by is None or rebuild.requested_by.id != person.id:
            await self.must_be_approver(self.image(rebuild.image), person, "cancel", rebuild)
        reason = f"cancelled by {person.name}"
        if not rebuild.is_open or rebuild.state is State.VERIFYING:
            raise CommandError(f"Nothing to cancel: {describe(rebuild)}.")
        if rebuild.run_id is None:
            await self._cancel_unconfirmed(rebuild)
            ended = replace(rebuild.move(State.CANCELLED, self._clock.now()), ended_by=person, ended_reason=reason)
            return await self._save(rebuild, ended, person, "cancel", "", (Subject.REBUILD,))
        await self._pipelines.cancel(rebuild.run_project, rebuild.run_id)
        asked = replace(rebuild, ended_by=person, ended_reason=reason)
        return await self._save(rebuild, asked, person, "cancel")

    async def _cancel_unconfirmed(self, rebuild: Rebuild) -> None:
        """Nobody would follow a run that Azure queued without us having heard of it. Raises PeerError."""
        image = self.catalog.get(rebuild.image)
        if image and rebuild.queue_attempts and (run := await self._pipelines.find(image.pipeline, rebuild.id)):
            await self._pipelines.cancel(run.project, run.id)

    async def now(self, which: str, person: Person, comment: str = "") -> Rebuild:
        """Start an approved rebuild outside of its maintenance window."""
        return await self._decide(which, person, "now", lambda rebuild: self._now(rebuild, person, comment))

    async def _now(self, rebuild: Rebuild, person: Person, comment: str) -> Rebuild:
        image, now = self.image(rebuild.image), self._clock.now()
        await self.must_be_approver(image, person, "now", rebuild)
        await self.must_not_be_on_hold(image.name)
        if not until_open(rebuild, image.windows, now).waits_for_window:
            raise CommandError(f"Nothing waits for a maintenance window: {describe(rebuild)}.")
        override = Vote(person=person, at=now, comment=comment)
        started = until_open(replace(rebuild, override=override), image.windows, now)
        return await self._save(rebuild, started, person, "now", comment, (Subject.REBUILD,))

    async def retry(self, which: str, person: Person) -> Rebuild:
        """Let a failed run go on at the stage that failed. What was approved stays: digest and version tag.

        The row moves first, so that a run that begins again has a rebuild that follows it, and moves back when Azure
        refuses. After a crash in between the runner sees that nothing began. Raises PeerError as well.
        """
        failed: list[Rebuild] = []

        async def decide(rebuild: Rebuild) -> Rebuild:
            await self._must_be_retryable(rebuild, person)
            failed[:] = [rebuild]
            return await self._save(rebuild, rebuild.retry(person, self._clock.now()), person, "retry")

        retried = await self._decide(which, person, "retry", decide)
        stage = failed[0].failed_stage
        assert retried.run_id is not None
        assert stage is not None
        try:
            await self._pipelines.retry_stage(retried.run_project, retried.run_id, stage.ref_name or stage.name)
        except PeerUnavailable as error:
            told = (
                f"Azure DevOps did not confirm the retry ({error}). The card of {retried.image} shows what comes of it."
            )
            raise CommandError(told) from None
        except PeerRefused as error:
            back = replace(failed[0], revision=retried.revision)
            with suppress(Conflict):  # the runner was faster, and has seen how the run stands
                await self._save(retried, back, person, "retry refused by Azure", str(error))
            raise _no_retry(retried, str(error)) from None
        self._wake.runs()
        return retried

    async def _must_be_retryable(self, rebuild: Rebuild, person: Person) -> None:
        """Raises CommandError with what to do instead, Refused, PeerError."""
        image = self.image(rebuild.image)
        if rebuild.requested_by is None or rebuild.requested_by.id != person.id:
            await self.must_be_approver(image, person, "retry", rebuild)
        await self.must_not_be_on_hold(image.name)
        if rebuild.state is not State.FAILED or rebuild.is_rollback:
            raise CommandError(f"Nothing to retry: {describe(rebuild)}.")
        newest = (await self._store.history(image.name, 1))[0]
        if newest.id != rebuild.id:
            raise CommandError(f"Too late to retry {rebuild.id}: {describe(newest)}.")
        if rebuild.run_id is None or rebuild.new_digest is None or rebuild.failed_stage is None:
            raise _no_retry(rebuild, "none of its stages failed")
        if rebuild.override is None and not image.windows.is_open(self._clock.now()):
            raise CommandError(f"The maintenance window of {image.name} is closed; retry when it opens.")
        if busy := await other_run(self._pipelines, rebuild, image):
            raise CommandError(f"Run {busy.number} of {image.name} is under way; try again after it.")
        if not await self._checker.same_for(image, rebuild.new_digest, await self._checker.current(image)):
            told = f"The base of {image.name} moved since, and an approval is for one base only. A check asks again."
            raise CommandError(told, suggestion=f"check {image.name}")

    async def rebuild(self, name: str, person: Person, reason: str, conversation_id: str) -> Requested:
        """Rebuild without comparing with the registry. An approver's wish is a vote; anybody else's is a question."""
        image = self.image(name)
        await self.must_not_be_on_hold(name)
        for _ in range(ATTEMPTS):
            present = await self._store.open_rebuild(image.name)
            if present and present.is_rollback:
                raise CommandError(f"First things first: {describe(present)}.")
            try:
                if present is None:
                    return Requested(
                        rebuild=await self._request(image, person, reason, conversation_id), attached=False
                    )
                return Requested(
                    rebuild=await self.attach(image, present, person, reason, conversation_id), attached=True
                )
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
        if image.approval.self_approve and await self.counts_as_approver(image, person):
            rebuild = replace(rebuild, votes=(Vote(person=person, at=now, comment=reason),))
            if image.approval.required == 1:
                rebuild = until_open(rebuild.move(State.APPROVED, now), image.windows, now)
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
        if counts and await self.counts_as_approver(image, person):
            present = await self._approve(present, person, reason)
        await self._store.show(present, conversation_id)
        self._wake.cards()
        return present

    async def _decide(self, which: str, person: Person, action: str, decision: Decision) -> Rebuild:
        """Decide anew when somebody else was faster, and always about the rebuild that was meant at first."""
        for _ in range(ATTEMPTS):
            rebuild = await self.find(which)
            which = rebuild.id
            try:
                return await decision(rebuild)
            except Conflict:
                continue
            except Refused:
                raise  # it has its audit row
            except CommandError as error:
                await self._note_refusal(person, action, rebuild.image, rebuild, str(error))
                raise
        raise CommandError("Somebody else is changing this rebuild; look at its card and try again.")

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
        await self._note_refusal(person, action, image.name, rebuild, why)
        verb = "start" if action == "now" else action
        what = f"{verb} rebuilds of {image.name}" if rebuild else f"{verb} {image.name}"
        raise Refused(f"You may not {what}. {why}")

    async def _note_refusal(self, person: Person, action: str, image: str, rebuild: Rebuild | None, why: str) -> None:
        """Leave an audit row for an attempt that changed nothing."""
        entry = AuditEntry(at=self._clock.now(), actor=person, action="", image=image)
        if rebuild:
            entry = replace(system_entry(rebuild, rebuild, "", self._clock), actor=person)
        await self._store.audit(replace(entry, action=f"{action} refused", comment=why))

    def _still_there(self, rebuild: Rebuild) -> PlatformImage:
        """The image of a rebuild, which may have left the catalog since it was asked for."""
        if rebuild.image not in self.catalog:
            raise CommandError(f"Nothing to decide: {rebuild.image} is no longer in the catalog.")
        return self.catalog[rebuild.image]

    async def must_not_be_on_hold(self, name: str) -> None:
        """Raises CommandError when somebody stopped the image."""
        hold = await self.hold(name)
        if hold and hold.kind is HoldKind.HOLD:
            raise CommandError(f"{name} is {hold}. Release it first.", suggestion=f"release {name}")

    def _must_wait(self, rebuild: Rebuild) -> None:
        """A card can be pressed a year later: the row decides, not the button."""
        if rebuild.is_overdue(self._clock.now()):
            again = "It can be asked for again" if rebuild.is_rollback else "The next check asks again"
            raise CommandError(f"Too late: the request for {rebuild.image} has expired. {again}.")
        if rebuild.state is not State.AWAITING_APPROVAL:
            raise CommandError(f"Nothing to decide: {describe(rebuild)}.")

    async def _save(
        self,
        old: Rebuild,
        new: Rebuild,
        person: Person,
        action: str,
        comment: str = "",
        show: tuple[Subject, ...] = (),
    ) -> Rebuild:
        entry = replace(system_entry(old, new, action, self._clock), actor=person, comment=comment)
        saved = await self._store.save_rebuild(new, entry, show)
        self._wake.cards()
        self._wake.runs()
        return saved

    async def note(self, person: Person, action: str, comment: str) -> None:
        """Leave an audit row for an action that changes no rebuild."""
        await self._store.audit(AuditEntry(at=self._clock.now(), actor=person, action=action, comment=comment))

    # Looking

    def image(self, name: str) -> PlatformImage:
        """Raises CommandError when the catalog does not have it."""
        if name not in self.catalog:
            raise CommandError(f"{name} is not in the catalog.")
        return self.catalog[name]

    async def find(self, which: str) -> Rebuild:
        """The rebuild with this id, or the open or else newest one of the image. Raises CommandError."""
        if which not in self.catalog:
            if rebuild := await self._store.rebuild(which):
                return rebuild
            raise CommandError(f"There is no rebuild {which}.")
        if rebuild := await self._store.open_rebuild(which):
            return rebuild
        if history := await self._store.history(which, 1):
            return history[0]
        raise CommandError(f"{which} has never been rebuilt.")

    async def hold(self, name: str) -> Hold | None:
        """What stops the image now."""
        hold = await self._store.hold(name)
        return None if hold is None or hold.is_over(self._clock.now()) else hold

    async def status(self, name: str) -> ImageStatus:
        """What is known about one image; it is checked now when it never was.

        Read once a second at most, and anew after every change of ours: what another replica changed shows a second
        later.
        """
        image, now = self.image(name), self._clock.now()
        read = self._statuses.get(name)
        if read is None or read.changes != self._wake.changes or now - read.at >= STATUS_LIVES:
            read = _Read(changes=self._wake.changes, at=now, status=await self._read_status(image))
            self._statuses[name] = read
        return read.status

    async def _read_status(self, image: PlatformImage) -> ImageStatus:
        name = image.name
        latest = await self._store.latest_verdict(name)
        if latest is None:
            now = self._clock.now()
            verdicts, _ = await self._checker.check([image])
            latest = (now, verdicts[0])
        history = await self._store.history(name, 4)
        return ImageStatus(
            image=image,
            checked_at=latest[0],
            verdict=latest[1],
            open=next((rebuild for rebuild in history if rebuild.is_open), None),
            history=tuple(rebuild for rebuild in history if not rebuild.is_open)[:3],
            hold=await self.hold(name),
            approvers=await self._members.who(image.approval),
        )

    async def overview(self) -> list[ImageStatus]:
        """All images in the order of the catalog, as last checked."""
        latest = await self._store.latest_verdicts()
        open_ = {rebuild.image: rebuild for rebuild in await self._store.rebuilds(states=OPEN)}
        holds = in_force(await self._store.holds(), self._clock.now())
        return [
            ImageStatus(
                image=image,
                checked_at=latest[image.name][0] if image.name in latest else None,
                verdict=latest[image.name][1] if image.name in latest else None,
                open=open_.get(image.name),
                history=(),
                hold=holds.get(image.name),
            )
            for image in self.catalog.values()
        ]

    async def pending(self) -> list[Rebuild]:
        """What waits for an approval, oldest first: ours, or one that Azure asks for."""
        found = await self._store.rebuilds(states={State.AWAITING_APPROVAL, State.QUEUED, State.RUNNING})
        return [each for each in found if each.state is State.AWAITING_APPROVAL or each.waiting_approval]

    async def waiting(self, *, check: int | None, after: str | None, told: Conversation) -> list[Rebuild]:
        """What waits for an approval, parents before children: of one check, of one parent's rebuild, or all of it.

        Of a check only what its card shows in the conversation that is `told`.
        """
        if after is not None:
            found = await self._store.following(after)
        elif check is not None:
            found = await self._of_check(check, told)
        else:
            found = await self.pending()
        by_image = {rebuild.image: rebuild for rebuild in found if rebuild.state is State.AWAITING_APPROVAL}
        return [by_image[name] for name in parents_first(by_image, self.catalog)]

    async def _of_check(self, check_id: int, told: Conversation) -> list[Rebuild]:
        check = await self._store.check(check_id)
        if check is None:
            return []
        shown = told.images_of(check)
        needy = [verdict for verdict in check.verdicts if not shown or verdict.name in shown]
        ids = [verdict.rebuild_id for verdict in needy if verdict.rebuild_id]
        found = await self._store.rebuilds_by_id(ids)
        return [found[id_] for id_ in ids if id_ in found]

    async def history(self, name: str | None, *, before: str = "", page: int = 1) -> HistoryPage:
        """Ten rebuilds, newest first, of one image or of all: those older than one, or a page counted from 1."""
        image = self.image(name).name if name else None
        last = await self.find(before) if before else None
        found = await self._store.history(image, HISTORY + 1, before=last, skip=(page - 1) * HISTORY)
        return HistoryPage(
            rebuilds=tuple(found[:HISTORY]),
            newest=last is None and page == 1,
            older=len(found) > HISTORY,
            hold=await self.hold(image) if image else None,
        )


def _no_retry(rebuild: Rebuild, reason: str) -> CommandError:
    text = f"The run of {rebuild.image} cannot go on: {reason}. A new run begins from the start."
    return CommandError(text, suggestion=f"rebuild {rebuild.image} retry of {rebuild.id}")


def describe(rebuild: Rebuild) -> str:
    """Where a rebuild stands, as the end of a sentence."""
    who = rebuild.ended_by.name if rebuild.ended_by else ""
    approvers = ", ".join(vote.person.name for vote in rebuild.votes)
    waits = f", and {WINDOW_CLOSED}" if rebuild.waits_for_window else ""
    waits = f", and waits for {rebuild.waits_for}" if rebuild.waits_for else waits
    verifying = f"is built; {rebuild.version_tag} is being verified"
    succeeded = f"is in ECR as {rebuild.version_tag}"
    if rebuild.is_rollback:
        verifying, succeeded = f"is moving tags to {rebuild.version}", f"has moved the tags to {rebuild.version}"
    texts = {
        State.AWAITING_APPROVAL: "waits for an approval",
        State.APPROVED: f"is approved{f' by {approvers}' if approvers else ''}{waits}",
        State.QUEUED: f"is queued as run {rebuild.run_number}",
        State.RUNNING: f"is under way as run {rebuild.run_number}",
        State.VERIFYING: verifying,
        State.SUCCEEDED: succeeded,
        State.FAILED: f"failed: {rebuild.ended_reason}",
        State.CANCELLED: f"was cancelled: {rebuild.ended_reason}",
        State.REJECTED: f"was rejected by {who}: {rebuild.ended_reason}",
        State.EXPIRED: "expired before anybody decided",
        State.SUPERSEDED: f"was superseded: {rebuild.ended_reason}",
    }
    waiting = rebuild.waiting_approval
    told = f"waits for an approval of {waiting.stage} in Azure" if waiting else texts[rebuild.state]
    return f"{'rollback' if rebuild.is_rollback else 'rebuild'} {rebuild.id} of {rebuild.image} {told}"
