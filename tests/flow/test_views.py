"""Cards for those who look at them: approvers get the buttons, everybody else sees who may."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import CATALOG, Bot, StartBot
from tests.flow.test_approvers import ASPNET, SDK, TEAM, installed, question, rules
from tests.peers.teams import ALEX, MEGAN, NESTOR, TENANT, USERS, Json, Message, Place, User, actions, texts

OWN = "Approve or reject…"


@pytest.fixture
def channel(bot: Bot) -> Place:
    """The channel, whose members Teams tells."""
    channel = bot.teams.channel()
    bot.teams.rosters[channel.id] = USERS
    return channel


def titles(card: Json) -> list[str]:
    return [action["title"] for action in actions(card)]


def words(card: Json) -> str:
    return "\n".join(texts(card, hidden=False))


async def refreshed(place: Place, message: Message, user: User) -> Json:
    """The card that Teams shows to somebody, asked for as the posted card says."""
    assert message.card
    action = message.card["refresh"]["action"]
    answer = await place.invoke(action["verb"], action["data"], user, message.id)
    assert answer["type"] == "application/vnd.microsoft.card.adaptive", answer
    card: Json = answer["value"]
    return card


async def test_a_posted_card_shows_who_may_and_an_approver_gets_the_buttons(bot: Bot, channel: Place) -> None:
    """In a channel whose members are known the posted card decides nothing; an approver's own card does."""
    summary = await question(bot)
    assert "May approve: Alex Wilber or Megan Bowen." in summary.visible
    assert OWN in summary.buttons
    assert not {"Approve", "Reject…", "Hold…"} & set(summary.buttons)
    assert summary.card
    assert summary.card["refresh"]["userIds"] == sorted([ALEX.mri, MEGAN.mri])

    own = await refreshed(channel, summary, ALEX)
    assert {"Approve", "Reject…"} <= set(titles(own))
    approve = next(action for action in actions(own) if action["title"] == "Approve")
    answer = await channel.invoke(approve["verb"], approve["data"], ALEX)
    assert "Approved" in answer["value"]
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert card.card
    assert "refresh" not in card.card


async def test_somebody_else_sees_who_may(bot: Bot, channel: Place) -> None:
    """Pressing the button as somebody whom the catalog does not name leads to who may, and to no button."""
    summary = await question(bot)
    answer = await channel.press(summary, OWN, NESTOR)
    assert "May approve: Alex Wilber or Megan Bowen. You are not among them." in words(answer["value"])
    assert not {"Approve", "Reject…", OWN} & set(titles(answer["value"]))
    assert bot.runs == []


async def test_a_view_gives_no_right(bot: Bot, channel: Place) -> None:
    """Whoever sends an approver's button all the same is refused at the click."""
    summary = await question(bot)
    approve = next(a for a in actions(await refreshed(channel, summary, ALEX)) if a["title"] == "Approve")
    answer = await channel.invoke(approve["verb"], approve["data"], NESTOR)
    assert "You may not approve" in answer["value"]
    assert bot.runs == []


async def test_the_card_of_a_rebuild_has_views_as_well(bot: Bot, channel: Place) -> None:
    """What somebody else asked for waits on a card of its own, drawn for each person."""
    await channel.say(f"rebuild {SDK} new certificate", NESTOR)
    card = await bot.teams.until_shown(f"{SDK} · waits for approval")
    assert card.buttons[0] == OWN
    own = await refreshed(channel, card, MEGAN)
    assert titles(own)[:2] == ["Approve", "Reject…"]
    assert "Approve" not in titles(await refreshed(channel, card, NESTOR))


async def test_each_image_has_its_own_approvers(start_bot: StartBot, catalog_file: Path) -> None:
    """On one summary a person has buttons for the images they may decide about, and for no others."""
    only_megan = f"  {ASPNET}:\n    approval: {{approvers: [megan.bowen@contoso.com]}}\n"
    catalog_file.write_text(CATALOG.replace(f"  {ASPNET}:\n", only_megan))
    async with start_bot() as bot:
        await installed(bot)
        channel = bot.teams.channel()
        bot.teams.rosters[channel.id] = USERS
        bot.move_base(ASPNET)
        summary = await question(bot)
        assert titles(await refreshed(channel, summary, MEGAN)).count("Approve") == 2
        own = await refreshed(channel, summary, ALEX)
        assert titles(own).count("Approve") == 1
        assert "May approve: Megan Bowen. You are not among them." in words(own)


async def test_where_teams_does_not_tell_members_everybody_has_the_buttons(bot: Bot, channel: Place) -> None:
    """A roster that cannot be read costs no card and no button: the server decides at the click."""
    bot.teams.fail_next("MEMBERS", 503)
    summary = await question(bot)
    assert "Approve" in summary.buttons
    assert summary.card
    assert "refresh" not in summary.card
    assert "May approve: alex.wilber@contoso.com or 1 more." in summary.visible


async def test_the_roster_is_read_page_by_page_and_remembered(bot: Bot, channel: Place) -> None:
    """All pages are read once in ten minutes, and again after that."""
    bot.teams.page_size = 1
    summary = await question(bot)
    assert summary.card
    assert len(summary.card["refresh"]["userIds"]) == 2
    asked = [path for _, path in bot.teams.calls if path.endswith("pagedmembers")]
    assert len(asked) == len(USERS)
    await refreshed(channel, summary, ALEX)
    assert [path for _, path in bot.teams.calls if path.endswith("pagedmembers")] == asked
    bot.clock.advance(timedelta(minutes=10))
    bot.teams.rosters[channel.id] = [ALEX]
    own = await refreshed(channel, summary, ALEX)
    assert own["refresh"]["userIds"] == [ALEX.mri]


async def test_more_than_sixty_approvers_have_no_views(start_bot: StartBot, catalog_file: Path) -> None:
    """Teams draws own cards for sixty people at most; above that everybody gets the buttons."""
    rules(catalog_file, f'{{channels: ["{TEAM}"]}}')
    crowd = [User(f"Person {n}", f"00000000-0000-4000-8000-0000000001{n:02}", f"p{n}@contoso.com") for n in range(61)]
    async with start_bot() as bot:
        await installed(bot)
        await bot.teams.channel("platform-team").install()
        bot.teams.rosters[bot.teams.channel().id] = bot.teams.rosters[TEAM] = crowd
        many = await question(bot)
        assert "Approve" in many.buttons
        bot.clock.advance(timedelta(minutes=10))
        bot.teams.rosters[TEAM] = crowd[1:]
        few = await question(bot)
        assert few.card
        assert len(few.card["refresh"]["userIds"]) == 60
        assert "May approve: a member of Platform team." in few.visible


async def test_a_personal_chat_keeps_the_buttons(bot: Bot, channel: Place) -> None:
    """Where only one person looks there is one card."""
    bot.move_base(SDK)
    await bot.teams.personal(ALEX).say("check")
    card = await bot.teams.until_shown(SDK, "waits for approval", where=bot.teams.personal(ALEX))
    assert "Approve" in card.buttons


async def test_a_view_of_what_is_over_has_no_buttons(bot: Bot, channel: Place) -> None:
    """An old card that asks for a view gets the present state; nonsense gets a sentence."""
    summary = await question(bot)
    await channel.say(f"approve {SDK}", ALEX)
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    own = await channel.invoke("view", {"subject": "check", "target": "2"}, ALEX)
    assert "Approve" not in titles(own["value"])
    for data in ({"subject": "check", "target": "9" * 30}, {"subject": "check", "target": "x"}, {"target": "zzzzzzzz"}):
        answer = await channel.invoke("view", data, ALEX)
        assert "nothing to decide" in answer["value"]
    assert summary.card
    await bot.teams.until(lambda: "refresh" not in (summary.card or {}), "the posted card asks nobody any more")


async def test_a_view_shows_what_its_place_is_told_about(bot: Bot) -> None:
    """A channel that is told about one image gets views of that image alone."""
    place = replace(bot.teams.channel("other"), owner=ALEX)
    await place.install()
    bot.teams.rosters[place.id] = USERS
    await place.say(f"subscribe {ASPNET}")
    bot.move_base(SDK)
    await question(bot, ASPNET)
    summary = await bot.teams.until_shown(ASPNET, "May approve", where=place)
    own = words(await refreshed(place, summary, ALEX))
    assert ASPNET in own
    assert SDK not in own


async def test_pending_tells_age_deadline_who_may_and_where(bot: Bot, channel: Place) -> None:
    """Oldest first, each with how long it waits, who may approve, and a link to its card in this channel."""
    await channel.say(f"rebuild {ASPNET}", NESTOR)
    card = await bot.teams.until_shown(f"{ASPNET} · waits for approval")
    bot.clock.advance(timedelta(hours=3))
    bot.move_base(SDK)
    await channel.say("check")
    summary = await bot.teams.until_shown("1 stale", SDK)
    answer = await channel.ask("pending", NESTOR)
    assert answer.visible.index(ASPNET) < answer.visible.index(SDK)
    assert "Waits for 3 hours, until" in answer.visible
    assert answer.visible.count("May approve: Alex Wilber or Megan Bowen.") == 2
    assert links(answer) == [
        f"https://teams.microsoft.com/l/message/19%3Aplatform-images%40thread.tacv2/{message.id}"
        f"?tenantId={TENANT}&parentMessageId={message.id}"
        for message in (card, summary)
    ]
    assert links(await bot.teams.personal(ALEX).ask("pending")) == []


def links(message: Message) -> list[str]:
    """Where the linked words of a card lead."""
    assert message.card
    rows = [element for container in message.card["body"] for element in container.get("items", [])]
    runs = [run for row in rows for run in row.get("inlines", [])]
    return [run["selectAction"]["url"] for run in runs if "selectAction" in run]
