"""Tokens of the Bot Framework: proving who sends us activities, and proving ourselves to the connector.

https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-authentication
The SDK's own checks fetch keys without a time limit on the event loop and answer 500 to most bad tokens.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import aiohttp
import jwt
from azure.core.exceptions import ClientAuthenticationError
from azure.identity.aio import ManagedIdentityCredential

from bot.core.ports import Clock
from bot.errors import PeerRefused, PeerUnavailable, Unauthenticated

logger = logging.getLogger(__name__)

LEEWAY_S = 300
KEYS_LIVE = timedelta(hours=24)
KEYS_AT_MOST_EVERY = timedelta(minutes=1)  # an unknown key id may not make us ask all the time
SCOPE = "https://api.botframework.com"
TIMEOUT = aiohttp.ClientTimeout(total=10)


class InboundTokens:
    """Checks the signature, issuer, audience, life time, service URL and endorsement of a token."""

    def __init__(
        self, session: aiohttp.ClientSession, *, app_id: str, metadata_url: str, issuer: str, clock: Clock
    ) -> None:
        self._session = session
        self._app_id = app_id
        self._metadata_url = metadata_url
        self._issuer = issuer
        self._clock = clock
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._fetched_at: datetime | None = None
        self._fetching = asyncio.Lock()

    async def verify(self, authorization: str, activity: Mapping[str, Any]) -> dict[str, Any]:
        """The claims of a token that was made for this activity.

        Raises Unauthenticated when it was not, PeerUnavailable when the signing keys cannot be had.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("a bearer token is needed")
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            key = await self._key(str(key_id))
            claims = self._signed_claims(token, key)
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}") from None
        self._in_time(claims)
        if claims.get("serviceurl", claims.get("serviceUrl")) != activity.get("serviceUrl"):
            raise Unauthenticated("the token is for another service URL")
        endorsements = key.get("endorsements")
        if endorsements is not None and activity.get("channelId") not in endorsements:
            raise Unauthenticated("the signing key is not endorsed for this channel")
        return claims

    def _signed_claims(self, token: str, key: Mapping[str, Any]) -> dict[str, Any]:
        """What the key signed for this bot; times are checked by `_in_time`. Raises PyJWTError."""
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK(dict(key)).key,
            algorithms=["RS256"],
            audience=self._app_id,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={
                "require": ["exp", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        return claims

    def _in_time(self, claims: Mapping[str, Any]) -> None:
        """By the clock that was passed in, which the library cannot take."""
        now = self._clock.now().timestamp()
        try:
            expired, early = now > float(claims["exp"]) + LEEWAY_S, now < float(claims.get("nbf", now)) - LEEWAY_S
        except (TypeError, ValueError):
            raise Unauthenticated("the token's times are not numbers") from None
        if expired or early:
            raise Unauthenticated("the token has expired" if expired else "the token is not valid yet")

    async def _key(self, key_id: str) -> Mapping[str, Any]:
        async with self._fetching:
            age = self._clock.now() - self._fetched_at if self._fetched_at else KEYS_LIVE
            if age >= KEYS_LIVE or (key_id not in self._keys and age >= KEYS_AT_MOST_EVERY):
                await self._fetch()
        if key_id not in self._keys:
            raise Unauthenticated("the token is signed with a key nobody published")
        return self._keys[key_id]

    async def _fetch(self) -> None:
        try:
            metadata = await self._get(self._metadata_url)
            keys = await self._get(str(metadata["jwks_uri"]))
            self._keys = {str(key["kid"]): key for key in keys["keys"]}
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
            if not self._keys:
                raise PeerUnavailable(f"the Bot Framework's signing keys cannot be read: {error!r}") from error
            logger.warning("the signing keys cannot be renewed, the old ones stay: %r", error)
        self._fetched_at = self._clock.now()

    async def _get(self, url: str) -> Any:
        async with self._session.get(url, timeout=TIMEOUT, raise_for_status=True) as response:
            return await response.json(content_type=None)


class OutboundTokens(Protocol):
    """Where the bot's own token comes from."""

    async def token(self) -> str | None:
        """A token for the connector, None when the bot is anonymous. Raises PeerUnavailable, PeerRefused."""

    async def close(self) -> None: ...


class NoTokens:
    """For an anonymous bot on loopback."""

    async def token(self) -> None:
        return None

    async def close(self) -> None:
        pass


class ClientCredentials:
    """The client credentials grant of Entra, cached until five minutes before the token ends.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        login_url: str,
        tenant_id: str,
        app_id: str,
        password: str,
        clock: Clock,
    ) -> None:
        self._session = session
        self._url = f"{login_url}/{tenant_id}/oauth2/v2.0/token"
        self._form = {
            "grant_type": "client_credentials",
            "client_id": app_id,
            "client_secret": password,
            "scope": f"{SCOPE}/.default",
        }
        self._clock = clock
        self._token = ""
        self._renew_at: datetime | None = None
        self._asking = asyncio.Lock()

    async def token(self) -> str:
        async with self._asking:
            if self._renew_at is None or self._clock.now() >= self._renew_at:
                await self._renew()
        return self._token

    async def _renew(self) -> None:
        try:
            async with self._session.post(self._url, data=self._form, timeout=TIMEOUT) as response:
                answer = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise PeerUnavailable(f"the login service cannot be reached: {error.__class__.__name__}") from error
        if status in (400, 401) and isinstance(answer, dict):
            raise PeerRefused(f"the login service refuses the bot's password: {answer.get('error', status)}")
        if status != 200 or not isinstance(answer, dict) or "access_token" not in answer:
            raise PeerUnavailable(f"the login service answered {status}")
        self._token = str(answer["access_token"])
        life = timedelta(seconds=float(answer.get("expires_in", 3600)))
        self._renew_at = self._clock.now() + max(life - timedelta(minutes=5), life / 2)

    async def close(self) -> None:
        pass


class ManagedIdentity:
    """The token of a user-assigned managed identity, through azure-identity, which caches it."""

    def __init__(self, app_id: str) -> None:
        self._credential = ManagedIdentityCredential(client_id=app_id)

    async def token(self) -> str:
        try:
            return str((await self._credential.get_token(f"{SCOPE}/.default")).token)
        except ClientAuthenticationError as error:
            raise PeerUnavailable("the managed identity gives no token") from error

    async def close(self) -> None:
        await self._credential.close()
