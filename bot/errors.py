"""Errors, ordered by what the caller can do about them.

BotError
├── ConfigError            stop; the operator mends the settings or the catalog (`problems`, one line each)
├── CommandError           answer the person; the message is shown as it is
│   └── Refused            answer the person privately; nothing happened
├── PeerError              one image, one run or one card is affected; the reason is shown, the rest goes on
│   ├── PeerUnavailable    try again later (`retry_after_s` when the peer said when)
│   └── PeerRefused        trying again will not help until somebody changes something
│       ├── Denied         the peer does not let us in
│       └── NotFound       the peer says that the thing does not exist
├── RequestError           what arrived over HTTP is not served
│   ├── Malformed          400
│   ├── Unauthenticated    401
│   └── Forbidden          403
└── Conflict               somebody else changed the row first; read again and decide again
"""

from collections.abc import Sequence


class BotError(Exception):
    """Base of all errors this package raises on purpose."""


class ConfigError(BotError):
    """Settings or catalog cannot be used. `problems` has one plain sentence per mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class CommandError(BotError):
    """A person asked for something that cannot be done; the text is the answer.

    `suggestion` is a command that probably was meant.
    """

    def __init__(self, message: str, *, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


class Refused(CommandError):
    """The person may not do this."""


class PeerError(BotError):
    """A registry, ECR, Azure DevOps or Teams did not do what was asked."""


class PeerUnavailable(PeerError):
    """Down, slow, rate limiting, or answering nonsense. `retry_after_s` is in seconds, None when not told."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PeerRefused(PeerError):
    """The peer understood and said no (denied, invalid, gone)."""


class Denied(PeerRefused):
    """The peer does not let us in."""


class NotFound(PeerRefused):
    """The peer says that it does not exist. `code` is the peer's own word for what, empty when it has none."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Conflict(BotError):
    """The row was changed by somebody else since it was read."""


class RequestError(BotError):
    """What arrived over HTTP is not served; the text may be shown to whoever sent it."""


class Malformed(RequestError):
    """It cannot be read."""


class Unauthenticated(RequestError):
    """It does not prove who sent it."""


class Forbidden(RequestError):
    """It proves who sent it, and they may not."""
