"""`shipshape hooks`: has Azure DevOps tell the bot of its runs, shows how that stands, and ends it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from bot.catalog.catalog import Catalog, load
from bot.clients.azure_hooks import EVENTS, AzureHooks, Subscription
from bot.config import PREFIX, Settings
from bot.core.hosts import is_loopback
from bot.errors import ConfigError, PeerRefused
from bot.web.azure_devops_hooks import PATH


async def install(settings: Settings, url: str) -> list[str]:
    """Subscribe to all events of each project of the catalog, once, and mend what is there. Returns lines to print.

    Raises ConfigError, PeerError.
    """
    _require_address(url)
    secret = settings.hook_secret.get_secret_value()
    if not secret:
        raise ConfigError([f"{PREFIX}HOOK_SECRET: is missing; it becomes the password of the subscriptions"])
    async with _open(settings) as hooks:
        project_ids = await _project_ids(settings, hooks)
        done = await hooks.install(project_ids.values(), url, secret)
    doubled = f", {done.removed} removed that were there twice" if done.removed else ""
    return [f"{', '.join(project_ids)}: {done.added} subscriptions added, {done.renewed} renewed{doubled}"]


async def status(settings: Settings, url: str) -> tuple[list[str], bool]:
    """Lines to print for each project of the catalog, and whether all events are told. Raises like `install`."""
    _require_address(url)
    async with _open(settings) as hooks:
        project_ids = await _project_ids(settings, hooks)
        found = await hooks.subscriptions(url)
    states = {name: _states([each for each in found if each.project_id == id_]) for name, id_ in project_ids.items()}
    lines = [f"{state:18} {name}: {event}" for name, events in states.items() for event, state in events.items()]
    return lines, all(state == "enabled" for events in states.values() for state in events.values())


async def summary(settings: Settings, catalog: Catalog) -> str:
    """Who is told of everything, in one line. Raises ConfigError when nobody is, PeerError."""
    async with _open(settings) as hooks:
        project_ids = await hooks.project_ids([image.pipeline for image in catalog.values()])
        try:
            found = await hooks.everybodys()
        except PeerRefused as error:
            return f"the password is set; this token may not see the subscriptions ({error})"
    told: dict[str, set[tuple[str, str]]] = {}
    for each in found:
        host, path = each.place
        if path.endswith(PATH) and each.status == "enabled":
            told.setdefault(host, set()).add((each.project_id, each.event_type))
    wanted = {(project_id, event) for project_id in project_ids.values() for event in EVENTS}
    hosts = sorted(host for host, events in told.items() if wanted <= events)
    if not hosts:
        raise ConfigError(["no address is told of all events; `shipshape hooks install` subscribes and mends"])
    return f"all events are told to {', '.join(hosts)}"


async def remove(settings: Settings, url: str) -> list[str]:
    """Remove every subscription that tells the bot at this address, in any project. Raises like `install`."""
    _require_address(url)
    async with _open(settings) as hooks:
        found = await hooks.subscriptions(url)
        await hooks.remove(found)
    return [f"{len(found)} subscriptions removed"]


def _require_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(["--url: has to start with https://, since the password goes with every event"])
    if is_loopback(parts.hostname):
        raise ConfigError(["--url: is an address of this machine, which Azure DevOps cannot reach"])
    if not parts.path.rstrip("/").endswith(PATH) or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError([f"--url: has to end with {PATH}, such as https://shipshape.contoso.com{PATH}"])


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[AzureHooks]:
    if not settings.azure_devops_url:
        raise ConfigError([f"{PREFIX}AZURE_DEVOPS_URL: is missing, for example https://dev.azure.com/contoso"])
    hooks = AzureHooks(settings.azure_devops_url, settings.azure_devops_token.get_secret_value())
    try:
        yield hooks
    finally:
        await hooks.close()


async def _project_ids(settings: Settings, hooks: AzureHooks) -> dict[str, str]:
    return await hooks.project_ids([image.pipeline for image in load(settings.catalog).values()])


def _states(found: list[Subscription]) -> dict[str, str]:
    """For each event whether it is told: Azure's word, or what is wrong."""
    states = dict.fromkeys(EVENTS, "missing")
    for each in found:
        states[each.event_type] = each.status
    return states
