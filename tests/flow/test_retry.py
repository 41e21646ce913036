"""A failed stage is retried in the same run: by whom, when, and what becomes of it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.demo.azure_devops import close_after
from bot.demo.runs import AgentRun
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX, NESTOR, Message

SDK = "dotnet-sdk-6"
VERSION = "6.0-bullseye-slim-1.4.0"


async def fail(bot: Bot, stage: str = "Test") -> Message:
    """A new base is approved by Alex, and its run fails. Returns the rebuild's card."""
    bot.script.failing[SDK] = (stage, ["GET / expected 200, got 500"])
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    card = await bot.teams.until_shown(f"{SDK} · {stage.lower()} failed")
    await bot.teams.until_shown(f"{stage.lower()} failed", "<at>Alex Wilber</at>")
    return card


def mentions(bot: Bot) -> list[str]:
    return [message.text for message in bot.teams.messages if "<at>" in message.text]


async def actions_of(bot: Bot) -> list[tuple[str, str, str]]:
    rows = await bot.app.store.audit_rows()
    return [(row["action"], row["old_state"], row["new_state"]) for row in rows if row["image"] == SDK]


async def test_a_failed_stage_goes_on_in_the_same_run(bot: Bot) -> None:
    """The card names the step; Retry plays the stage again as attempt 2 of the same run, and rings at its end."""
    card = await fail(bot)
    assert "Test · Run the integration application failed after" in card.visible
    assert "Bash exited with code '1'." in card.visible
    bot.script.failing.clear()
    bot.script.gate.clear()
    await bot.teams.channel().press(card, "Retry failed stage")
    await bot.teams.until(lambda: "(attempt\u00a02)" in card.visible, "the second attempt")
    assert "· attempt 2" in card.visible
    assert "Cancel…" in card.buttons
    bot.script.gate.set()
    await bot.teams.until(lambda: f"in ECR as {VERSION}" in card.visible, "the card ends in ECR")
    await bot.teams.until(lambda: len(mentions(bot)) == 2, "a second ring")
    assert ["failed" in text for text in mentions(bot)] == [True, False]
    assert len(bot.runs) == 1
    [row] = [row for row in await bot.app.store.audit_rows() if row["action"] == "retry"]
    assert (row["actor_id"], row["old_state"], row["new_state"]) == (ALEX.entra_id, "failed", "running")


async def test_a_retry_that_fails_rings_again_and_can_be_retried(bot: Bot) -> None:
    """Each attempt has its own end; the third one succeeds."""
    card = await fail(bot)
    await bot.teams.channel().press(card, "Retry failed stage")
    await bot.teams.until(lambda: len(mentions(bot)) == 2, "the second failure rings")
    assert "test failed" in card.visible
    bot.script.failing.clear()
    await bot.teams.personal(ALEX).ask(f"retry {SDK}")
    await bot.teams.until(lambda: f"in ECR as {VERSION}" in card.visible, "the card ends in ECR")
    (run,) = bot.world.azure.runs.all.values()
    assert [len(run.stages[name]) for name in ("Build", "Test", "Push")] == [1, 3, 3]


async def test_what_a_retried_run_pushes_is_verified(bot: Bot) -> None:
    """A retried run that pushes another base than approved fails like any other."""
    image = bot.world.catalog[SDK]
    old = bot.world.base_digest(image)
    card = await fail(bot)
    bot.script.failing.clear()

    async def push_on_the_old_base(run: AgentRun) -> None:
        bot.world.publish(image, run.parameters["version_tag"], old)

    bot.script.push = push_on_the_old_base
    await bot.teams.channel().press(card, "Retry failed stage")
    await bot.teams.until_shown(f"{SDK} · ", "not as approved")
    assert "Retry all" in card.buttons
    assert "Retry failed stage" not in card.buttons


async def test_who_may_not_retry_is_told_and_audited(bot: Bot) -> None:
    """Neither approver nor requester: a private answer, an audit row, and nothing moves."""
    card = await fail(bot)
    answer = await bot.teams.channel().press(card, "Retry failed stage", NESTOR)
    assert "may not retry" in answer["value"]
    assert (await actions_of(bot))[-1] == ("retry refused", "failed", "failed")
    (run,) = bot.world.azure.runs.all.values()
    assert run.result == "failed"


async def test_a_base_that_moved_is_asked_about_instead(bot: Bot) -> None:
    """The approval was for the digest before: the retry is refused, and the check that is offered asks anew."""
    card = await fail(bot)
    bot.move_base(SDK)
    place = bot.teams.personal(ALEX)
    answer = await place.ask(f"retry {SDK}")
    assert "moved since" in answer.visible
    assert "test failed" in card.visible
    await place.press(answer, f"check {SDK}")
    await bot.teams.until_shown(SDK, "waits for approval", where=bot.teams.channel())


async def test_only_the_newest_rebuild_is_retried(bot: Bot) -> None:
    """An old card's button is answered with what happened since; so is one of a rebuild that did not fail."""
    card = await fail(bot)
    bot.script.failing.clear()
    old = dict(card.activity)
    bot.clock.advance(timedelta(minutes=1))
    await bot.teams.channel().press(card, "Retry all")
    done = await bot.teams.until_shown(f"{SDK} · in ECR as {VERSION}")
    assert done is not card
    card.activity = old
    answer = await bot.teams.channel().press(card, "Retry failed stage")
    assert f"is in ECR as {VERSION}" in answer["value"]
    assert "Nothing to retry" in (await bot.teams.personal(ALEX).ask(f"retry {SDK}")).visible


@pytest.mark.parametrize("status", [400, 404, 409])
async def test_a_retry_that_azure_refuses_leaves_the_rebuild_failed(bot: Bot, status: int) -> None:
    """A run that is too old or deleted: the answer says so and offers a new run, and nobody is called."""
    card = await fail(bot)
    bot.world.azure.fail_next("PATCH", "/stages/Test", status)
    place = bot.teams.personal(ALEX)
    answer = await place.ask(f"retry {SDK}")
    assert "cannot go on: Azure DevOps says" in answer.visible
    await bot.app.runner.advance()
    await bot.teams.until(lambda: f"{SDK} · test failed" in card.visible, "failed as before")
    assert "attempt" not in card.visible
    assert (await actions_of(bot))[-2:] == [
        ("retry", "failed", "running"),
        ("retry refused by Azure", "running", "failed"),
    ]
    bot.script.failing.clear()
    await place.press(answer, f"rebuild {SDK} retry of {(await bot.app.store.history(SDK, 1))[0].id}")
    await bot.teams.until_shown(f"{SDK} · in ECR as {VERSION}", where=bot.teams.channel())
    await bot.teams.until(
        lambda: len(mentions(bot)) == 3, "the success is told in the channel and where it was asked for"
    )
    assert sum("failed" in text for text in mentions(bot)) == 1


async def test_a_lost_answer_of_azure_is_found_out(bot: Bot) -> None:
    """Azure began the retry but its answer was lost: the rebuild follows the run all the same."""
    card = await fail(bot)
    bot.script.failing.clear()
    bot.world.azure.fail_next("PATCH", "/stages/Test", close_after)
    answer = await bot.teams.channel().press(card, "Retry failed stage")
    assert "did not confirm" in answer["value"]
    await bot.teams.until(lambda: f"in ECR as {VERSION}" in card.visible, "the card ends in ECR")


async def test_a_retry_that_never_begins_ends_as_failed(bot: Bot) -> None:
    """Azure is down: for two minutes the retry is waited for, then the rebuild has failed again."""
    card = await fail(bot)
    bot.world.azure.fail_next("PATCH", "/stages/Test", 503)
    await bot.teams.channel().press(card, "Retry failed stage")
    await bot.teams.until(lambda: "about to be retried" in card.visible, "waiting")
    await bot.app.runner.advance()
    assert (await bot.app.store.history(SDK, 1))[0].state == "running"
    bot.clock.advance(timedelta(minutes=2))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "test failed" in card.visible, "failed again")


async def test_two_people_retry_at_the_same_second(bot: Bot) -> None:
    """Two presses are one attempt, and the second person is told where it stands."""
    card = await fail(bot)
    bot.script.failing.clear()
    bot.script.gate.clear()
    channel = bot.teams.channel()
    answers = await asyncio.gather(*(channel.press(card, "Retry failed stage", ALEX) for _ in range(2)))
    assert sorted("Retrying." in answer["value"] for answer in answers) == [False, True]
    bot.script.gate.set()
    await bot.teams.until(lambda: f"in ECR as {VERSION}" in card.visible, "the card ends in ECR")
    (run,) = bot.world.azure.runs.all.values()
    assert len(run.stages["Test"]) == 2


async def test_a_retry_waits_for_nobody_elses_run(bot: Bot) -> None:
    """A run of the same image that somebody started by hand is in the way, and the answer names it."""
    card = await fail(bot)
    bot.script.gate.clear()
    bot.world.azure.runs.queue(12, {"image": SDK, "request_id": "by-hand"}, branch="refs/heads/main", version="0" * 40)
    answer = await bot.teams.channel().press(card, "Retry failed stage")
    assert "under way; try again after it" in answer["value"]


async def test_a_hold_stops_a_retry(bot: Bot) -> None:
    """While the image is on hold nothing runs, and the answer offers the release."""
    card = await fail(bot)
    await bot.teams.personal(ALEX).ask(f"hold {SDK} waiting for the proxy")
    answer = await bot.teams.channel().press(card, "Retry failed stage")
    assert "Release it first" in answer["value"]
    (run,) = bot.world.azure.runs.all.values()
    assert len(run.stages["Test"]) == 1


async def test_a_retry_keeps_to_the_maintenance_window(start_bot: StartBot, catalog_file: Path) -> None:
    """What failed while the window was open is not retried after it closed."""
    catalog_file.write_text(CATALOG.replace("images:\n", '  windows: {allow: ["mon 06:00-07:00"]}\nimages:\n'))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        card = await fail(bot)
        bot.clock.advance(timedelta(hours=1))
        answer = await bot.teams.channel().press(card, "Retry failed stage")
        assert "maintenance window of dotnet-sdk-6 is closed" in answer["value"]
        bot.clock.advance(timedelta(days=7, hours=-1))
        answer = await bot.teams.channel().press(card, "Retry failed stage")
        assert "Retrying." in answer["value"]


async def test_a_retried_run_can_be_cancelled(bot: Bot) -> None:
    """Cancel works on the second attempt as on the first, and Retry is gone afterwards."""
    card = await fail(bot)
    bot.script.failing.clear()
    bot.script.gate.clear()
    await bot.teams.channel().press(card, "Retry failed stage")
    await bot.teams.until(lambda: "(attempt\u00a02)" in card.visible, "the second attempt")
    await bot.teams.channel().press(card, "Cancel…")
    await bot.teams.until(lambda: "cancelled" in card.visible.splitlines()[1], "the card ends")
    answer: dict[str, Any] = await bot.teams.channel().invoke("retry", {"target": SDK})
    assert "Nothing to retry" in answer["value"]


async def test_a_notice_of_the_attempt_before_is_no_news(bot: Bot) -> None:
    """Teams did not take the ring of the failure before the retry succeeded: only the success rings."""
    bot.script.failing[SDK] = ("Test", ["got 500"])
    bot.script.gate.clear()
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    card = await bot.teams.until_shown(f"{SDK} · building")
    posts = len(bot.teams.calls)
    bot.teams.fail_next("POST", 429, headers={"Retry-After": "30"})
    bot.script.gate.set()
    await bot.teams.until(lambda: f"{SDK} · test failed" in card.visible, "the failure")
    await bot.teams.until(lambda: "POST" in {method for method, _ in bot.teams.calls[posts:]}, "the refused ring")
    bot.script.failing.clear()
    await bot.teams.channel().press(card, "Retry failed stage")
    bot.clock.advance(timedelta(seconds=31))
    await bot.teams.until(lambda: f"in ECR as {VERSION}" in card.visible, "the card ends in ECR")
    await bot.teams.until(lambda: mentions(bot), "a ring")
    await bot.app.notifier.deliver()
    assert ["in ECR" in text for text in mentions(bot)] == [True]
