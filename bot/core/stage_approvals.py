"""What Azure Pipelines itself waits for before a stage, and what was decided there."""

import logging
from collections.abc import Iterable
from dataclasses import replace

from bot.core.ports import Pipelines
from bot.core.rebuilds import Rebuild
from bot.core.runs import Stage, StageApproval, StageApprovalState
from bot.errors import PeerRefused

logger = logging.getLogger(__name__)

DECIDED = frozenset({StageApprovalState.APPROVED, StageApprovalState.REJECTED})


async def look(pipelines: Pipelines, rebuild: Rebuild, stages: Iterable[Stage]) -> tuple[StageApproval, ...]:
    """The approvals of a run as they stand now. One call, and none when all are decided as far as we know.

    Raises PeerUnavailable; where Azure does not let us read them, they stay as they were.
    """
    stage_of = {approval_id: stage.name for stage in stages for approval_id in stage.approval_ids}
    known = {approval.id: approval for approval in rebuild.stage_approvals if approval.id in stage_of}
    undecided = [id_ for id_ in stage_of if id_ not in known or known[id_].state is StageApprovalState.PENDING]
    if undecided:
        try:
            found = await pipelines.approvals(rebuild.run_project, undecided)
        except PeerRefused as error:
            logger.warning("approvals of run %s cannot be read: %s", rebuild.run_number, error)
            found = []
        for each in found:
            known[each.id] = _merged(each, stage_of.get(each.id, ""), known.get(each.id))
    return tuple(known.values())


def _merged(found: StageApproval, stage: str, known: StageApproval | None) -> StageApproval:
    return replace(found, stage=stage, votes=known.votes if known else ())


def decisions(before: Iterable[StageApproval], after: Iterable[StageApproval]) -> list[StageApproval]:
    """Those that somebody decided since."""
    known = {approval.id: approval.state for approval in before}
    return [each for each in after if each.state in DECIDED and known.get(each.id) is not each.state]


def told(approval: StageApproval) -> str:
    """`the approval of Push was rejected by Alex: not on a Friday`"""
    by = f" by {approval.decided_by}" if approval.decided_by else ""
    comment = f": {approval.comment}" if approval.comment else ""
    return f"the approval of {approval.stage} was {approval.state}{by}{comment}"


def rejection(rebuild: Rebuild) -> str:
    """That an approval was rejected, as a reason for the end of a run; empty when none was."""
    rejected = (each for each in rebuild.stage_approvals if each.state is StageApprovalState.REJECTED)
    return next(map(told, rejected), "")
