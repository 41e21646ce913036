"""The watch: security releases are asked about at once, everything else waits for the scheduled check."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from bot.demo.registry import answering
from bot.demo.world import LocalWorld
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX

SDK, ASPNET, TWIN = "dotnet-sdk-6", "dotnet-aspnet-6", "dotnet-sdk-6-twin"
SECURITY = ".NET 6.0.33 → 6.0.35, security: 3 CVEs"
HOUR = timedelta(hours=1)
WATCHED = CATALOG.replace("    extra_tags:", "    watch: true\n    extra_tags:")
WITH_TWIN = f"""{WATCHED}  {TWIN}:
    base: mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim
    repository: dotnet/sdk-twin
    tag: 6.0-bullseye-slim
    watch: true
"""

Watching = Callable[[], AbstractAsyncContextManager[Bot]]


@pytest.fixture
def watching(start_bot: StartBot, catalog_file: Path, world: LocalWorld) -> Watching:
    """Starts a bot that watches one image, or another on the same database; the weekly check is done."""
    catalog_file.write_text(WATCHED)

    @asynccontextmanager
    async def start() -> AsyncIterator[Bot]:
        async with start_bot(RELEASE_METADATA_URL=world.releases.url) as bot:
            await bot.check()
            yield bot

    return start


@pytest.fixture
async def bot(watching: Watching) -> AsyncIterator[Bot]:
    async with watching() as bot:
        await bot.next_week()
        await bot.teams.channel().install()
        yield bot


async def an_hour_later(bot: Bot, hours: int = 1) -> None:
    for _ in range(hours):
        bot.clock.advance(HOUR)
        await bot.check()
    await bot.app.notifier.deliver()


def looks(bot: Bot, path: str = "") -> int:
    return bot.world.registry.count("HEAD", path)


async def test_a_security_release_is_asked_about_within_the_hour(bot: Bot) -> None:
    """It does not wait for Monday: the channel is asked, once, with what it fixes."""
    bot.move_base(SDK, version="6.0.35")
    bot.move_base(ASPNET, version="6.0.35")
    await an_hour_later(bot)
    card = await bot.teams.until_shown(SDK, "waits for approval", SECURITY)
    assert ASPNET not in card.text
    await an_hour_later(bot, 3)
    assert len(bot.teams.messages) == 1
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_a_rebuild_waits_for_the_scheduled_check(bot: Bot) -> None:
    """A base that moved with the same .NET in it is asked about on Monday."""
    bot.move_base(SDK)
    await an_hour_later(bot, 4)
    assert bot.teams.messages == []
    bot.clock.advance(timedelta(days=7) - 4 * HOUR)
    await bot.check()
    await bot.teams.until_shown(SDK, "waits for approval")


async def test_a_release_without_fixes_waits_too(watching: Watching, catalog_file: Path) -> None:
    """Of two releases the one with fixes is asked about at once, and the one after it is not."""
    catalog_file.write_text(f"{CATALOG}    watch: true\n")
    async with watching() as bot:
        await bot.next_week()
        await bot.teams.channel().install()
        bot.move_base("dotnet-aspnet-8", version="8.0.21")
        await an_hour_later(bot)
        card = await bot.teams.until_shown("dotnet-aspnet-8", "waits for approval")
        await bot.teams.channel().press(card, "Approve")
        await bot.teams.until_shown("<at>Alex Wilber</at>")
        posted = len(bot.teams.messages)
        bot.move_base("dotnet-aspnet-8", version="8.0.22")
        await an_hour_later(bot, 3)
        assert len(bot.teams.messages) == posted


async def test_release_notes_that_come_later_are_read_later(bot: Bot, world: LocalWorld) -> None:
    """Without release notes nobody knows what it fixes: it waits, and is asked about once they say so."""
    world.releases.failure = answering(404)
    bot.clock.advance(6 * HOUR)  # what was read for the last check is old
    bot.move_base(SDK, version="6.0.35")
    await an_hour_later(bot, 2)
    assert bot.teams.messages == []
    world.releases.failure = None
    await an_hour_later(bot)
    await bot.teams.until_shown(SDK, "waits for approval", SECURITY)


async def test_a_rebuild_of_what_was_asked_about_waits(bot: Bot) -> None:
    """The security release was asked about: another digest of the same version is no reason to ask again at once."""
    bot.move_base(SDK, version="6.0.35")
    await an_hour_later(bot)
    await bot.teams.until_shown(SDK, "waits for approval", SECURITY)
    bot.move_base(SDK)
    await an_hour_later(bot, 2)
    assert len(bot.teams.messages) == 1


async def test_one_request_per_distinct_base_and_hour(bot: Bot, watching: Watching, catalog_file: Path) -> None:
    """Images on one base share its request, others are not looked at, and a second replica does not look again."""
    catalog_file.write_text(WITH_TWIN)
    async with watching() as twins, watching() as other:
        before, all_before = looks(bot, "dotnet/sdk"), looks(bot)
        for _ in range(3):
            bot.clock.advance(HOUR)
            await asyncio.gather(twins.check(), other.check())
            await twins.check()
        assert (looks(bot, "dotnet/sdk") - before, looks(bot) - all_before) == (3, 3)


async def test_a_base_that_cannot_be_read_is_left_to_the_next_look(bot: Bot) -> None:
    """A look that fails tells nobody, and the next one finds the release."""
    bot.move_base(SDK, version="6.0.35")
    bot.world.registry.fail_next("HEAD", "dotnet/sdk", answering(404))
    await an_hour_later(bot)
    assert bot.teams.messages == []
    await an_hour_later(bot)
    await bot.teams.until_shown(SDK, "waits for approval", SECURITY)


async def test_an_image_that_could_not_be_checked_is_checked_again(bot: Bot) -> None:
    """After a weekly check that could not read its base a watched image does not stay unknown for a week."""
    bot.move_base(SDK)
    bot.world.registry.fail_next("HEAD", "dotnet/sdk", answering(404), times=2)
    await bot.next_week()
    await bot.teams.until_shown(SDK, "unknown")
    await an_hour_later(bot)
    await bot.teams.until_shown(SDK, "waits for approval")


async def test_an_image_that_is_only_told_about_is_told_at_once(
    start_bot: StartBot, catalog_file: Path, world: LocalWorld
) -> None:
    """With mode notify nothing is asked, and the channel hears of the security release all the same, once."""
    catalog_file.write_text(WATCHED.replace("    watch:", "    mode: notify\n    watch:"))
    async with start_bot(RELEASE_METADATA_URL=world.releases.url) as bot:
        await bot.check()
        await bot.next_week()
        await bot.teams.channel().install()
        bot.move_base(SDK, version="6.0.35")
        await an_hour_later(bot, 3)
        card = await bot.teams.until_shown(SDK, "stale", SECURITY)
        assert "Rebuild" in card.buttons
        assert len(bot.teams.messages) == 1


async def test_status_and_schedule_tell_the_watch(bot: Bot) -> None:
    """Both say that the image is watched."""
    alex = bot.teams.personal(ALEX)
    for command in (f"status {SDK}", "schedule"):
        assert "Watched for security releases every hour." in (await alex.ask(command)).text
    assert "Watched" not in (await alex.ask(f"status {ASPNET}")).text
