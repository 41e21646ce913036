"""The table of commands. A button's verb is a command's name, so typing and pressing are one function.

To add a command, write one function with `@command(...)` here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bot.core.answering import AnswerService
from bot.core.asking import AskService
from bot.core.checking import CheckService
from bot.core.conversations import Conversation, Subject
from bot.core.deciding import DecideService
from bot.core.describing import describe
from bot.core.holding import HoldService
from bot.core.holds import parse_pause
from bot.core.ports import Clock
from bot.core.reading import ImageStatus, ReadService
from bot.core.rebuilds import WINDOW_CLOSED, Person, Rebuild, StageApproval, StageApprovalState, State
from bot.core.retrying import RetryService
from bot.core.rolling_back import RollbackService, Wish
from bot.core.subscribing import SubscribeService
from bot.core.timetable import Timetable
from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.cards.decided import decided_card
from bot.teams.cards.help import help_card
from bot.teams.cards.history import history_card
from bot.teams.cards.hold import hold_card
from bot.teams.cards.listing import list_card
from bot.teams.cards.schedule import schedule_card
from bot.teams.cards.status import status_card
from bot.teams.cards.text import text_card
from bot.teams.drawings import Drawings
from bot.teams.parsing import image_name, shown, similar, split

FAILURES, ALL = "failures", "all"  # no image may be called so
CHECK_PATIENCE_S = 8  # Teams gives a turn about ten seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What commands work with. `drawn` has the last status card of each image, and what it was drawn from."""

    reads: ReadService
    asks: AskService
    decisions: DecideService
    retries: RetryService
    checks: CheckService
    holds: HoldService
    rollbacks: RollbackService
    answers: AnswerService
    subscriptions: SubscribeService
    drawings: Drawings
    clock: Clock
    timetable: Timetable
    deliver: Callable[[], Awaitable[None]]
    drawn: dict[str, tuple[ImageStatus, Card]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One command as somebody gave it: by typing (`text`) or by a button (`data`, with its inputs).

    `identify` asks Teams for the person's principal name, which activities do not carry. Raises PeerError.
    """

    desk: Desk
    person: Person
    identify: Callable[[], Awaitable[Person]]
    conversation: Conversation
    command: str = ""
    text: str = ""
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def pressed(self) -> bool:
        return bool(self.data)

    def target_and_rest(self, rest_key: str) -> tuple[str, str]:
        """The first word and the others, or what the button carries."""
        if self.pressed:
            return self.data.get("target", ""), self.data.get(rest_key, "").strip()
        target, _, rest = self.text.partition(" ")
        return target, rest.strip()

    def images(self, *others: str) -> list[str]:
        """The images that were named, checked against the catalog and `others`. Raises CommandError."""
        words = [self.data.get("target", "")] if self.pressed else self.text.replace(",", " ").split()
        names = (*self.desk.reads.catalog, *others)
        return [image_name(word, names, self.command) for word in words if word]


Function = Callable[[Ask], Awaitable[Card | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A line of the table. Who `decides` has to be identified; `hidden` ones are for buttons."""

    name: str
    usage: str
    help: str
    function: Function
    decides: bool = False
    hidden: bool = False


COMMANDS: dict[str, Command] = {}


def command(usage: str, help: str, *, decides: bool = False, hidden: bool = False) -> Callable[[Function], Function]:
    """Put a function into the table under the first word of its usage."""

    def register(function: Function) -> Function:
        name = usage.partition(" ")[0]
        COMMANDS[name] = Command(name=name, usage=usage, help=help, function=function, decides=decides, hidden=hidden)
        return function

    return register


async def run(ask: Ask, name: str) -> Card | None:
    """Run a command by its name. Returns its answer, None when a card arrives by itself. Raises CommandError."""
    if name not in COMMANDS:
        raise _unknown(name, ask.text)
    chosen = COMMANDS[name]
    person = await ask.identify() if chosen.decides else ask.person
    return await chosen.function(replace(ask, command=name, person=person))


async def run_text(ask: Ask, text: str) -> Card | None:
    """Run what was typed. Raises CommandError."""
    words = split(text)
    return await run(replace(ask, text=words.rest), words.command or "help")


def _unknown(name: str, rest: str) -> CommandError:
    guess = similar(name, [command.name for command in COMMANDS.values() if not command.hidden])
    if guess is None:
        return CommandError(f"I do not know {shown(name)}. Type help to see what I can do.", suggestion="help")
    suggestion = f"{guess} {rest}".strip()
    return CommandError(f"There is no command {shown(name)}. Did you mean {shown(suggestion)}?", suggestion=suggestion)


def _needs(value: str, usage: str, example: str) -> str:
    if not value:
        raise CommandError(f"Something is missing: {usage}, for example {example}.")
    return value


def _rebuild_named(ask: Ask, target: str) -> str:
    """An id of a rebuild, or an image of the catalog in its right spelling. Raises CommandError."""
    word = target.lower()
    if len(word) == 8 and "-" not in word and word not in ask.desk.reads.catalog:
        return word
    return image_name(target, ask.desk.reads.catalog, ask.command)


@command("help", "what I can do")
async def help_(ask: Ask) -> Card:
    return help_card([(command.usage, command.help) for command in COMMANDS.values() if not command.hidden])


@command("list", "all platform images and where they stand")
async def list_(ask: Ask) -> Card:
    return list_card(await ask.desk.reads.overview(), now=ask.desk.clock.now())


@command("status [IMAGE]", "one image, or all of them, as last checked")
async def status(ask: Ask) -> Card | None:
    names = ask.images()
    if not names:
        return await list_(ask)
    found = await ask.desk.reads.status(names[0])
    known, drawn = ask.desk.drawn.get(found.image.name, (None, None))
    if known is not found:
        now = ask.desk.clock.now()
        drawn = status_card(found, next_check=ask.desk.timetable.upcoming(now, found.image.name), now=now)
        ask.desk.drawn[found.image.name] = (found, drawn)
    return drawn


@command("check [IMAGE]", "compare with the registry now")
async def check(ask: Ask) -> Card | None:
    return await _check(ask, ask.images())


async def _check(ask: Ask, names: list[str]) -> Card | None:
    checking = asyncio.ensure_future(ask.desk.checks.check(names, ask.person, ask.conversation.id))
    try:
        await asyncio.wait_for(asyncio.shield(checking), CHECK_PATIENCE_S)
    except TimeoutError:
        return text_card("Still checking: a registry is slow. The result follows.")
    await ask.desk.deliver()
    return None


@command("rebuild IMAGE [reason …]", "build a new version without asking the registry first", decides=True)
async def rebuild(ask: Ask) -> Card | None:
    target, reason = ask.target_and_rest("reason")
    name = image_name(_needs(target, "rebuild IMAGE", "rebuild dotnet-aspnet-8"), ask.desk.reads.catalog, "rebuild")
    requested = await ask.desk.asks.rebuild(name, ask.person, reason, ask.conversation.id)
    await ask.desk.deliver()
    if requested.attached:
        return text_card(f"{_sentence(requested.rebuild)} Its card follows it.")
    return text_card(f"{_sentence(requested.rebuild)} Its card follows.") if ask.pressed else None


async def _waiting(ask: Ask) -> list[Rebuild]:
    """What `all` means: what the card asks that was pressed, or else everything that waits. Raises CommandError."""
    check, after = ask.data.get("check", ""), ask.data.get("after")
    scope = int(check) if check.isdecimal() else None
    waiting = await ask.desk.reads.waiting(check=scope, after=after, told=await _told(ask))
    if not waiting:
        raise CommandError("Nothing on this card waits any more." if check or after else "Nothing is waiting.")
    return waiting


@command("approve ID|IMAGE|all [comment]", "let a waiting rebuild run", decides=True)
async def approve(ask: Ask) -> Card:
    target, comment = ask.target_and_rest("comment")
    decisions, person = ask.desk.decisions, ask.person
    if target.lower() == ALL:
        outcomes = await decisions.decide_each(await _waiting(ask), lambda id_: decisions.approve(id_, person, comment))
        return decided_card(outcomes, "approved")
    which = _rebuild_named(ask, _needs(target, "approve ID or IMAGE", "approve dotnet-sdk-8"))
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
        _needs(reason, "reject all reason", "reject all waits for tests")
        outcomes = await decisions.decide_each(await _waiting(ask), lambda id_: decisions.reject(id_, person, reason))
        return decided_card(outcomes, "rejected")
    which = _rebuild_named(ask, _needs(target, "reject ID or IMAGE reason", "reject dotnet-sdk-8 waits for tests"))
    if waiting := await _asked_by_azure(ask, which):
        rejected = await ask.desk.answers.reject(*waiting, ask.person, reason)
        return text_card(f"Rejected in Azure. The run of {waiting[0].image} ends before {rejected.stage}.")
    rebuild = await ask.desk.decisions.reject(which, ask.person, reason)
    if rebuild.is_rollback:
        return text_card(f"Rejected. The tags of {rebuild.image} stay where they are.")
    return text_card(f"Rejected. {rebuild.image} is asked for again when its base moves.")


@command("cancel ID|IMAGE", "stop a rebuild that has not finished", decides=True)
async def cancel(ask: Ask) -> Card:
    target, _ = ask.target_and_rest("reason")
    which = _rebuild_named(ask, _needs(target, "cancel ID or IMAGE", "cancel dotnet-sdk-8"))
    rebuild = await ask.desk.decisions.cancel(which, ask.person)
    if rebuild.is_open:
        return text_card(f"Asked Azure DevOps to cancel run {rebuild.run_number}.")
    return text_card(f"Cancelled. {rebuild.image} keeps the version it has.")


@command("now ID|IMAGE [reason …]", "start an approved rebuild outside of its maintenance window", decides=True)
async def now(ask: Ask) -> Card:
    target, reason = ask.target_and_rest("reason")
    which = _rebuild_named(ask, _needs(target, "now ID or IMAGE", "now dotnet-sdk-8"))
    rebuild = await ask.desk.decisions.now(which, ask.person, reason)
    if rebuild.waits_for:
        return text_card(f"{rebuild.image} starts after {rebuild.waits_for}, also outside of its maintenance window.")
    return text_card(f"{rebuild.image} is queued next, outside of its maintenance window.")


@command("retry ID|IMAGE", "run the failed stage of the newest rebuild again", decides=True)
async def retry(ask: Ask) -> Card:
    target, _ = ask.target_and_rest("reason")
    which = _rebuild_named(ask, _needs(target, "retry ID or IMAGE", "retry dotnet-sdk-8"))
    rebuild = await ask.desk.retries.retry(which, ask.person)
    return text_card(f"Retrying. Run {rebuild.run_number} of {rebuild.image} goes on; its card follows.")


@command("rollback IMAGE [TAG] [reason …]", "move its tags back to an earlier version, without a build", decides=True)
async def rollback(ask: Ask) -> Card | None:
    name, rest = _image_and_rest(ask, "reason", "rollback IMAGE TAG", "rollback dotnet-sdk-8 1.3.0")
    version, reason = ask.data.get("version", ""), rest
    if not ask.pressed and ask.desk.rollbacks.looks_like_version(name, _first(rest)[0]):
        version, reason = _first(rest)
    wish = Wish(
        person=ask.person,
        version=version,
        reason=reason,
        instead_of=ask.data.get("instead_of", ""),
        conversation_id=ask.conversation.id,
    )
    requested = await ask.desk.rollbacks.rollback(name, wish)
    await ask.desk.deliver()
    if requested.attached:
        return text_card(f"{_sentence(requested.rebuild)} Its card follows it.")
    return text_card(f"{_sentence(requested.rebuild)} Its card follows.") if ask.pressed else None


@command("pending", "what waits for an approval")
async def pending(ask: Ask) -> Card:
    card = await ask.desk.drawings.pending(await ask.desk.reads.pending(), await _told(ask))
    return card or text_card("Nothing is waiting.")


@command("history [IMAGE] [PAGE]", "the last ten rebuilds, or those of an older page")
async def history(ask: Ask) -> Card:
    rest, last = ask.text.rpartition(" ")[::2]
    page = 1
    if last.isdecimal() and last not in ask.desk.reads.catalog:
        ask, page = replace(ask, text=rest), int(last[:6])
    if page < 1:
        raise CommandError("Pages count from 1.", suggestion=f"history {rest}".strip())
    name = next(iter(ask.images()), None)
    found = await ask.desk.reads.history(name, before=ask.data.get("before", ""), page=page)
    return history_card(found, name=name)


@command("snooze IMAGE 3d [reason]", "put off the question about the present base", decides=True)
async def snooze(ask: Ask) -> Card:
    name, rest = _image_and_rest(ask, "comment", "snooze IMAGE 3d", "snooze dotnet-sdk-8 3d")
    pause, reason = _pause(ask.data["pause"], rest) if "pause" in ask.data else _pause(*_first(rest))
    if pause is None:
        raise CommandError("For how long? For example snooze dotnet-sdk-8 3d, with m, h, d or w.")
    return hold_card(await ask.desk.holds.snooze(name, ask.person, pause, reason))


@command("hold IMAGE [7d] reason", "leave an image as it is, until it is released or for a while", decides=True)
async def hold(ask: Ask) -> Card:
    name, rest = _image_and_rest(ask, "reason", "hold IMAGE reason", "hold dotnet-sdk-8 breaks our proxy")
    pause, reason = (None, rest) if ask.pressed else _pause(*_first(rest))
    return hold_card(await ask.desk.holds.hold(name, ask.person, reason, pause))


@command("release IMAGE", "end a hold or a snooze, and check the image", decides=True)
async def release(ask: Ask) -> Card | None:
    name, _ = _image_and_rest(ask, "reason", "release IMAGE", "release dotnet-sdk-8")
    await ask.desk.holds.release(name, ask.person)
    return await _check(ask, [name])


def _image_and_rest(ask: Ask, rest_key: str, usage: str, example: str) -> tuple[str, str]:
    target, rest = ask.target_and_rest(rest_key)
    return image_name(_needs(target, usage, example), ask.desk.reads.catalog, ask.command), rest


def _first(text: str) -> tuple[str, str]:
    word, _, rest = text.partition(" ")
    return word, rest.strip()


def _pause(word: str, rest: str) -> tuple[timedelta | None, str]:
    """The duration, and what follows it; without one the word belongs to what follows. Raises CommandError."""
    try:
        pause = parse_pause(word)
    except ValueError as error:
        raise CommandError(f"{error}.") from None
    return (pause, rest) if pause else (None, f"{word} {rest}".strip())


@command("subscribe [IMAGE…] [failures]", "tell this conversation about checks and rebuilds, or about failures only")
async def subscribe(ask: Ask) -> Card:
    names = ask.images(FAILURES, ALL)
    images = [] if ALL in names else [name for name in names if name != FAILURES]
    return await _tell(ask, (await _told(ask)).subscribe(images, failures_only=FAILURES in names))


@command("unsubscribe [IMAGE…]", "stop telling this conversation")
async def unsubscribe(ask: Ask) -> Card:
    told = await _told(ask)
    names = ask.images(FAILURES, ALL, *told.images, *told.excluded)  # also those that left the catalog
    if FAILURES in names:
        everything = " ".join(["subscribe", *told.images])
        raise CommandError(f"To be told about everything again, type {everything}.", suggestion=everything)
    return await _tell(ask, told.unsubscribe([] if ALL in names else names))


async def _told(ask: Ask) -> Conversation:
    return await ask.desk.subscriptions.present(ask.conversation)


async def _tell(ask: Ask, told: Conversation) -> Card:
    await ask.desk.subscriptions.tell(told, ask.person, ask.command)
    strange = [name for name in (*told.images, *told.excluded) if name not in ask.desk.reads.catalog]
    missing = f" The catalog does not have {', '.join(strange)} now." if strange else ""
    return text_card(f"This conversation is told about {told.about} from now on.{missing}")


@command("schedule", "when the next check is due, and what images have rules of their own")
async def schedule(ask: Ask) -> Card:
    now = ask.desk.clock.now()
    due = ask.desk.timetable.upcoming(now)
    told = f"The next check is due {_spelled(due)}." if due else "No check is scheduled."
    return schedule_card(told, ask.desk.reads.catalog.values(), ask.desk.timetable, now=now)


@command("view SUBJECT", "a card as the person who asks may use it", decides=True, hidden=True)
async def view(ask: Ask) -> Card:
    """Pressed, or asked for by a client that shows the posted card."""
    subject = Subject.CHECK if ask.data.get("subject") == Subject.CHECK else Subject.REBUILD
    drawn = await ask.desk.drawings.draw(subject, ask.data.get("target", ""), await _told(ask), ask.person)
    return drawn or text_card("There is nothing to decide any more.")


@command("run TEXT", "what a suggestion's button does", hidden=True)
async def run_suggestion(ask: Ask) -> Card | None:
    return await run_text(replace(ask, data={}), ask.data.get("text", ""))


def _opens(rebuild: Rebuild) -> str:
    return f", which opens {_spelled(rebuild.next_attempt_at)}" if rebuild.next_attempt_at else ""


def _spelled(at: datetime) -> str:
    return f"{at:%A, %d %B %Y at %H:%M} UTC"


def _sentence(rebuild: Rebuild) -> str:
    text = describe(rebuild)
    return text[0].upper() + text[1:] + "."
