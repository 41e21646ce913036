"""The HTTP doors, and the one map from errors to statuses."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from bot.errors import BotError, Forbidden, Malformed, PeerUnavailable, RequestError, Unauthenticated
from bot.teams.adapter import Adapter
from bot.web import azure_devops_hooks
from bot.web.azure_devops_hooks import AzureDevOpsHooks
from bot.web.metrics import Metrics

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGEST_BODY = 256 * 1024  # Teams' own limit for a message is 100 KB
STATUSES: dict[type[BotError], HTTPStatus] = {
    Malformed: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    PeerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


def create(
    adapter: Adapter, hooks: AzureDevOpsHooks, ready: Callable[[], Awaitable[str]], metrics: Metrics
) -> web.Application:
    """The web application. `ready` answers with what is wrong, or with nothing."""

    async def messages(request: web.Request) -> web.Response:
        body = await request.read()
        metrics.turns.inc()
        answer = await adapter.process(body, request.headers.get("Authorization", ""))
        if answer is None:
            return web.Response(status=HTTPStatus.OK)
        return web.json_response(answer.body, status=answer.status)

    async def azure_devops(request: web.Request) -> web.Response:
        try:
            hooks.admit(request.headers.get("Authorization", ""))
            outcome = await hooks.take(await request.read())
        except (RequestError, web.HTTPRequestEntityTooLarge):
            metrics.hooks.labels("refused").inc()
            raise
        metrics.hooks.labels(outcome).inc()
        return web.Response(text=f"{outcome}\n")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        problem = await ready()
        return web.Response(text=f"{problem or 'ready'}\n", status=503 if problem else 200)

    async def metrics_(_: web.Request) -> web.Response:
        return web.Response(
            body=await metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_errors])
    app.router.add_post("/api/messages", messages)
    app.router.add_post(azure_devops_hooks.PATH, azure_devops)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_)
    return app


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BotError as error:
        status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), None)
        if status is None:
            logger.exception("%s %s failed", request.method, request.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        else:
            logger.warning("%s %s: %d, %s", request.method, request.path, status, error)
        return web.json_response({"error": {"code": status.phrase, "message": str(error)}}, status=status)
