"""Service hooks of Azure DevOps: events about runs, which become hints.

The body is believed in nothing but which run it is about. There is no signature; a password has to do.
https://learn.microsoft.com/azure/devops/service-hooks/events
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

from bot.core.hints import Hints, Outcome
from bot.errors import Forbidden, Malformed, Unauthenticated

PATH = "/api/hooks/azure-devops"
LONGEST_NUMBER = 64  # digits

Json = Mapping[str, Any]


class AzureDevOpsHooks:
    """Checks what arrives and hands it on. With an empty `secret` nothing is let in."""

    def __init__(self, hints: Hints, secret: str) -> None:
        self._hints = hints
        self._secret = secret

    def admit(self, authorization: str) -> None:
        """Basic authentication with any user name. Raises Forbidden, Unauthenticated."""
        if not self._secret:
            raise Forbidden("service hooks are switched off: SHIPSHAPE_HOOK_SECRET is not set")
        if not hmac.compare_digest(_password(authorization), self._secret.encode()):
            raise Unauthenticated("the password is wrong or missing")

    async def take(self, body: bytes) -> Outcome:
        """Hand on one event. Raises Malformed."""
        event = _event(body)
        run_of = EVENTS.get(event["eventType"])
        if run_of is None:
            return Outcome.IGNORED
        resource = event.get("resource")
        return await self._hints.take(_delivery(event), run_of(resource if isinstance(resource, dict) else {}))


def _password(authorization: str) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc7617#section-2"""
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return decoded.partition(b":")[2] if scheme.lower() == "basic" else b""


def _event(body: bytes) -> Json:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    if not isinstance(event, dict):
        raise Malformed("the body is not an event")
    for key in ("id", "eventType"):
        if not isinstance(event.get(key), str):
            raise Malformed(f"the event's {key} is missing or is not text")
    return event


def _delivery(event: Json) -> str:
    """Azure repeats a delivery under the same three ids; the first two alone may come from two subscriptions.

    As a hash, since ids may be of any length, and hold what no database takes.
    """
    ids = [event.get(key) for key in ("id", "subscriptionId", "notificationId")]
    told = json.dumps([each if isinstance(each, str | int) else None for each in ids])
    return f"azure-devops/{hashlib.sha256(told.encode()).hexdigest()}"


def _of_build(resource: Json) -> int | None:
    return _number(resource.get("id"))


def _of_run(resource: Json) -> int | None:
    return _number(_at(resource, "run", "id")) or _number(resource.get("runId"))


def _of_approval(resource: Json) -> int | None:
    """Microsoft's own samples name no run at all; what is seen to arrive names it as text, or as the owner."""
    return _number(_at(resource, "run", "id")) or _number(_at(resource, "approval", "pipeline", "owner", "id"))


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < LONGEST_NUMBER:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


EVENTS: dict[str, Callable[[Json], int | None]] = {
    "build.complete": _of_build,
    "ms.vss-pipelines.run-state-changed-event": _of_run,
    "ms.vss-pipelines.stage-state-changed-event": _of_run,
    "ms.vss-pipelines.job-state-changed-event": _of_run,
    "ms.vss-pipelinechecks-events.approval-pending": _of_approval,
    "ms.vss-pipelinechecks-events.approval-completed": _of_approval,
}
