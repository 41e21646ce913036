"""The way in: a proven activity becomes a turn of the Bot Framework SDK, without the SDK's slow and blocking parts.

`CloudAdapter.process` of botbuilder 4.17 answers 500 to every card action, so our own route calls `process_activity`.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from botbuilder.core import ActivityHandler, InvokeResponse
from botbuilder.core.cloud_adapter_base import CloudAdapterBase
from botbuilder.schema import Activity
from botframework.connector.auth import ClaimsIdentity, ConnectorFactory
from botframework.connector.auth.authenticate_request_result import AuthenticateRequestResult
from botframework.connector.auth.bot_framework_authentication import BotFrameworkAuthentication

from bot.errors import Forbidden, Malformed
from bot.teams.connector import Connector, Connectors
from bot.teams.tokens import SCOPE, InboundTokens


class _Authentication(BotFrameworkAuthentication):  # type: ignore[misc]
    """We authenticate before the SDK sees the activity; it asks for a user token client all the same."""

    async def authenticate_request(self, activity: Activity, auth_header: str) -> AuthenticateRequestResult:
        raise NotImplementedError

    async def authenticate_streaming_request(self, auth_header: str, channel_id_header: str) -> Any:
        raise NotImplementedError

    def create_connector_factory(self, claims_identity: ClaimsIdentity) -> ConnectorFactory:
        raise NotImplementedError

    async def create_user_token_client(self, claims_identity: ClaimsIdentity) -> None:
        return None


class _Factory(ConnectorFactory):  # type: ignore[misc]
    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def create(self, service_url: str, audience: str) -> Connector:
        return self._connector


class Adapter:
    """Checks what arrives at `/api/messages` and runs the turn.

    `tokens` is None for an anonymous bot, `tenants` is empty when any tenant may talk to it.
    """

    def __init__(
        self, tokens: InboundTokens | None, connectors: Connectors, tenants: Collection[str], handler: ActivityHandler
    ) -> None:
        self._tokens = tokens
        self._connectors = connectors
        self._tenants = tenants
        self._handler = handler
        self._sdk = CloudAdapterBase(_Authentication())
        self._sdk.on_turn_error = None

    async def process(self, body: bytes, authorization: str) -> InvokeResponse | None:
        """Run one activity's turn. Raises Malformed, Unauthenticated, Forbidden, PeerUnavailable."""
        payload = _parse(body)
        claims = await self._tokens.verify(authorization, payload) if self._tokens else {}
        self._check_tenant(payload)
        result = AuthenticateRequestResult()
        result.claims_identity = ClaimsIdentity(claims, True)
        result.audience = SCOPE
        result.connector_factory = _Factory(self._connectors.at(str(payload["serviceUrl"])))
        return await self._sdk.process_activity(result, _activity(payload), self._handler.on_turn)

    def _check_tenant(self, payload: Mapping[str, Any]) -> None:
        tenant = tenant_of(payload.get("channelData"), payload["conversation"])
        if self._tenants and tenant not in self._tenants:
            raise Forbidden("this tenant may not talk to the bot")


def tenant_of(channel_data: Any, conversation: Mapping[str, Any]) -> str:
    """The tenant an activity comes from. The SDK's model drops `conversation.tenantId`, so the raw values are read."""
    tenant = channel_data.get("tenant") if isinstance(channel_data, dict) else None
    from_channel = tenant.get("id") if isinstance(tenant, dict) else None
    return str(from_channel or conversation.get("tenantId") or "")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    if not isinstance(payload, dict):
        raise Malformed("the body is not an activity")
    for key in ("type", "serviceUrl", "channelId"):
        if not isinstance(payload.get(key), str):
            raise Malformed(f"the activity's {key} is missing or is not text")
    for key in ("conversation", "from", "recipient"):
        if not isinstance(payload.get(key), dict) or not isinstance(payload[key].get("id"), str):
            raise Malformed(f"the activity's {key} is missing or has no id")
    return payload


def _activity(payload: dict[str, Any]) -> Activity:
    try:
        return Activity().deserialize(payload)
    except Exception as error:  # msrest raises whatever the wrong type led to
        raise Malformed(f"the activity cannot be read: {error.__class__.__name__}") from error
