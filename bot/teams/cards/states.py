"""The words, marks and colours of rebuilds, the same on every card."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from microsoft_teams.cards.core import CardElement, RichTextBlock, TextColor, TextRun

from bot.core.images import Digest, PlatformImage
from bot.core.rebuilds import Cause, Rebuild, Stage, StageState, State
from bot.teams.cards.card import line, run
from bot.teams.cards.formats import Safe, clean, duration, moment, time

MARKS: dict[StageState, tuple[str, TextColor | None]] = {
    StageState.PENDING: ("○", None),
    StageState.RUNNING: ("●", "Accent"),
    StageState.SUCCEEDED: ("✓", "Good"),
    StageState.FAILED: ("✕", "Attention"),
    StageState.CANCELLED: ("–", None),
    StageState.SKIPPED: ("–", None),
}
UNDER_WAY = {"build": "building", "test": "testing", "push": "pushing"}
MOST_STAGES = 12
MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rebuild stands: a mark, words that end a sentence about its image, and a colour on top."""

    mark: str
    words: str
    color: TextColor | None = None


def standing(rebuild: Rebuild) -> Standing:
    match rebuild.state:
        case State.AWAITING_APPROVAL:
            return Standing("○", "waits for approval", "Warning")
        case State.APPROVED:
            return Standing("●", "waits to be queued" if rebuild.problem else "approved", "Accent")
        case State.QUEUED | State.RUNNING if rebuild.ended_by:
            return Standing("●", "being cancelled", "Accent")
        case State.QUEUED:
            return Standing("●", "queued", "Accent")
        case State.RUNNING:
            return Standing("●", _under_way(rebuild.stages), "Accent")
        case State.VERIFYING:
            return Standing("●", "pushed, being verified", "Accent")
        case State.SUCCEEDED:
            return Standing("✓", f"in ECR as {rebuild.version_tag}", "Good")
        case State.FAILED:
            return Standing("✕", _failed(rebuild.stages), "Attention")
        case State.CANCELLED | State.REJECTED | State.EXPIRED | State.SUPERSEDED:
            return Standing("–", rebuild.state.value)


def _under_way(stages: Iterable[Stage]) -> str:
    now = next((stage.name for stage in stages if stage.state is StageState.RUNNING), None)
    if now is None:
        return "running"
    return UNDER_WAY.get(now.lower(), f"running {clean(now, 40)}")


def _failed(stages: Iterable[Stage]) -> str:
    failed = next((stage.name for stage in stages if stage.state is StageState.FAILED), None)
    return f"{clean(failed, 40).lower()} failed" if failed else "failed"


def sentence(rebuild: Rebuild) -> str:
    """What happened to which image, for toasts."""
    if rebuild.state is State.AWAITING_APPROVAL and rebuild.cause is Cause.BASE_MOVED:
        return f"{rebuild.image}: update waits for approval"
    return f"{rebuild.image}: {standing(rebuild).words}"


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
        words = filter(None, ("", clean(stage.name, 40), _attempt(stage), _stage_time(stage)))
        text = Safe("\u00a0".join(["", *words]).replace(" ", "\u00a0"))
        running = stage.state is StageState.RUNNING
        parts += [run(Safe(mark), color=color, bold=True), run(text, bold=running), Safe("   ")]
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
    names = names_of(vote.person.name for vote in rebuild.votes)
    required = image.approval.required if image else 1
    if rebuild.state is not State.AWAITING_APPROVAL:
        automatic = "approved by the catalog (mode auto)" if rebuild.approved_at else ""
        return f"approved by {names}" if names else automatic
    if not names:
        return f"0 of {required} approvals" if required > 1 else ""
    return f"{len(rebuild.votes)} of {max(required, len(rebuild.votes) + 1)} approvals, by {names}"


def names_of(names: Iterable[str]) -> str:
    """`Alex`, `Alex and Megan`, `Alex, Megan and 3 others`."""
    all_names = [clean(name, 60) or "somebody" for name in names]
    shown, more = all_names[:MOST_NAMES], len(all_names) - MOST_NAMES
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))


def asked(rebuild: Rebuild) -> list[str]:
    """Who asked and when."""
    who = clean(rebuild.requested_by.name, 60) if rebuild.requested_by else "a check"
    return ["Asked by ", who, ", ", moment(rebuild.created_at)]


def digests(old: Digest | None, new: Digest | None) -> list[str | TextRun]:
    """`9f2c01ab77de → 4de4a1c0b9e2`"""
    if new is None:
        return []
    return [run(Safe(f"{old.short}\u00a0→\u00a0{new.short}" if old else new.short), mono=True)]


def whole(label: str, digest: Digest | None) -> list[CardElement]:
    """A whole digest with its label, for behind *Why?*."""
    return [line(Safe(f"{label} "), run(Safe(digest), mono=True, subtle=True))] if digest else []
