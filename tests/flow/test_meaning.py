"""What findings mean: why a base moved, and how long it is supported, as people see it before they decide."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta

import pytest

from bot.demo.registry import answering
from bot.demo.release_metadata import CHANNELS
from bot.demo.world import LocalWorld
from tests.conftest import MONDAY, Bot, StartBot
from tests.peers.teams import ALEX, Message

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-8"
SECURITY = ".NET 6.0.33 → 6.0.35, security: 3 CVEs"
NEXT_WEEK = (MONDAY + timedelta(days=7)).date()

Informed = Callable[[], AbstractAsyncContextManager[Bot]]


@pytest.fixture
def informed(start_bot: StartBot, world: LocalWorld) -> Informed:
    """Starts a bot that reads the world's release metadata, in which everything is supported for long."""
    world.releases.channels = {name: replace(channel, ends="2030-01-01") for name, channel in CHANNELS.items()}

    @asynccontextmanager
    async def start() -> AsyncIterator[Bot]:
        async with start_bot(RELEASE_METADATA_URL=world.releases.url) as bot:
            await bot.check()
            await bot.teams.channel().install()
            yield bot

    return start


def support(world: LocalWorld, channel: str, ends: date) -> None:
    world.releases.channels[channel] = replace(CHANNELS[channel], ends=f"{ends}")


def links(message: Message) -> list[str]:
    """The pages that links within the card's text lead to."""
    return [inline["selectAction"]["url"] for inline in inlines(message.card) if "selectAction" in inline]


def inlines(element: object) -> list[dict[str, dict[str, str]]]:
    if isinstance(element, list):
        return [inline for item in element for inline in inlines(item)]
    if not isinstance(element, dict):
        return []
    here = [inline for inline in element.get("inlines", []) if isinstance(inline, dict)]
    return here + [inline for value in element.values() for inline in inlines(value)]


# Why a base moved


async def test_the_question_names_release_and_fixes_before_anybody_approves(informed: Informed) -> None:
    """A security release is told with its versions and CVEs, on the summary, in the toast and on the rebuild's card."""
    async with informed() as bot:
        bot.move_base(SDK, version="6.0.35")
        await bot.next_week()
        summary = await bot.teams.until_shown(SDK, "waits for approval", SECURITY)
        assert "CVE-2024-43484" not in summary.visible
        assert "CVE-2024-43484" in summary.text
        assert "https://www.cve.org/CVERecord?id=CVE-2024-43484" in links(summary)
        assert summary.activity["summary"] == f"{SDK}: security update waits for approval"
        pending = await bot.teams.personal(ALEX).ask("pending")
        status = await bot.teams.personal(ALEX).ask(f"status {SDK}")
        bot.script.gate.clear()
        await bot.teams.channel().press(summary, "Approve")
        card = await bot.teams.until_shown(f"{SDK} · building")
        assert all(SECURITY in message.visible for message in (pending, status, card))
        bot.script.gate.set()
        await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_a_rebuild_of_the_same_version_is_no_release(informed: Informed) -> None:
    """A base that moved without another .NET in it says so."""
    async with informed() as bot:
        bot.move_base(SDK)
        await bot.next_week()
        summary = await bot.teams.until_shown(SDK, "Rebuild of 6.0.33, no .NET change")
        assert summary.activity["summary"] == f"{SDK}: update waits for approval"


async def test_a_release_without_fixes_says_so(informed: Informed) -> None:
    """A release between two security releases is named as one without fixes."""
    async with informed() as bot:
        bot.move_base(ASPNET, version="8.0.21")
        await bot.next_week()
        summary = await bot.teams.until_shown(ASPNET, ".NET 8.0.20 → 8.0.21, security: 3 CVEs")
        await bot.teams.channel().press(summary, "Approve")
        await bot.teams.until_shown(f"{ASPNET} · in ECR as")
        bot.move_base(ASPNET, version="8.0.22")
        await bot.next_week()
        await bot.teams.until_shown(ASPNET, ".NET 8.0.21 → 8.0.22, no security fixes")


async def test_a_base_that_moves_again_after_the_approval_brings_its_own_news(informed: Informed) -> None:
    """The question that takes the place of an approved one tells what the newest base brings, not the one before."""
    async with informed() as bot:
        bot.move_base(SDK)
        await bot.next_week()
        summary = await bot.teams.until_shown(SDK, "no .NET change")
        newest = bot.move_base(SDK, version="6.0.35")
        await bot.teams.channel().press(summary, "Approve")
        again = await bot.teams.until_shown(f"{SDK} · waits for approval", newest[7:19])
        assert SECURITY in again.visible


@pytest.mark.parametrize(
    "body", [pytest.param(None, id="absent"), pytest.param(b"<html>", id="not JSON"), pytest.param(b"[]", id="a list")]
)
async def test_without_release_metadata_the_card_says_what_the_images_say(
    informed: Informed, world: LocalWorld, body: bytes | None
) -> None:
    """Nothing is lost or invented: the versions are in the images, and fixes and support are left out."""
    world.releases.failure = answering(404) if body is None else answering(200, body=body)
    async with informed() as bot:
        bot.move_base(SDK, version="6.0.35")
        await bot.next_week()
        summary = await bot.teams.until_shown(SDK, ".NET 6.0.33 → 6.0.35")
        assert "Approve" in summary.buttons
        assert "security" not in summary.text
        assert "upport" not in summary.text


async def test_switched_off_nothing_is_asked(bot: Bot) -> None:
    """With `off` the bot asks neither for release metadata nor for the support of tags."""
    bot.move_base(SDK, version="6.0.35")
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    assert ".NET" not in summary.visible
    assert bot.world.releases.requests == []
    assert bot.world.registry.count("GET", "/referrers/") == 0


async def test_a_page_is_asked_for_every_six_hours_and_sent_once(informed: Informed, world: LocalWorld) -> None:
    """Within six hours nothing is asked; afterwards an unchanged page is answered with 304, also after a restart."""
    async with informed() as bot:
        for hours, asked in ((0, 1), (5, 1), (1, 2)):
            bot.clock.advance(timedelta(hours=hours))
            await bot.teams.personal(ALEX).ask("check")
            assert len(world.releases.requests) == asked
    async with informed() as bot:
        await bot.teams.personal(ALEX).ask("check")
    assert world.releases.requests == [("/releases-index.json", 200), ("/releases-index.json", 304)]


async def test_what_was_read_once_is_there_after_a_restart_without_the_server(
    informed: Informed, world: LocalWorld
) -> None:
    """The kept pages still tell of fixes and support when the server fails, even long after they were read."""
    support(world, "6.0", date(2024, 11, 12))
    async with informed() as bot:
        bot.move_base(SDK, version="6.0.35")
        await bot.next_week()
        await bot.teams.until_shown(SDK, SECURITY)
        await bot.teams.channel().say(f"reject {SDK} not today")
    world.releases.failure = answering(404)
    async with informed() as bot:
        bot.move_base(SDK)
        await bot.next_week()
        summary = await bot.teams.until(
            lambda: len(bot.teams.messages) > 2 and bot.teams.messages[-1], "the next summary"
        )
        assert SECURITY in summary.visible
        assert "out of support since 12 Nov 2024" in summary.visible


async def test_a_base_that_did_not_move_costs_no_request_more(informed: Informed, world: LocalWorld) -> None:
    """A fresh check is one HEAD per base; support of a tag is asked for once a day."""
    async with informed() as bot:
        await bot.teams.personal(ALEX).ask("check")
        assert world.registry.count("GET", "/referrers/") == 3
        before = len(world.registry.requests)
        bot.clock.advance(timedelta(hours=23))
        await bot.teams.personal(ALEX).ask("check")
        new = [(request.method, "/manifests/" in request.path) for request in world.registry.requests[before:]]
        assert [request for request in new if request == ("HEAD", True)] == [("HEAD", True)] * 3
        assert world.registry.count("GET", "/referrers/") == 3
        bot.clock.advance(timedelta(hours=1))
        await bot.teams.personal(ALEX).ask("check")
        assert world.registry.count("GET", "/referrers/") == 6


# Support


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (91, None),
        (90, "Support of .NET 8.0 ends in 90 days, 28 Feb 2027"),
        (30, "Support of .NET 8.0 ends in 30 days, 30 Dec 2026"),
        (7, "Support of .NET 8.0 ends in 7 days, 7 Dec 2026"),
        (0, "Support of .NET 8.0 ends today, 30 Nov 2026"),
    ],
)
async def test_the_weekly_card_warns_before_support_ends(
    informed: Informed, world: LocalWorld, days: int, told: str | None
) -> None:
    """From 90 days before the end a line of its own names the images; in the last week the toast does so too."""
    support(world, "8.0", NEXT_WEEK + timedelta(days=days))
    async with informed() as bot:
        await bot.next_week()
        card = await bot.teams.until_shown("all 3 images are fresh")
        assert "out of support" not in card.visible
        assert (f"{told}: {ASPNET}." in card.visible) if told else ("Support" not in card.visible)
        assert ("support" in card.activity["summary"]) is (days <= 7)


async def test_an_image_out_of_support_never_just_says_fresh(informed: Informed, world: LocalWorld) -> None:
    """The day after the last one the mark is there and stays: on the weekly card, in list, in status and in check."""
    support(world, "8.0", NEXT_WEEK - timedelta(days=1))
    async with informed() as bot:
        await bot.next_week()
        card = await bot.teams.until_shown("all 3 images are fresh · 1 out of support")
        assert "1 out of support" in card.activity["summary"]
        assert f"Fresh, but out of support: {ASPNET}." in card.visible
        person = bot.teams.personal(ALEX)
        mark = "fresh · out of support since 29 Nov 2026"
        assert mark in (await person.ask("list")).visible
        assert f"{ASPNET} · {mark}" in (await person.ask(f"status {ASPNET}")).visible
        await person.say(f"check {ASPNET}")
        await bot.teams.until_shown(f"{ASPNET} is {mark}")


async def test_the_earlier_end_counts_and_the_next_version_is_named(informed: Informed, world: LocalWorld) -> None:
    """A tag that was given up before its version is out of support; the next version in the catalog is suggested."""
    world.registry.ends[world.base_digest(world.catalog["dotnet-aspnet-6"])] = "2026-10-31"
    async with informed() as bot:
        await bot.next_week()
        await bot.teams.until_shown("all 3 images are fresh · 1 out of support")
        status = await bot.teams.personal(ALEX).ask("status dotnet-aspnet-6")
        assert f"the tag 6.0-bullseye-slim ended 31 Oct 2026; next is {ASPNET}" in status.visible.replace("\\", "")
        await bot.teams.personal(ALEX).say("rebuild dotnet-aspnet-6")
        card = await bot.teams.until_shown("dotnet-aspnet-6 · in ECR as")
        assert "Support of the tag 6.0-bullseye-slim ended on 31 Oct 2026" in card.visible


async def test_a_version_that_is_over_itself_is_no_advice(informed: Informed, world: LocalWorld) -> None:
    """Where the next version in the catalog is out of support as well, none is suggested."""
    support(world, "6.0", NEXT_WEEK - timedelta(days=9))
    support(world, "8.0", NEXT_WEEK - timedelta(days=8))
    async with informed() as bot:
        await bot.next_week()
        status = await bot.teams.personal(ALEX).ask("status dotnet-aspnet-6")
        assert ".NET 6.0 ended 21 Nov 2026" in status.visible
        assert ASPNET not in status.text
