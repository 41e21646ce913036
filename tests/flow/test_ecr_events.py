"""Events of ECR through SQS: pushes are verified at once, lost tags are told, and nothing that arrives does harm."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from bot.core.rebuilds import State
from bot.demo.runs import AgentRun
from bot.demo.world import LocalWorld
from tests.conftest import Bot, StartBot
from tests.peers.queue import URL, Queue
from tests.peers.teams import ALEX

SDK = "dotnet-sdk-6"
NEWEST = "6.0-bullseye-slim-1.3.0"
NEXT = "6.0-bullseye-slim-1.4.0"


@pytest.fixture
def queue_url(world: LocalWorld) -> str:
    return world.ecr.open_queue()


@asynccontextmanager
async def listening(start_bot: StartBot, queue_url: str, **settings: str) -> AsyncIterator[Bot]:
    """A bot that looks at runs once an hour only, and is told of events."""
    async with start_bot(ECR_EVENTS_QUEUE_URL=queue_url, POLL_INTERVAL="3600", **settings) as bot:
        await bot.check()
        await bot.teams.channel().install()
        yield bot


def event(kind: str = "DELETE", tag: str = NEWEST, **changes: Any) -> dict[str, Any]:
    """An event about a tag of dotnet-sdk-6."""
    detail = {"result": "SUCCESS", "repository-name": "dotnet/sdk", "image-digest": "sha256:0", "action-type": kind}
    return {
        "id": str(uuid.uuid4()),
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": "123456789012",
        "region": "eu-west-1",
        "detail": detail | {"image-tag": tag},
        **changes,
    }


async def counted(bot: Bot) -> dict[str, int]:
    """How many events had which outcome."""
    async with aiohttp.ClientSession() as session, session.get(f"{bot.app.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    found = [line for line in lines if line.startswith("shipshape_ecr_events_total{")]
    return {line.split('"')[1]: int(float(line.rsplit(" ", 1)[1])) for line in found}


async def until_counted(bot: Bot, **wanted: int) -> None:
    """Wait until that many events had these outcomes, and no others any."""
    async with asyncio.timeout(20):
        while await counted(bot) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_empty(world: LocalWorld, queue_url: str) -> None:
    async with asyncio.timeout(20):
        while world.ecr.messages(queue_url):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_pushed_image_is_verified_at_once(start_bot: StartBot, world: LocalWorld, queue_url: str) -> None:
    """The image shows up in ECR after the run; its event ends the rebuild without another look at the clock."""

    async def nothing(run: AgentRun) -> None:
        pass

    async with listening(start_bot, queue_url) as bot:
        bot.script.push = nothing
        digest = bot.move_base(SDK)
        await bot.next_week()
        summary = await bot.teams.until_shown(SDK, "waits for approval")
        await bot.teams.channel().press(summary, "Approve")
        await bot.teams.until(lambda: bot.runs, "the run")
        (run,) = world.azure.runs.all.values()
        await bot.teams.until(lambda: run.result, "the run ends")
        await bot.app.runner.advance()
        await bot.teams.until_shown(f"{SDK} · pushed, being verified")
        world.publish(bot.world.catalog[SDK], NEXT, digest)
        await bot.teams.until_shown(f"{SDK} · in ECR as {NEXT}")
        await until_counted(bot, taken=1, ignored=3)  # the floating tags are nobody's business


async def test_a_finished_scan_has_its_rebuild_looked_at(
    start_bot: StartBot, world: LocalWorld, queue_url: str
) -> None:
    """A scan of what a rebuild pushed is a hint; one of any other image of the repository is none."""
    async with listening(start_bot, queue_url) as bot:
        await bot.teams.personal(ALEX).say(f"rebuild {SDK}")
        async with asyncio.timeout(20):
            while not (done := await bot.app.store.rebuilds(states={State.SUCCEEDED})):
                await bot.app.runner.advance()
        await until_empty(world, queue_url)
        before = await counted(bot)
        scan = {"scan-status": "COMPLETE", "repository-name": "dotnet/sdk", "image-tags": []}
        for digest in (done[0].pushed_digest, f"sha256:{'0' * 64}"):
            detail = scan | {"image-digest": digest}
            world.ecr.send(queue_url, json.dumps(event(detail=detail) | {"detail-type": "ECR Image Scan"}))
        await until_counted(bot, taken=before.get("taken", 0) + 1, ignored=before["ignored"] + 1)


async def test_an_event_that_lies_changes_nothing(start_bot: StartBot, world: LocalWorld, queue_url: str) -> None:
    """A push that never happened, and deletions of tags that are there: ECR is asked, and believed."""
    async with listening(start_bot, queue_url) as bot:
        world.ecr.send(queue_url, json.dumps(event("PUSH", NEXT)))
        for tag in (NEWEST, "6.0"):
            world.ecr.send(queue_url, json.dumps(event("DELETE", tag)))
        await until_counted(bot, ignored=3)
        assert bot.teams.messages == []


@pytest.mark.parametrize(
    ("tag", "meaning"),
    [
        (NEWEST, "It was the newest version; now that is 6.0-bullseye-slim-1.2.0."),
        ("6.0", "Whoever pulls dotnet/sdk:6.0 gets nothing until it is pushed again; a rebuild does that."),
    ],
)
async def test_a_deleted_tag_that_people_rely_on_is_told(
    start_bot: StartBot, world: LocalWorld, queue_url: str, tag: str, meaning: str
) -> None:
    """The newest version or a floating tag: a warning where people are told about the image, and only there."""
    image = world.catalog[SDK]
    newest = world.base_digest(image)
    world.publish(image, "6.0-bullseye-slim-1.2.0", newest)
    world.publish(image, NEWEST, newest)
    async with listening(start_bot, queue_url) as bot:
        other = bot.teams.channel("other")
        await other.install()
        await other.ask("subscribe dotnet-aspnet-8")
        told = len(bot.teams.messages)
        world.ecr.delete_tag("dotnet/sdk", tag)
        warning = await bot.teams.until_shown(f"The tag {tag} of {SDK} was deleted from ECR. {meaning}")
        assert warning.conversation == bot.teams.channel().id
        await until_empty(world, queue_url)
        assert len(bot.teams.messages) == told + 1


async def test_an_image_without_any_version_left_is_asked_about(
    start_bot: StartBot, world: LocalWorld, queue_url: str
) -> None:
    """After the deletion the image is checked at once: it was never built, as far as ECR knows, and that is asked."""
    async with listening(start_bot, queue_url) as bot:
        world.ecr.delete_tag("dotnet/sdk", NEWEST)
        await bot.teams.until_shown("No version of the image is left.")
        asked = await bot.teams.until_shown(SDK, "waits for approval")
        assert "Approve" in asked.buttons


async def test_deleting_an_old_version_is_nobodys_business(
    start_bot: StartBot, world: LocalWorld, queue_url: str
) -> None:
    """Lifecycle rules delete old versions every day: no warning, no check."""
    image = world.catalog[SDK]
    world.publish(image, "6.0-bullseye-slim-1.2.0", world.base_digest(image))
    async with listening(start_bot, queue_url) as bot:
        before = await bot.app.store.latest_check()
        world.ecr.delete_tag("dotnet/sdk", "6.0-bullseye-slim-1.2.0")
        await until_empty(world, queue_url)
        assert bot.teams.messages == []
        assert await bot.app.store.latest_check() == before


async def test_the_same_event_is_told_once(start_bot: StartBot, world: LocalWorld) -> None:
    """SQS may deliver a message twice, also to a bot that was restarted in between."""
    queue_url = world.ecr.open_queue(VisibilityTimeout=1)  # the poll of a bot that ended may still take one
    world.registry.storage.untag("123456789012/dotnet/sdk", "6.0")
    world.ecr.restore()
    told = json.dumps(event(tag="6.0"))
    async with listening(start_bot, queue_url) as bot:
        for _ in range(3):
            world.ecr.send(queue_url, told)
        await until_counted(bot, taken=1, repeated=2)
    async with listening(start_bot, queue_url) as bot:
        world.ecr.send(queue_url, told)
        await until_counted(bot, repeated=1)
        assert sum("The tag 6.0" in message.text for message in bot.teams.messages) == 1


SOMETHING_ELSE: dict[str, dict[str, Any]] = {
    "another account": event(account="999999999999"),
    "another region": event(region="us-east-1"),
    "another repository": event(detail=event()["detail"] | {"repository-name": "contoso/shop"}),
    "a tag of another line": event(tag="6.0-alpine-9.9.9"),
    "a failure": event(detail=event()["detail"] | {"result": "FAILURE"}),
    "no tag": event(tag=""),
    "EC2": {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification"},
    "a pattern": {"source": ["aws.inspector2"], "detail-type": ["Inspector2 Scan"]},
    "replication": event(**{"detail-type": "ECR Replication Action"}),
    "an empty object": {},
    "huge": {"filler": "x" * 250_000},
}


async def test_what_is_about_something_else_is_ignored(start_bot: StartBot, world: LocalWorld, queue_url: str) -> None:
    """It is deleted from the queue, and nobody hears of it, whatever is missing in the repository."""
    for tag in (NEWEST, "6.0", "6.0-bullseye-slim"):
        world.registry.storage.untag("123456789012/dotnet/sdk", tag)
    world.ecr.restore()
    for body in SOMETHING_ELSE.values():
        world.ecr.send(queue_url, json.dumps(body))
    async with listening(start_bot, queue_url) as bot:
        await until_counted(bot, ignored=len(SOMETHING_ELSE))
        await until_empty(world, queue_url)
        assert bot.teams.messages == []


async def test_an_event_behind_a_topic_is_read(start_bot: StartBot, world: LocalWorld, queue_url: str) -> None:
    """SNS wraps what it passes on; the event inside counts."""
    async with listening(start_bot, queue_url) as bot:
        world.registry.storage.untag("123456789012/dotnet/sdk", "6.0")
        world.ecr.restore()
        world.ecr.send(queue_url, json.dumps({"Type": "Notification", "Message": json.dumps(event(tag="6.0"))}))
        await bot.teams.until_shown("The tag 6.0 of")


UNREADABLE = ["{not json", "[1, 2]", "[" * 50_000, "", json.dumps(event(detail={"action-type": "PUSH"}))]


async def test_unreadable_messages_are_set_aside(
    start_bot: StartBot, world: LocalWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """After five receives they are logged, shortened, counted and gone; what follows them is not held up."""
    queue_url = world.ecr.open_queue(VisibilityTimeout=0)
    for body in UNREADABLE:
        world.ecr.send(queue_url, body or " ")
    async with listening(start_bot, queue_url) as bot:
        world.ecr.delete_tag("dotnet/sdk", "6.0")
        await bot.teams.until_shown("The tag 6.0 of")
        await until_empty(world, queue_url)
        assert (await counted(bot))["set_aside"] == len(UNREADABLE)
    told = [record.getMessage() for record in caplog.records if "is set aside" in record.getMessage()]
    assert len(told) == len(UNREADABLE)
    assert max(map(len, told)) < 400


async def test_a_queue_with_a_dead_letter_queue_sets_aside_by_itself(start_bot: StartBot, world: LocalWorld) -> None:
    """Where the queue has a redrive policy, an unreadable message ends in its dead-letter queue, whole."""
    dead = world.ecr.open_queue("dead")
    policy = {"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:123456789012:dead", "maxReceiveCount": 7}
    queue_url = world.ecr.open_queue(VisibilityTimeout=0, RedrivePolicy=json.dumps(policy))
    world.ecr.send(queue_url, "{not json")
    async with listening(start_bot, queue_url) as bot:
        await until_empty(world, queue_url)
        assert "set_aside" not in await counted(bot)
    assert world.ecr.messages(dead) == 1


async def test_a_thousand_at_once(start_bot: StartBot, world: LocalWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleanup that deletes many tags: each is read and deleted once, ten at a time, and one warning comes of it."""
    world.registry.storage.untag("123456789012/dotnet/sdk", "6.0")
    world.ecr.restore()
    events = [event(tag="6.0" if number == 700 else f"feature-{number}") for number in range(1000)]
    async with Queue(map(json.dumps, events)) as queue:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", queue.url)
        async with listening(start_bot, URL) as bot:
            await until_counted(bot, ignored=999, taken=1)
            await bot.teams.until_shown("The tag 6.0 of")
            assert sum("deleted" in message.text for message in bot.teams.messages) == 1
        assert queue.waiting == {}
        assert set(queue.received.values()) == {1}
        assert queue.calls["DeleteMessageBatch"] == 100


async def test_answers_without_sense_do_not_end_the_reading(
    start_bot: StartBot, world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the queue says, it is asked again, and what it brings then is taken."""
    world.registry.storage.untag("123456789012/dotnet/sdk", "6.0")
    world.ecr.restore()
    async with Queue([json.dumps(event(tag="6.0"))]) as queue:
        queue.nonsense = [{"Messages": ["what"]}]
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", queue.url)
        async with listening(start_bot, URL) as bot:
            await bot.teams.until_shown("The tag 6.0 of", deadline_s=30)
    assert queue.waiting == {}


async def test_while_ecr_cannot_be_asked_an_event_waits(
    start_bot: StartBot, world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion is told when ECR answers again, also by a bot that was restarted meanwhile."""
    queue_url = world.ecr.open_queue(VisibilityTimeout=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:9")
    async with listening(start_bot, queue_url) as bot:
        world.ecr.delete_tag("dotnet/sdk", "6.0")
        async with asyncio.timeout(30):
            while (await counted(bot)).get("later", 0) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    monkeypatch.delenv("AWS_ENDPOINT_URL_ECR")
    async with listening(start_bot, queue_url) as bot:
        await bot.teams.until_shown("The tag 6.0 of")


async def test_a_queue_that_does_not_exist_stops_nothing(
    start_bot: StartBot, world: LocalWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The bot says so once in its log, works by looking, and reads the queue when it is there."""
    async with start_bot(ECR_EVENTS_QUEUE_URL=f"{world.ecr.url}/123456789012/no-such-queue") as bot:
        await bot.check()
        await bot.teams.channel().install()
        await bot.teams.personal(ALEX).say(f"rebuild {SDK}")
        await bot.teams.until_shown(f"{SDK} · in ECR as", where=bot.teams.channel())
        world.ecr.open_queue("no-such-queue")
        world.ecr.delete_tag("dotnet/sdk", "6.0")
        await bot.teams.until_shown("The tag 6.0 of", deadline_s=40)
    assert [r.getMessage() for r in caplog.records if "without events" in r.getMessage()] == [
        "the bot goes on without events of ECR: SQS has no queue no-such-queue"
    ]
