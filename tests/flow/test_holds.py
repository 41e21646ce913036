"""Images that somebody stopped: nothing happens to them, everybody sees why, and they come back when they should."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message, actions

SDK = "dotnet-sdk-6"


async def question(bot: Bot) -> Message:
    """The summary that asks about the new base of the SDK image."""
    bot.move_base(SDK)
    await bot.next_week()
    return await bot.teams.until_shown(SDK, "waits for approval")


async def test_a_hold_withdraws_the_question_and_survives_checks_and_restarts(start_bot: StartBot) -> None:
    """On hold nothing is asked again, by no check and after no restart, and cards say who holds it and why."""
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        summary = await question(bot)
        answer = await bot.teams.channel().ask("hold dotnet-sdk-6 breaks our proxy")
        assert "On hold by Alex Wilber since" in answer.visible
        assert "until somebody releases it" in answer.visible
        await bot.teams.until(lambda: "breaks our proxy" in summary.visible, "the summary tells of the hold")
        assert "Approve" not in summary.buttons
        assert "Release" in summary.buttons
    async with start_bot() as bot:
        bot.move_base(SDK)
        await bot.next_week()
        second = await bot.teams.until_shown("On hold by Alex Wilber", "2026")
        assert "Approve" not in second.buttons
        status = await bot.teams.personal(ALEX).ask("status dotnet-sdk-6")
        assert "on hold" in status.visible
        assert len(await bot.app.store.history(SDK, 9)) == 1
        assert bot.runs == []


async def test_release_asks_again_at_once(bot: Bot) -> None:
    """Released by the button, the image is checked there and then, and its question is back."""
    summary = await question(bot)
    await bot.teams.channel().say("hold dotnet-sdk-6 breaks our proxy")
    await bot.teams.until(lambda: "Release" in summary.buttons, "the summary tells of the hold")
    await bot.app.runner.advance()  # the question is withdrawn
    await bot.teams.channel().press(summary, "Release", MEGAN)
    asked = await bot.teams.until_shown(SDK, "waits for approval")
    assert asked is not summary
    await bot.teams.channel().press(asked, "Approve")
    await bot.teams.until_shown(SDK, "in ECR as")
    audited = [(row["action"], row["actor_name"], row["comment"]) for row in await bot.app.store.audit_rows()]
    assert ("hold", "Alex Wilber", "breaks our proxy") in audited
    assert ("release", "Megan Bowen", "breaks our proxy") in audited


async def test_a_hold_stops_an_image_of_mode_auto(catalog_file: Path, start_bot: StartBot) -> None:
    """Not even an automatic image is built while somebody holds it."""
    catalog_file.write_text(catalog_file.read_text().replace("    extra_tags:", "    mode: auto\n    extra_tags:"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        await bot.teams.channel().say("hold dotnet-sdk-6 until the audit is over")
        bot.move_base(SDK)
        await bot.next_week()
        await bot.teams.until_shown(SDK, "On hold by Alex Wilber")
        await bot.app.runner.advance()
        assert bot.runs == []
        await bot.teams.channel().say("release dotnet-sdk-6")
        await bot.teams.until_shown(SDK, "in ECR as")


async def test_an_approval_that_waits_for_azure_is_stopped_as_well(bot: Bot) -> None:
    """A rebuild that is approved but has no run ends when its image is held; it is not queued later."""
    bot.world.azure.fail_next("OPTIONS", "/_apis", 503, times=50)
    await bot.teams.channel().say("rebuild dotnet-aspnet-8")
    card = await bot.teams.until_shown("dotnet-aspnet-8", "Cannot be queued yet")
    await bot.teams.channel().say("hold dotnet-aspnet-8 wait for the freeze")
    bot.clock.advance(timedelta(minutes=10))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "superseded" in card.visible, "the card ends")
    assert "wait for the freeze" in card.visible
    assert bot.runs == []


async def test_rebuild_and_approve_are_refused_on_hold(bot: Bot) -> None:
    """Typed wishes are answered with who holds the image and how to let it go."""
    summary = await question(bot)
    approve = next(action for action in actions(summary.card) if action["title"] == "Approve")
    await bot.teams.channel().say("hold dotnet-sdk-6 breaks our proxy")
    answer = await bot.teams.channel().ask("rebuild dotnet-sdk-6")
    assert "dotnet-sdk-6 is on hold by Alex Wilber: breaks our proxy. Release it first." in answer.text
    assert "release dotnet-sdk-6" in answer.buttons
    pressed = await bot.teams.channel().invoke("approve", approve["data"])
    assert "on hold" in pressed["value"]
    assert bot.runs == []


async def test_a_hold_with_an_end_is_over_by_itself(bot: Bot) -> None:
    """After its time the image is checked, and people are asked without anybody releasing it."""
    summary = await question(bot)
    await bot.teams.channel().say("hold dotnet-sdk-6 2d over the weekend")
    await bot.teams.until(lambda: "On hold by Alex Wilber until" in summary.visible, "the summary tells of the hold")
    await bot.app.runner.advance()  # the question is withdrawn
    posted = len(bot.teams.messages)
    bot.clock.advance(timedelta(days=1))
    await bot.app.checks.end_holds()
    assert len(bot.teams.messages) == posted
    bot.clock.advance(timedelta(days=1))
    await bot.app.checks.end_holds()
    asked = await bot.teams.until(lambda: bot.teams.messages[posted:], "the question is back")
    assert "Approve" in asked[0].buttons


async def test_the_end_waits_for_the_check_after_a_hold(start_bot: StartBot) -> None:
    """Stopped while the check after a hold is under way, the bot ends after it, and the question is kept."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        begun.set()
        await go_on.wait()
        return await handler(request)

    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        await question(bot)
        await bot.teams.channel().say("hold dotnet-sdk-6 2d over the weekend")
        await bot.app.runner.advance()  # the question is withdrawn
        bot.clock.advance(timedelta(days=2))
        bot.world.registry.fail_next("HEAD", "dotnet/sdk", slowly)
        await bot.teams.channel().say("rebuild dotnet-aspnet-8 which wakes the loop")
        await bot.teams.until(begun.is_set, "the check after the hold")
        asyncio.get_running_loop().call_later(0.3, go_on.set)  # while the bot ends
    async with start_bot() as bot:
        assert await bot.app.store.open_rebuild(SDK)


async def test_a_snooze_brings_the_question_back(bot: Bot) -> None:
    """Snoozed from the card for a week, the question leaves the card and comes again when the week is over."""
    summary = await question(bot)
    await bot.teams.channel().press(summary, "Snooze…", ALEX, pause="1w", comment="after the release")
    await bot.teams.until(lambda: "Snoozed by Alex Wilber until" in summary.visible, "the summary tells of it")
    await bot.app.runner.advance()  # the question is withdrawn
    assert "Approve" not in summary.buttons
    posted = len(bot.teams.messages)
    bot.clock.advance(timedelta(days=7))
    await bot.app.checks.end_holds()
    asked = await bot.teams.until(lambda: bot.teams.messages[posted:], "the question is back")
    assert "Approve" in asked[0].buttons
    assert await bot.app.store.holds() == {}


async def test_a_snooze_is_about_one_digest(bot: Bot) -> None:
    """When the base moves again during a snooze, people are asked about the new one at the next check."""
    await question(bot)
    await bot.teams.channel().say("snooze dotnet-sdk-6 30d")
    await bot.next_week()
    quiet = await bot.teams.until_shown(SDK, "Snoozed by Alex Wilber")
    assert "Approve" not in quiet.buttons
    newest = bot.move_base(SDK)
    await bot.next_week()
    asked = await bot.teams.until_shown(SDK, newest[7:19])
    assert "Approve" in asked.buttons


async def test_a_run_under_way_goes_on(bot: Bot) -> None:
    """A hold does not stop what Azure builds already; the card says that the image is held."""
    bot.script.gate.clear()
    await bot.teams.channel().say("rebuild dotnet-sdk-6")
    card = await bot.teams.until_shown(SDK, "building")
    await bot.teams.channel().say("hold dotnet-sdk-6 that is enough")
    await bot.teams.until(lambda: "On hold by Alex Wilber" in card.visible, "the card tells of the hold")
    bot.script.gate.set()
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the run ends as it would have")


@pytest.mark.parametrize(
    "text", ["hold dotnet-sdk-6 no reason needed", "snooze dotnet-sdk-6 3d", "release dotnet-sdk-6"]
)
async def test_only_approvers_stop_images(bot: Bot, text: str) -> None:
    """Somebody whom the catalog does not name is refused, and an audit row says that they tried."""
    await question(bot)
    answer = await bot.teams.channel().ask(text, NESTOR)
    assert "You may not" in answer.text
    assert await bot.app.store.holds() == {}
    rows = await bot.app.store.audit_rows()
    assert (rows[-1]["action"], rows[-1]["actor_name"]) == (f"{text.split()[0]} refused", "Nestor Wilke")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hold dotnet-sdk-6", "A hold needs a reason"),
        ("hold", "Something is missing"),
        ("hold dotnet-sdk-6 9999w why", "between five minutes and a year"),
        ("hold dotnet-sdk-6 7 days why", "How long is 7? For example hold dotnet-sdk-6 7d reason"),
        ("snooze dotnet-sdk-6", "For how long?"),
        ("snooze dotnet-sdk-6 soon", "For how long?"),
        ("snooze dotnet-sdk-6 0d", "between five minutes and a year"),
        ("snooze dotnet-sdk-6 3d", "There is nothing to put off"),
        ("release dotnet-sdk-6", "is not on hold"),
        ("release dotnet-skd-6", "Did you mean dotnet-sdk-6?"),
    ],
)
async def test_what_makes_no_sense_is_answered(bot: Bot, text: str, told: str) -> None:
    """A missing reason, a duration that makes no sense, or nothing to put off: each has a sentence for an answer."""
    answer = await bot.teams.channel().ask(text)
    assert told in answer.text
    assert await bot.app.store.holds() == {}


async def test_the_audit_tells_what_a_hold_replaced(bot: Bot) -> None:
    """Each row has the state before and after; where another hold gave way its words are kept."""
    await question(bot)
    for text in ("snooze dotnet-sdk-6 3d", "hold dotnet-sdk-6 7d breaks our proxy", "release dotnet-sdk-6"):
        await bot.teams.channel().say(text)
    rows = [row for row in await bot.app.store.audit_rows() if not row["rebuild_id"] and row["image"] == SDK]
    states = [(row["action"], row["old_state"], row["new_state"]) for row in rows]
    assert states == [("snooze", "", "snooze"), ("hold", "snooze", "hold"), ("release", "hold", "")]
    assert rows[1]["extra"]["instead_of"].startswith("snoozed by Alex Wilber until 03 Dec 2026")


async def test_only_a_question_about_the_base_is_put_off(bot: Bot) -> None:
    """What a person asked for stays asked for: the answer says so, nothing is snoozed, and there is no such button."""
    await bot.teams.channel().say("rebuild dotnet-sdk-6 we need it", NESTOR)
    answer = await bot.teams.channel().ask("snooze dotnet-sdk-6 3d", ALEX)
    assert "Only the question about a new base can be put off. Reject " in answer.text
    assert await bot.app.store.holds() == {}
    assert "Snooze…" not in (await bot.teams.channel().ask("status dotnet-sdk-6")).buttons
