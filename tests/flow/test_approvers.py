"""Who may decide: people and teams of the catalog, checked at the click, whatever is pressed or typed."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message, actions

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-8"
TEAM = "19:platform-team@thread.tacv2"
RULES = "approval: {approvers: [alex.wilber@contoso.com, 00000000-0000-4000-8000-0000000000b2], expires: 7d}"


def rules(catalog_file: Path, approval: str) -> None:
    assert RULES in CATALOG
    catalog_file.write_text(CATALOG.replace(RULES, f"approval: {approval}"))


async def installed(bot: Bot) -> None:
    await bot.check()  # a new database takes the present slot as done
    await bot.teams.channel().install()


async def question(bot: Bot, image: str = SDK) -> Message:
    """Move a base and let the next check ask about it, on a summary that was not there before."""
    old, place = {message.id for message in bot.teams.messages}, bot.teams.channel().id
    bot.move_base(image)
    await bot.next_week()

    def find() -> Message | None:
        new = [message for message in bot.teams.messages if message.id not in old and message.conversation == place]
        return next((m for m in new if image in m.visible and "waits for approval" in m.visible), None)

    summary: Message = await bot.teams.until(find, f"the question about {image}")
    return summary


async def last_audit(bot: Bot) -> tuple[str, str]:
    row = (await bot.app.store.audit_rows())[-1]
    return row["action"], row["actor_id"]


@pytest.fixture
def team_rules(catalog_file: Path) -> None:
    rules(catalog_file, f'{{approvers: [alex.wilber@contoso.com], channels: ["{TEAM}"], required: 2}}')


@pytest.mark.usefixtures("team_rules")
async def test_members_of_the_named_team_may_approve(start_bot: StartBot) -> None:
    """Whoever is in the team of a channel that the catalog names counts, wherever they press."""
    async with start_bot() as bot:
        await installed(bot)
        await bot.teams.channel("platform-team").install()
        bot.teams.rosters[TEAM] = [NESTOR]
        summary = await question(bot)
        await bot.teams.channel().press(summary, "Approve", ALEX)
        answer = await bot.teams.channel().press(summary, "Approve", NESTOR)
        assert "Approved" in answer["value"]
        await bot.teams.until_shown(f"{SDK} · in ECR as")


@pytest.mark.usefixtures("team_rules")
async def test_a_team_of_ones_own_gives_no_right(start_bot: StartBot) -> None:
    """Somebody adds the bot to another team and approves there: refused, audited, nothing is queued."""
    async with start_bot() as bot:
        await installed(bot)
        await bot.teams.channel("platform-team").install()
        own = bot.teams.channel("own-team")
        await own.install()
        bot.teams.rosters[TEAM], bot.teams.rosters[own.id] = [ALEX], [NESTOR]
        await question(bot)
        answer = await own.ask(f"approve {SDK}", NESTOR)
        assert "You may not approve" in answer.visible
        assert await last_audit(bot) == ("approve refused", NESTOR.entra_id)


@pytest.mark.usefixtures("team_rules")
async def test_somebody_who_left_the_team_may_no_longer_approve(start_bot: StartBot) -> None:
    """Membership is asked for at the click and not remembered from an earlier one."""
    async with start_bot() as bot:
        await installed(bot)
        await bot.teams.channel("platform-team").install()
        bot.teams.rosters[TEAM] = [NESTOR]
        bot.move_base(ASPNET)
        summary = await question(bot)
        await bot.teams.channel().press(summary, "Approve", NESTOR, nth=0)
        bot.teams.rosters[TEAM] = []
        answer = await bot.teams.channel().press(summary, "Approve", NESTOR, nth=1)
        assert "You may not approve" in answer["value"]


@pytest.mark.usefixtures("team_rules")
@pytest.mark.parametrize("known", [True, False], ids=["Teams is down", "the bot was never there"])
async def test_a_team_that_cannot_be_asked_refuses(start_bot: StartBot, known: bool) -> None:
    """When membership cannot be told the answer says so, nothing is decided, and the attempt is audited."""
    async with start_bot() as bot:
        await installed(bot)
        if known:
            await bot.teams.channel("platform-team").install()
        bot.teams.rosters[TEAM] = []
        summary = await question(bot)
        await bot.teams.personal(NESTOR).say(f"cancel {SDK}")  # their principal name is known from now on
        bot.teams.fail_next("MEMBERS", 503)
        answer = await bot.teams.channel().press(summary, "Approve", NESTOR)
        assert "cannot be checked now" in answer["value"]
        assert await last_audit(bot) == ("approve refused", NESTOR.entra_id)
        assert "0 of 2 approvals" in summary.visible


async def test_the_comment_of_the_pressed_row_is_taken(bot: Bot) -> None:
    """Teams sends every input of a card; an approval has the comment of its own row, and a rejection its own reason."""
    bot.move_base(ASPNET)
    summary = await question(bot)
    mine, other = [action["data"]["target"] for action in actions(summary.card) if action["title"] == "Approve"]
    inputs = {f"comment.{mine}": "CHG-1", f"comment.{other}": "CHG-2", f"reason.{other}": "not this one"}
    await bot.teams.channel().invoke("approve", {"target": mine, **inputs})
    row = (await bot.app.store.audit_rows())[-1]
    assert (row["action"], row["rebuild_id"], row["comment"]) == ("approve", mine, "CHG-1")
    await bot.teams.channel().invoke("reject", {"target": other, **inputs})
    rows = [row for row in await bot.app.store.audit_rows() if row["action"] == "reject"]
    assert [(row["rebuild_id"], row["comment"]) for row in rows] == [(other, "not this one")]


async def test_approve_with_a_comment_from_the_check_card(bot: Bot) -> None:
    """The summary has an input for the comment, and the card of the rebuild tells it."""
    summary = await question(bot)
    await bot.teams.channel().press(summary, "Approve", comment="CHG-1234")
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert "CHG-1234" in card.text


async def test_a_reason_is_required_from_the_card_as_well(bot: Bot) -> None:
    """A rejection without a reason is refused on the server, whatever the client let through."""
    summary = await question(bot)
    (target,) = [action["data"]["target"] for action in actions(summary.card) if action["title"] == "Approve"]
    answer = await bot.teams.channel().invoke("reject", {"target": target, f"reason.{target}": "  "})
    assert "needs a reason" in answer["value"]
    assert "waits for approval" in summary.visible


async def test_an_image_that_left_the_catalog(start_bot: StartBot, catalog_file: Path) -> None:
    """Its question is closed by the bot, the card says so, and an old button is answered with a sentence."""
    async with start_bot() as bot:
        await installed(bot)
        summary = await question(bot, ASPNET)
        old = next(action for action in actions(summary.card) if action["title"] == "Approve")
    catalog_file.write_text(CATALOG.partition(f"  {ASPNET}:")[0])
    async with start_bot() as bot:
        answer = await bot.teams.channel().invoke(old["verb"], old["data"])
        assert f"{ASPNET} is no longer in the catalog" in answer["value"]
        await bot.teams.until(lambda: "no longer in the catalog" in summary.visible, "the card says so")
        assert "Approve" not in summary.buttons
        rows = [row for row in await bot.app.store.audit_rows() if row["image"] == ASPNET]
        states = [(row["action"], row["old_state"], row["new_state"]) for row in rows]
        assert ("cancelled", "awaiting_approval", "cancelled") in states
        assert "approve refused" in [action for action, *_ in states]
        assert bot.runs == []


async def test_the_same_person_counts_once(start_bot: StartBot, catalog_file: Path) -> None:
    """Two approvals of one person are one; typed or pressed makes no difference."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com, megan.bowen@contoso.com], required: 2}")
    async with start_bot() as bot:
        await installed(bot)
        summary = await question(bot)
        await bot.teams.channel().press(summary, "Approve", ALEX)
        answer = await bot.teams.channel().press(summary, "Approve", ALEX)
        assert "another person has to" in answer["value"]
        assert "another person has to" in (await bot.teams.personal(ALEX).ask(f"approve {SDK}")).visible
        assert bot.runs == []
        await bot.teams.channel().press(summary, "Approve", MEGAN)
        await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_two_people_at_the_same_second_are_two_approvals(start_bot: StartBot, catalog_file: Path) -> None:
    """With two needed, two presses at the same moment both count, and one run comes of it."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com, megan.bowen@contoso.com], required: 2}")
    async with start_bot() as bot:
        await installed(bot)
        summary = await question(bot)
        channel = bot.teams.channel()
        await asyncio.gather(channel.press(summary, "Approve", ALEX), channel.press(summary, "Approve", MEGAN))
        card = await bot.teams.until_shown(f"{SDK} · in ECR as")
        assert "Alex Wilber" in card.text
        assert "Megan Bowen" in card.text
        assert len(bot.runs) == 1


async def test_whoever_asked_may_be_excluded(start_bot: StartBot, catalog_file: Path) -> None:
    """With self_approve off, the requester's own approval does not count, and a colleague's does."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com, megan.bowen@contoso.com], self_approve: false}")
    async with start_bot() as bot:
        await installed(bot)
        await bot.teams.channel().say(f"rebuild {SDK}", ALEX)
        card = await bot.teams.until_shown(f"{SDK} · waits for approval")
        answer = await bot.teams.channel().press(card, "Approve", ALEX)
        assert "somebody else has to approve" in answer["value"]
        assert bot.runs == []
        await bot.teams.channel().press(card, "Approve", MEGAN)
        await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_a_card_of_last_year_is_answered_with_the_present_state(bot: Bot) -> None:
    """A year later the request has long expired: the button says so, and nothing is queued."""
    summary = await question(bot)
    old = next(action for action in actions(summary.card) if action["title"] == "Approve")
    bot.clock.advance(timedelta(days=365))
    answer = await bot.teams.channel().invoke(old["verb"], old["data"])
    assert "expired" in answer["value"]
    assert bot.runs == []
    await bot.app.runner.advance()
    answer = await bot.teams.channel().invoke(old["verb"], old["data"])
    assert "expired before anybody decided" in answer["value"]
    assert bot.runs == []


async def test_an_approval_for_a_digest_that_moved(bot: Bot) -> None:
    """The base moved and was asked for again: the old card's button is answered, and counts for neither."""
    summary = await question(bot)
    old = next(action for action in actions(summary.card) if action["title"] == "Approve")
    bot.move_base(SDK)
    await bot.teams.channel().say("check")
    await bot.teams.until(lambda: "superseded" in summary.visible, "the old card says so")
    answer = await bot.teams.channel().invoke(old["verb"], old["data"])
    assert "was superseded: the base moved again" in answer["value"]
    await bot.app.runner.advance()
    assert bot.runs == []
