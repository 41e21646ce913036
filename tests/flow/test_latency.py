"""How long an update took, where people look: its card, the weekly card, and the metrics."""

from datetime import timedelta

import aiohttp

from tests.conftest import Bot

SDK, ASPNET_8 = "dotnet-sdk-6", "dotnet-aspnet-8"


async def metrics(bot: Bot) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{bot.app.url}/metrics") as response:
        return await response.text()


async def test_an_update_is_timed_from_the_first_sight_of_its_base(bot: Bot) -> None:
    """A base that was approved two days after the check saw it: on the card, on the next weekly card, as metrics."""
    assert "shipshape_patch_latency_seconds{" not in await metrics(bot)
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    assert "From new base to ECR" not in summary.text
    bot.clock.advance(timedelta(days=2))
    await bot.teams.channel().press(summary, "Approve")
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert "asked at once, approved after 2.0 days, in ECR at once: 2.0 days in all." in card.text
    bot.clock.advance(timedelta(minutes=1))
    told = await metrics(bot)
    assert f'shipshape_patch_latency_seconds{{quantile="0.5"}} {2 * 86400}.0' in told
    assert f'shipshape_patch_latency_seconds{{quantile="1"}} {2 * 86400}.0' in told

    bot.move_base(ASPNET_8)
    await bot.next_week()
    weekly = await bot.teams.until_shown(ASPNET_8, "waits for approval")
    sentence = f"median 2.0 days, worst 2.0 days ({SDK}); 1 update."
    assert sentence in weekly.visible
    bot.clock.advance(timedelta(hours=1))
    await bot.teams.channel().press(weekly, "Approve")
    await bot.teams.until(lambda: f"{ASPNET_8}\xa0 in ECR as" in weekly.visible, "the row follows")
    assert sentence in weekly.visible
    assert "From new base to ECR" not in summary.text
    await bot.teams.until_shown(f"{ASPNET_8} · in ECR as")
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh", f"worst 2.0 days ({SDK}); 2 updates.")


async def test_a_rebuild_without_a_new_base_is_no_update(bot: Bot) -> None:
    """Hardening a fresh image again says nothing about how fast updates are."""
    await bot.teams.channel().say(f"rebuild {SDK} hardening changed")
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert "in all." not in card.text
    assert "shipshape_patch_latency_seconds{" not in await metrics(bot)


async def test_why_explains_the_finding(bot: Bot) -> None:
    """The check's row, the rebuild's card and `status` name platform, evidence, first sight and the other tags."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    status = await bot.teams.channel().ask(f"status {SDK}")
    for message in (summary, status):
        assert "The base moved for linux/amd64 (label)." in message.text
        assert "This base was first seen {{DATE(2026-11-30T06:00:00Z,SHORT)}}" in message.text
        assert "The same image in ECR: 6.0, 6.0-bullseye-slim, latest." in message.text
    await bot.teams.channel().press(summary, "Approve")
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert "The base moved for linux/amd64 (label)." in card.text
