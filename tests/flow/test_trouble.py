"""What breaks: peers that are down, slow or wrong, lost answers, runs that fail. Nothing is lost or doubled."""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.core.rebuilds import State
from bot.demo.azure_devops import close_after, close_before, throttled
from bot.demo.registry import answering
from bot.demo.runs import AgentRun
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR

SDK = "dotnet-sdk-6"


async def approve_sdk(bot: Bot) -> None:
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")


async def test_one_registry_failure_is_one_unknown_image(bot: Bot) -> None:
    """A registry that answers 429 makes that image unknown with the reason; the others are checked."""
    bot.world.registry.fail_next("HEAD", "dotnet/sdk", answering(429, headers={"Retry-After": "900"}), times=9)
    bot.move_base("dotnet-aspnet-6")
    await bot.next_week()
    summary = await bot.teams.until_shown("dotnet-aspnet-6", "waits for approval")
    assert "429" in summary.visible
    assert "unknown" in summary.visible


async def test_a_registry_that_answers_nonsense_is_unknown(bot: Bot) -> None:
    """A document that is not what its digest says is not believed: unknown, never stale or fresh."""
    bot.move_base(SDK)
    bot.world.registry.fail_next("GET", "dotnet/sdk/manifests", answering(200, body=b"<html>"), times=9)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "nonsense")
    assert "Approve" not in summary.buttons
    assert bot.runs == []


async def test_a_pipeline_that_cannot_be_queued_keeps_the_approval(bot: Bot) -> None:
    """The card says why nothing happens, and the run is queued when Azure works again."""
    bot.world.azure.fail_next("POST", "/runs", 500)
    await approve_sdk(bot)
    card = await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    assert bot.runs == []
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the same card goes on")
    assert len(bot.runs) == 1


async def test_a_run_whose_queueing_was_never_answered_is_found_again(bot: Bot) -> None:
    """The connection broke after Azure queued the run: it is found by its request id and not queued twice."""
    bot.world.azure.fail_next("POST", "/runs", close_after)
    await approve_sdk(bot)
    await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert len(bot.runs) == 1


@pytest.mark.parametrize(
    "failure", [pytest.param(close_before, id="connection closed"), pytest.param(throttled(2), id="throttled")]
)
async def test_a_look_that_fails_changes_nothing(bot: Bot, failure: object) -> None:
    """While Azure cannot be asked the rebuild stays where it is, and goes on afterwards."""
    bot.script.gate.clear()
    await approve_sdk(bot)
    await bot.teams.until_shown(f"{SDK} · building")
    bot.world.azure.fail_next("GET", "build/builds", failure, times=3)  # type: ignore[arg-type]
    bot.script.gate.set()
    await bot.teams.until_shown(f"{SDK} · in ECR as", deadline_s=20)
    assert len(bot.runs) == 1


async def test_a_failing_test_names_stage_and_log_and_offers_a_retry(bot: Bot) -> None:
    """The card of a failed run names the stage, shows the cleaned end of its log, and its Retry starts a new run."""
    bot.script.failing[SDK] = ("Test", ["GET / expected 200, got 500", "token=hunter2hunter2"])
    await approve_sdk(bot)
    card = await bot.teams.until_shown(f"{SDK} · ", "expected 200, got 500")
    assert "Test failed" in card.visible or "test failed" in card.visible
    assert "hunter2" not in card.text
    assert "\x1b" not in card.text
    await bot.teams.until_shown("<at>Alex Wilber</at>")
    bot.script.failing.clear()
    await bot.teams.channel().press(card, "Retry all")
    await bot.teams.until_shown(f"{SDK} · in ECR as 6.0-bullseye-slim-1.4.0")
    assert [run["version_tag"] for run in bot.runs] == ["6.0-bullseye-slim-1.4.0"] * 2


async def test_a_log_that_may_not_be_read_does_not_keep_a_run_from_ending(bot: Bot) -> None:
    """Without the right to read logs a failed run is told with the errors of its timeline."""
    bot.script.failing[SDK] = ("Test", ["GET / expected 200, got 500"])
    bot.world.azure.fail_next("GET", "(?i)/logs", 403, times=1000)
    await approve_sdk(bot)
    card = await bot.teams.until_shown(f"{SDK} · test failed")
    assert "Bash exited with code '1'." in card.visible


async def test_success_is_claimed_only_when_ecr_has_the_image(bot: Bot) -> None:
    """A run that succeeded without pushing ends as failed once the time to verify is over."""

    async def nothing(run: AgentRun) -> None:
        pass

    bot.script.push = nothing
    await approve_sdk(bot)
    card = await bot.teams.until_shown(f"{SDK} · ", "verified")
    bot.clock.advance(timedelta(seconds=301))
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "failed" in card.visible, "the card ends")
    assert "is not in ECR" in card.visible


async def test_an_image_built_from_another_base_is_a_failure(bot: Bot) -> None:
    """What was approved is what is built: another base digest in the pushed image is told."""
    image = bot.world.catalog[SDK]
    old = bot.world.base_digest(image)

    async def push_on_the_old_base(run: AgentRun) -> None:
        bot.world.publish(image, run.parameters["version_tag"], old)

    bot.script.push = push_on_the_old_base
    await approve_sdk(bot)
    await bot.teams.until_shown(f"{SDK} · ", "not as approved")


async def test_a_refused_card_is_delivered_later(bot: Bot) -> None:
    """Teams refuses the summary twice; it arrives all the same, once."""
    bot.teams.fail_next("POST", 429, headers={"Retry-After": "30"}, times=1)
    bot.move_base(SDK)
    await bot.next_week()
    await bot.teams.until(lambda: [c for c in bot.teams.calls if c[1].endswith("/activities")], "the first try")
    assert bot.teams.messages == []
    bot.clock.advance(timedelta(seconds=31))
    await bot.app.notifier.deliver()
    await bot.teams.until_shown(SDK, "waits for approval")
    assert len(bot.teams.messages) == 1


async def test_nobody_makes_the_bot_wait_for_more_than_an_hour(bot: Bot) -> None:
    """Pauses that Teams and Azure ask for are kept, but not those that would last for years."""
    ages = 10**400
    bot.teams.fail_next("POST", 429, headers={"Retry-After": f"{ages}"}, times=1)
    bot.world.azure.fail_next("POST", "/runs", throttled(ages))
    bot.move_base(SDK)
    await bot.next_week()
    await bot.teams.until(lambda: [c for c in bot.teams.calls if c[1].endswith("/activities")], "the first try")
    bot.clock.advance(timedelta(hours=1))
    await bot.app.notifier.deliver()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
    bot.clock.advance(timedelta(hours=1))
    await bot.app.runner.advance()
    await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_what_comes_later_does_not_overtake_a_card_that_waits(bot: Bot) -> None:
    """While Teams asks for a pause nothing is posted there: the mention of the end replies to the card, not before."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    bot.teams.fail_next("POST", 429, headers={"Retry-After": "30"}, times=1)
    await bot.teams.channel().press(summary, "Approve")
    await bot.app.runner.advance()
    await bot.teams.until(lambda: bot.runs, "the run")
    (run,) = bot.world.azure.runs.all.values()
    await bot.teams.until(lambda: run.result, "the run ends")
    async with asyncio.timeout(10):
        while not await bot.app.store.rebuilds(states={State.SUCCEEDED}):
            await bot.app.runner.advance()
    await bot.app.notifier.deliver()
    assert bot.teams.messages == [summary]
    bot.clock.advance(timedelta(seconds=31))
    await bot.app.notifier.deliver()
    card = await bot.teams.until_shown(f"{SDK} · in ECR as")
    notice = await bot.teams.until_shown("<at>Alex Wilber</at>")
    assert notice.conversation == f"{bot.teams.channel().id};messageid={card.id}"


async def test_a_card_that_somebody_deleted_is_posted_anew(bot: Bot) -> None:
    """When an edit finds nothing, the card is posted again instead of being lost."""
    bot.script.gate.clear()
    await approve_sdk(bot)
    first = await bot.teams.until_shown(f"{SDK} · building")
    bot.teams.messages.remove(first)
    bot.script.gate.set()
    second = await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert second.id != first.id


async def test_a_conversation_that_is_gone_is_left_alone(bot: Bot) -> None:
    """A channel that no longer exists is not tried again, and does not stop the others."""
    other = bot.teams.channel("other")
    await other.install()
    bot.teams.fail_next("POST", 404, code="ConversationNotFound")
    bot.move_base(SDK)
    await bot.next_week()
    await bot.teams.until(lambda: len(bot.teams.messages) == 1, "the other channel gets its card")
    await bot.next_week()
    await bot.teams.until(lambda: len(bot.teams.messages) == 2, "and the next one")
    posts = [path for method, path in bot.teams.calls if path.endswith("/activities")]
    assert len(posts) == 3


async def test_two_people_approve_at_the_same_second(bot: Bot) -> None:
    """Two presses are one run, and the second person is told that it is decided."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    channel = bot.teams.channel()
    await asyncio.gather(channel.press(summary, "Approve", ALEX), channel.press(summary, "Approve", MEGAN))
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert len(bot.runs) == 1


async def test_a_request_expires(bot: Bot) -> None:
    """After its deadline a request cannot be approved; the card says so, and the next check asks again."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    bot.clock.advance(timedelta(days=7, seconds=-1))
    await bot.app.runner.advance()
    assert "waits for approval" in summary.visible
    bot.clock.advance(timedelta(seconds=1))
    answer = await bot.teams.channel().press(summary, "Approve")
    assert "expired" in answer["value"]
    await bot.app.runner.advance()
    await bot.teams.until(lambda: "expired" in summary.visible, "the card says so")
    await bot.check()
    again = await bot.teams.until_shown(SDK, "waits for approval")
    assert again is not summary


async def test_cancel_ends_the_run_in_azure(bot: Bot) -> None:
    """Cancel is asked of Azure, and the card says cancelled when Azure says so."""
    bot.script.gate.clear()
    await approve_sdk(bot)
    card = await bot.teams.until_shown(f"{SDK} · building")
    await bot.teams.channel().press(card, "Cancel…")
    await bot.teams.until(lambda: "cancelled" in card.visible.splitlines()[1], "the card ends")
    assert "Alex Wilber" in card.visible


async def test_who_cancelled_is_known_also_when_azure_is_faster(bot: Bot) -> None:
    """The run's end is seen before Azure has answered: answer, card and audit still know whose wish it was."""

    async def slowly(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        async with asyncio.timeout(10):
            while not await bot.app.store.rebuilds(states={State.CANCELLED}):
                await bot.app.runner.advance()
        return answer

    bot.script.gate.clear()
    await approve_sdk(bot)
    card = await bot.teams.until_shown(f"{SDK} · building")
    bot.world.azure.fail_next("PATCH", "(?i)/build/builds", slowly)
    assert "Cancelled." in (await bot.teams.personal(ALEX).ask(f"cancel {SDK}")).visible
    await bot.teams.until(lambda: "Cancelled by Alex Wilber." in card.visible, "the card says who")
    audit = [(row["action"], row["actor_name"]) for row in await bot.app.store.audit_rows()]
    assert ("cancel", "Alex Wilber") in audit


async def test_a_run_that_somebody_else_started_is_waited_for(bot: Bot) -> None:
    """Queued and running runs in Azure count: a rebuild waits for a run of its image that is not ours."""
    bot.script.gate.clear()
    parameters = {"image": SDK, "request_id": "by-hand", "version_tag": "6.0-bullseye-slim-1.3.5"}
    parameters["base"] = f"mcr.microsoft.com/dotnet/sdk@{bot.world.base_digest(bot.world.catalog[SDK])}"
    bot.world.azure.runs.queue(12, parameters, branch="refs/heads/main", version="0" * 40)
    await bot.teams.personal(ALEX).say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} ·", "is under way")
    assert len(bot.runs) == 1
    bot.script.gate.set()
    bot.clock.advance(timedelta(minutes=5))
    await bot.teams.until(lambda: len(bot.runs) == 2 or None, "ours starts", 10)
    await bot.teams.until_shown(f"{SDK} · in ECR as 6.0-bullseye-slim-1.3.6")


async def test_automatic_mode_stops_after_three_failures(start_bot: StartBot, catalog_file: Path) -> None:
    """Three failed runs in a row end automatic queueing for the image: the next check asks and says why."""
    catalog_file.write_text(CATALOG.replace("    extra_tags:", "    mode: auto\n    extra_tags:"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        bot.script.failing[SDK] = ("Build", ["no space left"])
        for _ in range(3):
            failed = _failed_cards(bot)
            bot.move_base(SDK)
            await bot.next_week()
            await bot.teams.until(partial(_failed_since, bot, failed), "a run that was queued by itself fails")
        bot.move_base(SDK)
        await bot.next_week()
        asked = await bot.teams.until_shown(SDK, "waits for approval")
        assert "three" in asked.text.lower()
        assert len(bot.runs) == 3


def _failed_since(bot: Bot, before: int) -> bool:
    return _failed_cards(bot) > before


def _failed_cards(bot: Bot) -> int:
    return sum(f"{SDK} · build failed" in message.visible for message in bot.teams.messages)


async def test_somebody_who_may_not_rebuild_asks_for_it(bot: Bot) -> None:
    """`rebuild` by a person who is no approver becomes a question to those who are."""
    await bot.teams.personal(NESTOR).say(f"rebuild {SDK} new certificate")
    card = await bot.teams.until_shown(f"{SDK} ·", "waits for approval", where=bot.teams.channel())
    assert bot.runs == []
    await bot.teams.channel().press(card, "Approve", ALEX)
    await bot.teams.until_shown(f"{SDK} · in ECR as", where=bot.teams.personal(NESTOR))
    await bot.teams.until_shown("<at>Nestor Wilke</at>")


async def test_automatic_mode_follows_a_base_that_moves_again(start_bot: StartBot, catalog_file: Path) -> None:
    """Nobody approved a digest in automatic mode, so the newest one is built instead of asking."""
    catalog_file.write_text(CATALOG.replace("    extra_tags:", "    mode: auto\n    extra_tags:"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        bot.world.azure.fail_next("POST", "/runs", 500)
        bot.move_base(SDK)
        await bot.next_week()
        await bot.teams.until_shown(f"{SDK} ·", "Cannot be queued yet")
        newest = bot.move_base(SDK)
        bot.clock.advance(timedelta(minutes=5))
        await bot.app.runner.advance()
        await bot.teams.until_shown(f"{SDK} · in ECR as")
        assert [run["base"] for run in bot.runs] == [f"mcr.microsoft.com/dotnet/sdk@{newest}"]


async def test_a_failure_is_not_asked_about_again_the_same_day(bot: Bot) -> None:
    """A check soon after a failed run shows the failure, whose card has the Retry; the next week's asks again."""
    bot.script.failing[SDK] = ("Test", ["expected 200, got 500"])
    await approve_sdk(bot)
    await bot.teams.until_shown(f"{SDK} · test failed")
    soon = await bot.teams.personal(ALEX).ask("check")
    assert "test failed" in soon.visible
    assert "Approve" not in soon.buttons
    await bot.next_week()
    await bot.teams.until_shown(SDK, "waits for approval")


async def test_a_rejected_wish_does_not_silence_the_next_base(bot: Bot) -> None:
    """Rejecting what somebody asked for by hand is about that wish; a base that moves afterwards is asked for."""
    await bot.teams.personal(NESTOR).say(f"rebuild {SDK} new certificate")
    card = await bot.teams.until_shown(f"{SDK} ·", "waits for approval", where=bot.teams.channel())
    await bot.teams.channel().press(card, "Reject…", reason="not needed")
    await bot.teams.until(lambda: "rejected" in card.visible, "the card ends")
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown("1 stale", SDK)
    assert "Approve" in summary.buttons


async def test_two_replicas_post_a_card_once(bot: Bot, start_bot: StartBot) -> None:
    """Two bots on one database deliver each card once between them."""
    async with start_bot() as other:
        bot.move_base(SDK)
        await asyncio.gather(bot.next_week(), other.check())
        await bot.teams.until_shown(SDK, "waits for approval")
        await asyncio.gather(bot.app.notifier.deliver(), other.app.notifier.deliver())
    assert len(bot.teams.messages) == 1
