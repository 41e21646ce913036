"""A small Azure DevOps that the azure-devops client library can talk to, with switches to break it at the wire.

`azure_routes` has what it answers, `runs` what it knows.
"""

import base64
import hmac
import json
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from bot.demo import azure_documents
from bot.demo.azure_approvals import Approvals
from bot.demo.azure_documents import Documents
from bot.demo.azure_hooks import ServiceHooks
from bot.demo.azure_routes import Refusal, Routes
from bot.demo.runs import Agent, Definition, NotPossible, Runs

Failure = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what it was answered. Bodies are decoded JSON, text, or None when there was none."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    status: int
    answer: Any


async def close_before(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A failure: the connection breaks and nothing was done."""
    return _close(request)


async def close_after(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A failure: what was asked is done, but the connection breaks before the caller learns of it."""
    await handler(request)
    return _close(request)


def throttled(retry_after_s: int) -> Failure:
    """A failure: 429 with Retry-After."""

    async def fail(request: web.Request, handler: Handler) -> web.StreamResponse:
        message = "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource."
        response = _refuse(429, "RequestBlockedException", message)
        response.headers[hdrs.RETRY_AFTER] = str(retry_after_s)
        return response

    return fail


class AzureDevOps:
    """The server; an async context manager that listens on 127.0.0.1 while entered.

    `state` is the file that keeps runs over a restart, None keeps them in memory. `token` is the personal access
    token to ask for, None lets everybody in. `url` is the organization's address, known once entered. `requests` lists
    the method and path of every request, `on_exchange` is called after each that was answered for real, `runs` is what
    Azure knows, `hooks` tells those who subscribed, and `approvals` says who may answer what environments ask.
    """

    def __init__(
        self,
        *,
        agent: Agent,
        definitions: Mapping[int, Definition],
        state: Path | None = None,
        token: str | None = None,
        org: str = "contoso",
        port: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self.on_exchange: list[Callable[[Exchange], None]] = []
        self.runs = Runs(agent, definitions, state=state, now=now)
        documents = Documents(url="", definitions=definitions)
        self.hooks = ServiceHooks(documents, now)
        self.runs.on_change.append(self.hooks.run_changed)
        self.approvals = Approvals(documents, self.runs)
        self._definitions, self._token, self._org, self._port = definitions, token, org, port
        self._failures: list[_PlannedFailure] = []

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/{self._org}"
        app = web.Application(middlewares=[self._meet])
        documents = self.hooks.documents = self.approvals.documents = Documents(
            url=self.url, definitions=self._definitions
        )
        app.add_routes(Routes(documents, self.runs).table())
        app.add_routes(self.hooks.table())
        app.add_routes(self.approvals.table())
        # A request that hangs on purpose must not hold up the end.
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self.runs.start()
        await web.SockSite(self._runner, listener).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.runs.stop()
        await self.hooks.stop()
        await self._runner.cleanup()

    def fail_next(self, method: str, path: str, how: int | Failure, times: int = 1) -> None:
        """Break the next `times` requests whose path has a match of the pattern, by a status to answer or a Failure."""
        self._failures.append(_PlannedFailure(method, re.compile(path), how, times))

    @web.middleware
    async def _meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.method, request.path))

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, handler)

        planned = next((failure for failure in self._failures if failure.meets(request)), None)
        if planned is None:
            return await answer(request)
        planned.times -= 1
        if isinstance(planned.how, int):
            return _refuse(planned.how, "VssServiceException", "The service is unavailable.")
        return await planned.how(request, answer)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # A browser that follows a link to a run has no token of the bot's.
        if self._token is not None and "/_apis" in request.path and not _is_token(request, self._token):
            return web.Response(status=401, headers={hdrs.WWW_AUTHENTICATE: 'Basic realm="Azure DevOps"'})
        try:
            self._admit(request)
            response = await handler(request)
        except Refusal as refusal:
            response = _refuse(refusal.status, refusal.type_key, str(refusal))
        except NotPossible as error:
            response = _refuse(400, "BuildStatusInvalidChangeException", str(error))
        except web.HTTPException as error:
            response = _refuse(error.status, "VssResourceNotFoundException", error.reason)
        exchange = await _exchange(request, response)
        for callback in self.on_exchange:
            callback(exchange)
        return response

    def _admit(self, request: web.Request) -> None:
        org = request.match_info.get("org", "")
        if org.lower() != self._org.lower():
            raise Refusal(404, "HostDoesNotExistException", f"The organization {org} does not exist.")
        # https://learn.microsoft.com/azure/devops/integrate/concepts/rest-api-versioning
        if request.method in ("POST", "PUT", "PATCH") and "api-version=" not in request.headers.get(hdrs.ACCEPT, ""):
            raise Refusal(400, "VssVersionNotSpecifiedException", "No api-version was supplied for the request.")


@dataclass(slots=True)
class _PlannedFailure:
    method: str
    path: re.Pattern[str]
    how: int | Failure
    times: int

    def meets(self, request: web.Request) -> bool:
        return self.times > 0 and self.method == request.method and bool(self.path.search(request.path))


def _refuse(status: int, type_key: str, message: str) -> web.Response:
    return web.json_response(azure_documents.error(message, type_key), status=status)


def _close(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


def _is_token(request: web.Request, token: str) -> bool:
    expected = b"Basic " + base64.b64encode(f":{token}".encode())
    return hmac.compare_digest(request.headers.get(hdrs.AUTHORIZATION, "").encode(), expected)


async def _exchange(request: web.Request, response: web.StreamResponse) -> Exchange:
    text = response.text if isinstance(response, web.Response) else None
    return Exchange(
        method=request.method,
        path=request.path,
        query=dict(request.query),
        body=_decoded(await request.text()),
        status=response.status,
        answer=_decoded(text) if response.content_type == "application/json" else text,
    )


def _decoded(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text
