"""The words, marks and colours of rebuilds, the same on every card."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from microsoft_teams.cards.core import CardElement, RichTextBlock, TextBlock, TextColor, TextRun

from bot.core.base_news import is_security_release
from bot.core.checks import Status, Verdict
from bot.core.images import Digest, PlatformImage
from bot.core.people import Person
from bot.core.rebuilds import ENDED, WINDOW_CLOSED, Cause, Rebuild, State
from bot.core.runs import Stage, StageState
from bot.core.stage_approvals import rejection
from bot.teams.cards.card import line, run
from bot.teams.cards.formats import Safe, age, clean, duration, moment, time

MARKS: dict[StageState, tuple[str, TextColor | None]] = {
    StageState.PENDING: ("○", None),
    StageState.RUNNING: ("●", "Accent"),
    StageState.SUCCEEDED: ("✓", "Good"),
    StageState.FAILED: ("✕", "Attention"),
    StageState.CANCELLED: ("–", None),
    StageState.SKIPPED: ("–", None),
}
UNDER_WAY = {"build": "building", "test": "testing", "push": "pushing"}
MOST_STAGES = 8
MOST_NAMES = 3
LONGEST_NAME = 40
LONGEST_STAGE = 24
LONGEST_VERSION = 40


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rebuild stands: a mark, words that end a sentence about its image, and a colour on top."""

    mark: str
    words: str
    color: TextColor | None = None


FOUND: dict[Status | None, Standing] = {
    Status.STALE: Standing("●", "stale", "Warning"),
    Status.UNBUILT: Standing("○", "never built", "Accent"),
    Status.UNKNOWN: Standing("✕", "unknown", "Attention"),
    None: Standing("–", "not checked"),
    Status.FRESH: Standing("✓", "fresh", "Good"),
}
"""What a check may find, the most urgent first."""


def found(verdict: Verdict | None, now: datetime) -> Standing:
    """Where an image stands: `stale for 2 days`, `fresh`, …"""
    known = FOUND[verdict.status if verdict else None]
    if verdict and verdict.status is Status.STALE and verdict.first_seen:
        return replace(known, words=f"stale for {age(now - verdict.first_seen)}")
    return known


def row(name: str, stands: Standing, *more: str) -> RichTextBlock:
    """`✓ NAME  words`: only the mark has a colour, because coloured words are hard to read on white."""
    mark = run(Safe(stands.mark), color=stands.color, bold=True)
    title: list[str | TextRun] = [run(name, bold=True), Safe("\u00a0 ")] if name else []
    return line(mark, Safe("\u00a0"), *title, stands.words, *more)


def standing(rebuild: Rebuild) -> Standing:
    if rebuild.is_rollback:
        return _rollback(rebuild)
    match rebuild.state:
        case State.AWAITING_APPROVAL:
            return Standing("○", "waits for approval", "Warning")
        case State.APPROVED if rebuild.waits_for:
            return Standing("○", f"waits for {rebuild.waits_for}", "Accent")
        case State.APPROVED if rebuild.waits_for_window:
            return Standing("○", WINDOW_CLOSED, "Accent")
        case State.APPROVED:
            return Standing("●", "waits to be queued" if rebuild.problem else "approved", "Accent")
        case State.QUEUED | State.RUNNING if rebuild.ended_by:
            return Standing("●", "being cancelled", "Accent")
        case State.QUEUED | State.RUNNING if rebuild.waiting_approval:
            return Standing("○", "waits for an approval in Azure", "Warning")
        case State.QUEUED:
            return Standing("●", "queued", "Accent")
        case State.RUNNING if rebuild.retry_until:
            return Standing("●", "about to be retried", "Accent")
        case State.RUNNING:
            return Standing("●", _under_way(rebuild.stages), "Accent")
        case State.VERIFYING:
            return Standing("●", "pushed, being verified", "Accent")
        case State.SUCCEEDED if rebuild.held_back:
            return Standing("✓", f"in ECR as {rebuild.version_tag}, with new vulnerabilities", "Warning")
        case State.SUCCEEDED:
            return Standing("✓", f"in ECR as {rebuild.version_tag}", "Good")
        case State.FAILED:
            return Standing("✕", _failed(rebuild.failed_stage), "Attention")
        case State.CANCELLED | State.REJECTED | State.EXPIRED | State.SUPERSEDED:
            return Standing("–", rebuild.state.value)


def _rollback(rebuild: Rebuild) -> Standing:
    version = clean(rebuild.version, LONGEST_VERSION)
    match rebuild.state:
        case State.AWAITING_APPROVAL:
            return Standing("○", f"rollback to {version} waits for approval", "Warning")
        case State.SUCCEEDED:
            return Standing("✓", rolled_back(rebuild), "Good")
        case State.FAILED:
            return Standing("✕", f"rollback to {version} failed", "Attention")
        case state if state in ENDED:
            return Standing("–", f"rollback {state.value}")
        case _:
            return Standing("●", f"moving tags to {version}", "Accent")


def rolled_back(rebuild: Rebuild) -> str:
    """`rolled back to 1.3.0`, or where it went the other way `moved on to 1.4.0`."""
    return f"{'moved on' if rebuild.goes_on else 'rolled back'} to {clean(rebuild.version, LONGEST_VERSION)}"


def _under_way(stages: Iterable[Stage]) -> str:
    now = next((stage.name for stage in stages if stage.state is StageState.RUNNING), None)
    if now is None:
        return "running"
    return UNDER_WAY.get(now.lower(), f"running {clean(now, LONGEST_STAGE)}")


def _failed(stage: Stage | None) -> str:
    return f"{clean(stage.name, LONGEST_STAGE).lower()} failed" if stage else "failed"


def sentence(rebuild: Rebuild) -> str:
    """What happened to which image, for toasts."""
    if rebuild.state is State.AWAITING_APPROVAL and rebuild.cause is Cause.BASE_MOVED:
        update = "security update" if is_security_release(rebuild.news) else "update"
        return f"{rebuild.image}: {update} waits for approval"
    return f"{rebuild.image}: {standing(rebuild).words}"


def undecided(rebuild: Rebuild, now: datetime) -> bool:
    """Whether somebody has to decide: about the rebuild itself, or about what Azure asks before a stage of its run."""
    return decidable(rebuild, now) or rebuild.waiting_approval is not None


def decidable(rebuild: Rebuild, now: datetime) -> bool:
    """Whether Approve and Reject still mean something."""
    overdue = rebuild.expires_at is not None and rebuild.expires_at <= now
    return rebuild.state is State.AWAITING_APPROVAL and not overdue


# Stages


def stage_strip(stages: Iterable[Stage]) -> RichTextBlock:
    """`✓ Build 2 m 10 s   ● Test since 14:03   ○ Push`; wraps between stages, not within."""
    parts: list[str | TextRun] = []
    for stage in list(stages)[:MOST_STAGES]:
        mark, color = MARKS[stage.state]
        words = filter(None, (clean(stage.name, LONGEST_STAGE), _attempt(stage), _stage_time(stage)))
        text = Safe("\u00a0".join(["", *words]).replace(" ", "\u00a0"))
        running = stage.state is StageState.RUNNING
        parts += [run(Safe(mark), color=color, bold=True), run(text, bold=running), Safe("\u00a0\u00a0 ")]
    return line(*parts[:-1])


def _attempt(stage: Stage) -> str:
    return f"(attempt {stage.attempt})" if stage.attempt > 1 else ""


def _stage_time(stage: Stage) -> str:
    """A running stage tells since when, which stays true while nobody edits the card."""
    if stage.started_at is None:
        return ""
    if stage.state is StageState.RUNNING:
        return f"since {time(stage.started_at)}"
    return duration(stage.finished_at - stage.started_at) if stage.finished_at else ""


# People and digests


def approvals(rebuild: Rebuild, image: PlatformImage | None) -> str:
    """Who approved, and how many are missing; empty when there is nothing to say."""
    names = approvers(rebuild)
    if rebuild.state is not State.AWAITING_APPROVAL:
        automatic = "approved by the catalog (mode auto)" if rebuild.approved_at else ""
        return f"approved by {names}" if names else automatic
    if image is None:
        return f"approved by {names}; another approval is needed" if names else ""
    if image.approval.required == 1 and not names:
        return ""
    return f"{len(rebuild.votes)} of {image.approval.required} approvals" + (f", by {names}" if names else "")


def ending(rebuild: Rebuild) -> str:
    """Why it ended, where its state does not tell; empty otherwise."""
    if rebuild.state is State.FAILED and rebuild.failed_stage and not rejection(rebuild):
        return ""
    reason = clean(rebuild.ended_reason)
    if rebuild.state is State.REJECTED and rebuild.ended_by:
        return f"by {name_of(rebuild.ended_by)}: {reason}"
    return reason


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def name_of(person: Person) -> Safe:
    return clean(person.name.strip() or "somebody", LONGEST_NAME)


def approvers(rebuild: Rebuild) -> str:
    """`Alex`, `Alex and Megan`, `Alex, Megan, Adele and 3 more`; empty without a vote."""
    names = [name_of(vote.person) for vote in rebuild.votes]
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def asked(rebuild: Rebuild) -> list[str]:
    """Who asked and when."""
    return ["Asked by ", asker(rebuild), ", ", moment(rebuild.created_at)]


def asker(rebuild: Rebuild) -> Safe:
    """A person, or what led to it."""
    if rebuild.requested_by:
        return name_of(rebuild.requested_by)
    return Safe("the rebuild of its base image" if rebuild.cause is Cause.PARENT else "a check")


def digests(old: Digest | None, new: Digest | None) -> list[str | TextRun]:
    """`9f2c01ab77de → 4de4a1c0b9e2`"""
    if new is None:
        return []
    return [run(Safe(f"{old.short}\u00a0→\u00a0{new.short}" if old else new.short), mono=True)]


def whole(label: str, digest: Digest | None) -> list[CardElement]:
    """A whole digest with its label, for behind *Why?*."""
    if digest is None:
        return []
    # A text block breaks a word that is longer than the card; rich text would be cut off at its edge.
    return [line(f"{label}:"), TextBlock(text=digest, font_type="Monospace", is_subtle=True, wrap=True, spacing="None")]
