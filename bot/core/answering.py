"""Answering the approvals that Azure Pipelines itself asks for, with the catalog's rules in front."""

from dataclasses import replace

from bot.core.deciding import ATTEMPTS
from bot.core.describing import describe
from bot.core.images import ApprovalRules
from bot.core.people import Person, Vote
from bot.core.permissions import Permissions
from bot.core.ports import Clock, Pipelines, Store, Wake
from bot.core.reading import ReadService
from bot.core.rebuilds import AuditEntry, Rebuild, approval_counts
from bot.core.runs import StageApproval, StageApprovalState
from bot.errors import CommandError, Conflict, PeerError, PeerRefused

APPROVED, REJECTED = StageApprovalState.APPROVED, StageApprovalState.REJECTED


class AnswerService:
    """For approvers of the image only. Methods raise CommandError, whose text is the answer, or Refused.

    Azure is answered as the bot's identity, so the person's name goes into the comment there.
    """

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

    async def approve(self, rebuild: Rebuild, approval_id: str, person: Person, comment: str) -> StageApproval:
        """One vote; with the last one that the catalog asks for, Azure is told. Returns how the approval stands.

        When Azure still waits although there are enough votes, it is told again.
        """
        image = self._reads.image(rebuild.image)
        await self._permissions.must_be_approver(image, person, "approve", rebuild)
        await self._reads.must_not_be_on_hold(image.name)
        for _ in range(ATTEMPTS):
            present, approval = await self._pending(rebuild, approval_id)
            try:
                voted = await self._vote(present, approval, image.approval, person, comment)
            except Conflict:
                continue
            if len(voted.votes) < image.approval.required:
                return voted
            return await self._answer(present, voted, person, comment, approve=True)
        raise CommandError("Somebody else is changing this rebuild; look at its card and try again.")

    async def reject(self, rebuild: Rebuild, approval_id: str, person: Person, reason: str) -> StageApproval:
        """Have Azure end the run before the stage."""
        await self._permissions.must_be_approver(self._reads.image(rebuild.image), person, "reject", rebuild)
        present, approval = await self._pending(rebuild, approval_id)
        if not reason:
            raise CommandError("A rejection needs a reason, for those who ask why.")
        await self._store.audit(self._entry(present, approval, person, "reject in Azure", reason))
        return await self._answer(present, approval, person, reason, approve=False)

    async def _pending(self, rebuild: Rebuild, approval_id: str) -> tuple[Rebuild, StageApproval]:
        """The row as it is now, and what it waits for. Raises CommandError when it does not wait for this."""
        present = await self._store.rebuild(rebuild.id) or rebuild
        waiting = present.waiting_approval
        if waiting is None or waiting.id != approval_id:
            raise CommandError(f"Nothing to decide: {describe(present)}.")
        return present, waiting

    async def _vote(
        self, rebuild: Rebuild, approval: StageApproval, rules: ApprovalRules, person: Person, comment: str
    ) -> StageApproval:
        """Save the vote before Azure hears of it. Raises CommandError, Conflict."""
        voted = approval
        if len(approval.votes) < rules.required:
            if objection := approval_counts(rules, replace(rebuild, votes=approval.votes), person):
                raise CommandError(objection)
            vote = Vote(person=person, at=self._clock.now(), comment=comment)
            voted = replace(approval, votes=(*approval.votes, vote))
        entry = self._entry(rebuild, approval, person, "approve in Azure", comment)
        await self._store.save_rebuild(_with(rebuild, voted), entry)
        self._wake.cards()
        return voted

    async def _answer(
        self, rebuild: Rebuild, approval: StageApproval, person: Person, comment: str, *, approve: bool
    ) -> StageApproval:
        told = f"{person.name} in Teams" + (f": {comment}" if comment else "")
        try:
            answered = await self._tell(rebuild, approval, told, approve=approve)
        except PeerError as error:
            action = f"{'approve' if approve else 'reject'} in Azure failed"
            await self._store.audit(self._entry(rebuild, approval, person, action, str(error)))
            raise _not_taken(error) from None
        finally:
            self._wake.runs()  # the look at the run shows the answer
        return replace(answered, stage=approval.stage, votes=approval.votes)

    async def _tell(self, rebuild: Rebuild, approval: StageApproval, told: str, *, approve: bool) -> StageApproval:
        """Answer Azure; what somebody else answered in the same way a moment ago will do. Raises PeerError."""
        project, wanted = rebuild.run_project, APPROVED if approve else REJECTED
        try:
            return await self._pipelines.answer_approval(project, approval.id, approve=approve, comment=told)
        except PeerRefused:
            present = await self._pipelines.approvals(project, [approval.id])
            same = [each for each in present if each.state is wanted]
            if not same:
                raise
            return same[0]

    def _entry(
        self, rebuild: Rebuild, approval: StageApproval, person: Person, action: str, comment: str
    ) -> AuditEntry:
        return AuditEntry(
            at=self._clock.now(),
            actor=person,
            action=action,
            image=rebuild.image,
            rebuild_id=rebuild.id,
            old_state=rebuild.state,
            new_state=rebuild.state,
            old_digest=rebuild.old_digest or "",
            new_digest=rebuild.new_digest or "",
            comment=comment,
            extra={"stage": approval.stage, "approval": approval.id, "run": rebuild.run_number},
        )


def _with(rebuild: Rebuild, changed: StageApproval) -> Rebuild:
    approvals = tuple(changed if each.id == changed.id else each for each in rebuild.stage_approvals)
    return replace(rebuild, stage_approvals=approvals)


def _not_taken(error: PeerError) -> CommandError:
    if isinstance(error, PeerRefused):
        return CommandError(
            f"Azure did not take it. {error}. If the bot itself is no approver there, "
            "somebody who is can decide on the page of the run."
        )
    return CommandError(f"Azure could not be told: {error}. Look at the card and try again.")
