"""Approvals that Azure Pipelines itself asks for before a stage, answered from the card."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.core.images import PipelineReference
from bot.demo.azure_devops import close_after
from bot.demo.runs import Approval
from bot.web.azure_devops_hooks import PATH
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.hooks import SECRET, subscribe
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message, actions

SDK = "dotnet-sdk-6"
WAITS = f"{SDK} · waits for an approval in Azure"


@pytest.fixture(autouse=True)
def guarded(request: pytest.FixtureRequest) -> None:
    """The environment of the Push stage asks for an approval."""
    request.getfixturevalue("world").azure.runs.guarded.add("Push")


async def until_waiting(bot: Bot) -> Message:
    """Approve an update; the card of its rebuild, which Azure has stopped before Push."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    return await bot.teams.until_shown(WAITS)


def asked(bot: Bot) -> Approval:
    """What the newest run asked for last."""
    return list(bot.world.azure.runs.all.values())[-1].approvals[-1]


async def audited(bot: Bot) -> list[tuple[str, str]]:
    """What happened in Azure, and who did it."""
    rows = await bot.app.store.audit_rows()
    return [(row["action"], row["actor_name"]) for row in rows if "Azure" in row["action"]]


async def test_approve_lets_the_run_go_on(bot: Bot) -> None:
    """The card tells what Azure asks; Approve answers it with the person's name, and the run ends in ECR."""
    card = await until_waiting(bot)
    assert "Push waits for an approval in Azure." in card.visible
    assert "Instructions: Is the release announced?" in card.visible
    assert {"Approve", "Reject…"} <= set(card.buttons)
    answer = await bot.teams.channel().press(card, "Approve", MEGAN, comment="announced on Monday")
    assert answer["statusCode"] == 200
    assert "goes on with Push" in str(answer["value"])
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")
    assert (asked(bot).status, asked(bot).comment) == ("approved", "Megan Bowen in Teams: announced on Monday")
    assert "The approval of Push was approved by Shipshape: Megan Bowen in Teams: announced on Monday." in card.text
    assert await audited(bot) == [("approve in Azure", "Megan Bowen"), ("decided in Azure", "Shipshape")]


async def test_all_is_not_for_what_azure_asks(bot: Bot) -> None:
    """It answers nothing in Azure, and does not claim that nothing waits."""
    await until_waiting(bot)
    answer = await bot.teams.channel().ask("approve all")
    assert "What waits is asked by Azure, one by one." in answer.visible
    assert answer.buttons == ["pending"]
    assert asked(bot).status == "pending"


async def test_reject_ends_the_run(bot: Bot) -> None:
    """Reject needs a reason, ends the run in Azure, and the card tells who did and why."""
    card = await until_waiting(bot)
    await bot.teams.channel().press(card, "Reject…", reason="not on a Friday")
    await bot.teams.until(lambda: f"{SDK} · failed" in card.visible, "the run ends")
    assert "The approval of Push was rejected by Shipshape: Alex Wilber in Teams: not on a Friday." in card.visible
    assert asked(bot).status == "rejected"
    assert await audited(bot) == [("reject in Azure", "Alex Wilber"), ("decided in Azure", "Shipshape")]


async def test_a_run_that_waits_before_its_first_stage(bot: Bot) -> None:
    """A run that has not begun at all may wait as well."""
    bot.world.azure.runs.guarded = {"Build"}
    card = await until_waiting(bot)
    assert "Build waits for an approval in Azure." in card.visible
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")


async def test_typing_does_the_same(bot: Bot) -> None:
    """`pending` lists it, and `approve` and `reject` with the image answer Azure while its run waits there."""
    card = await until_waiting(bot)
    personal = bot.teams.personal(ALEX)
    pending = await personal.ask("pending")
    assert "waits for an approval in Azure" in pending.visible
    refused = await personal.ask(f"reject {SDK}")
    assert "needs a reason" in refused.visible
    await personal.ask(f"approve {SDK} announced")
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")
    assert asked(bot).comment == "Alex Wilber in Teams: announced"


async def test_who_is_not_an_approver_is_refused(bot: Bot) -> None:
    """The rules of the catalog hold here too: told in private, audited, and Azure is not asked."""
    card = await until_waiting(bot)
    channel = bot.teams.channel()
    assert "may not" in (await channel.press(card, "Approve", NESTOR))["value"]
    assert "may not" in (await channel.press(card, "Reject…", NESTOR, reason="because"))["value"]
    assert asked(bot).status == "pending"
    rows = await bot.app.store.audit_rows()
    assert [row["action"] for row in rows[-2:]] == ["approve refused", "reject refused"]


async def test_the_button_of_the_first_question_does_not_answer_azure(bot: Bot) -> None:
    """Whoever presses the old Approve of the update does not approve what Azure asks meanwhile."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    old = next(action for action in actions(summary.card) if action["title"] == "Approve")
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(WAITS)
    answer = await bot.teams.channel().invoke(old["verb"], old["data"], MEGAN)
    assert "waits for an approval of Push in Azure" in answer["value"]
    assert asked(bot).status == "pending"


async def test_a_button_that_is_out_of_date_tells_the_present_state(bot: Bot) -> None:
    """Pressed again after the decision, the answer is how the rebuild stands, and Azure is not asked."""
    card = await until_waiting(bot)
    old = next(action for action in actions(card.card) if action["title"] == "Approve")
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")
    answer = await bot.teams.channel().invoke(old["verb"], old["data"])
    assert "is in ECR as" in answer["value"]
    assert len(await audited(bot)) == 2


async def test_the_button_of_one_stage_does_not_answer_for_the_next(bot: Bot) -> None:
    """Where two stages ask, the Approve of the first one, pressed again while the second waits, decides nothing."""
    bot.world.azure.runs.guarded = {"Test", "Push"}
    card = await until_waiting(bot)
    old = next(action for action in actions(card.card) if action["title"] == "Approve")
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "Push waits for an approval in Azure." in card.visible, "the next stage asks")
    answer = await bot.teams.channel().invoke(old["verb"], old["data"], MEGAN)
    assert "waits for an approval of Push in Azure" in answer["value"]
    await bot.app.runner.advance()
    assert asked(bot).status == "pending"
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")


async def test_azure_refuses_the_bot(bot: Bot) -> None:
    """When the bot is no approver in Azure, the answer says so plainly, and somebody who is may still decide."""
    card = await until_waiting(bot)
    bot.world.azure.approvals.may_decide = False
    answer = await bot.teams.channel().press(card, "Approve")
    assert "User is not authorized" in answer["value"]
    assert "If the bot itself is no approver there" in answer["value"]
    assert await audited(bot) == [("approve in Azure", "Alex Wilber"), ("approve in Azure failed", "Alex Wilber")]
    await bot.app.runner.advance()
    assert {"Approve", "Reject…"} <= set(card.buttons)
    bot.world.azure.approvals.may_decide = True
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")


async def test_a_decision_made_in_azure_is_seen(bot: Bot) -> None:
    """Somebody approves on Azure's own page: the card goes on, and an audit row tells who it was."""
    card = await until_waiting(bot)
    run = list(bot.world.azure.runs.all.values())[-1]
    bot.world.azure.runs.decide(run, asked(bot), "rejected", "wrong week")
    await bot.teams.until(lambda: f"{SDK} · failed" in card.visible, "the run ends")
    assert "The approval of Push was rejected by Shipshape: wrong week" in card.visible
    assert "Approve" not in card.buttons
    assert await audited(bot) == [("decided in Azure", "Shipshape")]


async def test_an_answer_that_is_lost_is_seen(bot: Bot) -> None:
    """The connection breaks after Azure took the approval: the person is told, and the next look shows it."""
    card = await until_waiting(bot)
    bot.world.azure.fail_next("PATCH", "/approvals", close_after)
    answer = await bot.teams.channel().press(card, "Approve")
    assert "Azure could not be told" in answer["value"]
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")
    actions_ = [action for action, _ in await audited(bot)]
    assert actions_ == ["approve in Azure", "approve in Azure failed", "decided in Azure"]


async def test_two_people_answer_at_the_same_second(bot: Bot) -> None:
    """Both wanted the same, so nobody is told of trouble, and the run goes on once."""
    card = await until_waiting(bot)
    channel = bot.teams.channel()
    await asyncio.gather(channel.press(card, "Approve", ALEX), channel.press(card, "Approve", MEGAN))
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")
    assert len(bot.runs) == 1
    assert not [action for action, _ in await audited(bot) if "failed" in action]


async def test_as_many_people_as_the_catalog_asks_for(start_bot: StartBot, catalog_file: Path) -> None:
    """Where two have to approve, Azure is answered after the second, and nobody counts twice."""
    catalog_file.write_text(CATALOG.replace("expires: 7d", "required: 2, expires: 7d"))
    async with start_bot() as bot:
        await bot.check()
        channel = bot.teams.channel()
        await channel.install()
        bot.move_base(SDK)
        await bot.next_week()
        summary = await bot.teams.until_shown(SDK, "waits for approval")
        await channel.press(summary, "Approve", ALEX)
        await channel.press(summary, "Approve", MEGAN)
        card = await bot.teams.until_shown(WAITS)
        first = await channel.press(card, "Approve", ALEX)
        assert "1 of 2" in str(first["value"])
        again = await channel.press(card, "Approve", ALEX)
        assert "another person has to" in again["value"]
        assert asked(bot).status == "pending"
        await bot.teams.until(lambda: "1 of 2 approvals, by Alex Wilber" in card.visible, "the card counts")
        await channel.press(card, "Approve", MEGAN)
        await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")


async def test_a_hold_stops_the_answer(bot: Bot) -> None:
    """While an image is on hold nothing of it is approved, also not in Azure."""
    card = await until_waiting(bot)
    await bot.teams.personal(ALEX).ask(f"hold {SDK} breaks our proxy")
    answer = await bot.teams.channel().press(card, "Approve", MEGAN)
    assert "Release it first" in answer["value"]
    assert asked(bot).status == "pending"


async def test_hooks_alone_show_it(start_bot: StartBot) -> None:
    """Without any polling the events of Azure bring the question to the card, and take it away again."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL="80000") as bot:
        pipeline = PipelineReference(project="platform-images", id=12)
        await subscribe(bot.world.azure.url, f"{bot.app.url}{PATH}", pipeline)
        await bot.check()
        await bot.teams.channel().install()
        card = await until_waiting(bot)
        run: Any = list(bot.world.azure.runs.all.values())[-1]
        bot.world.azure.runs.decide(run, asked(bot), "approved", "")
        await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")


async def test_approvals_that_cannot_be_read_do_not_stop_the_run(bot: Bot) -> None:
    """Without the right to read approvals the run is followed as before."""
    bot.world.azure.fail_next("GET", "/approvals", 403, times=1000)
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    run: Any = await bot.teams.until(
        lambda: next((run for run in bot.world.azure.runs.all.values() if run.approvals), None), "Azure asks"
    )
    bot.world.azure.runs.decide(run, asked(bot), "approved", "")
    await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_an_approval_without_sense_stops_no_other_rebuild(bot: Bot) -> None:
    """What Azure answers for one run may be anything: the other runs are followed, and so is this one afterwards."""

    broken = True

    async def nonsense(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.json_response({"count": 1, "value": [{"steps": []}]}) if broken else await handler(request)

    card = await until_waiting(bot)
    bot.world.azure.runs.guarded.clear()
    bot.world.azure.fail_next("GET", "/approvals", nonsense, times=1000)
    await bot.teams.personal(ALEX).say("rebuild dotnet-aspnet-6")
    await bot.teams.until_shown("dotnet-aspnet-6 · in ECR as")
    broken = False
    await bot.teams.channel().press(card, "Approve")
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends in ECR")
