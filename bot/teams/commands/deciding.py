"""Commands about rebuilds: asking for them, and deciding."""

from bot.core.asking import Requested
from bot.core.describing import describe
from bot.core.rebuilds import WINDOW_CLOSED, Rebuild, State
from bot.core.rolling_back import Wish
from bot.core.runs import StageApproval, StageApprovalState
from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.cards.decided import decided_card
from bot.teams.cards.text import text_card
from bot.teams.commands.asks import ALL, Ask, command, first, image_and_rest, needs, rebuild_and_rest, spelled


@command("rebuild IMAGE [reason …]", "build a new version without asking the registry first", decides=True)
async def rebuild(ask: Ask) -> Card | None:
    name, reason = image_and_rest(ask, "reason", "rebuild IMAGE", "rebuild dotnet-aspnet-8")
    requested = await ask.desk.asks.rebuild(name, ask.person, reason, ask.conversation.id)
    return await _begun(ask, requested)


@command("rollback IMAGE [TAG] [reason …]", "move its tags back to an earlier version, without a build", decides=True)
async def rollback(ask: Ask) -> Card | None:
    name, rest = image_and_rest(ask, "reason", "rollback IMAGE TAG", "rollback dotnet-sdk-8 1.3.0")
    version, reason = ask.data.get("version", ""), rest
    if not ask.pressed and ask.desk.rollbacks.looks_like_version(name, first(rest)[0]):
        version, reason = first(rest)
    wish = Wish(
        person=ask.person,
        version=version,
        reason=reason,
        instead_of=ask.data.get("instead_of", ""),
        conversation_id=ask.conversation.id,
    )
    requested = await ask.desk.rollbacks.rollback(name, wish)
    return await _begun(ask, requested)


async def _begun(ask: Ask, requested: Requested) -> Card | None:
    """Nothing more is said to who typed: the card comes to the same conversation."""
    await ask.desk.deliver()
    if requested.attached:
        return text_card(f"{_sentence(requested.rebuild)} Its card follows it.")
    return text_card(f"{_sentence(requested.rebuild)} Its card follows.") if ask.pressed else None


async def _waiting(ask: Ask) -> list[Rebuild]:
    """What `all` means: what the card asks that was pressed, or else everything that waits. Raises CommandError."""
    check, after = ask.data.get("check"), ask.data.get("after")
    waiting = await ask.desk.reads.waiting(check=check, after=after, told=await ask.told())
    if waiting:
        return waiting
    if check or after:
        raise CommandError("Nothing on this card waits any more.")
    if await ask.desk.reads.pending():
        raise CommandError("What waits is asked by Azure, one by one.", suggestion="pending")
    raise CommandError("Nothing is waiting.")


@command("approve ID|IMAGE|all [comment]", "let a waiting rebuild run", decides=True)
async def approve(ask: Ask) -> Card:
    target, comment = ask.target_and_rest("comment")
    decisions, person = ask.desk.decisions, ask.person
    if target.lower() == ALL:
        outcomes = await decisions.decide_each(await _waiting(ask), lambda id_: decisions.approve(id_, person, comment))
        return decided_card(outcomes, "approved")
    which, _ = rebuild_and_rest(ask, "comment", "approve ID or IMAGE", "approve dotnet-sdk-8")
    if waiting := await _asked_by_azure(ask, which):
        answered = await ask.desk.answers.approve(*waiting, ask.person, comment)
        return _approved_in_azure(ask, waiting[0], answered)
    rebuild = await ask.desk.decisions.approve(which, ask.person, comment)
    if rebuild.state is State.AWAITING_APPROVAL:
        needed = ask.desk.reads.image(rebuild.image).approval.required
        return text_card(f"Your approval counts: {len(rebuild.votes)} of {needed} for {rebuild.image}.")
    if rebuild.waits_for:
        return text_card(f"Approved. {rebuild.image} is built after {rebuild.waits_for}; its card follows it.")
    if rebuild.waits_for_window:
        return text_card(f"Approved. {rebuild.image} {WINDOW_CLOSED}{_opens(rebuild)}. Its card follows it.")
    if rebuild.is_rollback:
        return text_card(f"Approved. The tags of {rebuild.image} move to {rebuild.version}; its card follows.")
    return text_card(f"Approved. {rebuild.image} is queued next; its card follows the run.")


async def _asked_by_azure(ask: Ask, which: str) -> tuple[Rebuild, str] | None:
    """The rebuild whose run waits for an approval in Azure, and the id of that.

    A button names the approval it was made for, so that the button of an earlier question never answers Azure.
    """
    rebuild = await ask.desk.reads.find(which)
    if ask.pressed:
        return (rebuild, ask.data["approval"]) if "approval" in ask.data else None
    return (rebuild, rebuild.waiting_approval.id) if rebuild.waiting_approval else None


def _approved_in_azure(ask: Ask, rebuild: Rebuild, answered: StageApproval) -> Card:
    if answered.state is StageApprovalState.APPROVED:
        return text_card(f"Approved in Azure. {rebuild.image} goes on with {answered.stage}.")
    needed = ask.desk.reads.image(rebuild.image).approval.required
    if len(answered.votes) < needed:
        return text_card(f"Your approval counts: {len(answered.votes)} of {needed} for {rebuild.image}.")
    return text_card(f"Approved in Azure, which waits for others as well before {answered.stage}.")


@command("reject ID|IMAGE|all reason", "do not build this base; the next one is asked for again", decides=True)
async def reject(ask: Ask) -> Card:
    target, reason = ask.target_and_rest("reason")
    decisions, person = ask.desk.decisions, ask.person
    if target.lower() == ALL:
        needs(reason, "reject all reason", "reject all waits for tests")
        outcomes = await decisions.decide_each(await _waiting(ask), lambda id_: decisions.reject(id_, person, reason))
        return decided_card(outcomes, "rejected")
    which, _ = rebuild_and_rest(ask, "reason", "reject ID or IMAGE reason", "reject dotnet-sdk-8 waits for tests")
    if waiting := await _asked_by_azure(ask, which):
        rejected = await ask.desk.answers.reject(*waiting, ask.person, reason)
        return text_card(f"Rejected in Azure. The run of {waiting[0].image} ends before {rejected.stage}.")
    rebuild = await ask.desk.decisions.reject(which, ask.person, reason)
    if rebuild.is_rollback:
        return text_card(f"Rejected. The tags of {rebuild.image} stay where they are.")
    return text_card(f"Rejected. {rebuild.image} is asked for again when its base moves.")


@command("cancel ID|IMAGE", "stop a rebuild that has not finished", decides=True)
async def cancel(ask: Ask) -> Card:
    which, _ = rebuild_and_rest(ask, "reason", "cancel ID or IMAGE", "cancel dotnet-sdk-8")
    rebuild = await ask.desk.decisions.cancel(which, ask.person)
    if rebuild.is_open:
        return text_card(f"Asked Azure DevOps to cancel run {rebuild.run_number}.")
    return text_card(f"Cancelled. {rebuild.image} keeps the version it has.")


@command("now ID|IMAGE [reason …]", "start an approved rebuild outside of its maintenance window", decides=True)
async def now(ask: Ask) -> Card:
    which, reason = rebuild_and_rest(ask, "reason", "now ID or IMAGE", "now dotnet-sdk-8")
    rebuild = await ask.desk.decisions.now(which, ask.person, reason)
    if rebuild.waits_for:
        return text_card(f"{rebuild.image} starts after {rebuild.waits_for}, also outside of its maintenance window.")
    return text_card(f"{rebuild.image} is queued next, outside of its maintenance window.")


@command("retry ID|IMAGE", "run the failed stage of the newest rebuild again", decides=True)
async def retry(ask: Ask) -> Card:
    which, _ = rebuild_and_rest(ask, "reason", "retry ID or IMAGE", "retry dotnet-sdk-8")
    rebuild = await ask.desk.retries.retry(which, ask.person)
    return text_card(f"Retrying. Run {rebuild.run_number} of {rebuild.image} goes on; its card follows.")


def _opens(rebuild: Rebuild) -> str:
    return f", which opens {spelled(rebuild.next_attempt_at)}" if rebuild.next_attempt_at else ""


def _sentence(rebuild: Rebuild) -> str:
    text = describe(rebuild)
    return text[0].upper() + text[1:] + "."
