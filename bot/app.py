"""The composition root: the only file that names ports and the classes behind them, and the owner of every lifetime.

`serve` runs it; tests open the same thing with their own settings and clock.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
from aiohttp import web

from bot.catalog.catalog import Catalog, load
from bot.clients.azure_pipelines import AzurePipelines
from bot.clients.dotnet_releases import LIMITS as RELEASE_LIMITS
from bot.clients.dotnet_releases import DotnetReleases
from bot.clients.ecr import EcrRepositories
from bot.clients.ecr_events import EcrEvents
from bot.clients.http import Limits, open_session
from bot.clients.oci import OciRegistry
from bot.config import Settings
from bot.core.answering import AnswerService
from bot.core.asking import AskService
from bot.core.checker import Checker
from bot.core.checking import CheckService
from bot.core.deciding import DecideService
from bot.core.following import Following
from bot.core.hints import Hints
from bot.core.holding import HoldService
from bot.core.images import Digest
from bot.core.losses import Losses
from bot.core.meaning import Meaning
from bot.core.order import Order
from bot.core.pages import Page
from bot.core.permissions import Permissions
from bot.core.ports import Clock, DocumentCache, PageCache
from bot.core.progress import Progress
from bot.core.queueing import Queueing
from bot.core.reading import ReadService
from bot.core.repository_events import RepositoryEvents
from bot.core.retagging import Retagging
from bot.core.retrying import RetryService
from bot.core.rolling_back import RollbackService
from bot.core.runner import Runner
from bot.core.scanning import Scanning
from bot.core.subscribing import SubscribeService
from bot.core.timetable import Crontab, Timetable
from bot.core.verifying import Verifying
from bot.core.watching import Watch
from bot.loops import Wakes, card_loop, run_loop, stop
from bot.schedule import Schedule
from bot.store.audit import Audit
from bot.store.store import SqlStore
from bot.teams.adapter import Adapter
from bot.teams.audiences import Audiences
from bot.teams.commands.asks import Desk
from bot.teams.connector import Connectors
from bot.teams.drawings import Drawings
from bot.teams.notifier import Notifier
from bot.teams.roster import Roster
from bot.teams.tokens import ClientCredentials, InboundTokens, ManagedIdentity, NoTokens, OutboundTokens
from bot.teams.turns import Turns
from bot.web import routes
from bot.web.azure_devops_hooks import AzureDevOpsHooks
from bot.web.metrics import Metrics

logger = logging.getLogger(__name__)

BETWEEN_PASSES_S = 1  # quick changes are one edit and one look; Teams allows a bot 60 in 30 s per conversation


class SystemClock:
    """The real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything that runs, put together. `url` is where it listens."""

    url: str
    checks: CheckService
    runner: Runner
    notifier: Notifier
    schedule: Schedule
    store: SqlStore


@asynccontextmanager
async def open_checker(settings: Settings, catalog: Catalog) -> AsyncIterator[Checker]:
    """What looks at registries and ECR."""
    async with _sources(settings, _Memory()) as (registry, repository):
        yield Checker(catalog, registry, repository)


@asynccontextmanager
async def open_check(settings: Settings, catalog: Catalog) -> AsyncIterator[tuple[Checker, Meaning]]:
    """What looks at registries and ECR, and what tells the meaning of it; all that `shipshape check` needs."""
    async with _sources(settings, _Memory()) as (registry, repository), open_releases(settings) as releases:
        checker = Checker(catalog, registry, repository)
        yield checker, Meaning(catalog, checker, registry, releases, SystemClock())


@asynccontextmanager
async def open_audit(settings: Settings) -> AsyncIterator[Audit]:
    """The audit of a bot that may run meanwhile, to read from. Raises ConfigError."""
    async with Audit.existing(settings.database_url.get_secret_value()) as audit:
        yield audit


class _Memory:
    """The caches of documents and pages for one command."""

    def __init__(self) -> None:
        self._documents: dict[Digest, bytes] = {}
        self._pages: dict[str, Page] = {}

    async def get(self, digest: Digest) -> bytes | None:
        return self._documents.get(digest)

    async def put(self, digest: Digest, content: bytes) -> None:
        self._documents[digest] = content

    async def page(self, url: str) -> Page | None:
        return self._pages.get(url)

    async def keep_page(self, page: Page) -> None:
        self._pages[page.url] = page


@asynccontextmanager
async def _sources(settings: Settings, cache: DocumentCache) -> AsyncIterator[tuple[OciRegistry, EcrRepositories]]:
    limits = Limits()
    async with open_session(limits) as session:
        registry = OciRegistry(session, cache, mirrors=settings.registry_mirrors, limits=limits)
        repository = EcrRepositories(session, cache, limits=limits)
        try:
            yield registry, repository
        finally:
            await repository.close()


@asynccontextmanager
async def open_releases(
    settings: Settings, pages: PageCache | None = None, clock: Clock | None = None
) -> AsyncIterator[DotnetReleases | None]:
    """Microsoft's release metadata, None when the settings switch it off. Without `pages` for one command."""
    if not settings.release_metadata_url:
        yield None
        return
    async with open_session(RELEASE_LIMITS) as session:
        yield DotnetReleases(session, pages or _Memory(), clock or SystemClock(), url=settings.release_metadata_url)


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    scheduled: bool = True,
    between_passes_s: float = BETWEEN_PASSES_S,
) -> AsyncIterator[App]:
    """Open everything, listen, and run the loops until the block ends. Raises ConfigError.

    `scheduled` False leaves the timer to the caller, who may call `app.schedule.run_due()`.
    """
    settings.require_serving()
    clock = clock or SystemClock()
    catalog = load(settings.catalog, clock.now())
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqlStore(settings.database_url.get_secret_value()))
        registry, repository = await stack.enter_async_context(_sources(settings, store))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        tokens = await stack.enter_async_context(open_login(settings, session, clock))
        pipelines = AzurePipelines(settings.azure_devops_url, settings.azure_devops_token.get_secret_value())
        stack.push_async_callback(pipelines.close)

        wakes = Wakes()
        checker = Checker(catalog, registry, repository)
        releases = await stack.enter_async_context(open_releases(settings, store, clock))
        meaning = Meaning(catalog, checker, registry, releases, clock)
        hosts = settings.allowed_service_hosts + (("127.0.0.1", "localhost") if settings.allow_anonymous else ())
        connectors = Connectors(session, tokens, hosts)
        roster = Roster(connectors, store, clock)
        reads = ReadService(catalog, store, checker, roster, clock, wakes)
        permissions = Permissions(store, roster, clock)
        decisions = DecideService(reads, permissions, store, pipelines, clock, wakes)
        asks = AskService(reads, decisions, permissions, store, checker, clock, wakes)
        timeout = timedelta(seconds=settings.verify_timeout)
        timetable = Timetable(Crontab.parse(settings.schedule), settings.timezone, _schedules(catalog))
        checks = CheckService(catalog, timetable, store, checker, meaning, clock, wakes)
        hints = Hints(store, clock, wakes)
        order = Order(catalog, store, clock, wakes, checks.look)
        scanning = Scanning(catalog, store, repository, clock, wakes)
        progress = Progress(store, clock, wakes)
        retagging = Retagging(catalog, store, repository, order, progress, clock)
        queueing = Queueing(catalog, store, checker, meaning, pipelines, order, retagging, progress, clock)
        following = Following(pipelines, hints, progress, clock)
        verifying = Verifying(catalog, checker, repository, order, scanning, progress, clock, timeout)
        runner = Runner(
            catalog, store, queueing, following, verifying, retagging, order, scanning, hints, progress, clock
        )
        losses = Losses(store, clock, wakes)
        drawings = Drawings(store, catalog, Audiences(catalog, store, roster, permissions), clock, timetable.zone)
        notifier = Notifier(store, connectors, drawings, clock, losses)
        watch = Watch(catalog, store, checker, meaning, clock, checks.look)
        schedule = Schedule(timetable, clock, checks.check_slot, watch.run_due)
        desk = Desk(
            reads=reads,
            asks=asks,
            decisions=decisions,
            retries=RetryService(reads, decisions, permissions, store, checker, pipelines, clock, wakes),
            checks=checks,
            holds=HoldService(reads, permissions, store, clock, wakes),
            rollbacks=RollbackService(reads, asks, permissions, store, checker, repository, clock, wakes),
            answers=AnswerService(reads, permissions, store, pipelines, clock, wakes),
            subscriptions=SubscribeService(store, store, clock),
            drawings=drawings,
            clock=clock,
            timetable=timetable,
            deliver=notifier.deliver,
        )
        turns = Turns(desk, store, connectors, losses)
        adapter = Adapter(_inbound(settings, session, clock), connectors, settings.tenants, turns)
        hooks = AzureDevOpsHooks(hints, settings.hook_secret.get_secret_value())
        metrics = Metrics(store, registry, repository, clock)
        web_app = routes.create(adapter, hooks, lambda: _ready(store), metrics)
        url = await stack.enter_async_context(_listening(web_app, settings))
        run_pass, card_pass = asyncio.Lock(), asyncio.Lock()  # held by a loop while it works, not while it waits
        pauses = (settings.poll_interval, between_passes_s)
        loops = [
            asyncio.create_task(run_loop(checks, runner, wakes.run_event, run_pass, *pauses)),
            asyncio.create_task(card_loop(notifier, store, wakes.card_event, card_pass, clock, between_passes_s)),
        ]
        passes = [run_pass, card_pass]
        if settings.ecr_events_queue_url:
            events = EcrEvents(settings.ecr_events_queue_url)
            stack.push_async_callback(events.close)
            passes.append(events.one_pass)
            taker = RepositoryEvents(catalog, store, repository, checks, scanning, clock, wakes)
            loops.append(asyncio.create_task(events.follow(taker.take, lambda end: metrics.events.labels(end).inc())))
        stack.push_async_callback(stop, loops, passes)
        if scheduled:
            await schedule.start()
            stack.push_async_callback(schedule.stop)
        logger.info("listening on %s", url)
        yield App(url=url, checks=checks, runner=runner, notifier=notifier, schedule=schedule, store=store)


def _schedules(catalog: Catalog) -> dict[str, Crontab]:
    return {name: image.schedule for name, image in catalog.items() if image.schedule}


@asynccontextmanager
async def open_login(
    settings: Settings, session: aiohttp.ClientSession, clock: Clock | None = None
) -> AsyncIterator[OutboundTokens]:
    """Where the bot's own token comes from."""
    tokens = _outbound(settings, session, clock or SystemClock())
    try:
        yield tokens
    finally:
        await tokens.close()


def _outbound(settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> OutboundTokens:
    if settings.allow_anonymous:
        return NoTokens()
    if settings.bot_app_type == "UserAssignedMSI":
        return ManagedIdentity(settings.bot_app_id)
    return ClientCredentials(
        session,
        login_url=settings.bot_login_url,
        tenant_id=settings.bot_tenant_id,
        app_id=settings.bot_app_id,
        password=settings.bot_app_password.get_secret_value(),
        clock=clock,
    )


def _inbound(settings: Settings, session: aiohttp.ClientSession, clock: Clock) -> InboundTokens | None:
    if settings.allow_anonymous:
        return None
    return InboundTokens(
        session,
        app_id=settings.bot_app_id,
        metadata_url=settings.bot_openid_metadata_url,
        issuer=settings.bot_token_issuer,
        clock=clock,
    )


async def _ready(store: SqlStore) -> str:
    try:
        await store.ping()
    except Exception as error:
        return f"the database cannot be used: {error.__class__.__name__}"
    return ""


@asynccontextmanager
async def _listening(web_app: web.Application, settings: Settings) -> AsyncIterator[str]:
    runner = web.AppRunner(web_app, access_log=None, shutdown_timeout=10)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        yield f"http://{settings.host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
