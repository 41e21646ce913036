"""`shipshape doctor`: looks at settings, catalog and every peer, one line each."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiohttp

from bot import hook_setup
from bot.app import open_checker, open_login, open_releases
from bot.catalog.catalog import Catalog, load
from bot.clients.azure_pipelines import AzurePipelines
from bot.clients.dotnet_releases import DotnetReleases
from bot.clients.ecr_events import EcrEvents
from bot.config import Settings, read
from bot.core.checker import Checker
from bot.core.images import PipelineReference
from bot.errors import BotError, ConfigError
from bot.store.store import SqlStore

Say = Callable[[str], None]
Look = Callable[[], Coroutine[Any, Any, str]]


async def examine(say: Say, environment: dict[str, str] | None = None) -> bool:
    """Say one line per thing, good or bad; whether all are good.

    Nothing is changed but the database's tables, which are brought up to date.
    """
    doctor = _Doctor(say)
    try:
        settings = read(environment)
    except ConfigError as error:
        doctor.bad("settings", error)
        return False
    try:
        settings.require_serving()
        doctor.good("settings")
    except ConfigError as error:
        doctor.bad("settings", error)
    try:
        catalog = load(settings.catalog)
        doctor.good("catalog", f"{len(catalog)} images")
    except ConfigError as error:
        doctor.bad("catalog", error)
        return False
    await _look_at_peers(doctor, settings, catalog)
    return doctor.healthy


async def _look_at_peers(doctor: "_Doctor", settings: Settings, catalog: Catalog) -> None:
    looks: dict[str, Look] = {"database": partial(_database, settings)}
    if doctor.healthy:
        looks["login"] = partial(_login, settings)
    async with AsyncExitStack() as stack:
        checker = await stack.enter_async_context(open_checker(settings, catalog))
        for name in catalog:
            looks[f"base of {name}"] = partial(_base, checker, catalog, name)
            looks[f"ECR of {name}"] = partial(_ecr, checker, catalog, name)
        if settings.azure_devops_url:
            pipelines = AzurePipelines(settings.azure_devops_url, settings.azure_devops_token.get_secret_value())
            stack.push_async_callback(pipelines.close)
            for pipeline in dict.fromkeys(image.pipeline for image in catalog.values()):
                looks[f"pipeline {pipeline.id} of {pipeline.project}"] = partial(_pipeline, pipelines, pipeline)
        if settings.ecr_events_queue_url:
            events = EcrEvents(settings.ecr_events_queue_url)
            stack.push_async_callback(events.close)
            looks["events of ECR"] = partial(_events, events)
        if settings.hook_secret.get_secret_value() and settings.azure_devops_url:
            looks["service hooks"] = partial(hook_setup.summary, settings, catalog)
        if releases := await stack.enter_async_context(open_releases(settings)):
            looks["release metadata"] = partial(_releases, releases)
        await doctor.look(looks)


class _Doctor:
    def __init__(self, say: Say) -> None:
        self._say = say
        self.healthy = True

    def good(self, what: str, found: str = "") -> None:
        self._say(f"ok    {what}{': ' if found else ''}{found}")

    def bad(self, what: str, error: BotError) -> None:
        self.healthy = False
        for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
            self._say(f"FAIL  {what}: {problem}")

    async def look(self, looks: dict[str, Look]) -> None:
        """All at once, since a peer that is down takes its time; told in the order they were named."""
        tasks = [asyncio.create_task(look()) for look in looks.values()]
        for what, task in zip(looks, tasks, strict=True):
            try:
                self.good(what, await task)
            except BotError as error:
                self.bad(what, error)


async def _database(settings: Settings) -> str:
    async with SqlStore(settings.database_url.get_secret_value()) as store:
        await store.ping()
    return "opened, tables are up to date"


async def _login(settings: Settings) -> str:
    async with aiohttp.ClientSession() as session, open_login(settings, session) as tokens:
        token = await tokens.token()
    return "the bot has a token" if token else "anonymous, for this machine only"


async def _base(checker: Checker, catalog: Catalog, name: str) -> str:
    digest = await checker.current(catalog[name])
    return f"{checker.base(catalog[name])} is {digest.short}"


async def _ecr(checker: Checker, catalog: Catalog, name: str) -> str:
    published = await checker.newest(catalog[name])
    return published.version_tag if published else "no version yet"


async def _pipeline(pipelines: AzurePipelines, pipeline: PipelineReference) -> str:
    return f"{len(await pipelines.active(pipeline))} runs under way"


async def _events(events: EcrEvents) -> str:
    return f"messages in the queue: about {await events.waiting()}"


async def _releases(releases: DotnetReleases) -> str:
    return f"{await releases.look()} versions of .NET"
