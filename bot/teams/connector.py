"""The way out: posts and edits activities at the Bot Connector, over one pooled session.

https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-api-reference
The SDK's client is rebuilt for every turn, blocks a thread for each call and waits up to 100 s.
"""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from botbuilder.schema import Activity, ResourceResponse
from msrest.serialization import Model

from bot.core.hosts import is_loopback
from bot.errors import Denied, Forbidden, NotFound, PeerRefused, PeerUnavailable
from bot.teams.tokens import OutboundTokens

TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
PAGE = 500  # members; the most that Teams gives at once
# Teams asks to repeat these. https://learn.microsoft.com/microsoftteams/platform/bots/how-to/rate-limit
LATER = frozenset({408, 412, 429, 500, 502, 503, 504})
# https://learn.microsoft.com/microsoftteams/platform/bots/build-conversational-capability#status-codes-from-bot-conversational-apis
GONE = {
    "ConversationNotFound": "it no longer exists",
    "ConversationBlockedByUser": "the bot was blocked there",
    "BotNotInConversationRoster": "the bot was removed from it",
    "BotDisabledByAdmin": "an administrator disabled the bot",
}


class Connector:
    """The connector of one service URL. `conversations` is what the SDK's turn context calls."""

    def __init__(self, session: aiohttp.ClientSession, service_url: str, tokens: OutboundTokens) -> None:
        self._session = session
        self._url = service_url.rstrip("/")
        self._tokens = tokens
        self.conversations = self

    async def send_to_conversation(self, conversation_id: str, activity: Activity) -> ResourceResponse:
        """Post a new activity. Raises PeerUnavailable, PeerRefused, Denied; NotFound when the conversation is gone."""
        return await self._send("POST", f"/v3/conversations/{quote(conversation_id, safe='')}/activities", activity)

    async def reply_to_activity(self, conversation_id: str, activity_id: str, activity: Activity) -> ResourceResponse:
        """Post an activity as a reply. Raises like `send_to_conversation`."""
        return await self._send("POST", self._path(conversation_id, activity_id), activity)

    async def update_activity(self, conversation_id: str, activity_id: str, activity: Activity) -> ResourceResponse:
        """Replace an activity that was posted. Raises NotFound when it is no longer there."""
        return await self._send("PUT", self._path(conversation_id, activity_id), activity)

    async def member(self, conversation_id: str, member_id: str) -> Mapping[str, Any]:
        """A member's account, with `userPrincipalName` and `aadObjectId`. Raises like `send_to_conversation`."""
        path = f"/v3/conversations/{quote(conversation_id, safe='')}/members/{quote(member_id, safe='')}"
        answer = await self._request("GET", path, None)
        return answer if isinstance(answer, dict) else {}

    async def members(self, conversation_id: str, token: str = "") -> Mapping[str, Any]:
        """A page of members, and a `continuationToken` when there are more. Raises like `send_to_conversation`.

        https://learn.microsoft.com/microsoftteams/platform/bots/how-to/get-teams-context#fetch-the-roster-or-user-profile
        """
        page = f"?pageSize={PAGE}" + (f"&continuationToken={quote(token, safe='')}" if token else "")
        path = f"/v3/conversations/{quote(conversation_id, safe='')}/pagedmembers{page}"
        answer = await self._request("GET", path, None)
        return answer if isinstance(answer, dict) else {}

    def _path(self, conversation_id: str, activity_id: str) -> str:
        return f"/v3/conversations/{quote(conversation_id, safe='')}/activities/{quote(activity_id, safe='')}"

    async def _send(self, method: str, path: str, activity: Activity) -> ResourceResponse:
        answer = await self._request(method, path, msgspec.json.encode(document(activity), enc_hook=str))
        return ResourceResponse(id=str(answer.get("id", "")) if isinstance(answer, dict) else "")

    async def _request(self, method: str, path: str, body: bytes | None) -> Any:
        token = await self._tokens.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            headers["Content-Type"] = "application/json; charset=utf-8"
        try:
            async with self._session.request(
                method, self._url + path, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                if response.status >= 300:
                    raise await _error(response)
                return await response.json(content_type=None) if response.content_length != 0 else None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise PeerUnavailable(f"Teams cannot be reached: {error.__class__.__name__}") from error


class Connectors:
    """One connector per service URL, for hosts on the list: our token is not sent anywhere else."""

    def __init__(self, session: aiohttp.ClientSession, tokens: OutboundTokens, allowed_hosts: Collection[str]) -> None:
        self._session = session
        self._tokens = tokens
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._open: dict[str, Connector] = {}

    def at(self, service_url: str) -> Connector:
        """Raises Forbidden for a host that is not allowed, or without https off loopback."""
        if service_url not in self._open:
            parts = urlsplit(service_url)
            private = parts.scheme == "https" or is_loopback(parts.hostname)
            if not private or (parts.hostname or "").lower() not in self._allowed:
                raise Forbidden("the service URL is not one this bot may talk to")
            self._open[service_url] = Connector(self._session, service_url, self._tokens)
        return self._open[service_url]


def document(model: Any) -> Any:
    """What a model of the SDK, or anything within one, is as JSON.

    The SDK's own serializer takes about as long for one activity as all the rest of a turn.
    """
    if isinstance(model, Model):
        attributes = ((info["key"], getattr(model, name)) for name, info in model._attribute_map.items())
        return {key: document(value) for key, value in attributes if value is not None}
    if isinstance(model, list):
        return [document(item) for item in model]
    return model


async def _error(response: aiohttp.ClientResponse) -> Exception:
    """What a refusal means: the connector answers `{"error": {"code", "message"}}`, proxies answer anything."""
    try:
        code = str((await response.json(content_type=None))["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = ""
    words = f"Teams answered {response.status}{f' ({code})' if code else ''}"
    if response.status in LATER:
        after = response.headers.get("Retry-After", "")
        return PeerUnavailable(words, retry_after_s=float(after) if after.isdecimal() else None)
    if response.status == HTTPStatus.UNAUTHORIZED:
        return PeerUnavailable(words)  # a token that was just revoked or a clock that is off: both pass
    if code in GONE:
        return NotFound(f"{GONE[code]} ({words})", code=code)
    if response.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return NotFound(words, code=code)
    return Denied(words) if response.status == HTTPStatus.FORBIDDEN else PeerRefused(words)
