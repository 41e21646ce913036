"""Asking over HTTP with manners: few requests at once, limits of time and size, few repeats, plain reasons."""

import asyncio
import os
import random
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
from multidict import CIMultiDictProxy
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from yarl import URL

from bot.clients.documents import nonsense
from bot.errors import PeerRefused, PeerUnavailable

SHORTEST_PAUSE_S = 0.5

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How patient we are with a peer. `longest_pause_s` is the longest Retry-After that is worth waiting for."""

    connect_s: float = 5
    total_s: float = 20
    per_host: int = 16
    tries: int = 3
    longest_pause_s: float = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a peer answered. Never 429 or 5xx: those are errors."""

    status: int
    headers: CIMultiDictProxy[str]
    content: bytes


def open_session(limits: Limits) -> aiohttp.ClientSession:
    """A session for the clients of this package, to be closed by whoever opens it."""
    connector = aiohttp.TCPConnector(limit_per_host=limits.per_host)
    headers = {"User-Agent": "shipshape"}
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers)


def status_words(status: int) -> str:
    """A status as people see it: `429 (too many requests)`."""
    try:
        return f"{status} ({HTTPStatus(status).phrase.lower()})"
    except ValueError:
        return str(status)


class HttpClient:
    """GET and HEAD, repeated while a peer is overloaded or breaks off. Calls `on_request` for each request sent."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        on_request: Callable[[], None],
        *,
        limits: Limits,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._session, self._on_request, self._limits, self._sleep = session, on_request, limits, sleep
        self._timeout = aiohttp.ClientTimeout(total=limits.total_s, sock_connect=limits.connect_s)
        self._in_flight: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(limits.per_host))

    async def ask(self, method: str, url: URL, *, peer: str, limit: int, headers: Mapping[str, str]) -> Answer:
        """One answer of at most `limit` bytes. `peer` is its name in errors, which never show the URL.

        Redirects are followed; Authorization is not sent to another host.
        Raises PeerUnavailable, and PeerRefused for a certificate that is not trusted.
        """
        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(self._limits.tries),
            wait=self._pause,
            retry=retry_if_exception(self._worth_repeating),
            reraise=True,
        )
        answer: Answer = await retrying(self._attempt, method, url, peer, limit, headers)
        if len(answer.content) > limit:
            raise nonsense(peer, f"more than {limit} bytes")
        return answer

    async def _attempt(self, method: str, url: URL, peer: str, limit: int, headers: Mapping[str, str]) -> Answer:
        async with self._in_flight[url.authority]:
            self._on_request()
            try:
                async with self._session.request(method, url, headers=headers, timeout=self._timeout) as response:
                    for _ in response.history:
                        self._on_request()
                    content = await _read(response, limit + 1)
            except (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch):
                raise PeerRefused(f"{peer} has a certificate that is not trusted") from None
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PeerUnavailable(f"{peer} {self._reason(error)}") from None
        if response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= 500:
            reason = f"{peer} answered {status_words(response.status)}"
            raise PeerUnavailable(reason, retry_after_s=_retry_after_s(response.headers))
        return Answer(status=response.status, headers=response.headers, content=content)

    def _worth_repeating(self, error: BaseException) -> bool:
        if not isinstance(error, PeerUnavailable):
            return False
        return error.retry_after_s is None or error.retry_after_s <= self._limits.longest_pause_s

    def _pause(self, state: RetryCallState) -> float:
        """What the peer asked for, else decorrelated jitter.

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, PeerUnavailable) and error.retry_after_s is not None:
            return error.retry_after_s
        longest = 3 * max(SHORTEST_PAUSE_S, state.idle_for)
        pause = random.uniform(SHORTEST_PAUSE_S, longest)  # noqa: S311 -- spreads load, guards nothing
        return min(self._limits.longest_pause_s, pause)

    def _reason(self, error: aiohttp.ClientError | TimeoutError) -> str:
        match error:
            case aiohttp.ConnectionTimeoutError():
                return f"could not be reached within {self._limits.connect_s:g} s"
            case TimeoutError():
                return f"did not answer within {self._limits.total_s:g} s"
            case aiohttp.ClientConnectorDNSError():
                return f"could not be reached (no address for {error.host})"
            case aiohttp.ClientConnectorError():
                why = f" ({os.strerror(error.errno).lower()})" if error.errno else ""
                return f"could not be reached at {error.host}:{error.port}{why}"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | aiohttp.ClientPayloadError():
                return "broke off its answer"
        return f"answered nonsense ({type(error).__name__})"


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, cut off at `limit` bytes."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(2**16):
        content += chunk
        if len(content) >= limit:
            break
    return bytes(content[:limit])


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds from now; None when absent or unreadable.

    A date is compared with the peer's own Date, so that our clock does not matter. https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        then, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
