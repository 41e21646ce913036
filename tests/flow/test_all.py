"""`approve all` and `reject all`: one decision about everything that waits, with a line and a run for each image."""

from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.rebuilds import State
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message, actions

SDK, ASPNET_6, ASPNET_8 = "dotnet-sdk-6", "dotnet-aspnet-6", "dotnet-aspnet-8"


async def two_wait(bot: Bot) -> Message:
    bot.move_base(SDK)
    bot.move_base(ASPNET_8)
    await bot.next_week()
    return await bot.teams.until_shown("2 stale", SDK, ASPNET_8)


async def test_one_press_is_one_run_for_each_image(bot: Bot) -> None:
    """The weekly card's button approves all of them, answers with a line for each, and leaves an audit row each."""
    summary = await two_wait(bot)
    answer = await bot.teams.channel().press(summary, "Approve all 2")
    assert answer["value"].splitlines() == ["2 of 2 approved", f"✓ {SDK}: approved", f"✓ {ASPNET_8}: approved"]
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    await bot.teams.until_shown(f"{ASPNET_8} · in ECR as")
    assert sorted(run["image"] for run in bot.runs) == [ASPNET_8, SDK]
    rows = [row for row in await bot.app.store.audit_rows() if row["action"] == "approve"]
    assert [(row["image"], row["actor_id"]) for row in rows] == [(SDK, ALEX.entra_id), (ASPNET_8, ALEX.entra_id)]
    await bot.teams.until(lambda: "Approve all 2" not in summary.buttons, "the buttons go")


async def test_rejecting_all_needs_one_reason(bot: Bot) -> None:
    """The form's reason is that of every rejection; without one nothing happens."""
    summary = await two_wait(bot)
    channel = bot.teams.channel()
    without = await channel.press(summary, "Reject all…")
    assert "Something is missing" in without["value"]
    answer = await channel.press(summary, "Reject all…", MEGAN, reason="change freeze")
    assert answer["value"].startswith("2 of 2 rejected")
    await bot.teams.until(lambda: summary.visible.count("change freeze") == 2, "both rows say so")
    rows = [row for row in await bot.app.store.audit_rows() if row["action"] == "reject"]
    assert [(row["actor_id"], row["comment"]) for row in rows] == [(MEGAN.entra_id, "change freeze")] * 2
    assert bot.runs == []


async def test_a_missing_right_for_one_image_does_not_stop_the_others(start_bot: StartBot, catalog_file: Path) -> None:
    """Who may approve one of two images approves that one; the other line says why not, and it is audited."""
    own = f"    tag: 8.0-bookworm-slim\n    approval: {{approvers: [{NESTOR.principal_name}]}}\n"
    catalog_file.write_text(CATALOG.replace("    tag: 8.0-bookworm-slim\n", own))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        summary = await two_wait(bot)
        answer = await bot.teams.channel().press(summary, "Approve all 2", NESTOR)
        lines = answer["value"].splitlines()
        assert lines[0] == "1 of 2 approved"
        assert lines[1].startswith(f"✕ {SDK}: You may not approve")
        assert lines[2] == f"✓ {ASPNET_8}: approved"
        await bot.teams.until_shown(f"{ASPNET_8} · in ECR as")
        assert [run["image"] for run in bot.runs] == [ASPNET_8]
        refused = [row for row in await bot.app.store.audit_rows() if row["action"] == "approve refused"]
        assert [(row["image"], row["actor_id"]) for row in refused] == [(SDK, NESTOR.entra_id)]


async def test_an_old_card_decides_about_nothing_newer(bot: Bot) -> None:
    """The button of last week's card does not approve what this week's check asks."""
    summary = await two_wait(bot)
    old = next(action for action in actions(summary.card) if action["title"] == "Approve all 2")
    await bot.teams.channel().press(summary, "Reject all…", reason="not now")
    bot.move_base(SDK)
    bot.move_base(ASPNET_6)
    await bot.next_week()
    await bot.teams.until_shown("waits for approval", ASPNET_6)
    answer = await bot.teams.channel().invoke(old["verb"], old["data"])
    assert answer["value"] == "Nothing on this card waits any more."
    await bot.app.runner.advance()
    assert bot.runs == []


async def test_only_the_images_a_card_shows_are_decided(bot: Bot) -> None:
    """In a conversation that is told about two of three images the button is about those two."""
    other = bot.teams.channel("six")
    await other.say(f"subscribe {SDK} {ASPNET_6}")
    bot.move_base(ASPNET_6)
    bot.move_base(SDK)
    bot.move_base(ASPNET_8)
    await bot.next_week()
    card = await bot.teams.until_shown("2 stale", SDK, ASPNET_6, where=other)
    await other.press(card, "Approve all 2")
    await bot.teams.until_shown(f"{SDK} · in ECR as", where=other)
    await bot.teams.until_shown(f"{ASPNET_6} · in ECR as", where=other)
    assert await bot.app.store.open_rebuild(ASPNET_8)


async def test_typed_it_means_everything_that_waits(bot: Bot) -> None:
    """`approve all` with a comment and `reject all` with a reason, from whatever check; else there is nothing."""
    personal = bot.teams.personal(ALEX)
    nothing = await personal.ask("approve all")
    assert "Nothing is waiting" in nothing.visible
    bot.move_base(SDK)
    await bot.next_week()
    await bot.teams.until_shown(SDK, "waits for approval")
    bot.move_base(ASPNET_8)
    await bot.next_week()
    await bot.teams.until_shown(ASPNET_8, "waits for approval")
    missing = await personal.ask("reject all")
    assert "Something is missing" in missing.visible
    answer = await personal.ask("Approve ALL patch day")
    assert "2 of 2 approved" in answer.visible
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    card = await bot.teams.until_shown(f"{ASPNET_8} · in ECR as")
    assert "patch day" in card.text


async def test_one_approval_of_two_is_counted(start_bot: StartBot, catalog_file: Path) -> None:
    """Where two people are needed each of them may approve all; an expired question is a line of its own."""
    catalog_file.write_text(CATALOG.replace("expires: 7d", "required: 2, expires: 8d"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        summary = await two_wait(bot)
        channel = bot.teams.channel()
        first = await channel.press(summary, "Approve all 2")
        assert first["value"].splitlines() == [
            "0 of 2 approved",
            f"● {SDK}: 1 of 2 approvals",
            f"● {ASPNET_8}: 1 of 2 approvals",
        ]
        again = await channel.press(summary, "Approve all 2")
        assert again["value"].count("another person has to") == 2
        second = await channel.press(summary, "Approve all 2", MEGAN)
        assert second["value"].startswith("2 of 2 approved")
        bot.clock.advance(timedelta(days=8))
        late = await channel.invoke("approve", {"target": "all", "check": "1"})
        assert "Nothing on this card" in late["value"]


async def test_a_card_of_a_conversation_that_left_shows_what_it_showed(bot: Bot) -> None:
    """Told about one of two images until it wanted silence: its card follows that one, and a button is for no more."""
    other = bot.teams.channel("six")
    await other.say(f"subscribe {SDK}")
    summary = await two_wait(bot)
    old = next(action for action in actions(summary.card) if action["title"] == "Approve all 2")
    card = await bot.teams.until_shown("1 stale", SDK, where=other)
    await other.say("unsubscribe")
    await other.invoke(old["verb"], old["data"])
    await bot.teams.until(lambda: "approved by" in card.visible or "in ECR" in card.visible, "the card follows")
    assert ASPNET_8 not in card.text
    assert await bot.app.store.open_rebuild(ASPNET_8)


@pytest.mark.parametrize("check", ["x", "9" * 40, "²"])
async def test_a_made_up_scope_is_nothing(bot: Bot, check: str) -> None:
    """A button that names no check decides about nothing, rather than about everything that waits."""
    await two_wait(bot)
    answer = await bot.teams.channel().invoke("approve", {"target": "all", "check": check})
    assert answer["value"] == "Nothing on this card waits any more."
    assert len(await bot.app.store.rebuilds(states={State.AWAITING_APPROVAL})) == 2
