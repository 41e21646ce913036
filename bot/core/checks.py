"""The result of a check: what each image was built from, and what its base is now."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from bot.core.base_news import BaseNews
from bot.core.images import Digest
from bot.core.support import Support


class Status(StrEnum):
    """What a check found out about an image."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"
    UNBUILT = "unbuilt"


class Evidence(StrEnum):
    """Where the recorded base digest came from."""

    LABEL = "label"
    ANNOTATION = "annotation"
    LAYERS = "layers"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """When a base was first seen with its present digest, and last with another one; None when it never was."""

    first_seen: datetime
    other_last_seen: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check says about one image, and why.

    The base moved to `current_digest` after `moved_after` (when a check last saw another digest; None when none
    ever did) and not later than `first_seen`.
    `tags` are all those of the newest version in ECR.
    `rebuild_id` is the rebuild this finding led to or met, None when there is none.
    `unknown_since` is when the image could not be checked for the first time; it stays on what is found afterwards
    until that is told. `outage_told` is whether those who are told about the image know of it.
    `news` is why the base moved, `support` until when it is supported; None when not known.
    """

    name: str
    status: Status
    reason: str
    base: str
    recorded_digest: Digest | None = None
    current_digest: Digest | None = None
    evidence: Evidence = Evidence.NONE
    version_tag: str | None = None
    in_use_tag: str | None = None  # the newest version that a floating tag points to, None when not known
    pushed_at: datetime | None = None
    size: int | None = None
    tags: tuple[str, ...] = ()
    first_seen: datetime | None = None
    moved_after: datetime | None = None
    rebuild_id: str | None = None
    news: BaseNews | None = None
    support: Support | None = None
    unknown_since: datetime | None = None
    outage_told: bool = False

    @property
    def why(self) -> str:
        """The reason with the evidence it rests on: `the base moved for linux/amd64 (label)`."""
        return self.reason if self.evidence is Evidence.NONE else f"{self.reason} ({self.evidence})"

    def after(self, before: "Verdict | None", now: datetime) -> "Verdict":
        """The same finding with what the one before it knew of an outage."""
        since = before.unknown_since if before else None
        told = before is not None and before.outage_told
        if self.status is Status.UNKNOWN:
            return replace(self, unknown_since=since or now, outage_told=told)
        return replace(self, unknown_since=since, outage_told=True) if told else self

    @property
    def is_news(self) -> bool:
        """Whether an outage began or ended that nobody was told about."""
        return self.unknown_since is not None and self.outage_told is not (self.status is Status.UNKNOWN)

    def once_told(self) -> "Verdict":
        """What is remembered of it after it was told."""
        if self.status is Status.UNKNOWN:
            return replace(self, outage_told=True)
        return replace(self, unknown_since=None, outage_told=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How many HTTP requests a check cost."""

    registry: int = 0
    ecr: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of several images. `slot` is the scheduled time it stands for, None when a person asked.

    `conversation_id` is where that was. `failed_since` is when the checks before this one began to fail.
    `partial` is a scheduled one of only those images whose own schedule it was.
    `revision` grows when the check or one of its rebuilds changes state, so that its card follows.
    """

    id: int = 0
    checked_at: datetime
    slot: datetime | None = None
    partial: bool = False
    verdicts: tuple[Verdict, ...] = ()
    requests: Requests = field(default_factory=Requests)
    problem: str = ""
    conversation_id: str | None = None
    failed_since: datetime | None = None
    revision: int = 1

    def count(self, status: Status) -> int:
        return sum(verdict.status is status for verdict in self.verdicts)
