"""Going back to an earlier version: the tags move in ECR, nothing is built, and a hold keeps them there."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.images import Digest
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message

SDK, ASPNET_6, ASPNET_8 = "dotnet-sdk-6", "dotnet-aspnet-6", "dotnet-aspnet-8"
LINE = "6.0-bullseye-slim"
FLOATING = (LINE, "6.0", "latest")


def tags(bot: Bot, name: str = SDK) -> Mapping[str, Digest]:
    """What the registry behind ECR has."""
    image = bot.world.catalog[name]
    return bot.world.registry.storage.tags(f"{image.registry_id}/{image.repository}")


def publish(bot: Bot, *versions: str, name: str = SDK) -> None:
    """Put versions into ECR as a pipeline does: each takes the floating tags."""
    image = bot.world.catalog[name]
    for version in versions:
        bot.world.publish(image, f"{image.tag}-{version}", bot.world.base_digest(image))


def are_at(bot: Bot, version: str, *names: str) -> bool:
    """Whether these tags of the SDK point to the version."""
    found = tags(bot)
    return {found[name] for name in names or FLOATING} == {found[f"{LINE}-{version}"]}


async def done(bot: Bot, version: str = "1.3.0") -> Message:
    return await bot.teams.until_shown(f"{SDK} · rolled back to {version}")


async def audit(bot: Bot, *actions: str) -> list[tuple[str, str]]:
    rows = await bot.app.store.audit_rows()
    return [(row["action"], row["actor_name"]) for row in rows if row["action"] in actions]


async def test_an_approver_rolls_back_at_once(bot: Bot) -> None:
    """Every floating tag points to the earlier digest, in ECR and in the registry; no run, a hold, a mention."""
    publish(bot, "1.4.0")
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0 breaks our proxy")
    card = await done(bot)
    notice = await bot.teams.until_shown("rolled back to 1.3.0", "<at>Alex Wilber</at>")
    await bot.teams.until(lambda: "On hold by Alex Wilber" in card.visible, "the hold is told")
    assert f"Moved {LINE}, 6.0, latest from 1.4.0 back to 1.3.0." in card.visible
    assert "breaks our proxy" in card.visible
    assert card.buttons[:2] == ["Release", "History"]
    assert notice.conversation.startswith(bot.teams.channel().id)
    assert are_at(bot, "1.3.0")
    assert bot.runs == []
    found = tags(bot)
    (row,) = [row for row in await bot.app.store.audit_rows() if row["action"] == "succeeded"]
    assert (row["old_digest"], row["new_digest"]) == (found[f"{LINE}-1.4.0"], found[f"{LINE}-1.3.0"])
    assert await audit(bot, "rollback", "hold") == [("rollback", "Alex Wilber"), ("hold", "Alex Wilber")]


async def test_without_a_tag_it_is_the_version_before_the_one_in_use(bot: Bot) -> None:
    """After a rollback from 1.5.0 to 1.4.0 the next one goes to 1.3.0, although 1.4.0 is the second newest."""
    publish(bot, "1.4.0", "1.5.0")
    await bot.teams.channel().say(f"rollback {SDK}")
    await done(bot, "1.4.0")
    assert are_at(bot, "1.4.0")
    bot.clock.advance(timedelta(minutes=10))
    await bot.teams.channel().say(f"rollback {SDK} still broken")
    await done(bot, "1.3.0")
    assert are_at(bot, "1.3.0")
    hold = await bot.app.store.hold(SDK)
    assert hold
    assert hold.reason == "rolled back to 1.3.0: still broken"


async def test_the_next_check_leaves_it_alone_until_it_is_released(bot: Bot) -> None:
    """The base moves: nothing is asked while the hold stands; a release asks, and the new version moves the tags on."""
    publish(bot, "1.4.0")
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0 breaks our proxy")
    card = await done(bot)
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown("Monday check", SDK)
    assert "Approve" not in summary.buttons
    assert are_at(bot, "1.3.0")
    await bot.teams.channel().press(card, "Release")
    asked = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(asked, "Approve")
    await bot.teams.until_shown(f"{SDK} · in ECR as {LINE}-1.5.0")
    assert are_at(bot, "1.5.0")


async def test_status_tells_which_version_is_in_use(bot: Bot) -> None:
    """After a rollback the status names the newest version and the one that the tags have, also after a check."""
    publish(bot, "1.4.0")
    await bot.teams.channel().ask(f"check {SDK}")
    before = await bot.teams.personal(ALEX).ask(f"status {SDK}")
    assert "In use" not in before.text
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
    await done(bot)
    assert f"In use {LINE}-1.3.0" in (await bot.teams.personal(ALEX).ask(f"status {SDK}")).text.replace("\\", "")
    bot.clock.advance(timedelta(minutes=1))
    await bot.teams.channel().ask(f"check {SDK}")
    assert f"In use {LINE}-1.3.0" in (await bot.teams.personal(ALEX).ask(f"status {SDK}")).text.replace("\\", "")


async def test_the_way_back_to_the_newest_version_ends_the_hold(bot: Bot) -> None:
    """Rolling on to the newest version lifts the hold of the rollback before it."""
    publish(bot, "1.4.0")
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
    await done(bot)
    await bot.teams.channel().say(f"rollback {SDK} 1.4.0 it was not the image")
    await bot.teams.until_shown(f"{SDK} · moved on to 1.4.0")
    assert are_at(bot, "1.4.0")
    assert await bot.app.store.hold(SDK) is None


async def test_anybody_else_asks_and_an_approver_decides(bot: Bot) -> None:
    """The question names tags and versions; who may not approve is refused and audited; an approval moves the tags."""
    publish(bot, "1.4.0")
    await bot.teams.personal(NESTOR).say(f"rollback {SDK} {LINE}-1.3.0 our builds fail")
    card = await bot.teams.until_shown(f"{SDK} · rollback to 1.3.0 waits for approval", where=bot.teams.channel())
    assert f"Move {LINE}, 6.0, latest from 1.4.0 back to 1.3.0 · no build" in card.visible
    assert "our builds fail" in card.visible
    answer = await bot.teams.channel().press(card, "Approve", NESTOR)
    assert "may not" in answer["value"]
    assert are_at(bot, "1.4.0")
    answer = await bot.teams.channel().press(card, "Approve", MEGAN)
    assert "1.3.0" in answer["value"]
    await bot.teams.until_shown("rolled back to 1.3.0", "<at>Nestor Wilke</at>")
    assert are_at(bot, "1.3.0")
    assert ("approve refused", "Nestor Wilke") in await audit(bot, "approve refused")


async def test_a_rejected_rollback_moves_nothing_and_does_not_silence_updates(bot: Bot) -> None:
    """A rejection ends the question; an update of the base is asked for all the same."""
    publish(bot, "1.4.0")
    await bot.teams.personal(NESTOR).say(f"rollback {SDK}")
    card = await bot.teams.until_shown(f"{SDK} · rollback to 1.3.0 waits", where=bot.teams.channel())
    await bot.teams.channel().press(card, "Reject…", reason="mend the proxy")
    await bot.teams.until(lambda: "rollback rejected" in card.visible, "the card says so")
    assert are_at(bot, "1.4.0")
    bot.move_base(SDK)
    await bot.next_week()
    assert "Approve" in (await bot.teams.until_shown("Monday check", SDK)).buttons


async def test_two_people_are_needed_where_the_catalog_says_so(start_bot: StartBot, catalog_file: Path) -> None:
    """With a quorum of two the wish of one approver is one vote, and the same wish of another is the second."""
    catalog_file.write_text(CATALOG.replace("expires: 7d", "required: 2, expires: 7d"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        publish(bot, "1.4.0")
        await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
        card = await bot.teams.until_shown(f"{SDK} · rollback to 1.3.0 waits for approval", "1 of 2")
        await bot.app.runner.advance()
        assert are_at(bot, "1.4.0")
        await bot.teams.channel().say(f"rollback {SDK} 1.3.0", MEGAN)
        await bot.teams.until(lambda: "rolled back to 1.3.0" in card.visible, "the second vote decides")
        assert are_at(bot, "1.3.0")


async def test_the_button_of_a_pushed_version_goes_back_with_a_reason(bot: Bot) -> None:
    """The card of a rebuild offers the version before it; once tags are elsewhere an old card does nothing."""
    await bot.teams.channel().say(f"rebuild {SDK}")
    card = await bot.teams.until_shown(f"{SDK} · in ECR as {LINE}-1.3.1")
    publish(bot, "1.3.2")
    answer = await bot.teams.channel().press(card, "Roll back…", version="1.3.0", reason="breaks our proxy")
    assert "is at 1.3.2 by now" in answer["value"]
    await bot.teams.channel().say(f"rollback {SDK} 1.3.1")
    await done(bot, "1.3.1")
    await bot.teams.channel().press(card, "Roll back…", version="1.3.0", reason="breaks our proxy")
    await done(bot, "1.3.0")
    assert are_at(bot, "1.3.0")


async def test_history_offers_earlier_versions(bot: Bot) -> None:
    """The history of an image has a form with the versions it knows, the one before that in use first."""
    await bot.teams.channel().say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} · in ECR as {LINE}-1.3.1")
    card = await bot.teams.channel().ask(f"history {SDK}")
    await bot.teams.channel().press(card, "Roll back…", version="1.3.0", reason="breaks our proxy")
    await done(bot)
    assert are_at(bot, "1.3.0")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            f"rollback {SDK} 9.9.9",
            f"ECR has no version 9.9.9 of {SDK}. The newest are 1.8.0, 1.7.0, 1.6.0, 1.5.0, 1.4.0.",
        ),
        (f"rollback {SDK} latest", "ECR has no version latest"),
        (f"rollback {SDK} 1.8.0", f"The tags of {SDK} are at 1.8.0 already."),
        ("rollback", "Something is missing"),
        ("rollback dotnet-sdk-66", "There is no image"),
        (f"rollback {ASPNET_8}", f"ECR has no version of {ASPNET_8} before 1.3.0."),
    ],
)
async def test_what_cannot_be_rolled_back_is_answered(bot: Bot, typed: str, told: str) -> None:
    """A version that is not there is answered with those that are; nothing moves."""
    publish(bot, *(f"1.{minor}.0" for minor in range(4, 9)))
    answer = await bot.teams.channel().ask(typed)
    assert told in answer.visible
    assert are_at(bot, "1.8.0")


async def test_tags_of_another_line_stay(bot: Bot) -> None:
    """Two lines share a repository: `latest` is the other one's, so it does not move."""
    publish(bot, "1.4.0", name=ASPNET_6)
    publish(bot, "1.4.0", name=ASPNET_8)
    before = tags(bot, ASPNET_6)
    await bot.teams.channel().say(f"rollback {ASPNET_6}")
    card = await bot.teams.until_shown(f"{ASPNET_6} · rolled back to 1.3.0")
    after = tags(bot, ASPNET_6)
    assert {tag for tag in after if after[tag] != before[tag]} == {LINE}
    assert f"Moved {LINE} from 1.4.0" in card.visible


async def test_a_question_gives_way_and_a_run_does_not(bot: Bot) -> None:
    """A waiting update is superseded by a rollback; a run under way has to be cancelled first."""
    publish(bot, "1.4.0")
    bot.script.gate.clear()
    await bot.teams.channel().say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} · building")
    answer = await bot.teams.channel().ask(f"rollback {SDK} 1.3.0")
    assert "Cancel it first" in answer.visible
    assert are_at(bot, "1.4.0")
    await bot.teams.channel().say(f"cancel {SDK}")
    await bot.teams.until_shown(f"{SDK} · cancelled")
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown("Monday check", SDK, "waits for approval")
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
    await done(bot)
    await bot.teams.until(lambda: "Approve" not in summary.buttons, "the question has ended")
    assert ("supersede", "Alex Wilber") in await audit(bot, "supersede")


async def test_a_question_of_somebody_does_not_undo_an_approval(bot: Bot) -> None:
    """Who may not approve cannot replace an approved rebuild by asking for a rollback."""
    publish(bot, "1.4.0")
    bot.world.ecr.fail_next("DescribeImages", "UpstreamDown", times=9)
    await bot.teams.channel().say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    bot.world.ecr.work_again()
    answer = await bot.teams.personal(NESTOR).ask(f"rollback {SDK} 1.3.0")
    assert "Only those who may approve" in answer.visible


async def test_two_rollbacks_at_the_same_moment_are_one(bot: Bot) -> None:
    """Two approvers type the same at once: one rollback, one card, one move of each tag."""
    publish(bot, "1.4.0")
    channel = bot.teams.channel()
    await asyncio.gather(channel.say(f"rollback {SDK} 1.3.0"), channel.say(f"rollback {SDK} 1.3.0", MEGAN))
    await done(bot)
    assert are_at(bot, "1.3.0")
    assert bot.world.ecr.calls.count("PutImage") == len(FLOATING)
    assert len(await audit(bot, "succeeded")) == 1


async def test_an_ecr_that_fails_between_two_tags_is_finished_later(bot: Bot) -> None:
    """One tag moved, then ECR is down: the card says why, no success is claimed, and the next pass moves the rest."""
    publish(bot, "1.4.0")
    bot.world.ecr.fail_next("PutImage", "UpstreamDown", after=1)
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
    card = await bot.teams.until_shown(SDK, "The tags cannot be moved yet", "PutImage")
    assert are_at(bot, "1.3.0", LINE)
    assert are_at(bot, "1.4.0", "6.0", "latest")
    assert await bot.app.store.hold(SDK) is None
    bot.clock.advance(timedelta(minutes=1))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "rolled back to 1.3.0" in card.visible, "the same card ends")
    assert are_at(bot, "1.3.0")


async def test_an_ecr_that_is_down_keeps_the_approval(bot: Bot) -> None:
    """ECR cannot be asked after the approval: the card says why, and the tags move when it works again."""
    publish(bot, "1.4.0")
    bot.world.ecr.fail_next("DescribeImages", "UpstreamDown", after=1)
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
    card = await bot.teams.until_shown(SDK, "The tags cannot be moved yet", "DescribeImages")
    bot.clock.advance(timedelta(minutes=1))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "rolled back to 1.3.0" in card.visible, "the same card ends")


async def test_a_restart_in_the_middle_finishes_it(start_bot: StartBot) -> None:
    """Stopped after the first of three tags and started again, the bot moves the others, holds once, and tells once."""
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        publish(bot, "1.4.0")
        bot.world.ecr.fail_next("PutImage", "UpstreamDown", after=1)
        await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
        card = await bot.teams.until_shown(SDK, "The tags cannot be moved yet")
    bot.world.ecr.restore()
    bot.clock.advance(timedelta(minutes=1))
    async with start_bot() as bot:
        await bot.teams.until(lambda: "rolled back to 1.3.0" in card.visible, "the same card ends")
        await bot.teams.until_shown("<at>Alex Wilber</at>")
        assert are_at(bot, "1.3.0")
        assert await audit(bot, "hold", "succeeded") == [("hold", "Alex Wilber"), ("succeeded", "Shipshape")]


@pytest.mark.parametrize("code", ["AccessDeniedException", "immutable"])
async def test_an_ecr_that_says_no_ends_it_with_the_reason(bot: Bot, code: str) -> None:
    """Missing permission and immutable tags fail the rollback in plain words; no hold is left, and a retry works."""
    publish(bot, "1.4.0")
    if code == "immutable":
        bot.world.ecr.immutable.add(bot.world.catalog[SDK].repository)
    else:
        bot.world.ecr.fail_next("PutImage", code)
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
    card = await bot.teams.until_shown(f"{SDK} · rollback to 1.3.0 failed", code, "no tag was moved")
    assert are_at(bot, "1.4.0")
    assert await bot.app.store.hold(SDK) is None
    bot.world.ecr.immutable.clear()
    await bot.teams.channel().press(card, "Try again")
    await done(bot)
    assert are_at(bot, "1.3.0")


async def test_a_version_tag_that_moved_since_is_not_what_was_approved(bot: Bot) -> None:
    """Between question and approval somebody pushes the version anew: nothing moves, and the card says why."""
    publish(bot, "1.4.0")
    await bot.teams.personal(NESTOR).say(f"rollback {SDK} 1.3.0")
    card = await bot.teams.until_shown(f"{SDK} · rollback to 1.3.0 waits", where=bot.teams.channel())
    image = bot.world.catalog[SDK]
    name = f"{image.registry_id}/{image.repository}"
    bot.world.registry.move(name, f"{LINE}-1.3.0", tags(bot)[f"{LINE}-1.4.0"])
    bot.world.ecr.restore()
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "rollback to 1.3.0 failed" in card.visible, "it fails")
    assert "as approved" in card.visible
    assert are_at(bot, "1.4.0")


async def test_an_image_that_left_the_catalog_keeps_its_tags(start_bot: StartBot, catalog_file: Path) -> None:
    """The image is taken out of the catalog between the first tag and the rest: it ends with that reason."""
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        publish(bot, "1.4.0")
        bot.world.ecr.fail_next("PutImage", "UpstreamDown")
        await bot.teams.channel().say(f"rollback {SDK} 1.3.0")
        card = await bot.teams.until_shown(SDK, "The tags cannot be moved yet")
    catalog_file.write_text(CATALOG.replace("dotnet-sdk-6:", "dotnet-sdk-six:"))
    async with start_bot() as bot:
        await bot.teams.until(lambda: "rollback to 1.3.0 failed" in card.visible, "it ends")
        assert "no longer in the catalog" in card.visible
        assert are_at(bot, "1.4.0")


async def test_rebuild_is_no_vote_for_a_rollback(bot: Bot) -> None:
    """While a rollback waits, an approver's `rebuild` says so instead of approving it."""
    publish(bot, "1.4.0")
    await bot.teams.personal(NESTOR).say(f"rollback {SDK}")
    await bot.teams.until_shown(f"{SDK} · rollback to 1.3.0 waits", where=bot.teams.channel())
    answer = await bot.teams.channel().ask(f"rebuild {SDK}")
    assert "waits for an approval" in answer.visible
    await bot.app.runner.advance()
    assert are_at(bot, "1.4.0")


async def test_a_wish_of_somebody_else_withdraws_no_question(bot: Bot) -> None:
    """Only who may approve can put a rollback in the place of a question that waits."""
    publish(bot, "1.4.0")
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    answer = await bot.teams.personal(NESTOR).ask(f"rollback {SDK}")
    assert "Only those who may approve can replace it" in answer.text
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_a_tag_that_the_pipeline_left_behind_does_not_mislead(bot: Bot) -> None:
    """A pipeline that moves only the extra tags and `latest`: they tell what is in use, and all tags go back."""
    publish(bot, "1.4.0")
    image, found = bot.world.catalog[SDK], tags(bot)
    name = f"{image.registry_id}/{image.repository}"
    publish(bot, "1.5.0")
    bot.world.registry.move(name, LINE, found[f"{LINE}-1.3.0"])
    bot.world.ecr.restore()
    await bot.teams.channel().ask(f"check {SDK}")
    assert "In use" not in (await bot.teams.personal(ALEX).ask(f"status {SDK}")).text
    await bot.teams.channel().say(f"rollback {SDK}")
    await done(bot, "1.4.0")
    assert are_at(bot, "1.4.0")


async def test_a_hold_that_somebody_set_outlives_a_rollback(bot: Bot) -> None:
    """The rollback needs no hold of its own then, and the way back to the newest version does not end it."""
    publish(bot, "1.4.0")
    await bot.teams.channel().say(f"hold {SDK} waits for the auditors", MEGAN)
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0 broken")
    await done(bot)
    await bot.teams.channel().say(f"rollback {SDK} 1.4.0 mended")
    await bot.teams.until_shown(f"{SDK} · moved on to 1.4.0")
    hold = await bot.app.store.hold(SDK)
    assert hold is not None
    assert (hold.by.name, hold.reason) == ("Megan Bowen", "waits for the auditors")


async def test_tags_are_looked_at_after_they_moved(bot: Bot) -> None:
    """ECR says that a tag is there already, and it is not: no success is claimed until it is."""
    publish(bot, "1.4.0")
    bot.world.ecr.fail_next("PutImage", "ImageAlreadyExistsException")
    await bot.teams.channel().say(f"rollback {SDK} 1.3.0 broken")
    card = await bot.teams.until_shown(f"{SDK} · moving tags", f"{LINE} did not move yet")
    assert await bot.app.store.hold(SDK) is None
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "rolled back to 1.3.0" in card.visible, "the tag moves after all")
    assert are_at(bot, "1.3.0")


async def test_the_same_words_twice_are_one_rollback(bot: Bot) -> None:
    """Typed again after a slow answer, it does not go back one version more; naming that version does."""
    publish(bot, "1.4.0", "1.5.0")
    await bot.teams.channel().say(f"rollback {SDK} broken")
    await done(bot, "1.4.0")
    answer = await bot.teams.channel().ask(f"rollback {SDK} broken", MEGAN)
    assert f"has moved the tags to 1.4.0. To go further back, type rollback {SDK} 1.3.0." in answer.visible
    assert are_at(bot, "1.4.0")
    await bot.teams.channel().press(answer, f"rollback {SDK} 1.3.0", MEGAN)
    await done(bot, "1.3.0")
