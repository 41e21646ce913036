"""Who is told what: conversations that differ in what they want, that fail for a while, and that are gone."""

import asyncio
import logging
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.demo.registry import answering
from tests.conftest import Bot, StartBot
from tests.peers.teams import ALEX, NAMESAKE, NESTOR, ODDLY_NAMED, Message, Place, User

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"
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
    bot.clock.advance(timedelta(days=7))
    await channel.ask(f"subscribe {SDK}")
    bot.teams.fail_next("POST", 404, code="ConversationNotFound", where=channel)
    posted = len(bot.teams.calls)
    await bot.check()
    await bot.teams.until(lambda: len(bot.teams.calls) > posted, "the refused post")
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
    for _ in range(2):  # Teams tells of a removal twice, in two kinds of activities
        await event(second, **activity)
    for name in ("Platform images", "Second"):
        told = await bot.teams.until_shown(f"The channel {name} {LOST}", where=other)
        assert why in told.visible
    await bot.app.notifier.deliver()
    assert len(shown(bot, other, LOST)) == 2
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


# What a conversation wants


async def test_failures_only_is_told_when_something_fails(bot: Bot) -> None:
    """No question and no success, but the failed rebuild with its notice, and of its own images alone."""
    quiet = bot.teams.channel("on-call", "another-team")
    answer = await quiet.ask(f"subscribe {SDK} failures")
    assert f"told about failures of {SDK} from now on" in answer.visible
    told = len(shown(bot, quiet))
    bot.script.failing = {SDK: ("Test", ["got 500"]), ASPNET: ("Test", ["got 500"])}
    for image in (SDK, ASPNET):
        await bot.teams.channel().say(f"rebuild {image}")
        await bot.teams.until_shown(f"{image} · test failed", where=bot.teams.channel())
    await bot.teams.until_shown(f"{SDK} · test failed", where=quiet)
    await bot.teams.until_shown("<at>Alex Wilber</at>", where=quiet)
    assert len(shown(bot, quiet)) == told + 2
    bot.script.failing.clear()
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval", where=bot.teams.channel())
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(f"{SDK} · in ECR as", where=bot.teams.channel())
    assert len(shown(bot, quiet)) == told + 2


async def test_failures_only_is_told_what_cannot_be_checked(bot: Bot) -> None:
    """An image that is unknown, and that it can be checked again; no other weekly card."""
    quiet = bot.teams.channel("on-call", "another-team")
    await quiet.ask(f"subscribe {SDK} failures")
    other = bot.teams.channel("other-on-call", "another-team")
    await other.ask(f"subscribe {ASPNET} failures")
    bot.world.registry.fail_next("HEAD", "dotnet/sdk", answering(503), times=9)
    await bot.next_week()
    await bot.teams.until_shown("Could not be checked since", SDK, where=quiet)
    bot.world.registry.recover()
    await bot.next_week()
    mended = await bot.teams.until_shown(f"Could be checked again: {SDK} (unknown since", where=quiet)
    assert "{{DATE(2026-11-30T06:00:00Z,SHORT)}}" in mended.visible
    await bot.next_week()
    await bot.teams.until(lambda: len(shown(bot, bot.teams.channel(), "fresh")) == 3, "the weekly cards")
    assert len(shown(bot, quiet)) == 3
    assert len(shown(bot, other)) == 1


async def test_a_failures_only_channel_that_asks_gets_its_card(bot: Bot) -> None:
    """Where a rebuild was asked for its card is shown, whatever the conversation is told otherwise."""
    await bot.teams.channel().ask("subscribe failures")
    await bot.teams.channel().say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} · in ECR as", where=bot.teams.channel())


async def test_all_but_one_image_includes_later_ones(start_bot: StartBot, catalog_file: Path) -> None:
    """`unsubscribe IMAGE` from all leaves the others, also those that join the catalog afterwards."""
    whole = catalog_file.read_text()
    catalog_file.write_text(whole.partition("  dotnet-aspnet-8:")[0])
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        answer = await bot.teams.channel().ask(f"unsubscribe {SDK}")
        assert f"told about all images except {SDK} from now on" in answer.visible
    catalog_file.write_text(whole)
    async with start_bot() as bot:
        bot.move_base(SDK)
        bot.move_base("dotnet-aspnet-8")
        await bot.next_week()
        summary = await bot.teams.until_shown("dotnet-aspnet-8", "waits for approval")
        assert SDK not in summary.text


async def test_an_image_that_left_the_catalog_stays_subscribed(start_bot: StartBot, catalog_file: Path) -> None:
    """It is no error, is told plainly, is told about again when it is back, and can be unsubscribed meanwhile."""
    whole = catalog_file.read_text()
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().ask(f"subscribe {SDK}, dotnet-aspnet-8")
    catalog_file.write_text(whole.partition("  dotnet-aspnet-8:")[0])
    async with start_bot() as bot:
        await bot.next_week()
        await bot.teams.until_shown(f"{SDK} is fresh")
        answer = await bot.teams.channel().ask(f"unsubscribe {SDK}")
        assert "told about dotnet-aspnet-8 from now on. The catalog does not have dotnet-aspnet-8 now" in answer.visible
    catalog_file.write_text(whole)
    async with start_bot() as bot:
        await bot.next_week()
        await bot.teams.until_shown("dotnet-aspnet-8 is fresh")
    catalog_file.write_text(whole.partition("  dotnet-aspnet-8:")[0])
    async with start_bot() as bot:
        answer = await bot.teams.channel().ask("unsubscribe dotnet-aspnet-8")
        assert "told about nothing from now on" in answer.visible


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("subscribe failures", "failures of all images from now on", id="failures of all"),
        pytest.param("subscribe FAILURES `dotnet-sdk-6`", f"failures of {SDK} from now on", id="in any order"),
        pytest.param("subscribe failure", "Did you mean failures", id="a near miss"),
        pytest.param("subscribe dotnet-skd-6", "Did you mean dotnet-sdk-6", id="a typo"),
        pytest.param("unsubscribe failures", "everything again, type subscribe", id="an option of the other"),
        pytest.param("unsubscribe", "told about nothing", id="nothing"),
    ],
)
async def test_wishes_are_answered_with_what_is_told_now(bot: Bot, text: str, told: str) -> None:
    """The answer says the whole of what the conversation is told about."""
    assert told in (await bot.teams.channel().ask(text)).visible


async def test_what_was_asked_for_is_shown_whole(bot: Bot) -> None:
    """A typed check of an image that the channel is not told about is answered there all the same."""
    channel = bot.teams.channel()
    await channel.ask(f"subscribe {SDK}")
    await channel.say("check dotnet-aspnet-8")
    await bot.teams.until_shown("dotnet-aspnet-8 is fresh", where=channel)


# The check itself


async def test_a_failed_check_is_told_once_and_so_is_its_end(
    start_bot: StartBot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is tried, by whomever and with restarts between; those with failures only are told as well."""
    database = tmp_path / "shipshape.db"
    async with start_bot() as bot:
        await bot.check()
        quiet = bot.teams.channel("on-call", "another-team")
        await bot.teams.channel().install()
        await quiet.ask("subscribe failures")
        _sql(database, "ALTER TABLE base_digests RENAME TO missing")
        await bot.next_week()
        for place in (bot.teams.channel(), quiet):
            await bot.teams.until_shown("check", "No image was checked", where=place)
        await bot.check()
    async with start_bot() as bot:
        await bot.check()
        assert len([m for m in bot.teams.messages if "No image was checked" in m.visible]) == 2
        _sql(database, "ALTER TABLE missing RENAME TO base_digests")
        bot.clock.advance(timedelta(hours=3))
        await bot.teams.personal(ALEX).ask("check")
        _sql(database, "ALTER TABLE base_digests RENAME TO missing")
        await bot.check()
        await bot.app.notifier.deliver()
        assert len([m for m in bot.teams.messages if "No image was checked" in m.visible]) == 2
        _sql(database, "ALTER TABLE missing RENAME TO base_digests")
    async with start_bot() as bot:
        await bot.check()
        for place in (bot.teams.channel(), quiet):
            mended = await bot.teams.until_shown("Checks work again; they had failed since", where=place)
            assert "{{DATE(2026-11-30T06:00:00Z,SHORT)}}" in mended.visible
        await bot.next_week()
        await bot.teams.until(lambda: len(shown(bot, bot.teams.channel(), "all 3 images")) == 2, "the next week")
        assert len([m for m in bot.teams.messages if "Checks work again" in m.visible]) == 2


async def test_an_hourly_check_tells_an_outage_and_its_end_once(start_bot: StartBot) -> None:
    """Also when somebody asked for a check meanwhile, and only those who are told about the image."""
    async with start_bot(SCHEDULE="0 * * * *") as bot:
        await bot.check()
        await bot.teams.channel().install()
        other = bot.teams.channel("other", "another-team")
        await other.ask(f"subscribe {ASPNET}")
        await hourly(bot)
        await bot.teams.until_shown("all 3 images", where=bot.teams.channel())
        await bot.teams.until_shown(f"{ASPNET} is fresh", where=other)
        before = len(shown(bot, other))
        bot.world.registry.fail_next("HEAD", "dotnet/sdk", answering(503), times=99)
        await bot.teams.personal(ALEX).ask("check")
        for _ in range(3):
            await hourly(bot)
        await bot.teams.until_shown("Could not be checked since", where=bot.teams.channel())
        bot.world.registry.recover()
        await bot.teams.personal(ALEX).ask(f"check {SDK}")
        for _ in range(3):
            await hourly(bot)
        await bot.teams.until_shown(f"Could be checked again: {SDK}", where=bot.teams.channel())
        assert len(shown(bot, bot.teams.channel(), "Could not be checked")) == 1
        assert len(shown(bot, bot.teams.channel(), "Could be checked again")) == 1
        assert len(shown(bot, other)) == before


async def hourly(bot: Bot) -> None:
    bot.clock.advance(timedelta(hours=1))
    await bot.check()
    await bot.app.notifier.deliver()


async def test_a_question_on_sunday_does_not_replace_the_monday_card(bot: Bot) -> None:
    """Silence means a problem, so the weekly card comes although somebody asked for a check the evening before."""
    bot.clock.advance(timedelta(days=6, hours=14))
    bot.move_base(SDK)
    await bot.teams.personal(ALEX).ask(f"check {SDK}")
    await bot.teams.until_shown(SDK, "waits for approval", where=bot.teams.channel())
    bot.clock.advance(timedelta(hours=10))
    await bot.check()
    await bot.teams.until_shown("Monday check", where=bot.teams.channel())


def _sql(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        connection.execute(statement)
        connection.commit()


# Mentions


@pytest.mark.parametrize(
    ("asking", "called"),
    [
        pytest.param(NESTOR, ["<at>Nestor Wilke</at>", "<at>Alex Wilber</at>"], id="two names"),
        pytest.param(
            NAMESAKE, ["<at>Alex Wilber</at>", "<at>Alex Wilber (alex.wilber@contoso.com)</at>"], id="the same name"
        ),
        pytest.param(
            ODDLY_NAMED,
            ['<at>R&amp;D &lt;at&gt;"Lab"&lt;/at&gt;</at>', "<at>Alex Wilber</at>"],
            id="a name that looks like markup",
        ),
    ],
)
async def test_who_asked_and_who_approved_are_mentioned(bot: Bot, asking: User, called: list[str]) -> None:
    """In the channel and in the personal chat, each by a text of their own that belongs to their account."""
    await bot.teams.personal(asking).say(f"rebuild {SDK}")
    card = await bot.teams.until_shown(f"{SDK} ·", "waits for approval", where=bot.teams.channel())
    await bot.teams.channel().press(card, "Approve", ALEX)
    for place in (bot.teams.channel(), bot.teams.personal(asking)):
        notice = await bot.teams.until_shown(f"{SDK}: in ECR as", *called, where=place)
        mentions = [(entity["mentioned"]["id"], entity["text"]) for entity in notice.activity["entities"]]
        assert mentions == list(zip([asking.mri, ALEX.mri], called, strict=True))


async def test_who_speaks_before_the_installation_does_not_prevent_it(bot: Bot) -> None:
    """The mention that added the bot may arrive first: the channel is told about all images all the same."""
    channel = bot.teams.channel("early")
    await channel.say("list")
    await channel.install()
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh", where=channel)


async def test_what_somebody_decided_survives_a_new_installation(bot: Bot) -> None:
    """A channel that wanted silence keeps it when the bot is added once more."""
    channel = bot.teams.channel("quiet")
    await channel.install()
    await channel.say("unsubscribe")
    await channel.install()
    posted = len(bot.teams.messages)
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh", where=bot.teams.channel())
    assert not [message for message in bot.teams.messages[posted:] if message.conversation == channel.id]


async def test_wishes_of_the_same_second_all_count(bot: Bot) -> None:
    """Three people subscribe a chat to one image each, at once: it is told about all three."""
    group = bot.teams.group()
    await asyncio.gather(*(group.say(f"subscribe {name}") for name in bot.world.catalog))
    told = (await bot.app.store.conversation(group.id)) or None
    assert told is not None
    assert set(told.images) == set(bot.world.catalog)
