"""From a new base image to a pushed platform image, through the doors: the timer, Teams, Azure and ECR."""

import asyncio
from datetime import timedelta
from functools import partial

from tests.conftest import Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, actions

SDK = "dotnet-sdk-6"


async def test_a_stale_image_goes_from_the_question_to_ecr(bot: Bot) -> None:
    """The summary asks, an approval queues one run with the pinned digest, and the rebuild's card ends in ECR."""
    digest = bot.move_base(SDK)
    await bot.next_week()
    channel = bot.teams.channel()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    bot.script.gate.clear()
    answer = await channel.press(summary, "Approve")
    assert answer["statusCode"] == 200

    card = await bot.teams.until_shown(f"{SDK} · building")
    bot.script.gate.set()
    await bot.teams.until(lambda: "in ECR as 6.0-bullseye-slim-1.4.0" in card.visible, "the card ends in ECR")
    notice = await bot.teams.until_shown("6.0-bullseye-slim-1.4.0", "<at>Alex Wilber</at>")

    assert [run["base"] for run in bot.runs] == [f"mcr.microsoft.com/dotnet/sdk@{digest}"]
    assert card.edits > 0
    assert card.conversation == channel.id
    assert notice.conversation == f"{channel.id};messageid={card.id}"
    assert notice.activity["entities"][0]["mentioned"]["id"] == ALEX.mri
    await bot.teams.until(lambda: "in ECR" in summary.visible, "the summary's row follows")
    assert "Approve" not in summary.buttons


async def test_two_updates_approved_at_the_same_moment_both_run(bot: Bot) -> None:
    """Each image has a run of its own, and the two approvals do not get in each other's way."""
    bot.move_base(SDK)
    bot.move_base("dotnet-aspnet-8")
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "dotnet-aspnet-8", "waits for approval")
    channel = bot.teams.channel()
    await asyncio.gather(channel.press(summary, "Approve", nth=0), channel.press(summary, "Approve", nth=1))
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    await bot.teams.until_shown("dotnet-aspnet-8 · in ECR as")
    assert sorted(run["image"] for run in bot.runs) == ["dotnet-aspnet-8", SDK]


async def test_a_week_without_a_change_is_one_line(bot: Bot) -> None:
    """When nothing moved the channel gets the weekly line and nothing else."""
    await bot.next_week()
    message = await bot.teams.until_shown("all 3 images are fresh")
    assert message.buttons == []
    assert len(bot.teams.messages) == 1


async def test_a_move_for_other_platforms_is_not_an_update(bot: Bot) -> None:
    """An index that moved for arm64 alone leaves an amd64 image fresh."""
    bot.move_base(SDK, "linux/arm64")
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh")
    assert bot.runs == []


async def test_who_is_not_an_approver_gets_a_private_answer(bot: Bot) -> None:
    """Somebody whom the catalog does not name presses Approve: told in private, audited, and nothing is queued."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    posted = len(bot.teams.messages)
    answer = await bot.teams.channel().press(summary, "Approve", NESTOR)
    assert "may not" in answer["value"]
    await bot.app.runner.advance()
    assert bot.runs == []
    assert len(bot.teams.messages) == posted
    rows = await bot.app.store.audit_rows()
    assert (rows[-1]["action"], rows[-1]["actor_id"]) == ("approve refused", NESTOR.entra_id)


async def test_an_approver_is_known_by_object_id_as_well(bot: Bot) -> None:
    """The catalog may name people by Entra object id."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve", MEGAN)
    await bot.teams.until_shown(SDK, "in ECR as")


async def test_rebuild_goes_straight_to_a_run(bot: Bot) -> None:
    """`rebuild` by an approver queues without comparing, as a patch when the base did not move."""
    await bot.teams.personal(ALEX).say("rebuild dotnet-aspnet-6 hardening changed")
    await bot.teams.until_shown("dotnet-aspnet-6", "in ECR as 6.0-bullseye-slim-1.3.1")
    (run,) = bot.runs
    assert (run["skip_update"], run["reason"]) == ("true", "hardening changed")


async def test_a_second_wish_attaches_to_the_rebuild_under_way(bot: Bot) -> None:
    """There is one active rebuild per image, however many people ask."""
    bot.world.azure.fail_next("POST", "/runs", 500, times=1)
    await bot.teams.personal(ALEX).say("rebuild dotnet-aspnet-6")
    await bot.teams.until_shown("dotnet-aspnet-6", "Cannot be queued yet")
    await bot.teams.personal(MEGAN).say("rebuild dotnet-aspnet-6")
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    await bot.teams.until_shown("in ECR as", where=bot.teams.personal(MEGAN))
    assert len(bot.runs) == 1


async def test_a_base_that_moves_after_the_approval_is_asked_for_again(bot: Bot) -> None:
    """An approval is for a digest: when the base moves before the run is queued, a new question replaces it."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    newest = bot.move_base(SDK)
    await bot.teams.channel().press(summary, "Approve")
    card = await bot.teams.until_shown(SDK, newest[7:19])
    assert "Approve" in card.buttons
    assert bot.runs == []
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until_shown(SDK, "in ECR as")
    assert [run["base"] for run in bot.runs] == [f"mcr.microsoft.com/dotnet/sdk@{newest}"]


async def test_a_rejected_digest_is_not_asked_for_again(bot: Bot) -> None:
    """A rejection holds for its digest; the next digest is asked for."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Reject…", reason="breaks our proxy")
    await bot.teams.until(lambda: "rejected" in summary.visible, "the row says so")
    await bot.next_week()
    second = await bot.teams.until(lambda: len(bot.teams.messages) == 2 and bot.teams.messages[1], "the next summary")
    assert "Approve" not in second.buttons
    bot.move_base(SDK)
    await bot.next_week()
    third = await bot.teams.until(lambda: len(bot.teams.messages) == 3 and bot.teams.messages[2], "the one after")
    assert "Approve" in third.buttons


async def test_no_rejected_digest_is_asked_for_again(bot: Bot) -> None:
    """Two were rejected and a third is asked about when the tag goes back to the first: the question is withdrawn."""
    image, channel = bot.world.catalog[SDK], bot.teams.channel()
    assert image.base is not None
    first = bot.move_base(SDK)

    def posted(number: int) -> bool:
        return len(bot.teams.messages) > number

    for number in range(2):
        await bot.next_week()
        await bot.teams.until(partial(posted, number), "the next summary")
        await channel.press(bot.teams.messages[number], "Reject…", reason="breaks our proxy")
        bot.move_base(SDK)
    await bot.next_week()
    asked = await bot.teams.until_shown(SDK, "waits for approval")
    bot.world.registry.move(image.base.repository, str(image.base.tag), first)
    await channel.say("check")
    await bot.teams.until(lambda: "one that is not asked for" in asked.visible, "the question is withdrawn")
    last = await bot.teams.until_shown(SDK, "This base was rejected")
    assert "Approve" not in last.buttons
    assert await bot.app.store.open_rebuild(SDK) is None


async def test_an_old_button_is_answered_with_the_present_state(bot: Bot) -> None:
    """Pressing Approve on a card whose rebuild has ended says how it ended, and queues nothing."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    old = next(action for action in actions(summary.card) if action["title"] == "Approve")
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(SDK, "in ECR as")
    answer = await bot.teams.channel().invoke(old["verb"], old["data"])
    assert "is in ECR as" in answer["value"]
    assert len(bot.runs) == 1


async def test_a_restart_follows_runs_and_posts_nothing_twice(start_bot: StartBot) -> None:
    """Stopped with a run under way and started again, the bot brings the same card to its end."""
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        bot.script.gate.clear()
        await bot.teams.channel().say("rebuild dotnet-sdk-6")
        card = await bot.teams.until_shown(SDK, "building")
        posted = len(bot.teams.messages)
    bot.script.gate.set()
    async with start_bot() as bot:
        await bot.teams.until(lambda: "in ECR as" in card.visible, "the same card ends")
        await bot.teams.until_shown("<at>Alex Wilber</at>")
    assert len(bot.teams.messages) == posted + 1
    assert len(bot.runs) == 1


async def test_status_tells_of_the_new_version_at_once(bot: Bot) -> None:
    """After a rebuild nobody waits for Monday to be told that the image is fresh again."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown("<at>Alex Wilber</at>", "in ECR as")
    await bot.app.runner.advance()
    answer = await bot.teams.personal(ALEX).ask(f"status {SDK}")
    assert f"{SDK} · fresh" in answer.visible
    assert "6.0-bullseye-slim-1.4.0, pushed" in answer.visible


async def test_a_base_that_moves_during_the_run_is_asked_for_after_it(bot: Bot) -> None:
    """What was approved is built, and the base that came meanwhile is asked for at once and not a week later."""
    bot.script.gate.clear()
    await bot.teams.channel().say(f"rebuild {SDK}")
    await bot.teams.until_shown(SDK, "building")
    newest = bot.move_base(SDK)
    bot.script.gate.set()
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    asked = await bot.teams.until_shown(SDK, "waits for approval", newest[7:19])
    assert "Approve" in asked.buttons
