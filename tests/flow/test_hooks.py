"""Events of Azure DevOps at their door: who may bring them, what they lead to, and what they cannot do."""

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.core.images import PipelineReference
from bot.core.rebuilds import Rebuild, State
from bot.core.runner import Pace
from bot.core.runs import StageState
from bot.demo.runs import Run
from bot.web.azure_devops_hooks import PATH
from tests.conftest import MONDAY, Bot, StartBot
from tests.peers.hooks import SECRET, PostOffice, post, subscribe
from tests.peers.teams import ALEX, Message

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"
NEVER = "80000"  # seconds: no test waits for that look
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "ado" / "events"

Json = dict[str, Any]


def event(run_id: int, **changes: Any) -> Json:
    """A change of a run, as Azure tells it, with changes."""
    return {
        "id": "3f1ad3a4-5b0b-4b60-9d0a-2a8f3d1f9c01",
        "subscriptionId": "00000000-0000-4000-8000-0000000000f1",
        "notificationId": 1,
        "eventType": "ms.vss-pipelines.run-state-changed-event",
        "resource": {"run": {"id": run_id, "state": "inProgress"}},
        **changes,
    }


async def counted(bot: Bot) -> dict[str, int]:
    """How many events had which outcome, as the metrics tell."""
    async with aiohttp.ClientSession() as session, session.get(f"{bot.app.url}/metrics") as response:
        found = re.findall(r'^shipshape_hooks_total\{outcome="(\w+)"\} (\d+)', await response.text(), re.MULTILINE)
    return {outcome: int(count) for outcome, count in found}


async def start_run(bot: Bot, image: str = SDK) -> Message:
    """Approve an update of the image and let its run begin; its card, which shows the first stage under way."""
    bot.script.gate.clear()
    bot.move_base(image)
    await bot.next_week()
    summary = await bot.teams.until_shown(image, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    return await bot.teams.until_shown(f"{image} · building")


def newest_run(bot: Bot) -> Run:
    return list(bot.world.azure.runs.all.values())[-1]


async def play_until(bot: Bot, stage: str) -> None:
    """Let the newest run go on until a stage of it begins."""
    run = newest_run(bot)
    while run.current(stage).started is None:
        bot.script.gate.set()
        bot.script.gate.clear()
        await asyncio.sleep(0)


async def end_run(bot: Bot) -> None:
    """Let the newest run go on to its end in Azure."""
    bot.script.gate.set()
    run = newest_run(bot)
    await bot.teams.until(lambda: run.result, "the run ends in Azure")


# Who is let in


@pytest.mark.parametrize("password", ["", "wrong", SECRET + " ", "pässwort", None])
async def test_a_wrong_password_is_401(start_bot: StartBot, password: str | None) -> None:
    """Without the right password nothing is taken, and it is counted."""
    async with start_bot(HOOK_SECRET=SECRET) as bot:
        assert await post(bot.app.url, event(1), password=password) == 401
        assert await post(bot.app.url, event(1)) == 200
        assert await counted(bot) == {"refused": 1, "ignored": 1}


async def test_without_a_secret_nothing_is_let_in(bot: Bot) -> None:
    """A bot without HOOK_SECRET takes no events, also not with an empty password."""
    assert await post(bot.app.url, event(1), password="") == 403
    assert await post(bot.app.url, event(1)) == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b"\xff\xfe{", 400, id="not text"),
        pytest.param(b"<xml/>", 400, id="not JSON"),
        pytest.param(b"[" * 100_000, 400, id="deep"),
        pytest.param(b"[]", 400, id="a list"),
        pytest.param(b'{"eventType": "build.complete"}', 400, id="no id"),
        pytest.param(b'{"id": "1"}', 400, id="no type"),
        pytest.param(b'{"id": 1, "eventType": "build.complete"}', 400, id="an id that is no text"),
        pytest.param(b"x" * 10_000_000, 413, id="10 MB"),
        pytest.param(b'{"id": "1", "eventType": "git.push"}', 200, id="another event"),
        pytest.param(b'{"id": "1", "eventType": "build.complete"}', 200, id="no resource"),
        pytest.param(b'{"id": "1", "eventType": "build.complete", "resource": []}', 200, id="a strange resource"),
        pytest.param(b'{"id": "1", "eventType": "build.complete", "resource": {"id": true}}', 200, id="a strange run"),
    ],
)
async def test_bodies(start_bot: StartBot, body: bytes, status: int) -> None:
    """What is no event is refused. Any event is 200, since Azure switches off a subscription that fails."""
    async with start_bot(HOOK_SECRET=SECRET) as bot:
        assert await post(bot.app.url, body) == status


async def test_the_door_takes_posts_only(start_bot: StartBot) -> None:
    """Looking at the address in a browser is 405."""
    async with (
        start_bot(HOOK_SECRET=SECRET) as bot,
        aiohttp.ClientSession() as session,
        session.get(f"{bot.app.url}{PATH}") as response,
    ):
        assert response.status == 405


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="Microsoft's samples of events are not beside the repository")
@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.rglob("*.json")))
async def test_samples_lead_to_the_run_they_name(start_bot: StartBot, sample: str) -> None:
    """Each sample is taken for a run of ours that has the sample's number, or for all when it names none."""
    body = next(SAMPLES.rglob(sample)).read_bytes()
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        assert await post(bot.app.url, body) == 200
        assert await counted(bot) == {"ignored": 1}
        await bot.check()
        await bot.teams.channel().install()
        before = RUNS[sample] - 1
        bot.world.azure.runs.all[before] = Run(
            id=before, pipeline_id=7, name="1", parameters={}, branch="", version="", queued=MONDAY, result="failed"
        )
        await start_run(bot)
        assert await post(bot.app.url, body) == 200
        assert await counted(bot) == {"ignored": 1, "taken": 1}
        bot.script.gate.set()


RUNS = {
    "approval-pending.realistic.synthetic.json": 5152,
    "build.complete.resourceVersion-1.0.json": 2,
    "build.complete.resourceVersion-2.0.synthetic.json": 5152,
    "ms.vss-pipelinechecks-events.approval-completed.json": 9,  # names none
    "ms.vss-pipelinechecks-events.approval-pending.json": 9,  # names none
    "ms.vss-pipelines.job-state-changed-event.json": 2,
    "ms.vss-pipelines.run-state-changed-event.json": 11,
    "ms.vss-pipelines.stage-state-changed-event.json": 2,
    "example-job-event.json": 1000,
    "example-pipeline-event.json": 5152,
    "example-stage-event.json": 5168,
}


# What they lead to


async def test_hooks_alone_lead_where_polling_leads(start_bot: StartBot) -> None:
    """A run that is followed by hooks alone ends with the same row, audit and cards as one that is polled."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await subscribe(
            bot.world.azure.url, f"{bot.app.url}{PATH}", PipelineReference(project="platform-images", id=12)
        )
        await bot.check()
        await bot.teams.channel().install()
        hooked = await _followed(bot, SDK)
        assert (await counted(bot))["taken"] > 0
    async with start_bot() as bot:
        polled = await _followed(bot, ASPNET)
        assert await counted(bot) == {}
    assert hooked == polled


async def _followed(bot: Bot, image: str) -> tuple[Json, list[Any], list[str]]:
    """What is left of a run that was followed to its end: the row, its audit and its cards, without what is its own."""
    card = await start_run(bot, image)
    bot.script.gate.set()
    await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends")
    notice = await bot.teams.until_shown("<at>Alex Wilber</at>", image)
    (rebuild,) = await bot.app.store.history(image, 1)
    audit = [row for row in await bot.app.store.audit_rows() if row["rebuild_id"] == rebuild.id]
    steps = [(row["action"], row["old_state"], row["new_state"], row["actor_name"]) for row in audit]
    return _essence(rebuild), steps, [_plain(message.text, rebuild) for message in (card, notice)]


def _essence(rebuild: Rebuild) -> Json:
    kept = ("state", "cause", "version_tag", "problem", "ended_reason", "successor", "queue_attempts", "log_tail")
    stages = [(stage.name, stage.state, stage.attempt, stage.errors) for stage in rebuild.stages]
    return {key: getattr(rebuild, key) for key in kept} | {"stages": stages}


def _plain(text: str, rebuild: Rebuild) -> str:
    text = re.sub(r"sha256:[0-9a-f]{64}|[0-9a-f]{12}|\d+ KB|\{\{.*?\}\}", "…", text)
    own = {rebuild.run_number: "RUN", rebuild.id: "ID", rebuild.image: "IMAGE", "dotnet/sdk": "BASE"}
    for word, name in (own | {"dotnet/aspnet": "BASE"}).items():
        text = text.replace(word, name)
    return text


# Of each event, how often it is delivered after the first stage began, after the second began, and after the end.
FATES = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=40, max_size=40)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FATES, st.integers(0, 2**32))
async def test_lost_doubled_and_shuffled_events(
    start_bot: StartBot, tmp_path: Path, fates: list[tuple[int, int, int]], seed: int
) -> None:
    """Whichever events arrive, however often and in which order, one look at the end leads where all of them lead."""
    random = Random(seed)  # drawn before anything begins: Hypothesis may end an example where it draws
    database = f"sqlite+aiosqlite:///{tmp_path / uuid4().hex}.db"  # an example that fails leaves nothing to the next
    async with (
        start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER, DATABASE_URL=database) as bot,
        PostOffice() as office,
    ):
        bot.script.gate.set()
        await bot.teams.until(lambda: _open_run(bot) is None, "no run of another example is left")
        await subscribe(bot.world.azure.url, office.url, PipelineReference(project="platform-images", id=12))
        bot.script.gate.clear()
        before = len(bot.teams.messages)
        await bot.teams.personal(ALEX).say(f"rebuild {SDK}")
        run = await bot.teams.until(lambda: _open_run(bot), "a run is queued")
        for phase, stage in enumerate(("Build", "Test", None)):
            await (play_until(bot, stage) if stage else end_run(bot))
            await office.until_stage(stage or "Push", "running" if stage else "completed")
            dealt = [each for each, fate in zip(office.events, fates, strict=False) for _ in range(fate[phase])]
            random.shuffle(dealt)
            for each in dealt:
                assert await post(bot.app.url, each) == 200
        await bot.app.runner.advance()
        (rebuild,) = await bot.app.store.history(SDK, 1)
        assert (rebuild.run_id, rebuild.state, rebuild.problem) == (run.id, State.SUCCEEDED, "")
        assert {stage.state for stage in rebuild.stages} == {StageState.SUCCEEDED}
        card = await bot.teams.until_shown(f"{SDK} · in ECR as {rebuild.version_tag}")
        notice = await bot.teams.until_shown(f"in ECR as {rebuild.version_tag}", "<at>Alex Wilber</at>")
        await bot.app.notifier.deliver()
        assert bot.teams.messages[before:] == [card, notice]
        assert all(f"✓\xa0{stage}" in card.visible for stage in ("Build", "Test", "Push"))
        audit = [row["action"] for row in await bot.app.store.audit_rows() if row["rebuild_id"] == rebuild.id]
        assert [action for action in audit if action != "start"] == ["rebuild", "queue", "finish", "succeeded"]


def _open_run(bot: Bot) -> Run | None:
    return next((run for run in bot.world.azure.runs.all.values() if run.result is None), None)


async def test_a_body_that_lies_changes_nothing(start_bot: StartBot) -> None:
    """An event that says succeeded while Azure says in progress leaves the card at in progress."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        card = await start_run(bot)
        run = {"id": 1, "state": "completed", "result": "failed"}
        before = len(bot.world.azure.requests)
        assert await post(bot.app.url, event(1, resource={"run": run})) == 200
        await bot.teams.until(lambda: len(bot.world.azure.requests) > before, "the run is looked at")
        await bot.app.runner.advance()
        await bot.app.notifier.deliver()
        assert "building" in card.visible
        (rebuild,) = await bot.app.store.history(SDK, 1)
        assert rebuild.state is State.RUNNING
        bot.script.gate.set()


async def test_runs_that_are_not_ours_are_not_asked_about(start_bot: StartBot) -> None:
    """Events of other pipelines, and of a run that ended long ago, cost no request to Azure."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        card = await start_run(bot)
        await end_run(bot)
        assert await post(bot.app.url, event(1)) == 200
        await bot.teams.until(lambda: "in ECR as" in card.visible, "the first run ends")
        asked = len(bot.world.azure.requests)
        bot.clock.advance(timedelta(days=300))
        assert await post(bot.app.url, event(1, id="another")) == 200
        assert await post(bot.app.url, event(4711)) == 200
        assert len(bot.world.azure.requests) == asked
        assert (await counted(bot))["ignored"] == 2
        assert "in ECR as" in card.visible


async def test_a_thousand_at_once_are_few_requests(start_bot: StartBot) -> None:
    """Events that come while a look is under way are one look together, and doubled ones are none."""
    release = asyncio.Event()

    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        await release.wait()
        return await handler(request)

    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        card = await start_run(bot)
        azure = bot.world.azure
        azure.fail_next("GET", "/build/Builds", wait)
        asked = len(azure.requests)
        events = [event(1, id=f"event {number % 500}") for number in range(1000)]
        statuses = await asyncio.gather(*(post(bot.app.url, each) for each in events))
        assert set(statuses) == {200}
        assert await counted(bot) == {"taken": 500, "repeated": 500}
        await end_run(bot)
        release.set()
        await bot.teams.until(lambda: "in ECR as" in card.visible, "the card ends")
        assert len(azure.requests) - asked <= 5


async def test_strange_ids_are_ids_as_well(start_bot: StartBot) -> None:
    """Ids that no database takes, or that differ only at their end, are each a delivery of its own."""
    deep = b'{"id": "1", "eventType": "build.complete", "resource": {"id": 1}, "subscriptionId": %s}'
    strange = [
        json.dumps(event(1, id=name)).encode() for name in ("\ud800", "a\0b", "x" * 5000 + "1", "x" * 5000 + "2")
    ]
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        await start_run(bot)
        for body in (*strange, deep % (b"[" * 700 + b"]" * 700)):
            assert await post(bot.app.url, body) == 200
        assert await counted(bot) == {"taken": 5}
        bot.script.gate.set()


async def test_deliveries_are_remembered_for_a_month(start_bot: StartBot) -> None:
    """A delivery is known again over a restart, and forgotten after thirty days."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        await start_run(bot)
        await post(bot.app.url, event(1))
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        for days in (0, 30, 1):
            bot.clock.advance(timedelta(days=days))
            await post(bot.app.url, event(1))
        assert await counted(bot) == {"repeated": 2, "taken": 1}
        bot.script.gate.set()


# When polling takes over


async def test_polling_slows_down_while_hooks_arrive(start_bot: StartBot) -> None:
    """An event makes the next look due later, ten minutes without one make it due sooner again."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        assert await bot.app.runner.advance() is Pace.IDLE
        await start_run(bot)
        assert await bot.app.runner.advance() is Pace.POLL
        await post(bot.app.url, event(1))
        assert await bot.app.runner.advance() is Pace.HINTS
        bot.clock.advance(timedelta(minutes=10))
        assert await bot.app.runner.advance() is Pace.HINTS
        bot.clock.advance(timedelta(seconds=1))
        assert await bot.app.runner.advance() is Pace.POLL
        bot.script.gate.set()


async def test_polling_takes_over_when_hooks_are_lost(start_bot: StartBot) -> None:
    """A change that no event told of is enough to poll again at the normal pace."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        card = await start_run(bot)
        await post(bot.app.url, event(1))
        assert await bot.app.runner.advance() is Pace.HINTS
        await play_until(bot, "Test")
        assert await bot.app.runner.advance() is Pace.POLL
        await bot.teams.until(lambda: "testing" in card.visible, "the card follows")
        bot.script.gate.set()


async def test_polling_takes_over_when_azure_cannot_be_read(start_bot: StartBot) -> None:
    """A look that failed is made again soon, although its event is used up."""
    async with start_bot(HOOK_SECRET=SECRET, POLL_INTERVAL=NEVER) as bot:
        await bot.check()
        await bot.teams.channel().install()
        await start_run(bot)
        await post(bot.app.url, event(1))
        assert await bot.app.runner.advance() is Pace.HINTS
        bot.world.azure.fail_next("GET", "/build/Builds", 503, times=3)
        await post(bot.app.url, event(1, id="another"))
        assert await bot.app.runner.advance() is Pace.POLL
        bot.script.gate.set()
