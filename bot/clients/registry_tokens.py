"""Anonymous pull tokens, which some registries want even for public images.

https://distribution.github.io/distribution/spec/auth/token/
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from yarl import URL

from bot.clients.documents import nonsense
from bot.clients.http import HttpClient, status_words
from bot.clients.shared import Shared
from bot.core.hosts import is_loopback
from bot.errors import PeerRefused

LIFETIME_S = 60  # of a token that does not say, as the specification has it
ANSWER_LIMIT = 2**16  # bytes

_HeaderText = Annotated[str, Field(pattern=r"^[\x21-\x7e]+$")]


class _Answer(BaseModel):
    token: _HeaderText | None = None
    access_token: _HeaderText | None = None
    expires_in: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """`expires_at` is on the clock that `RegistryTokens` was given."""

    value: str
    expires_at: float


class RegistryTokens:
    """One token for each repository, kept until it expires. `now` is a clock in seconds that never steps back."""

    def __init__(self, http: HttpClient, now: Callable[[], float]) -> None:
        self._http, self._now = http, now
        self._tokens: dict[str, Token] = {}
        self._renewals = Shared[str, Token]()

    def get(self, repository: str) -> Token | None:
        """The token of a repository (host and name), None when there is none or it has expired."""
        token = self._tokens.get(repository)
        return token if token and token.expires_at > self._now() else None

    async def renew(
        self, repository: str, used: Token | None, challenges: Iterable[str], *, peer: str, registry: URL
    ) -> Token:
        """A token instead of the `used` one that was answered with 401 and these WWW-Authenticate headers.

        Raises PeerRefused when the registry wants more than an anonymous caller has, and PeerUnavailable.
        """
        known = self.get(repository)
        if known and known != used:
            return known  # another request was faster
        url = _token_url(challenges, peer, registry)
        return await self._renewals.get(repository, lambda: self._fetch(repository, url, peer))

    async def _fetch(self, repository: str, url: URL, peer: str) -> Token:
        answer = await self._http.ask("GET", url, peer=f"the token service of {peer}", limit=ANSWER_LIMIT, headers={})
        if answer.status != 200:
            raise PeerRefused(f"{peer} gave no token for {repository}: {status_words(answer.status)}")
        token = self._tokens[repository] = self._read(answer.content, peer)
        return token

    def _read(self, content: bytes, peer: str) -> Token:
        try:
            answer = _Answer.model_validate_json(content)
        except ValidationError:
            raise nonsense(f"the token service of {peer}", "not a token") from None
        value = answer.token or answer.access_token
        if value is None:
            raise nonsense(f"the token service of {peer}", "no token")
        return Token(value=value, expires_at=self._now() + (answer.expires_in or LIFETIME_S))


def _token_url(challenges: Iterable[str], peer: str, registry: URL) -> URL:
    bearer = next((match[1] for text in challenges if (match := re.search(r"(?i)\bbearer\s+(.+)", text))), "")
    parameters = {name.lower(): quoted for name, quoted in re.findall(r'(\w+)="([^"]*)"', bearer)}
    if "realm" not in parameters:
        raise PeerRefused(f"{peer} asks for a password; only registries that anybody may read can be used")
    try:
        url = URL(parameters["realm"])
    except ValueError:
        raise nonsense(peer, "a token service without an address") from None
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(registry.host)):
        raise PeerRefused(f"{peer} wants its token fetched without TLS")
    return url.update_query({name: parameters[name] for name in ("service", "scope") if name in parameters})
