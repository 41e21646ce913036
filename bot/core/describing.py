"""Rebuilds in words."""

from bot.core.rebuilds import WINDOW_CLOSED, Rebuild, State


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
