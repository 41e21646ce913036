"""What Azure Pipelines waits for before a stage, and what was decided there."""

from microsoft_teams.cards.core import CardElement

from bot.core.images import PlatformImage
from bot.core.rebuilds import Rebuild
from bot.core.runs import StageApproval
from bot.core.stage_approvals import DECIDED, told
from bot.teams.cards.card import fitting, line, run
from bot.teams.cards.formats import clean
from bot.teams.cards.states import capital, name_of

LONGEST_STAGE, LONGEST_INSTRUCTIONS, LONGEST_LINE = 60, 300, 300
MOST_NAMES = 3
ROOM = 2_000


def question(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    """What somebody has to decide before the run goes on; nothing when it does not wait."""
    waiting = rebuild.waiting_approval
    if waiting is None:
        return []
    lines: list[CardElement] = [
        line(run(clean(waiting.stage, LONGEST_STAGE), bold=True), " waits for an approval in Azure.")
    ]
    if waiting.votes:
        needed = f" of {image.approval.required}" if image else ""
        names = ", ".join(name_of(vote.person) for vote in waiting.votes[:MOST_NAMES])
        lines.append(line(f"{len(waiting.votes)}{needed} approvals, by ", names, "."))
    if waiting.instructions:
        lines.append(line("Instructions: ", clean(waiting.instructions, LONGEST_INSTRUCTIONS)))
    return fitting(lines, ROOM)


def decided(rebuild: Rebuild) -> list[CardElement]:
    """For behind *Why?*: who may decide in Azure, and what was decided."""
    return [_decided(approval) for approval in rebuild.stage_approvals]


def _decided(approval: StageApproval) -> CardElement:
    if approval.state in DECIDED:
        return line(clean(capital(told(approval)), LONGEST_LINE), ".")
    names = ", ".join(approval.approvers[:MOST_NAMES]) or "nobody it names"
    return line("Approvers of ", clean(approval.stage, LONGEST_STAGE), " in Azure: ", clean(names, LONGEST_LINE), ".")
