"""Subscriptions of service hooks, through the azure-devops client library.

https://learn.microsoft.com/azure/devops/service-hooks/create-subscription
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bot.clients.azure_devops import Organization
from bot.core.images import PipelineReference

USER = "shipshape"  # the door takes any name
# Event type → publisher and resource version. https://learn.microsoft.com/azure/devops/service-hooks/events
EVENTS = {
    "build.complete": ("tfs", "2.0"),
    "ms.vss-pipelines.run-state-changed-event": ("pipelines", "5.1-preview.1"),
    "ms.vss-pipelines.stage-state-changed-event": ("pipelines", "5.1-preview.1"),
    "ms.vss-pipelines.job-state-changed-event": ("pipelines", "5.1-preview.1"),
    "ms.vss-pipelinechecks-events.approval-pending": ("pipelines", "5.1-preview.1"),
    "ms.vss-pipelinechecks-events.approval-completed": ("pipelines", "5.1-preview.1"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a project tells us, and where to. `status` is Azure's word: `enabled`, `onProbation`, `disabledBySystem`."""

    id: str
    project_id: str
    event_type: str
    url: str
    status: str

    @property
    def place(self) -> tuple[str, str]:
        """Host and path of where it tells."""
        return _place(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What `install` did: how many subscriptions are new, were set anew, and were one too many."""

    added: int
    renewed: int
    removed: int


class AzureHooks:
    """The subscriptions of one organization, with a token as `Organization` takes it. Methods raise PeerError.

    Ours are the web hooks to the host and path of our address. No other is ever changed.
    """

    def __init__(self, url: str, token: str) -> None:
        self._organization = Organization(url, token)
        from azure.devops.v7_1.build import BuildClient
        from azure.devops.v7_1.service_hooks import ServiceHooksClient, models

        self._models = models
        self._builds = self._organization.client(BuildClient)
        self._hooks = self._organization.client(ServiceHooksClient)

    async def close(self) -> None:
        await self._organization.close()

    async def project_ids(self, pipelines: Collection[PipelineReference]) -> dict[str, str]:
        """The id of each project, by the name that the catalog has for it."""
        one_each = {pipeline.project: pipeline.id for pipeline in pipelines}

        def work() -> dict[str, str]:
            return {name: self._builds.get_definition(name, id_).project.id for name, id_ in one_each.items()}

        return await self._organization.call(work)

    async def subscriptions(self, url: str) -> list[Subscription]:
        """Those that tell us at this address."""
        return [each for each in await self.everybodys() if each.place == _place(url)]

    async def everybodys(self) -> list[Subscription]:
        """All web hooks of the organization, ours and those of others."""
        found = await self._organization.call(
            lambda: self._hooks.list_subscriptions(consumer_id="webHooks", consumer_action_id="httpRequest")
        )
        return list(map(_subscription, found or []))

    async def install(self, project_ids: Collection[str], url: str, secret: str) -> Installed:
        """Have each project tell of all events, once. What is there is set anew: address, password, and enabled."""
        present: dict[tuple[str, str], list[Subscription]] = {}
        for each in await self.subscriptions(url):
            present.setdefault((each.project_id, each.event_type), []).append(each)
        wanted = [(project_id, event_type) for project_id in project_ids for event_type in EVENTS]
        renewed = [key for key in wanted if key in present]
        for key in wanted:
            await self._set(self._wanted(*key, url, secret), present[key][0].id if key in present else None)
        extra = [each for key in renewed for each in present[key][1:]]
        await self.remove(extra)
        return Installed(added=len(wanted) - len(renewed), renewed=len(renewed), removed=len(extra))

    async def remove(self, subscriptions: Sequence[Subscription]) -> None:
        def work() -> None:
            for each in subscriptions:
                self._hooks.delete_subscription(each.id)

        await self._organization.call(work)

    async def _set(self, wanted: Any, present: str | None) -> None:
        def work() -> None:
            if present is None:
                self._hooks.create_subscription(wanted)
            else:
                self._hooks.replace_subscription(wanted, present)

        await self._organization.call(work)

    def _wanted(self, project_id: str, event_type: str, url: str, secret: str) -> Any:
        publisher, version = EVENTS[event_type]
        return self._models.Subscription(
            publisher_id=publisher,
            event_type=event_type,
            resource_version=version,
            consumer_id="webHooks",
            consumer_action_id="httpRequest",
            status="enabled",
            publisher_inputs={"projectId": project_id},
            # The texts for people stay away; the resource is needed, since it names the run.
            consumer_inputs={
                "url": url,
                "basicAuthUsername": USER,
                "basicAuthPassword": secret,
                "messagesToSend": "none",
                "detailedMessagesToSend": "none",
            },
        )


def _subscription(found: Any) -> Subscription:
    return Subscription(
        id=found.id,
        project_id=(found.publisher_inputs or {}).get("projectId", ""),
        event_type=found.event_type,
        url=(found.consumer_inputs or {}).get("url", ""),
        status=found.status or "enabled",
    )


def _place(url: str) -> tuple[str, str]:
    """Host and path: whether it is https, and which port it names, may have to be mended."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.path.rstrip("/")
