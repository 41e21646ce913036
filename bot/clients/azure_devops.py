"""How the azure-devops client library is used: in threads, with our limits, errors and credentials.

The library blocks, so every call runs in a thread.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential
from msrest.authentication import Authentication, BasicAuthentication
from msrest.exceptions import AuthenticationError, ClientException, ClientRequestError
from msrest.serialization import DeserializationError  # type: ignore[attr-defined]

from bot.clients.http import status_words
from bot.errors import NotFound, PeerError, PeerRefused, PeerUnavailable

TIMEOUT_S = (5, 20)  # to connect, to read
THREADS = 4
SCOPE = "499b84ac-1321-427f-aa17-267ca6975798/.default"  # Azure DevOps itself, the same in every tenant

Result = TypeVar("Result")


class Organization:
    """One organization, and the threads in which it is asked.

    With an empty token it signs in with azure-identity: managed or workload identity, or the developer's own login.
    Nothing of the library may be imported before the first of these was made.
    """

    def __init__(self, url: str, token: str) -> None:
        _cache_folder()
        self._url = url
        self._credentials = BasicAuthentication("", token) if token else _Entra()
        self._threads = ThreadPoolExecutor(THREADS, "azure-devops")  # each has its own connections

    def client(self, kind: Callable[..., Any]) -> Any:
        """A client of the library, made patient.

        Not through the library's Connection: it would first ask with limits of its own where the service is, which is
        at the organization's address. https://learn.microsoft.com/rest/api/azure/devops/build/builds/list
        """
        return _patient(kind(self._url, self._credentials))

    async def call(self, work: Callable[[], Result]) -> Result:
        """Run calls of the library in a thread. Raises PeerError."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _do, work)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _do(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except (ClientException, AzureError, ValueError) as error:
        raise _error(error) from error


@cache
def _cache_folder() -> None:
    """A folder of this process for what the library learns about a URL: it would write it below the home directory and
    believe it for twelve hours. It looks for the folder once, when it is imported.
    """
    folder = tempfile.mkdtemp(prefix="shipshape-azure-devops-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["AZURE_DEVOPS_CACHE_DIR"] = folder


class _Entra(Authentication):
    """Signs every request with a token that azure-identity keeps fresh."""

    def __init__(self) -> None:
        self._credential = DefaultAzureCredential()

    def signed_session(self, session: Any = None) -> Any:
        session = super().signed_session(session)
        session.headers["Authorization"] = f"Bearer {self._credential.get_token(SCOPE).token}"
        return session


def _patient(client: Any) -> Any:
    """Our limits instead of 100 s and three repeats, which only this object can be told."""
    client.config.connection.timeout = TIMEOUT_S
    client.config.retry_policy.retries = 0
    client.config.retry_policy.policy.status_forcelist = ()  # or an answer of 5xx would be hidden from the hook
    client.config.hooks.append(_take)
    return client


def _take(answer: Any, **_: Any) -> None:
    """A hook of the library for every answer: it hides the status of those that ask to come again.

    It also leaves the answer to some updates unread, and with it a connection open. Raises PeerUnavailable.
    """
    _ = answer.content
    if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.status_code >= 500:
        pause = answer.headers.get("Retry-After", "")
        reason = f"Azure DevOps answered {status_words(answer.status_code)}"
        raise PeerUnavailable(reason, retry_after_s=float(pause) if pause.isdecimal() else None)


def _error(error: Exception) -> PeerError:
    """What a failure of the library means for us."""
    if isinstance(error, AuthenticationError):
        return PeerRefused("Azure DevOps refuses the token")
    if isinstance(error, AzureError):
        return PeerUnavailable("nobody gave us a token for Azure DevOps")
    if isinstance(error, DeserializationError):
        return PeerUnavailable("Azure DevOps answered nonsense, as it does to a token that has expired")
    kind = getattr(error, "type_key", None)  # of the errors that the service explains itself
    if kind is None and isinstance(error, ClientRequestError):
        return PeerUnavailable("Azure DevOps cannot be reached, or fails")
    text = f"Azure DevOps says: {str(error)[:300].rstrip('.')}"
    return NotFound(text) if "NotFound" in str(kind) or "DoesNotExist" in str(kind) else PeerRefused(text)
