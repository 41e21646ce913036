"""Questions that nobody answers: those who may decide are reminded once, and the end is announced."""

from datetime import timedelta
from pathlib import Path

from tests.conftest import Bot, StartBot
from tests.flow.test_approvers import SDK, installed, question, rules
from tests.peers.teams import ALEX, MEGAN, NESTOR, USERS, Message

DAY = timedelta(days=1)


def mentioned(message: Message) -> list[str]:
    return [entity["mentioned"]["id"] for entity in message.activity.get("entities", [])]


async def later(bot: Bot, by: timedelta) -> None:
    bot.clock.advance(by)
    await bot.app.runner.advance()
    await bot.app.notifier.deliver()


async def test_a_question_is_reminded_of_once(bot: Bot) -> None:
    """After a day one reply in the thread of the card that asks mentions those who may approve; then silence."""
    channel = bot.teams.channel()
    bot.teams.rosters[channel.id] = USERS
    summary = await question(bot)
    await later(bot, DAY - timedelta(seconds=1))
    assert len(bot.teams.messages) == 1
    await later(bot, timedelta(seconds=1))
    reminder = await bot.teams.until_shown(f"{SDK} has waited for an approval for 1 day. The request expires in 6 d")
    assert reminder.conversation == f"{channel.id};messageid={summary.id}"
    assert mentioned(reminder) == [ALEX.mri, MEGAN.mri]
    assert "<at>Alex Wilber</at> <at>Megan Bowen</at>" in reminder.visible
    for _ in range(3):
        await later(bot, DAY)
    assert len(bot.teams.messages) == 2
    rows = [row for row in await bot.app.store.audit_rows() if row["action"] == "remind"]
    assert [row["actor_id"] for row in rows] == ["shipshape"]


async def test_who_has_approved_is_not_reminded(start_bot: StartBot, catalog_file: Path) -> None:
    """With one of two approvals given, only those whose approval is missing are mentioned."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com, megan.bowen@contoso.com], required: 2, remind: 2h}")
    async with start_bot() as bot:
        await installed(bot)
        bot.teams.rosters[bot.teams.channel().id] = USERS
        await question(bot)
        await bot.teams.channel().say(f"approve {SDK}", ALEX)
        await later(bot, timedelta(hours=2))
        reminder = await bot.teams.until_shown("has waited for an approval for 2 hours")
        assert mentioned(reminder) == [MEGAN.mri]


async def test_without_a_roster_the_names_are_text(bot: Bot) -> None:
    """Where Teams does not tell members, the reminder names those who may approve as the catalog does."""
    await question(bot)
    await later(bot, DAY)
    reminder = await bot.teams.until_shown("has waited for an approval for 1 day")
    assert "May approve: alex.wilber@contoso.com or 1 more." in reminder.visible
    assert mentioned(reminder) == []


async def test_reminders_can_be_switched_off(start_bot: StartBot, catalog_file: Path) -> None:
    """`remind: never` in the catalog means silence until the request expires."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com], remind: never}")
    async with start_bot() as bot:
        await installed(bot)
        await question(bot)
        await later(bot, 6 * DAY)
        assert len(bot.teams.messages) == 1


async def test_what_is_decided_is_not_reminded_of(bot: Bot) -> None:
    """A rejection before the day is over leaves nothing to be reminded of."""
    await question(bot)
    await bot.teams.channel().say(f"reject {SDK} breaks our proxy", ALEX)
    posted = len(bot.teams.messages)
    await later(bot, 2 * DAY)
    assert len(bot.teams.messages) == posted


async def test_an_expiry_is_announced_to_those_who_could_have_decided(bot: Bot) -> None:
    """When a check asked and nobody decided, a reply in the thread mentions the approvers."""
    channel = bot.teams.channel()
    bot.teams.rosters[channel.id] = USERS
    summary = await question(bot)
    await later(bot, 7 * DAY)
    told = await bot.teams.until_shown("nobody decided in time, so the request has expired. The next check asks again.")
    assert told.conversation == f"{channel.id};messageid={summary.id}"
    assert mentioned(told) == [ALEX.mri, MEGAN.mri]
    await bot.teams.until(lambda: "expired" in summary.visible, "the card says so as well")
    assert [m.visible.count("has waited") for m in bot.teams.messages] == [0, 0]  # too late for a reminder


async def test_an_expiry_is_announced_to_whoever_asked(bot: Bot) -> None:
    """When a person asked, that person is mentioned, with what to type to ask again."""
    await bot.teams.personal(NESTOR).say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} · waits for approval", where=bot.teams.channel())
    await later(bot, 7 * DAY)
    for place in (bot.teams.channel(), bot.teams.personal(NESTOR)):
        told = await bot.teams.until_shown("nobody decided in time", f"rebuild {SDK}", where=place)
        assert mentioned(told) == [NESTOR.mri]


async def test_an_expiry_that_the_check_finds_is_announced_as_well(bot: Bot) -> None:
    """A check that comes exactly at the deadline announces the end, and asks anew."""
    summary = await question(bot)
    bot.clock.advance(7 * DAY)
    await bot.check()
    told = await bot.teams.until_shown("nobody decided in time")
    assert told.conversation.endswith(f";messageid={summary.id}")
