"""Between Azure DevOps and the bot: a post office that keeps events, for a test to lose, double and shuffle them."""

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
from aiohttp import web

from bot.clients.azure_hooks import AzureHooks
from bot.core.images import PipelineReference
from bot.web.azure_devops_hooks import PATH

SECRET = "correct horse battery staple"
STAGE_CHANGED = "ms.vss-pipelines.stage-state-changed-event"
DEADLINE_S = 30

Json = dict[str, Any]


async def subscribe(azure_url: str, url: str, *pipelines: PipelineReference) -> None:
    """Have the projects of these pipelines tell of their runs at an address."""
    hooks = AzureHooks(azure_url, "local")
    try:
        project_ids = await hooks.project_ids(pipelines)
        await hooks.install(project_ids.values(), url, SECRET)
    finally:
        await hooks.close()


async def post(bot_url: str, body: bytes | Mapping[str, Any], *, password: str | None = SECRET) -> int:
    """Bring one event to the bot's door; the status it was answered."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{bot_url}{PATH}", data=io.BytesIO(content), headers=headers) as response,
    ):
        return response.status


class PostOffice:
    """Takes events in place of the bot; `events` has their bodies, in the order they came."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(PATH, self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{PATH}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.events.append(await request.json())
        return web.Response()

    async def until_stage(self, name: str, state: str) -> None:
        """Wait until it was told that a stage is in a state."""

        def told() -> bool:
            stages = [event["resource"]["stage"] for event in self.events if event["eventType"] == STAGE_CHANGED]
            return any((stage["name"], stage["state"]) == (name, state) for stage in stages)

        async with asyncio.timeout(DEADLINE_S):
            while not told():  # noqa: ASYNC110 -- nothing tells of an event but its arrival
                await asyncio.sleep(0.01)
