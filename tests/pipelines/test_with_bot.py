"""The whole product on real images: the base moves, the bot asks, somebody approves, the pipeline's own scripts run."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from bot.app import App, open_app
from bot.config import read
from bot.demo.azure_devops import AzureDevOps
from bot.demo.ecr import LocalEcr
from bot.demo.registry import LocalRegistry
from bot.demo.runs import Definition
from tests.conftest import FakeClock
from tests.peers.teams import Teams
from tests.pipelines.agent import LocalAgent
from tests.pipelines.world import IMAGE, LINE, PIPELINE_ID, World

pytestmark = pytest.mark.e2e
RUN_S = 120
WEEK = timedelta(days=7)


@pytest.fixture
async def app(
    world: World, teams: Teams, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """The bot over the registries of the pipeline, with the local agent behind its Azure DevOps."""
    agent = LocalAgent(world.source, world.work, world.environment)
    definitions = {PIPELINE_ID: Definition(name=IMAGE, project="platform-images")}
    async with contextlib.AsyncExitStack() as stack:
        kept = await stack.enter_async_context(LocalRegistry(tmp_path / "moto"))
        aws = await stack.enter_async_context(LocalEcr(kept))
        azure = await stack.enter_async_context(AzureDevOps(agent=agent, definitions=definitions, now=clock.now))
        for key, value in aws.environment().items():
            monkeypatch.setenv(key, value)
        mcr = world.base.name.partition("/")[0]
        environment = {
            "SHIPSHAPE_CATALOG": str(_catalog(world)),
            "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'shipshape.db'}",
            "SHIPSHAPE_PORT": "0",
            "SHIPSHAPE_POLL_INTERVAL": "0.2",
            "SHIPSHAPE_RELEASE_METADATA_URL": "off",
            "SHIPSHAPE_REGISTRY_MIRRORS": json.dumps({mcr: f"http://{mcr}"}),
            "SHIPSHAPE_AZURE_DEVOPS_URL": azure.url,
            "SHIPSHAPE_AZURE_DEVOPS_TOKEN": "local",
            **teams.environment(),
        }
        settings = read(environment, env_file=None)
        showing = asyncio.create_task(_show(world, aws))
        stack.callback(showing.cancel)
        app = await stack.enter_async_context(open_app(settings, clock=clock, scheduled=False, between_passes_s=0.05))
        teams.bot_url = app.url
        await app.schedule.run_due()
        await teams.channel().install()
        yield app


async def test_a_base_that_moves_ends_as_a_tested_image_with_its_tags(
    app: App, world: World, teams: Teams, clock: FakeClock
) -> None:
    """First build, then an update: each asked for once, approved once, built for real, and verified in ECR."""
    channel = teams.channel()
    for base, version, asked in ((world.base.publish("one"), "1.0.0", "never built"), (None, "1.1.0", "stale")):
        digest = base or world.base.publish("two")
        clock.advance(WEEK)
        await app.schedule.run_due()
        summary = await teams.until_shown(IMAGE, asked, "waits for approval")
        await channel.press(summary, "Approve")
        card = await teams.until_shown(f"{IMAGE} · in ECR as {LINE}-{version}", deadline_s=RUN_S)
        tags = world.ecr.versions(world.repository)
        assert tags[f"{LINE}-{version}"] == tags["8.0"] == tags["latest"]
        assert tags["latest"][7:19] in card.visible
        labels = world.ecr.labels(world.repository, "latest")
        assert labels["org.opencontainers.image.base.digest"] == digest
    clock.advance(WEEK)
    await app.schedule.run_due()
    await teams.until_shown(f"{IMAGE} is fresh")


async def test_an_application_that_answers_500_ends_as_a_card_with_the_reason(
    app: App, world: World, teams: Teams, clock: FakeClock
) -> None:
    """The stage that failed is named, the script's last line is shown, nothing is tagged, and Retry repairs it."""
    expectations = json.loads((world.source / f"pipelines/images/{IMAGE}/expectations.json").read_text())
    world.expect(application={**expectations["application"], "name": "answers-500"})
    clock.advance(WEEK)
    await app.schedule.run_due()
    summary = await teams.until_shown(IMAGE, "waits for approval")
    await teams.channel().press(summary, "Approve")
    card = await teams.until_shown(f"{IMAGE} · test failed", "500", deadline_s=RUN_S)
    assert world.ecr.versions(world.repository) == {}
    world.expect(application=expectations["application"])
    await teams.channel().press(card, "Retry failed stage")
    await teams.until_shown(f"{IMAGE} · in ECR as {LINE}-1.0.0", deadline_s=RUN_S)


def _catalog(world: World) -> Path:
    """The checkout's catalog, with a pipeline and people who exist here."""
    path = world.source / "pipelines/catalog.yml"
    catalog = yaml.safe_load(path.read_text())
    catalog["defaults"] |= {
        "pipeline": {"project": "platform-images", "id": PIPELINE_ID},
        "approval": {"approvers": ["alex.wilber@contoso.com"]},
    }
    path.write_text(yaml.safe_dump(catalog))
    return path


async def _show(world: World, aws: LocalEcr) -> None:
    """On AWS the registry and its API are one; here the API is told what was pushed, again and again."""
    shown: dict[str, str] = {}
    while True:
        with contextlib.suppress(AssertionError):  # a candidate's tag may go between two questions
            present = await asyncio.to_thread(world.ecr.versions, world.repository)
            if present != shown:
                await asyncio.to_thread(world.show_in, aws)
                shown = dict(present)
        await asyncio.sleep(0.2)
