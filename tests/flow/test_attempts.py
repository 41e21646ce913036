"""What people try: what is answered when it is not possible, what the audit knows of it, and for what it counts."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.rebuilds import State
from bot.demo.azure_devops import close_after
from tests.conftest import CATALOG, Bot, StartBot
from tests.flow.test_approvers import TEAM, installed, question, rules
from tests.flow.test_order import CHILD, ORDER, PARENT, TWO, parent_is_approved
from tests.peers.teams import ALEX, MEGAN, NESTOR, USERS

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-8"


@pytest.fixture
def catalog_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The usual catalog, or the one that a test names."""
    path = tmp_path / "catalog.yml"
    path.write_text(getattr(request, "param", CATALOG))
    return path


async def refused(bot: Bot) -> list[tuple[str, str, str]]:
    """Who tried what, and why it was refused."""
    rows = await bot.app.store.audit_rows()
    found = [row for row in rows if row["action"].endswith(" refused")]
    assert all(row["old_state"] == row["new_state"] for row in found)
    return [(row["actor_name"], row["action"], row["comment"]) for row in found]


# Audit


async def test_who_may_not_leaves_a_row_with_the_digests(bot: Bot) -> None:
    """The row tells who tried, which digest it was about, and who may."""
    await question(bot)
    await bot.teams.channel().ask(f"approve {SDK}", NESTOR)
    row = (await bot.app.store.audit_rows())[-1]
    assert (row["actor_name"], row["action"]) == ("Nestor Wilke", "approve refused")
    assert row["new_digest"] == bot.world.base_digest(bot.world.catalog[SDK])
    assert row["old_digest"] not in ("", row["new_digest"])
    assert row["comment"].startswith("Those who may: ")


async def test_an_approver_who_comes_too_late_leaves_a_row(bot: Bot) -> None:
    """After the deadline, after the decision, a second time: each attempt is audited with the reason."""
    summary = await question(bot)
    bot.clock.advance(timedelta(days=8))
    await bot.teams.channel().press(summary, "Approve")
    await bot.app.runner.advance()
    await bot.teams.channel().ask(f"reject {SDK} too old")
    [late, over] = await refused(bot)
    assert late[:2] == ("Alex Wilber", "approve refused")
    assert "has expired" in late[2]
    assert over[:2] == ("Alex Wilber", "reject refused")
    assert "expired before anybody decided" in over[2]


async def test_a_second_approval_of_one_person_leaves_a_row(start_bot: StartBot, catalog_file: Path) -> None:
    """It does not count, and the audit says that somebody tried."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com, megan.bowen@contoso.com], required: 2}")
    async with start_bot() as bot:
        await installed(bot)
        summary = await question(bot)
        await bot.teams.channel().press(summary, "Approve", ALEX)
        await bot.teams.channel().press(summary, "Approve", ALEX)
        [(who, action, why)] = await refused(bot)
        assert (who, action) == ("Alex Wilber", "approve refused")
        assert "another person has to" in why


async def test_whose_rollback_may_not_replace_a_question_leaves_a_row(bot: Bot) -> None:
    """Somebody whom the catalog does not name tries to put a rollback in the place of a question."""
    image = bot.world.catalog[SDK]
    bot.world.publish(image, f"{image.tag}-1.4.0", bot.world.base_digest(image))
    await question(bot)
    await bot.teams.personal(NESTOR).ask(f"rollback {SDK}")
    assert [attempt[:2] for attempt in await refused(bot)] == [("Nestor Wilke", "rollback refused")]


async def test_a_wish_that_cannot_be_met_leaves_a_row(bot: Bot) -> None:
    """A rebuild of an image on hold, and a rollback that has nowhere to go."""
    await bot.teams.channel().say(f"hold {SDK} breaks our proxy")
    await bot.teams.channel().say(f"rebuild {SDK} all the same", MEGAN)
    await bot.teams.channel().say(f"rollback {SDK}", MEGAN)
    [rebuild, rollback] = await refused(bot)
    assert rebuild[:2] == ("Megan Bowen", "rebuild refused")
    assert "is on hold by Alex Wilber: breaks our proxy" in rebuild[2]
    assert rollback == ("Megan Bowen", "rollback refused", f"ECR has no version of {SDK} before 1.3.0.")


async def chain(bot: Bot, image: str) -> list[tuple[str, str, str, str]]:
    """What happened to the rebuilds of an image: id, action, and from which state to which."""
    rows = await bot.app.store.audit_rows()
    keys = ("rebuild_id", "action", "old_state", "new_state")
    return [tuple(row[key] for key in keys) for row in rows if row["image"] == image]


async def test_a_question_that_takes_the_place_of_another_leaves_its_own_row(bot: Bot) -> None:
    """Whether a check or the moment of queueing finds that the base moved: the history of each rebuild is whole."""
    await question(bot)
    bot.move_base(SDK)
    await bot.teams.channel().say("check")
    bot.world.azure.fail_next("POST", "/runs", 500)
    await bot.teams.channel().say(f"approve {SDK}")
    await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    bot.move_base(SDK)
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    first, second, third = reversed([rebuild.id for rebuild in await bot.app.store.history(SDK, 9)])
    assert await chain(bot, SDK) == [
        (first, "ask", "", "awaiting_approval"),
        (first, "supersede", "awaiting_approval", "superseded"),
        (second, "ask", "", "awaiting_approval"),
        (second, "approve", "awaiting_approval", "approved"),
        (second, "supersede", "approved", "superseded"),
        (third, "ask", "", "awaiting_approval"),
    ]


# Who


async def test_one_person_is_one_vote_with_and_without_an_object_id(start_bot: StartBot, catalog_file: Path) -> None:
    """An activity that came without the object id is known by Teams' id, and is no second person."""
    rules(catalog_file, "{approvers: [alex.wilber@contoso.com, megan.bowen@contoso.com], required: 2}")
    async with start_bot() as bot:
        await installed(bot)
        summary = await question(bot)
        channel = bot.teams.channel()
        await channel.press(summary, "Approve", ALEX)
        sender = {"id": ALEX.mri, "name": ALEX.name}
        typed = {"type": "message", "text": f"approve {SDK}", "from": sender}
        before = len(bot.teams.messages)
        await bot.teams.send(channel.activity(None, typed))
        assert "another person has to" in bot.teams.messages[before].visible
        assert bot.runs == []


async def test_a_principal_name_that_was_not_found_is_asked_for_again(bot: Bot) -> None:
    """Teams did not know the member yet when they came first: later it does, and they may approve."""
    summary = await question(bot)
    channel = bot.teams.channel()
    bot.teams.rosters[channel.id] = [MEGAN]
    assert "may not approve" in (await channel.press(summary, "Approve", ALEX))["value"]
    bot.teams.rosters[channel.id] = USERS
    assert "Approved" in (await channel.press(summary, "Approve", ALEX))["value"]


async def test_object_ids_are_shown_as_names(start_bot: StartBot, catalog_file: Path) -> None:
    """Status and refusals name people as Teams knows them, and count those whom it does not tell."""
    rules(catalog_file, f"{{approvers: [{ALEX.entra_id}, 00000000-0000-4000-8000-0000000000ff]}}")
    async with start_bot() as bot:
        await installed(bot)
        channel = bot.teams.channel()
        status = await channel.ask(f"status {SDK}")
        assert "1 approval needed of 2 people whom the catalog names." in status.text
        bot.teams.rosters[channel.id] = USERS
        await question(bot)
        status = await channel.ask(f"status {SDK}")
        assert "1 approval needed of Alex Wilber or 1 more." in status.text
        answer = await channel.ask(f"approve {SDK}", NESTOR)
        assert "You may not approve rebuilds of dotnet-sdk-6. Those who may: Alex Wilber or 1 more." in answer.text
        assert ALEX.entra_id not in status.text + answer.text


# For what it counts


async def test_a_typed_approval_is_for_the_question_it_met(start_bot: StartBot, catalog_file: Path) -> None:
    """The base moves in the very moment in which somebody approves by the image's name: the new digest waits."""
    rules(catalog_file, f'{{channels: ["{TEAM}"]}}')
    async with start_bot() as bot:
        await installed(bot)
        await bot.teams.channel("platform-team").install()
        await question(bot)
        await bot.teams.personal(ALEX).ask(f"now {SDK}")  # their principal name is known from now on
        asked = len(bot.teams.calls)
        bot.teams.members_gate.clear()
        approving = asyncio.create_task(bot.teams.channel().ask(f"approve {SDK}"))
        await bot.teams.until(
            lambda: ("GET", f"/v3/conversations/{TEAM}/members/{ALEX.mri}") in bot.teams.calls[asked:], "the question"
        )
        bot.move_base(SDK)
        await bot.teams.personal(MEGAN).say(f"check {SDK}")
        bot.teams.members_gate.set()
        answer = await approving
        assert "was superseded: the base moved again" in answer.text
        present = await bot.app.store.open_rebuild(SDK)
        assert present is not None
        assert (present.state, present.votes) == (State.AWAITING_APPROVAL, ())


async def test_cancelling_what_azure_never_confirmed_ends_its_run(bot: Bot) -> None:
    """Azure queued the run and its answer was lost; who cancels meanwhile leaves no run that nobody follows."""
    bot.script.gate.clear()
    bot.world.azure.fail_next("POST", "/runs", close_after)
    await bot.teams.channel().say(f"rebuild {SDK}")
    card = await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    answer = await bot.teams.channel().press(card, "Cancel…")
    assert "Cancelled" in answer["value"]
    (run,) = bot.world.azure.runs.all.values()
    bot.script.gate.set()
    await bot.teams.until(lambda: run.result == "canceled", "the run is cancelled in Azure")


# What is said


@pytest.mark.parametrize("catalog_file", [ORDER], indirect=True)
async def test_an_approved_child_is_not_said_to_be_next(bot: Bot) -> None:
    """Its answer names the parent that it waits for."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    answer = await bot.teams.channel().press(card, "Approve")
    assert answer["value"] == f"Approved. {CHILD} is built after {PARENT}; its card follows it."


async def test_a_button_does_not_begin_what_has_to_be_approved(bot: Bot) -> None:
    """Rebuild and Roll back pressed by somebody who may not approve: the answer says that it waits."""
    image = bot.world.catalog[SDK]
    bot.world.publish(image, f"{image.tag}-1.4.0", bot.world.base_digest(image))
    status = await bot.teams.channel().ask(f"status {ASPNET}", NESTOR)
    answer = await bot.teams.channel().press(status, "Rebuild", NESTOR)
    assert f"of {ASPNET} waits for an approval." in answer["value"]
    answer = await bot.teams.channel().invoke("rollback", {"target": SDK, "reason": "because"}, NESTOR)
    assert f"of {SDK} waits for an approval." in answer["value"]


async def test_everything_can_be_called_all(bot: Bot) -> None:
    """`subscribe all` and `unsubscribe all` are what they say."""
    place = bot.teams.personal(ALEX)
    assert "told about failures of all images from" in (await place.ask("subscribe all failures")).text
    assert "told about nothing from" in (await place.ask("unsubscribe all")).text


async def test_a_row_of_a_check_asks_what_its_question_is_about(bot: Bot) -> None:
    """Where a rollback waits, the summary tells which tags would move; and that a wish is for any base."""
    image = bot.world.catalog[SDK]
    bot.world.publish(image, f"{image.tag}-1.4.0", bot.world.base_digest(image))
    await bot.teams.personal(NESTOR).say(f"rollback {SDK} breaks our proxy")
    await bot.teams.personal(NESTOR).say(f"rebuild {ASPNET} we need it")
    bot.move_base(ASPNET)
    newest = bot.move_base(SDK)
    await bot.teams.channel().say("check")
    summary = await bot.teams.until_shown("Check · ", SDK, ASPNET)
    assert "Move 6.0-bullseye-slim, 6.0, latest from 1.4.0 back to 1.3.0 · no build" in summary.visible
    assert newest.short not in summary.visible
    assert "for whatever the base is when it begins." in summary.visible


async def test_what_nobody_approved_by_digest_is_not_said_to_be(bot: Bot) -> None:
    """A rebuild by hand takes the base as it is, so its card does not claim that this one was approved."""
    await bot.teams.channel().say(f"rebuild {SDK}")
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert "Built from base " in card.visible
    assert "as approved" not in card.text


async def test_history_tells_rollbacks_and_holds(bot: Bot) -> None:
    """A rollback with the digests that it moved between, and the hold that keeps the image there."""
    image = bot.world.catalog[SDK]
    bot.world.publish(image, f"{image.tag}-1.4.0", bot.world.base_digest(image))
    tags = bot.world.registry.storage.tags(f"{image.registry_id}/{image.repository}")
    old, new = tags[f"{image.tag}-1.4.0"], tags[f"{image.tag}-1.3.0"]
    await bot.teams.channel().say(f"rollback {SDK} breaks our proxy")
    await bot.teams.until_shown(f"{SDK} · rolled back to 1.3.0")
    history = await bot.teams.channel().ask(f"history {SDK}")
    assert f"{old.short}\xa0→\xa0{new.short}" in history.visible
    assert "On hold by Alex Wilber since" in history.visible
    assert "breaks our proxy" in history.visible


@pytest.mark.parametrize("catalog_file", [ORDER], indirect=True)
async def test_who_asked_for_a_child(bot: Bot) -> None:
    """Not a check, but the rebuild of its parent."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Approve")
    history = await bot.teams.channel().ask(f"history {CHILD}")
    assert "asked by the rebuild of its base image · approved by Alex Wilber" in history.visible


@pytest.mark.parametrize("catalog_file", [ORDER, TWO], indirect=True, ids=["one child", "two children"])
async def test_a_child_is_approved_with_a_comment(bot: Bot) -> None:
    """The card of its parent has an input for it, whether it waits alone or among others."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    await bot.teams.until(lambda: "Approve" in card.buttons, "the child is offered")
    await bot.teams.channel().press(card, "Approve", MEGAN, comment="CHG-77")
    rows = [row for row in await bot.app.store.audit_rows() if row["action"] == "approve"]
    assert (rows[-1]["actor_name"], rows[-1]["comment"]) == ("Megan Bowen", "CHG-77")
    assert rows[-1]["image"] != PARENT


async def test_whoever_asked_hears_of_the_rejection(bot: Bot) -> None:
    """A reply mentions them with the reason; nobody is called when a check asked, or they rejected it themselves."""
    await bot.teams.channel().say(f"rebuild {SDK} we need it", NESTOR)
    card = await bot.teams.until_shown(f"{SDK} · waits for approval")
    await bot.teams.channel().press(card, "Reject…", ALEX, reason="not before the release")
    told = f"{SDK}: rejected by Alex Wilber: not before the release. <at>Nestor Wilke</at>"
    notice = await bot.teams.until_shown(told)
    assert notice.conversation == f"{bot.teams.channel().id};messageid={card.id}"
    assert "<at>Alex" not in notice.text
    posted = len(bot.teams.messages)
    summary = await question(bot)
    await bot.teams.channel().press(summary, "Reject…", ALEX, reason="no")
    await bot.teams.until(lambda: "rejected" in summary.visible, "the row says so")
    assert len(bot.teams.messages) == posted + 1


async def test_pending_tells_how_many_approvals_are_missing(start_bot: StartBot, catalog_file: Path) -> None:
    """With three needed, one given is told as one of three."""
    approvers = "alex.wilber@contoso.com, megan.bowen@contoso.com, nestor.wilke@contoso.com"
    rules(catalog_file, f"{{approvers: [{approvers}], required: 3}}")
    async with start_bot() as bot:
        await installed(bot)
        await question(bot)
        assert "0 of 3 approvals" in (await bot.teams.channel().ask("pending")).visible
        await bot.teams.channel().say(f"approve {SDK}", ALEX)
        assert "1 of 3 approvals, by Alex Wilber" in (await bot.teams.channel().ask("pending")).visible
