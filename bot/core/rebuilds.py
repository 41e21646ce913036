"""A rebuild: one row that moves from a question to a pushed image.

    awaiting_approval ─► approved ─► queued ─► running ─► verifying ─► succeeded

Every step but the last may end instead: a question is rejected, expires, is superseded or cancelled; an approved
rebuild is superseded or cancelled; a run fails or is cancelled; what it pushed fails to be verified. A failed rebuild
is running again when its failed stage is retried in the same run. A rollback has no run: it goes from approved straight
to verifying.
`TRANSITIONS` has it all, and the README draws it. Keep them in step.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.base_news import BaseNews
from bot.core.findings import Comparison, ScanState, Severity
from bot.core.images import ApprovalRules, Digest, Version
from bot.core.people import Person, Vote, is_same
from bot.core.runs import Stage, StageApproval, StageApprovalState, StageState
from bot.core.support import Support
from bot.core.windows import Windows

ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no letters that read like digits: people type these
ID_LENGTH = 8
FAILURES_THAT_BRAKE = 3
WINDOW_CLOSED = "waits for its maintenance window"
RETRY_LEASE = timedelta(minutes=2)  # for Azure to begin a run again; longer than any call may take


class State(StrEnum):
    """Where a rebuild stands."""

    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    QUEUED = "queued"
    RUNNING = "running"
    VERIFYING = "verifying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.AWAITING_APPROVAL: frozenset(
        {State.APPROVED, State.REJECTED, State.EXPIRED, State.SUPERSEDED, State.CANCELLED}
    ),
    State.APPROVED: frozenset({State.QUEUED, State.VERIFYING, State.CANCELLED, State.SUPERSEDED}),
    State.QUEUED: frozenset({State.RUNNING, State.VERIFYING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.VERIFYING, State.FAILED, State.CANCELLED}),
    State.VERIFYING: frozenset({State.SUCCEEDED, State.FAILED}),
    State.FAILED: frozenset({State.RUNNING}),
}
WITH_RUN = frozenset({State.QUEUED, State.RUNNING, State.VERIFYING})
OPEN = WITH_RUN | {State.AWAITING_APPROVAL, State.APPROVED}  # at most one rebuild per image is in one of these
ENDED = frozenset(State) - OPEN


class Cause(StrEnum):
    """Why a rebuild exists."""

    BASE_MOVED = "base_moved"
    FIRST_BUILD = "first_build"
    REQUESTED = "requested"
    PARENT = "parent"
    ROLLBACK = "rollback"  # no run: tags move in ECR, from approved straight to verifying


@dataclass(frozen=True, slots=True, kw_only=True)
class TagMove:
    """A tag in ECR that a rollback moves from one digest to another."""

    tag: str
    old: Digest
    new: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """One rebuild. Change it with `move` or `replace` and save it through the store, which checks `revision`."""

    id: str
    image: str
    state: State
    cause: Cause
    base: str
    old_digest: Digest | None = None
    new_digest: Digest | None = None
    news: BaseNews | None = None  # why the base moved, when it is known
    support: Support | None = None
    reason: str = ""
    check_id: int | None = None
    conversation_id: str | None = None  # where it was asked for, besides the subscribed channels
    requested_by: Person | None = None  # None: a check asked
    votes: tuple[Vote, ...] = ()
    expires_at: datetime | None = None
    reminded_at: datetime | None = None
    override: Vote | None = None  # who started it outside its window
    ended_by: Person | None = None
    ended_reason: str = ""
    successor: str | None = None  # the rebuild that took over when this one was superseded
    after: str | None = None  # the rebuild of the parent image that this one came with
    waits_for: str = ""  # the parent image, as long as that rebuild has not ended: what it pushes is the base
    offered: bool = False  # whether the images based on this one have been asked for
    found: str = ""  # what the check found, and by which evidence
    base_seen_at: datetime | None = None  # when the new base was seen first; None when there is none
    base_before_at: datetime | None = None  # when another one was seen last before
    version_tag: str | None = None
    run_id: int | None = None
    run_number: str = ""
    run_url: str = ""
    run_project: str = ""
    queue_attempts: int = 0
    next_attempt_at: datetime | None = None
    problem: str = ""
    stages: tuple[Stage, ...] = ()
    stage_approvals: tuple[StageApproval, ...] = ()
    log_tail: tuple[str, ...] = ()
    attempt: int = 1  # at the run; a retried stage begins the next one
    retried_by: tuple[Person, ...] = ()
    retry_until: datetime | None = None  # until then a run that looks as it ended before is about to begin again
    pushed_digest: Digest | None = None
    pushed_size: int | None = None
    previous_size: int | None = None
    previous_digest: Digest | None = None  # of the version it replaces
    comparison: Comparison | None = None  # with that version, as scans see both; None when nobody looks
    hold_back: Severity | None = None  # the catalog's when it was pushed
    previous_tag: str | None = None  # the version before this one; for a rollback the one that was in use
    target: Digest | None = None  # of a rollback: what `version_tag` was when it was asked for
    moves: tuple[TagMove, ...] = ()
    created_at: datetime
    approved_at: datetime | None = None
    queued_at: datetime | None = None
    run_finished_at: datetime | None = None
    ended_at: datetime | None = None
    revision: int = 1

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def version(self) -> str:
        """The version in its tag: `1.4.0` of `6.0-bullseye-slim-1.4.0`."""
        return version_in(self.version_tag)

    @property
    def is_rollback(self) -> bool:
        return self.cause is Cause.ROLLBACK

    @property
    def digests(self) -> tuple[Digest | None, Digest | None]:
        """From what to what: of its base, or for a rollback of the image itself."""
        if self.is_rollback:
            return (self.moves[0].old if self.moves else None), self.target
        return self.old_digest, self.new_digest

    @property
    def goes_on(self) -> bool:
        """Whether this rollback leads to a newer version than the one in use: the way back from a rollback."""
        old, new = Version.parse(version_in(self.previous_tag)), Version.parse(self.version)
        return bool(old and new and new > old)

    @property
    def people(self) -> tuple[Person, ...]:
        """Whoever asked, approved, started, retried or ended it, each once, in that order."""
        acts = (*self.votes, *([self.override] if self.override else []))
        everyone = [self.requested_by, *(vote.person for vote in acts), *self.retried_by, self.ended_by]
        return tuple({person.id: person for person in everyone if person}.values())

    @property
    def asks_about_base(self) -> bool:
        """Whether it is the question about one digest of the base, which can be put off."""
        about_base = self.new_digest is not None and self.cause is not Cause.REQUESTED
        return about_base and self.state is State.AWAITING_APPROVAL

    @property
    def waits_for_window(self) -> bool:
        """Whether it is approved and its window was closed at the last look; `next_attempt_at` is when that opens."""
        return self.state is State.APPROVED and self.problem == WINDOW_CLOSED

    @property
    def waiting_approval(self) -> StageApproval | None:
        """What Azure waits for before the run goes on, None when nothing; not while the run is being cancelled."""
        if self.state not in (State.QUEUED, State.RUNNING) or self.ended_by:
            return None
        return next((each for each in self.stage_approvals if each.state is StageApprovalState.PENDING), None)

    @property
    def waits_for_scan(self) -> bool:
        """Whether it is in ECR, and scans of it or of what it replaced have not finished."""
        pending = self.comparison is not None and self.comparison.state is ScanState.PENDING
        return self.state is State.SUCCEEDED and pending

    @property
    def held_back(self) -> str:
        """The vulnerabilities it brings that are too bad to tell people to use it, `1 critical`; empty without any."""
        return self.comparison.new.counted(self.hold_back) if self.comparison and self.hold_back else ""

    @property
    def failed_stage(self) -> Stage | None:
        """The first stage that failed."""
        return next((stage for stage in self.stages if stage.state is StageState.FAILED), None)

    def is_overdue(self, now: datetime) -> bool:
        """Whether nobody decided in time."""
        late = self.expires_at is not None and self.expires_at <= now
        return late and self.state is State.AWAITING_APPROVAL

    def move(self, to: State, now: datetime) -> "Rebuild":
        """The same rebuild in another state. Raises ValueError for a step the picture does not have."""
        if to not in TRANSITIONS.get(self.state, frozenset()):
            raise ValueError(f"a rebuild cannot go from {self.state} to {to}")
        moments = {State.APPROVED: "approved_at", State.QUEUED: "queued_at"}
        moment = moments.get(to) or ("ended_at" if to in ENDED else None)
        changed = replace(self, state=to, problem="", next_attempt_at=None)
        return replace(changed, **{moment: now}) if moment else changed  # type: ignore[arg-type]

    def retry(self, person: Person, now: datetime) -> "Rebuild":
        """The same rebuild with its run at work again. What the run is told stays: digest and version tag."""
        again = replace(self.move(State.RUNNING, now), attempt=self.attempt + 1, retry_until=now + RETRY_LEASE)
        return replace(
            again,
            queued_at=now,
            retried_by=(*self.retried_by, person),
            ended_at=None,
            ended_by=None,
            ended_reason="",
            log_tail=(),
        )


def until_open(rebuild: Rebuild, windows: Windows, now: datetime) -> Rebuild:
    """The same approved rebuild, waiting while its window is closed and nobody overrode that, else not waiting.

    A rollback mends something and never waits.
    """
    if rebuild.override is None and not rebuild.is_rollback and not windows.is_open(now):
        return replace(rebuild, problem=WINDOW_CLOSED, next_attempt_at=windows.next_open(now))
    return replace(rebuild, problem="", next_attempt_at=None) if rebuild.waits_for_window else rebuild


def version_in(tag: str | None) -> str:
    """`1.4.0` of `6.0-bullseye-slim-1.4.0`; empty without a tag."""
    return (tag or "").rpartition("-")[2]


def new_id() -> str:
    """An id that people can read aloud and type, and that the run's name carries."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def is_id(word: str) -> bool:
    """Whether a word may be the id of a rebuild."""
    return len(word) == ID_LENGTH and set(word) <= set(ID_ALPHABET)


def is_forgotten(rules: ApprovalRules, rebuild: Rebuild, now: datetime) -> bool:
    """Whether those who may decide are to be reminded of a question: once, when the catalog says."""
    waits = rebuild.state is State.AWAITING_APPROVAL and rebuild.reminded_at is None
    return waits and rules.remind is not None and now - rebuild.created_at >= rules.remind


def approval_counts(rules: ApprovalRules, rebuild: Rebuild, person: Person) -> str | None:
    """Why this approver's vote does not count, as a sentence; None when it does."""
    if any(is_same(vote.person, person) for vote in rebuild.votes):
        return "You have approved this already; another person has to."
    if not rules.self_approve and rebuild.requested_by and is_same(rebuild.requested_by, person):
        return "You asked for this, so somebody else has to approve it."
    return None


def braked(history: Iterable[Rebuild]) -> bool:
    """Whether the newest ended rebuilds (newest first) are failures in a row; a cancelled one does not count."""
    outcomes = [r.state for r in history if r.state in (State.SUCCEEDED, State.FAILED) and not r.is_rollback]
    newest = outcomes[:FAILURES_THAT_BRAKE]
    return len(newest) == FAILURES_THAT_BRAKE and set(newest) == {State.FAILED}


def retry_delay(attempts: int, retry_after_s: float | None) -> timedelta:
    """How long to wait before queueing again: what the peer asked for up to an hour, else 10 s doubling to 5 min."""
    if retry_after_s is not None:
        return timedelta(seconds=min(retry_after_s, 3600))
    return timedelta(seconds=min(10 * 2 ** (attempts - 1), 300))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that was done or refused. `actor` is None for the bot itself."""

    at: datetime
    actor: Person | None
    action: str
    image: str = ""
    rebuild_id: str = ""
    old_state: str = ""
    new_state: str = ""
    old_digest: str = ""
    new_digest: str = ""
    comment: str = ""
    extra: dict[str, str] = field(default_factory=dict)
