"""Who is told what: conversations that differ in what they want, that fail for a while, and that are gone."""

import logging
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from tests.conftest import Bot
from tests.peers.teams import ALEX, Message, Place

SDK = "dotnet-sdk-6"
LOST = "cannot be reached since"


async def room(bot: Bot, place: Place) -> Place:
    """A conversation that is told about everything."""
    await place.ask("subscribe")
    return place


def shown(bot: Bot, place: Place, *words: str) -> list[Message]:
    return [m for m in bot.teams.messages if m.conversation.startswith(place.id) and all(w in m.visible for w in words)]


async def event(place: Place, **activity: Any) -> None:
    """Something that happened to the conversation."""
    data = place.activity(ALEX, {})["channelData"] | activity.pop("data", {})
    whole = {"type": "conversationUpdate", "channelData": data, **activity}
    assert (await place.teams.send(place.activity(ALEX, whole)))[0] == 200


async def test_all_cards_of_a_rebuild_follow_it(bot: Bot) -> None:
    """Channel, group chat and personal chat have one card each, also where Teams failed for a while."""
    group, personal = await room(bot, bot.teams.group()), await room(bot, bot.teams.personal(ALEX))
    bot.script.gate.clear()
    bot.teams.fail_next("POST", 503, headers={"Retry-After": "30"}, times=99, where=group)
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval", where=bot.teams.channel())
    await bot.teams.channel().press(summary, "Approve")
    for place in (bot.teams.channel(), personal):
        await bot.teams.until_shown(f"{SDK} · building", where=place)
    bot.script.gate.set()
    await bot.teams.until_shown(f"{SDK} · in ECR as", where=personal)
    assert shown(bot, group, SDK) == []
    bot.teams.recover()
    bot.clock.advance(timedelta(seconds=31))
    await bot.app.notifier.deliver()
    for place in (bot.teams.channel(), group, personal):
        await bot.teams.until_shown(f"{SDK} · in ECR as", where=place)
        await bot.teams.until_shown("<at>Alex Wilber</at>", where=place)
        assert len(shown(bot, place, f"{SDK} · in ECR as")) == 1
    assert len(bot.runs) == 1


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        pytest.param(404, "ConversationNotFound", "it no longer exists", id="deleted"),
        pytest.param(403, "BotNotInConversationRoster", "the bot was removed", id="removed"),
        pytest.param(403, "ConversationBlockedByUser", "the bot was blocked", id="blocked"),
        pytest.param(403, "BotDisabledByAdmin", "an administrator disabled the bot", id="disabled"),
    ],
)
async def test_a_lost_channel_is_told_in_the_others(bot: Bot, status: int, code: str, why: str) -> None:
    """The others learn once which channel is lost, why, since when, and how it comes back."""
    other = await room(bot, bot.teams.channel("other", "another-team"))
    bot.teams.fail_next("POST", status, code=code, times=1, where=bot.teams.channel())
    await bot.next_week()
    told = await bot.teams.until_shown(LOST, where=other)
    assert f"The channel Platform images {LOST} 30 November 2026 06:00 UTC: {why}" in told.visible
    assert "mention it" in told.visible
    await bot.next_week()
    await bot.teams.until(lambda: len(shown(bot, other, "all 3 images")) == 2, "the next weekly card")
    assert len(shown(bot, other, LOST)) == 1
    assert shown(bot, bot.teams.channel()) == []


async def test_a_lost_channel_is_back_by_speaking(bot: Bot) -> None:
    """Its subscription is as it was, also when it speaks within the minute in which it was lost."""
    channel = bot.teams.channel()
    await channel.ask(f"subscribe {SDK}")
    bot.teams.fail_next("POST", 404, code="ConversationNotFound", where=channel)
    await bot.next_week()
    await bot.teams.until(lambda: bot.teams.calls[-1][1].endswith("/activities"), "the refused post")
    await bot.app.notifier.deliver()
    assert (await bot.app.store.reach()) == (0, 1)
    await channel.ask("help")
    bot.move_base(SDK)
    bot.move_base("dotnet-aspnet-8")
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval", where=channel)
    assert "dotnet-aspnet-8" not in summary.text


async def test_refusals_without_a_reason_count_when_they_last(bot: Bot) -> None:
    """A 403 that says nothing more is borne for some minutes; after ten the conversation is lost."""
    other = await room(bot, bot.teams.channel("other", "another-team"))
    bot.teams.fail_next("POST", 403, code="Forbidden", times=99, where=bot.teams.channel())
    await bot.next_week()
    for attempt in range(10):
        assert shown(bot, other, LOST) == [], attempt
        bot.clock.advance(timedelta(minutes=20))
        await bot.app.notifier.deliver()
    told = await bot.teams.until_shown(LOST, where=other)
    assert "Teams answered 403 (Forbidden)" in told.visible


@pytest.mark.parametrize(
    ("activity", "why"),
    [
        pytest.param({"membersRemoved": [{"id": "28:11111111-2222-4333-8444-555555555555"}]}, "removed", id="removed"),
        pytest.param({"type": "installationUpdate", "action": "remove"}, "removed", id="uninstalled"),
        pytest.param({"data": {"eventType": "teamArchived"}}, "its team was archived", id="archived"),
        pytest.param({"data": {"eventType": "teamDeleted"}}, "its team was deleted", id="team deleted"),
    ],
)
async def test_a_lost_team_takes_its_channels_with_it(bot: Bot, activity: dict[str, Any], why: str) -> None:
    """What happens to a team is told of each of its channels, and of no other."""
    second = await room(bot, bot.teams.channel("second"))
    other = await room(bot, bot.teams.channel("other", "another-team"))
    await event(second, **activity)
    for name in ("Platform images", "Second"):
        told = await bot.teams.until_shown(f"The channel {name} {LOST}", where=other)
        assert why in told.visible
    assert await bot.app.store.reach() == (1, 2)


async def test_a_deleted_channel_is_lost_alone(bot: Bot) -> None:
    """Teams tells of a deleted channel in another channel of its team."""
    second = await room(bot, bot.teams.channel("second"))
    await event(bot.teams.channel(), data={"eventType": "channelDeleted", "channel": {"id": second.id}})
    told = await bot.teams.until_shown(LOST, where=bot.teams.channel())
    assert "The channel Second" in told.visible
    assert await bot.app.store.reach() == (1, 1)


async def test_an_update_of_the_app_is_no_loss(bot: Bot) -> None:
    """Teams removes the older version of an app and adds the newer one."""
    other = await room(bot, bot.teams.channel("other", "another-team"))
    for action in ("remove-upgrade", "add-upgrade"):
        await event(bot.teams.channel(), type="installationUpdate", action=action)
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh", where=bot.teams.channel())
    assert shown(bot, other, LOST) == []


async def test_who_was_told_nothing_is_not_missed(bot: Bot) -> None:
    """A conversation without a subscription, or a personal chat, is marked without a word to the others."""
    quiet, personal = bot.teams.channel("quiet", "another-team"), await room(bot, bot.teams.personal(ALEX))
    await quiet.ask("help")
    for place in (quiet, personal):
        await event(place, type="installationUpdate", action="remove")
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh", where=bot.teams.channel())
    assert [m for m in bot.teams.messages if LOST in m.visible] == []


async def test_when_all_are_lost_the_operator_is_told(bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
    """With nobody left to tell, the log has an error and the metric says so."""
    with caplog.at_level(logging.ERROR):
        await event(bot.teams.channel(), type="installationUpdate", action="remove")
    assert "nobody is told about checks and rebuilds any more" in caplog.text
    async with aiohttp.ClientSession() as session, session.get(f"{bot.app.url}/metrics") as response:
        metrics = await response.text()
    assert 'shipshape_conversations{state="reachable"} 0.0' in metrics
    assert 'shipshape_conversations{state="gone"} 1.0' in metrics
