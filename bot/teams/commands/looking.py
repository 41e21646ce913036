"""Commands that show how things stand."""

import asyncio
from dataclasses import replace

from bot.core.conversations import Subject
from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.cards.history import history_card
from bot.teams.cards.listing import list_card
from bot.teams.cards.schedule import schedule_card
from bot.teams.cards.status import status_card
from bot.teams.cards.text import text_card
from bot.teams.commands.asks import Ask, command, spelled

CHECK_PATIENCE_S = 8  # Teams gives a turn about ten seconds


@command("list", "all platform images and where they stand")
async def list_(ask: Ask) -> Card:
    return await _list(ask)


async def _list(ask: Ask) -> Card:
    return list_card(await ask.desk.reads.overview(), now=ask.desk.clock.now())


@command("status [IMAGE]", "one image, or all of them, as last checked")
async def status(ask: Ask) -> Card | None:
    names = ask.images()
    if not names:
        return await _list(ask)
    found = await ask.desk.reads.status(names[0])
    known, drawn = ask.desk.drawn.get(found.image.name, (None, None))
    if known is not found:
        now = ask.desk.clock.now()
        drawn = status_card(found, next_check=ask.desk.timetable.upcoming(now, found.image.name), now=now)
        ask.desk.drawn[found.image.name] = (found, drawn)
    return drawn


@command("check [IMAGE]", "compare with the registry now")
async def check(ask: Ask) -> Card | None:
    return await check_now(ask, ask.images())


async def check_now(ask: Ask, names: list[str]) -> Card | None:
    """Check images while somebody waits, but not for long."""
    checking = asyncio.ensure_future(ask.desk.checks.check(names, ask.person, ask.conversation.id))
    try:
        await asyncio.wait_for(asyncio.shield(checking), CHECK_PATIENCE_S)
    except TimeoutError:
        return text_card("Still checking: a registry is slow. The result follows.")
    await ask.desk.deliver()
    return None


@command("pending", "what waits for an approval")
async def pending(ask: Ask) -> Card:
    card = await ask.desk.drawings.pending(await ask.desk.reads.pending(), await ask.told())
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


@command("schedule", "when the next check is due, and what images have rules of their own")
async def schedule(ask: Ask) -> Card:
    now = ask.desk.clock.now()
    due = ask.desk.timetable.upcoming(now)
    told = f"The next check is due {spelled(due)}." if due else "No check is scheduled."
    return schedule_card(told, ask.desk.reads.catalog.values(), ask.desk.timetable, now=now)


@command("view SUBJECT", "a card as the person who asks may use it", decides=True, hidden=True)
async def view(ask: Ask) -> Card:
    """Pressed, or asked for by a client that shows the posted card."""
    subject = Subject.CHECK if ask.data.get("subject") == Subject.CHECK else Subject.REBUILD
    drawn = await ask.desk.drawings.draw(subject, ask.data.get("target", ""), await ask.told(), ask.person)
    return drawn or text_card("There is nothing to decide any more.")
