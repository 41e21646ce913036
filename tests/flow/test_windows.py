"""Maintenance windows through the doors: what is approved waits, says until when, and may be started all the same."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.rebuilds import State
from bot.demo.azure_devops import close_after
from tests.conftest import CATALOG, MONDAY, Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message

SDK = "dotnet-sdk-6"
NIGHTS = CATALOG.replace("images:\n", '  windows: {allow: ["daily 22:00-24:00"], deny: ["2026-12-24"]}\nimages:\n')
OPENS = "{{DATE(2026-11-30T22:00:00Z,SHORT)}} {{TIME(2026-11-30T22:00:00Z)}}"
SIXTEEN_HOURS = timedelta(hours=16)  # from the check at six to the opening


@pytest.fixture
async def nightly(start_bot: StartBot, catalog_file: Path) -> AsyncIterator[Bot]:
    """A bot whose images are rebuilt at night only."""
    catalog_file.write_text(NIGHTS)
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        yield bot


async def approve_sdk(bot: Bot) -> str:
    """Approve an update of the image on a Monday morning; the private answer."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    answer = await bot.teams.channel().press(summary, "Approve")
    return str(answer["value"])


async def waiting_card(bot: Bot) -> Message:
    return await bot.teams.until_shown(f"{SDK} · waits for its maintenance window")


async def actions(bot: Bot) -> list[tuple[str, str, str]]:
    """Who did what to rebuilds, with which comment, oldest first."""
    rows = await bot.app.store.audit_rows()
    return [(row["actor_name"], row["action"], row["comment"]) for row in rows if row["rebuild_id"]]


async def test_an_approved_rebuild_waits_for_its_window(nightly: Bot) -> None:
    """The answer and the card say until when, nothing is queued before, and it starts by itself when it opens."""
    answer = await approve_sdk(nightly)
    assert "waits for its maintenance window, which opens Monday, 30 November 2026 at 22:00 UTC" in answer
    card = await waiting_card(nightly)
    assert f"opens: {OPENS}" in card.visible
    assert "Cannot be queued" not in card.visible
    assert card.buttons == ["Start now…", "Cancel…", "Why?"]
    nightly.clock.advance(SIXTEEN_HOURS - timedelta(seconds=1))
    await nightly.app.runner.advance()
    assert nightly.runs == []
    nightly.clock.advance(timedelta(seconds=1))
    await nightly.app.runner.advance()
    await nightly.teams.until(lambda: "in ECR as" in card.visible, "the same card ends")
    assert len(nightly.runs) == 1
    assert "now" not in [action for _, action, _ in await actions(nightly)]


async def test_an_automatic_rebuild_and_one_asked_for_wait_too(start_bot: StartBot, catalog_file: Path) -> None:
    """Windows are for whatever way a rebuild was approved."""
    catalog_file.write_text(NIGHTS.replace("    extra_tags:", "    mode: auto\n    extra_tags:"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        bot.move_base(SDK)
        await bot.next_week()
        await waiting_card(bot)
        await bot.teams.personal(ALEX).say("rebuild dotnet-aspnet-6")
        await bot.teams.until_shown("dotnet-aspnet-6 · waits for its maintenance window")
        await bot.app.runner.advance()
        assert bot.runs == []
        bot.clock.advance(SIXTEEN_HOURS)
        await bot.app.runner.advance()
        await bot.teams.until_shown("dotnet-aspnet-6 · in ECR as")
        await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_start_now_overrides_the_window(nightly: Bot) -> None:
    """The button's form queues at once; card and audit say who did it and why, and they are mentioned at the end."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    nightly.script.gate.clear()
    answer = await nightly.teams.channel().press(card, "Start now…", MEGAN, reason="security fix")
    assert "outside of its maintenance window" in answer["value"]
    await nightly.teams.until(lambda: "building" in card.visible, "the run has begun")
    assert "started now by Megan Bowen" in card.visible
    assert "Started outside its maintenance window by Megan Bowen" in card.text
    assert "security fix" in card.text
    nightly.script.gate.set()
    notice = await nightly.teams.until_shown("<at>Megan Bowen</at>")
    assert "<at>Alex Wilber</at>" in notice.visible
    assert ("Megan Bowen", "now", "security fix") in await actions(nightly)
    assert len(nightly.runs) == 1


async def test_now_is_for_approvers(nightly: Bot) -> None:
    """Somebody whom the catalog does not name is refused, audited, and nothing is queued."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    answer = await nightly.teams.channel().press(card, "Start now…", NESTOR)
    assert "You may not start rebuilds of dotnet-sdk-6" in answer["value"]
    await nightly.app.runner.advance()
    assert nightly.runs == []
    assert (await actions(nightly))[-1][:2] == ("Nestor Wilke", "now refused")


async def test_now_needs_something_that_waits_for_a_window(nightly: Bot) -> None:
    """It approves nothing, starts nothing twice, and says where the rebuild stands instead."""
    alex = nightly.teams.personal(ALEX)
    assert "Something is missing" in (await alex.ask("now")).text
    assert "never been rebuilt" in (await alex.ask(f"now {SDK}")).text
    nightly.move_base(SDK)
    await nightly.next_week()
    await nightly.teams.until_shown(SDK, "waits for approval")
    assert "Nothing waits for a maintenance window" in (told := (await alex.ask(f"now {SDK}")).text)
    assert "waits for an approval" in told
    await alex.ask(f"approve {SDK}")
    nightly.world.azure.fail_next("POST", "/runs", 500)
    assert "is queued next" in (await alex.ask(f"now {SDK} cannot wait")).text
    await nightly.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    assert "Nothing waits for a maintenance window" in (await alex.ask(f"now {SDK}")).text
    nightly.clock.advance(timedelta(minutes=5))
    await nightly.app.runner.advance()
    await nightly.teams.until_shown(f"{SDK} · in ECR as")
    assert "is in ECR as" in (await alex.ask(f"now {SDK}")).text
    assert [action for _, action, _ in await actions(nightly)].count("now") == 1


async def test_two_people_start_it_at_the_same_moment(nightly: Bot) -> None:
    """It is started once, and the second is told that nothing waits any more."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    channel = nightly.teams.channel()
    presses = (channel.press(card, "Start now…", user) for user in (ALEX, MEGAN))
    answers = [str(answer["value"]) for answer in await asyncio.gather(*presses)]
    assert sorted("Nothing waits" in answer for answer in answers) == [False, True]
    await nightly.teams.until_shown(f"{SDK} · in ECR as")
    assert len(nightly.runs) == 1


async def test_a_window_that_closes_before_the_run_is_queued_counts(nightly: Bot) -> None:
    """Approved within the window, but Azure could not be asked until it closed: it waits for the next one."""
    nightly.move_base(SDK)
    await nightly.next_week()
    summary = await nightly.teams.until_shown(SDK, "waits for approval")
    nightly.clock.advance(SIXTEEN_HOURS)
    nightly.world.azure.fail_next("POST", "/runs", 500)
    await nightly.teams.channel().press(summary, "Approve")
    card = await nightly.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    nightly.clock.advance(timedelta(hours=2))
    await nightly.app.runner.advance()
    await nightly.teams.until(lambda: "waits for its maintenance window" in card.visible, "it waits")
    assert "2026-12-01T22:00:00Z" in card.visible
    assert nightly.runs == []


async def test_a_run_that_azure_has_is_followed_whatever_the_window(nightly: Bot) -> None:
    """It was queued within the window and the answer was lost: found again after the window closed, not stopped."""
    nightly.move_base(SDK)
    await nightly.next_week()
    summary = await nightly.teams.until_shown(SDK, "waits for approval")
    nightly.clock.advance(SIXTEEN_HOURS)
    nightly.world.azure.fail_next("POST", "/runs", close_after)
    await nightly.teams.channel().press(summary, "Approve")
    await nightly.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    nightly.clock.advance(timedelta(hours=2))
    await nightly.app.runner.advance()
    await nightly.teams.until_shown(f"{SDK} · in ECR as")
    assert len(nightly.runs) == 1


async def test_the_present_catalog_decides(nightly: Bot, start_bot: StartBot, catalog_file: Path) -> None:
    """After a restart with other windows the card tells the new opening; without windows it starts."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    catalog_file.write_text(NIGHTS.replace("22:00-24:00", "20:00-21:00"))
    async with start_bot():
        await nightly.teams.until(lambda: "2026-11-30T20:00:00Z" in card.visible, "another opening")
    catalog_file.write_text(CATALOG)
    async with start_bot():
        await nightly.teams.until(lambda: "in ECR as" in card.visible, "it starts")


async def test_a_base_that_moves_while_it_waits_is_asked_about(nightly: Bot) -> None:
    """An approval is for a digest: the next check replaces one that waits for its window, before that opens."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    newest = nightly.move_base(SDK)
    asked = await nightly.teams.personal(ALEX).ask("check")
    assert newest[7:19] in asked.visible
    assert "Approve" in asked.buttons
    await nightly.teams.until(lambda: "superseded" in card.visible, "the old card says so")
    nightly.clock.advance(SIXTEEN_HOURS)
    await nightly.app.runner.advance()
    assert nightly.runs == []


async def test_status_and_schedule_tell_the_windows(nightly: Bot) -> None:
    """Both name the windows of an image and when they open; an image without windows is not mentioned."""
    alex = nightly.teams.personal(ALEX)
    opens = "{{DATE(2026-11-23T22:00:00Z,SHORT)}}"
    assert nightly.clock.time == MONDAY
    for command in (f"status {SDK}", "schedule"):
        text = (await alex.ask(command)).text
        assert "daily 22:00-24:00, never 2026-12-24 (UTC)" in text
        assert opens in text
    assert "The next check is due Monday, 30 November 2026 at 06:00 UTC." in (await alex.ask("schedule")).visible
    nightly.clock.advance(SIXTEEN_HOURS)
    assert "open now" in (await alex.ask("schedule")).visible


async def test_without_windows_nothing_is_said_of_them(bot: Bot) -> None:
    """A catalog without windows has a schedule of one line."""
    told = await bot.teams.personal(ALEX).ask("schedule")
    assert told.visible.splitlines() == ["", "The next check is due Monday, 30 November 2026 at 06:00 UTC."]
    assert "Rebuilds start" not in (await bot.teams.personal(ALEX).ask(f"status {SDK}")).text


async def test_a_waiting_rebuild_is_cancelled_at_once(nightly: Bot) -> None:
    """Who changes their mind while it waits stops it before anything is queued."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    await nightly.teams.channel().press(card, "Cancel…")
    await nightly.teams.until(lambda: "cancelled" in card.visible, "the card says so")
    nightly.clock.advance(SIXTEEN_HOURS)
    await nightly.app.runner.advance()
    assert nightly.runs == []
    assert await nightly.app.store.rebuilds(states={State.APPROVED}) == []


async def test_a_hold_ends_what_waits_for_its_window(nightly: Bot) -> None:
    """A hold does not wait for the window: the rebuild ends at once, and cannot be started now."""
    await approve_sdk(nightly)
    card = await waiting_card(nightly)
    alex = nightly.teams.personal(ALEX)
    await alex.ask(f"hold {SDK} release freeze")
    refused = (await alex.ask(f"now {SDK}")).text
    assert "on hold" in refused or "Nothing waits" in refused
    await nightly.teams.until(lambda: "superseded" in card.visible, "the card says so")
    assert nightly.runs == []
