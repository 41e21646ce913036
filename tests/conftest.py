"""The bot as it runs, on a socket, among its peers: a registry, ECR, Azure DevOps and Teams."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web_app

from bot.app import App, open_app
from bot.catalog.catalog import Catalog, load
from bot.config import read
from bot.core.images import Digest, ImagePlatform
from bot.demo.agent import ScriptedAgent
from bot.demo.ecr import LocalEcr
from bot.demo.registry import LocalRegistry
from bot.demo.runs import AgentRun
from bot.demo.world import FAST, PLATFORMS, LocalWorld
from tests.peers import swagger
from tests.peers.teams import Teams

MONDAY = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)

CATALOG = """\
defaults:
  registry_id: "123456789012"
  region: eu-west-1
  pipeline: {project: platform-images, id: 7}
  approval: {approvers: [alex.wilber@contoso.com, 00000000-0000-4000-8000-0000000000b2], expires: 7d}
images:
  dotnet-sdk-6:
    base: mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim
    repository: dotnet/sdk
    tag: 6.0-bullseye-slim
    extra_tags: ["6.0"]
    pipeline: {id: 12}
  dotnet-aspnet-6:
    base: mcr.microsoft.com/dotnet/aspnet:6.0-bullseye-slim
    repository: dotnet/aspnet
    tag: 6.0-bullseye-slim
    pipeline: {id: 13}
  dotnet-aspnet-8:
    base: mcr.microsoft.com/dotnet/aspnet:8.0-bookworm-slim
    repository: dotnet/aspnet
    tag: 8.0-bookworm-slim
"""


class FakeClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: datetime = MONDAY) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


class Script:
    """How the pipeline's agent behaves: it works while the gate is open, and fails the stages named for an image.

    `push` replaces what the Push stage does.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing: dict[str, tuple[str, list[str]]] = {}
        self.push: Callable[[AgentRun], Awaitable[None]] | None = None

    async def sleep(self, _: float) -> None:
        await self.gate.wait()

    def fails(self, run: AgentRun) -> tuple[str, list[str]] | None:
        return self.failing.get(run.parameters["image"])


@dataclass
class Bot:
    """A running bot and everything around it."""

    app: App
    teams: Teams
    world: LocalWorld
    clock: FakeClock
    script: Script

    @property
    def runs(self) -> list[dict[str, str]]:
        """The template parameters of every run that Azure was asked for, in order."""
        return [dict(run.parameters) for run in self.world.azure.runs.all.values()]

    async def check(self) -> None:
        """Let the timer fire at the present moment."""
        await self.app.schedule.run_due()

    async def next_week(self) -> None:
        """Let the timer fire a week later."""
        self.clock.advance(timedelta(days=7))
        await self.check()

    def move_base(self, name: str, *platforms: str, version: str | None = None) -> Digest:
        """Publish a new base of an image, for these platforms or for all. Returns its index digest."""
        base = self.world.catalog[name].base
        assert base is not None
        return self.world.move_base(base, [ImagePlatform.parse(p) for p in platforms] or PLATFORMS, version)


StartBot = Callable[..., AbstractAsyncContextManager[Bot]]


def pytest_collection_finish() -> None:
    """What was imported stays, so no garbage is looked for in it, which took an eighth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test."""
    for key in list(os.environ):
        if key.startswith(("SHIPSHAPE_", "AWS_", "BOTO")):
            monkeypatch.delenv(key)


@pytest.fixture(autouse=True)
def no_left_overs() -> Iterator[None]:
    """aiohttp remembers a thousand handlers, and with them whole bots, until looking for garbage takes seconds."""
    yield
    web_app._cached_build_middleware.cache_clear()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def catalog_file(tmp_path: Path) -> Path:
    """A catalog that a test may rewrite before it starts anything."""
    path = tmp_path / "catalog.yml"
    path.write_text(CATALOG)
    return path


@pytest.fixture
def catalog(catalog_file: Path) -> Catalog:
    return load(catalog_file)


@pytest.fixture(scope="session")
def azure_contract() -> swagger.Swagger | None:
    """Microsoft's description of Azure DevOps, None where the folder is absent."""
    return swagger.load()


@pytest.fixture
async def world(
    tmp_path: Path,
    catalog: Catalog,
    clock: FakeClock,
    azure_contract: swagger.Swagger | None,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[LocalWorld]:
    """The local peers, every image fresh in version 1.3.0."""

    async def push(run: AgentRun) -> None:
        await (script.push or local.build)(run)

    agent = ScriptedAgent(FAST, push, script.fails, script.sleep)
    async with LocalWorld(tmp_path / "world", catalog, now=clock.now, agent=agent) as local:
        local.seed()
        for key, value in local.ecr.environment().items():
            monkeypatch.setenv(key, value)
        if azure_contract:
            local.azure.on_exchange.append(azure_contract)
        yield local
    if azure_contract:
        problems, azure_contract.problems = azure_contract.problems, []
        assert problems == []


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    """A registry of its own, empty."""
    async with LocalRegistry(tmp_path) as registry:
        yield registry


@pytest.fixture
async def ecr(registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalEcr]:
    """ECR on that registry, as what boto3 finds in its environment."""
    async with LocalEcr(registry) as ecr:
        for name, value in ecr.environment().items():
            monkeypatch.setenv(name, value)
        yield ecr


@pytest.fixture
async def teams(clock: FakeClock) -> AsyncIterator[Teams]:
    """Teams, whose contract has to hold until the end of the test."""
    async with Teams(clock) as teams:
        yield teams
    assert teams.problems == []


@pytest.fixture
def start_bot(
    tmp_path: Path, catalog_file: Path, world: LocalWorld, teams: Teams, clock: FakeClock, script: Script
) -> StartBot:
    """Starts the production composition; starting it a second time in a test is a restart."""

    @asynccontextmanager
    async def start(**changes: str) -> AsyncIterator[Bot]:
        environment = {
            "SHIPSHAPE_CATALOG": str(catalog_file),
            "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'shipshape.db'}",
            "SHIPSHAPE_PORT": "0",
            "SHIPSHAPE_POLL_INTERVAL": "0.05",
            **world.environment(),
            "SHIPSHAPE_RELEASE_METADATA_URL": "off",  # tests of what it adds switch it on
            **teams.environment(),
            **{f"SHIPSHAPE_{key}": value for key, value in changes.items()},
        }
        settings = read(environment, env_file=None)
        async with open_app(settings, clock=clock, scheduled=False, between_passes_s=0.01) as app:
            teams.bot_url = app.url
            yield Bot(app, teams, world, clock, script)

    return start


@pytest.fixture
async def bot(start_bot: StartBot) -> AsyncIterator[Bot]:
    """A running bot that has been installed in a channel, with the slot of the week before done."""
    async with start_bot() as bot:
        await bot.check()  # a new database takes the present slot as done
        await bot.teams.channel().install()
        yield bot
