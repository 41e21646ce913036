"""`shipshape doctor`: looks at settings, catalog and every peer, one line each."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import aiohttp

from bot.app import open_checker, open_login
from bot.catalog import Catalog, load
from bot.clients.azure_pipelines import AzurePipelines
from bot.config import Settings, read
from bot.core.checker import Checker
from bot.core.images import PipelineReference
from bot.errors import BotError, ConfigError
from bot.store.store import SqlStore

Say = Callable[[str], None]


async def examine(say: Say, environment: dict[str, str] | None = None) -> bool:
    """Say one line per thing, good or bad; whether all are good. Nothing is changed anywhere."""
    doctor = _Doctor(say)
    try:
        settings = read(environment)
        settings.require_serving()
        catalog = load(Path(settings.catalog))
    except ConfigError as error:
        for problem in error.problems:
            doctor.bad("settings and catalog", problem)
        return False
    doctor.good("settings")
    doctor.good("catalog", f"{len(catalog)} images")
    await doctor.look("database", partial(_database, settings))
    await doctor.look("login", partial(_login, settings))
    async with open_checker(settings, catalog) as checker:
        for name in catalog:
            await doctor.look(f"base of {name}", partial(_base, checker, catalog, name))
            await doctor.look(f"ECR of {name}", partial(_ecr, checker, catalog, name))
    pipelines = AzurePipelines(settings.azure_devops_url, settings.azure_devops_token.get_secret_value())
    try:
        for pipeline in dict.fromkeys(image.pipeline for image in catalog.values()):
            what = f"pipeline {pipeline.id} of {pipeline.project}"
            await doctor.look(what, partial(_pipeline, pipelines, pipeline))
    finally:
        await pipelines.close()
    return doctor.healthy


class _Doctor:
    def __init__(self, say: Say) -> None:
        self._say = say
        self.healthy = True

    def good(self, what: str, found: str = "") -> None:
        self._say(f"ok    {what}{': ' if found else ''}{found}")

    def bad(self, what: str, problem: str) -> None:
        self.healthy = False
        self._say(f"FAIL  {what}: {problem}")

    async def look(self, what: str, work: Callable[[], Awaitable[str]]) -> None:
        try:
            self.good(what, await work())
        except BotError as error:
            self.bad(what, str(error))


async def _database(settings: Settings) -> str:
    try:
        async with SqlStore(settings.database_url.get_secret_value()) as store:
            await store.ping()
    except Exception as error:  # whatever the driver raises; its text may hold the password
        raise BotError(f"cannot be opened: {error.__class__.__name__}") from error
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
