"""Images with a schedule of their own, besides the weekly check of all."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.checks import Check
from bot.demo.registry import answering
from tests.conftest import CATALOG, Bot, FakeClock, StartBot
from tests.peers.teams import ALEX

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"
DAY = timedelta(days=1)
DAILY = CATALOG.replace("    extra_tags:", '    schedule: "0 6 * * *"\n    extra_tags:')


@pytest.fixture
async def daily(start_bot: StartBot, catalog_file: Path) -> AsyncIterator[Bot]:
    """A bot that checks one image daily and the others on Mondays; it is Monday, and that check is done."""
    catalog_file.write_text(DAILY)
    async with start_bot() as bot:
        await bot.check()
        await bot.next_week()
        await bot.teams.channel().install()
        yield bot


async def next_day(bot: Bot, days: int = 1) -> None:
    bot.clock.advance(days * DAY)
    await bot.check()


async def checks(bot: Bot) -> list[Check]:
    """All checks the bot has done, oldest first."""
    latest = await bot.app.store.latest_check()
    found = [await bot.app.store.check(number) for number in range(1, (latest.id if latest else 0) + 1)]
    return [check for check in found if check]


async def checked(bot: Bot) -> list[list[str]]:
    """The images of each check."""
    return [[verdict.name for verdict in check.verdicts] for check in await checks(bot)]


ALL = [SDK, ASPNET, "dotnet-aspnet-8"]


async def test_its_own_schedule_checks_that_image_only(daily: Bot) -> None:
    """On other days only the image with a schedule is looked at, at a request for its base; nobody is told no news."""
    await next_day(daily)
    await next_day(daily)
    assert await checked(daily) == [ALL, [SDK], [SDK]]
    assert [check.requests.registry for check in await checks(daily)][1:] == [1, 1]
    await daily.app.notifier.deliver()
    assert daily.teams.messages == []


async def test_what_it_finds_is_asked_at_once(daily: Bot) -> None:
    """An update found on a Tuesday is asked about on Tuesday, in every channel; other images wait for Monday."""
    daily.move_base(SDK)
    daily.move_base(ASPNET)
    await next_day(daily)
    card = await daily.teams.until_shown(SDK, "waits for approval")
    assert ASPNET not in card.text
    assert "Check ·" in card.visible
    await next_day(daily, 6)
    await daily.teams.until_shown(ASPNET, "waits for approval")


async def test_an_image_that_cannot_be_checked_is_told_once(daily: Bot) -> None:
    """Becoming unknown and known again is news; staying so is not."""
    await next_day(daily)
    daily.world.registry.fail_next("HEAD", "dotnet/sdk", answering(404), times=2)
    await next_day(daily)
    await daily.teams.until_shown(SDK, "unknown")
    await next_day(daily)
    await next_day(daily)
    await daily.teams.until_shown(f"{SDK} is fresh")
    assert len(daily.teams.messages) == 2


async def test_the_weekly_check_covers_it(daily: Bot) -> None:
    """Where both are due at the same moment there is one check of all, and its card comes whatever Sunday's said."""
    await next_day(daily, 5)
    daily.move_base(SDK)
    await next_day(daily)
    await daily.teams.until_shown(SDK, "waits for approval")
    daily.clock.advance(DAY)
    await daily.check()
    await daily.check()
    assert await checked(daily) == [ALL, [SDK], [SDK], ALL]
    await daily.teams.until_shown("Monday check", "2 fresh")


async def test_missed_slots_are_caught_up_in_one_check(
    start_bot: StartBot, catalog_file: Path, clock: FakeClock
) -> None:
    """Down over days: one check of what was due; down over a Monday: one of all images."""
    catalog_file.write_text(DAILY)
    async with start_bot() as bot:
        await bot.check()
    for days, expected in ((3, [[SDK]]), (6, [[SDK], ALL])):
        clock.advance(days * DAY + timedelta(hours=1))
        for _ in range(2):
            async with start_bot() as bot:
                await bot.check()
                await bot.check()
                assert await checked(bot) == expected


async def test_two_replicas_check_it_once(daily: Bot, start_bot: StartBot) -> None:
    """Of two bots whose timers fire together one checks, each day."""
    async with start_bot() as other:
        for _ in range(3):
            daily.clock.advance(DAY)
            await asyncio.gather(daily.check(), other.check())
    assert await checked(daily) == [ALL, [SDK], [SDK], [SDK]]


async def test_a_failed_check_is_made_again_with_all_that_was_due(daily: Bot, tmp_path: Path) -> None:
    """A check that fails as a whole is told, and the next slot does what it did not."""
    rename = "ALTER TABLE base_digests RENAME TO hidden"
    await asyncio.to_thread(_execute, tmp_path / "shipshape.db", rename)
    await next_day(daily, 7)
    await daily.teams.until_shown("could not be finished")
    await asyncio.to_thread(_execute, tmp_path / "shipshape.db", "ALTER TABLE hidden RENAME TO base_digests")
    await next_day(daily)
    await daily.teams.until_shown("all 3 images are fresh")
    assert (await checked(daily))[-1] == ALL


async def test_a_new_database_is_not_behind(start_bot: StartBot, catalog_file: Path) -> None:
    """The first start checks nothing of the past, whichever schedule had a slot last."""
    catalog_file.write_text(DAILY.replace("0 6 * * *", "0 5 * * *"))
    async with start_bot() as bot:
        await bot.check()
        assert await checks(bot) == []
        bot.clock.advance(DAY)
        await bot.check()
        assert await checked(bot) == [[SDK]]


async def test_the_settings_time_zone_counts(start_bot: StartBot, catalog_file: Path) -> None:
    """Six o'clock is that of the setting."""
    catalog_file.write_text(DAILY)
    async with start_bot(TIMEZONE="America/New_York") as bot:
        await bot.check()
        bot.clock.advance(timedelta(hours=4, minutes=59))
        await bot.check()
        assert await checks(bot) == []
        bot.clock.advance(timedelta(minutes=1))
        await bot.check()
        assert await checked(bot) == [ALL]


async def test_the_weekly_card_has_the_name_of_the_day_there(start_bot: StartBot) -> None:
    """Where it is Monday, six o'clock, the card is that of Monday, although it is Sunday in UTC."""
    async with start_bot(TIMEZONE="Asia/Tokyo") as bot:
        bot.clock.time -= timedelta(hours=9)
        await bot.check()
        await bot.teams.channel().install()
        await bot.next_week()
        await bot.teams.until_shown("Monday check", "all 3 images are fresh")


async def test_status_and_schedule_tell_it(daily: Bot) -> None:
    """Both name the schedule of the image; its next check is the sooner one."""
    alex = daily.teams.personal(ALEX)
    tomorrow = f"{{{{DATE({daily.clock.time + DAY:%Y-%m-%d}T06:00:00Z,SHORT)}}}}"
    status, schedule = (await alex.ask(f"status {SDK}")).text, (await alex.ask("schedule")).text
    assert "Checked by its own schedule 0 6 * * *" in status
    assert f"next check {tomorrow}" in status
    assert "The next check is due Monday, 07 December 2026 at 06:00 UTC." in schedule
    assert f"Checked by its own schedule 0 6 * * *: next {tomorrow}" in schedule
    assert ASPNET not in schedule


def _execute(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute(statement)
