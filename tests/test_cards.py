"""Cards: what they say, which buttons they have, and that outside text cannot break out of them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.base_news import BaseNews, Cve, NewsKind
from bot.core.checks import Check, Evidence, Status, Verdict
from bot.core.deciding import Outcome
from bot.core.findings import Comparison, Finding, Group, ScanState, Severity
from bot.core.holds import Hold, HoldKind
from bot.core.images import (
    ApprovalRules,
    Digest,
    ImagePlatform,
    ImageReference,
    Mode,
    PipelineReference,
    PlatformImage,
)
from bot.core.latency import Latencies, Update
from bot.core.people import Person, Vote
from bot.core.reading import HistoryPage, ImageStatus
from bot.core.rebuilds import WINDOW_CLOSED, Cause, Rebuild, State, TagMove
from bot.core.runs import Stage, StageApproval, StageApprovalState, StageState
from bot.core.support import Support
from bot.core.timetable import Crontab, Timetable
from bot.core.windows import Windows
from bot.teams.cards.audience import Audience, one_of
from bot.teams.cards.card import BUDGET, Card, arguments
from bot.teams.cards.check import check_card
from bot.teams.cards.decided import decided_card
from bot.teams.cards.formats import age, clean, duration, escape, size
from bot.teams.cards.help import help_card
from bot.teams.cards.history import history_card
from bot.teams.cards.hold import hold_card
from bot.teams.cards.latency import span
from bot.teams.cards.listing import list_card, pending_card
from bot.teams.cards.notice import notice
from bot.teams.cards.rebuild import rebuild_card
from bot.teams.cards.schedule import schedule_card
from bot.teams.cards.status import status_card
from bot.teams.cards.text import text_card

SCHEMA = Path(__file__).parents[2] / "shared/contracts/adaptivecards/adaptive-card.1.5.0.json"
NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
BASE = "mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim"
TAG = "6.0-bullseye-slim-1.4.0"
CVE_PAGE = "https://cve.mitre.org/cgi-bin/cvename.cgi?name=CVE-2026-50651"
RUN_URL = "https://dev.azure.com/contoso/platform-images/_build/results?buildId=77"
ALEX = Person(id="alex", name="Alex Wilber", mri="29:alex")
MEGAN = Person(id="megan", name="Megan Bowen", mri="29:megan")
WHOLE_DIGEST = re.compile(r"[0-9a-f]{64}")
MACRO = re.compile(r"\{\{(?:DATE\([-0-9T:]+Z,SHORT\)|TIME\([-0-9T:]+Z\))\}\}")
MARKS = set("✓●○✕–·…−±→\u00a0")
HOSTILE = (
    "**bold** _it_ [click](https://evil.example) `code` ~~x~~ <at>Alex Wilber</at> <b>html</b> &lt; ![i](data:x)\r\n"
    "# title\n- item\n1. one\n> quote\n| a | b |\n{{DATE(2020-01-01T00:00:00Z,SHORT)}} {{{TIME(2020-01-01T00:00:00Z)}} "
    "\x1b[31mred\x1b[0m \x00\x07 \u202egnp.exe \u2066x\u2069 \ud800 \\"
)


def digest(seed: str) -> Digest:
    return Digest("sha256:" + sha256(seed.encode()).hexdigest())


def platform_image(name: str = "dotnet-sdk-6", *, required: int = 1, mode: Mode = Mode.ASK) -> PlatformImage:
    return PlatformImage(
        name=name,
        base=ImageReference.parse(BASE),
        registry_id="123456789012",
        region="eu-west-1",
        repository="dotnet/sdk",
        tag="6.0-bullseye-slim",
        pipeline=PipelineReference(project="platform-images", id=12),
        platforms=(ImagePlatform.parse("linux/amd64"),),
        mode=mode,
        approval=ApprovalRules(approvers=frozenset({"platform-team@contoso.com"}), required=required),
    )


def with_windows() -> PlatformImage:
    return replace(
        platform_image(),
        schedule=Crontab.parse("0 6 * * *"),
        watch=True,
        windows=Windows.parse("UTC", ["daily 22:00-24:00"], ["2026-12-18..2027-01-06"]),
    )


def vote(person: Person = ALEX, comment: str = "") -> Vote:
    return Vote(person=person, at=NOW + timedelta(minutes=10), comment=comment)


def stage(name: str, state: StageState, took: timedelta | None = None) -> Stage:
    start = NOW + timedelta(minutes=15)
    began = None if state in (StageState.PENDING, StageState.SKIPPED) else start
    return Stage(name=name, state=state, started_at=began, finished_at=start + took if took else None)


BUILT = stage("Build", StageState.SUCCEEDED, timedelta(minutes=2, seconds=10))
TESTING = stage("Test", StageState.RUNNING)
TEST_FAILED = stage("Test", StageState.FAILED, timedelta(seconds=40))
NOT_PUSHED = stage("Push", StageState.PENDING)
SKIPPED = stage("Push", StageState.SKIPPED)

WITH_VERSION: dict[str, Any] = {
    "votes": (vote(comment="CHG-1234"),),
    "approved_at": NOW + timedelta(minutes=10),
    "version_tag": TAG,
    "previous_size": 214_000_000,
}
WITH_A_RUN = WITH_VERSION | {
    "run_id": 77,
    "run_number": "20261123.4",
    "run_url": RUN_URL,
    "queued_at": NOW + timedelta(minutes=15),
}
FINISHED = WITH_A_RUN | {"run_finished_at": NOW + timedelta(minutes=21, seconds=2)}
MORE: dict[State, dict[str, Any]] = {
    State.AWAITING_APPROVAL: {},
    State.APPROVED: WITH_VERSION,
    State.QUEUED: WITH_A_RUN,
    State.RUNNING: WITH_A_RUN | {"stages": (BUILT, TESTING, NOT_PUSHED)},
    State.VERIFYING: FINISHED | {"stages": (BUILT,), "problem": f"{TAG} is not in ECR"},
    State.SUCCEEDED: FINISHED | {"stages": (BUILT,), "pushed_digest": digest("pushed"), "pushed_size": 211_000_000},
    State.FAILED: FINISHED
    | {"stages": (BUILT, TEST_FAILED, SKIPPED), "ended_reason": "stage Test failed", "log_tail": ("got 500", "exit 1")},
    State.CANCELLED: WITH_A_RUN | {"ended_by": ALEX, "ended_reason": "cancelled by Alex Wilber"},
    State.REJECTED: {"ended_by": MEGAN, "ended_reason": "wait for the security team"},
    State.EXPIRED: {},
    State.SUPERSEDED: {"ended_reason": "the base moved again", "successor": "h3n8w2ab"},
}


def rebuild(state: State = State.AWAITING_APPROVAL, **changes: Any) -> Rebuild:
    basics: dict[str, Any] = {
        "id": "k7m2pq9x",
        "image": "dotnet-sdk-6",
        "cause": Cause.BASE_MOVED,
        "base": BASE,
        "old_digest": digest("old"),
        "new_digest": digest("new"),
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=7),
    }
    return Rebuild(state=state, **(basics | MORE[state] | changes))


def rollback(state: State = State.AWAITING_APPROVAL, **changes: Any) -> Rebuild:
    """One from 1.4.0 back to 1.3.0."""
    moves = tuple(TagMove(tag=tag, old=digest("1.4.0"), new=digest("1.3.0")) for tag in ("6.0", "latest"))
    basics: dict[str, Any] = {
        "id": "r7m2pq9x",
        "image": "dotnet-sdk-6",
        "cause": Cause.ROLLBACK,
        "base": BASE,
        "reason": "breaks our proxy",
        "requested_by": MEGAN,
        "version_tag": "6.0-bullseye-slim-1.3.0",
        "previous_tag": TAG,
        "target": digest("1.3.0"),
        "moves": moves,
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=7),
        "votes": () if state is State.AWAITING_APPROVAL else (vote(),),
    }
    return Rebuild(state=state, **(basics | changes))


def stage_approval(**changes: Any) -> StageApproval:
    return StageApproval(id="44444444-eeee-4eee-8eee-444444444444", stage="Push", **changes)


def verdict(name: str = "dotnet-sdk-6", status: Status = Status.STALE, **changes: Any) -> Verdict:
    basics: dict[str, Any] = {
        "reason": "the base moved for linux/amd64",
        "base": BASE,
        "recorded_digest": digest("old"),
        "current_digest": digest("new"),
        "evidence": Evidence.LABEL,
        "version_tag": "6.0-bullseye-slim-1.3.0",
        "pushed_at": NOW - timedelta(days=14),
        "size": 214_000_000,
        "first_seen": NOW,
        "moved_after": NOW - timedelta(days=7),
    }
    return Verdict(name=name, status=status, **(basics | changes))


WEEKLY = Timetable(Crontab.parse("0 6 * * 1"), "UTC", {"dotnet-sdk-6": Crontab.parse("0 6 * * *")})
UNKNOWN = verdict("dotnet-runtime-10", Status.UNKNOWN, reason="mcr.microsoft.com answered 429", current_digest=None)
UNBUILT = verdict("dotnet-aspnet-8", Status.UNBUILT, recorded_digest=None, version_tag=None, pushed_at=None, size=None)
FRESH = verdict("dotnet-sdk-8", Status.FRESH, reason="built from the current base")
MENDED = replace(FRESH, unknown_since=NOW - timedelta(days=7), outage_told=True)


def hold(kind: HoldKind = HoldKind.HOLD, **changes: Any) -> Hold:
    basics: dict[str, Any] = {"image": "dotnet-sdk-6", "by": ALEX, "at": NOW, "reason": "breaks our proxy"}
    return Hold(kind=kind, **(basics | changes))


def check_of(*verdicts: Verdict, rebuilds: Sequence[Rebuild] = (), **options: Any) -> Card:
    """The card of a scheduled check in which each of `rebuilds` is named by the verdict of its image."""
    ids = {rebuild.image: rebuild.id for rebuild in rebuilds}
    tied = tuple(replace(verdict, rebuild_id=ids.get(verdict.name)) for verdict in verdicts)
    catalog = options.pop("catalog", {})
    check = Check(checked_at=NOW, slot=NOW, verdicts=tied, failed_since=options.pop("failed_since", None))
    return check_card(check, {rebuild.id: rebuild for rebuild in rebuilds}, catalog, now=NOW, **options)


def history_of(
    rebuilds: Sequence[Rebuild], *, name: str | None = "dotnet-sdk-6", newest: bool = True, older: bool = False
) -> Card:
    return history_card(HistoryPage(rebuilds=tuple(rebuilds), newest=newest, older=older), name=name)


def status_of(verdict: Verdict | None, **changes: Any) -> ImageStatus:
    basics: dict[str, Any] = {"checked_at": NOW, "open": None, "history": (), "approvers": "Alex Wilber"}
    return ImageStatus(image=platform_image(), verdict=verdict, **(basics | changes))


def status_card_of(verdict: Verdict | None, **changes: Any) -> Card:
    return status_card(status_of(verdict, **changes), next_check=NOW + timedelta(days=7), now=NOW + timedelta(days=2))


def child(number: int = 1, state: State = State.AWAITING_APPROVAL, **changes: Any) -> Rebuild:
    """The rebuild of an image that is based on dotnet-sdk-6."""
    basics: dict[str, Any] = {"cause": Cause.PARENT, "after": "k7m2pq9x", "waits_for": "dotnet-sdk-6"}
    named = {"id": f"child{number:03}", "image": f"orders-{number}", "new_digest": None}
    return rebuild(state, **(basics | named | changes))


def parent_of(*children: Rebuild) -> Card:
    return rebuild_card(rebuild(State.RUNNING), platform_image(), children, now=NOW)


MOVED = "the base moved for linux/amd64"
OVER = Support(what=".NET 6.0", ends=date(2024, 11, 12), next_image="dotnet-sdk-8")
TOOK = Latencies(
    count=3,
    median=timedelta(days=2, hours=12),
    worst=Update(image="dotnet-aspnet-8", pushed_at=NOW, took=timedelta(days=6)),
    weeks=((NOW - timedelta(weeks=2), timedelta(days=6)), (NOW - timedelta(weeks=1), timedelta(hours=30))),
)
OUTCOMES = [
    Outcome(image="dotnet-sdk-6", rebuild=rebuild(State.APPROVED)),
    Outcome(image="dotnet-sdk-8", rebuild=rebuild(votes=(vote(),)), required=2),
    Outcome(image="dotnet-aspnet-8", refusal="You may not approve rebuilds of dotnet-aspnet-8."),
]


def certain(card: Card | None) -> Card:
    assert card is not None
    return card


# What is on a card


def elements(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a card, hidden ones and those in forms as well."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from elements(value)
    elif isinstance(node, list):
        for value in node:
            yield from elements(value)


def visible(node: Any) -> Any:
    """The card without what is hidden, and without what forms and fallbacks hold."""
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if key not in ("card", "fallback", "fallbackText")}
        return None if node.get("isVisible") is False else {key: visible(value) for key, value in kept.items()}
    return [visible(item) for item in node] if isinstance(node, list) else node


def words(node: Any) -> str:
    """All text one after the other, a line per paragraph."""
    lines = []
    for element in elements(node):
        if element.get("type") == "RichTextBlock":
            lines.append("".join(run["text"] for run in element["inlines"]))
        elif element.get("type") == "TextBlock":
            lines.append(element["text"])
        elif "value" in element and "title" in element:
            lines.append(f"{element['title']}: {element['value']}")
    return "\n".join(lines).replace("\u00a0", " ")


def seen(card: Card) -> str:
    return words(visible(card.content))


def buttons(card: Card) -> list[str]:
    """The titles in sight, in order."""
    return [node["title"] for node in elements(visible(card.content)) if str(node.get("type")).startswith("Action.")]


def action(card: Card, title: str) -> dict[str, Any]:
    return next(node for node in elements(card.content) if node.get("title") == title and "type" in node)


def length(card: Card) -> int:
    return len(json.dumps(card.content))


MAY = {"dotnet-sdk-6": one_of(["Alex Wilber", "Megan Bowen"], channels=["platform-team"])}
SIXTY = tuple(f"29:1{n:02}{'x' * 90}" for n in range(60))
AUDIENCES = {
    "everybody": Audience(may=MAY),
    "a place with views": Audience(may=MAY, refresh=SIXTY),
    "somebody who may": Audience(may=MAY, refresh=SIXTY, own=frozenset(MAY)),
    "somebody who may not": Audience(may=MAY, refresh=SIXTY, own=frozenset()),
}
EVERY_CARD: dict[str, Callable[[], Card]] = {
    **{
        f"rebuild {state}": lambda state=state: rebuild_card(rebuild(state), platform_image(), now=NOW)  # type: ignore[misc]
        for state in State
    },
    **{
        f"rollback {state}": lambda state=state: rebuild_card(rollback(state), platform_image(), now=NOW)  # type: ignore[misc]
        for state in State
    },
    "rollback that cannot go on": lambda: rebuild_card(
        rollback(State.VERIFYING, problem="ECR could not be reached", next_attempt_at=NOW), platform_image(), now=NOW
    ),
    "rollback of many tags": lambda: rebuild_card(
        rollback(moves=(TagMove(tag="6" * 120, old=digest("a"), new=digest("b")),) * 40), platform_image(), now=NOW
    ),
    "rollback where nothing had to move": lambda: rebuild_card(
        rollback(State.SUCCEEDED, moves=()), platform_image(), now=NOW
    ),
    "rollback in a check": lambda: check_of(verdict(), rebuilds=[rollback()]),
    "rollback in a status": lambda: status_card_of(verdict(), open=rollback(), history=(rollback(State.SUCCEEDED),)),
    "rollback in lists": lambda: certain(pending_card([rollback()], now=NOW)),
    "history with versions": lambda: history_of([rollback(State.SUCCEEDED), rebuild(State.SUCCEEDED)], older=True),
    "rebuild with scans": lambda: rebuild_card(
        rebuild(State.SUCCEEDED, comparison=compared()), platform_image(), now=NOW
    ),
    "rebuild whose predecessor was scanned long ago": lambda: rebuild_card(
        rebuild(State.SUCCEEDED, comparison=compared(old_scan=NOW - WEEK)), platform_image(), now=NOW
    ),
    "rebuild without findings": lambda: rebuild_card(
        rebuild(State.SUCCEEDED, comparison=Comparison(state=ScanState.DONE)), platform_image(), now=NOW
    ),
    "rebuild that is being scanned": lambda: rebuild_card(
        rebuild(State.SUCCEEDED, comparison=Comparison(state=ScanState.PENDING)), platform_image(), now=NOW
    ),
    "rebuild that is held back": lambda: rebuild_card(
        rebuild(State.SUCCEEDED, comparison=compared(), hold_back=Severity.LOW), platform_image(), now=NOW
    ),
    "rebuild after another version": lambda: rebuild_card(
        rebuild(State.SUCCEEDED, previous_tag="6.0-bullseye-slim-1.3.0"), platform_image(), now=NOW
    ),
    "rebuild of a removed image": lambda: rebuild_card(rebuild(), None, now=NOW),
    "rebuild that cannot be queued": lambda: rebuild_card(
        rebuild(State.APPROVED, problem="Azure DevOps answered 503", next_attempt_at=NOW), platform_image(), now=NOW
    ),
    "rebuild that waits for its window": lambda: rebuild_card(
        rebuild(State.APPROVED, problem=WINDOW_CLOSED, next_attempt_at=NOW), platform_image(), now=NOW
    ),
    "rebuild whose window never opens": lambda: rebuild_card(
        rebuild(State.APPROVED, problem=WINDOW_CLOSED), platform_image(), now=NOW
    ),
    "rebuild started outside its window": lambda: rebuild_card(
        rebuild(State.QUEUED, override=vote(MEGAN, "security fix")), platform_image(), now=NOW
    ),
    "check row that waits for its window": lambda: check_of(
        verdict(), rebuilds=[rebuild(State.APPROVED, problem=WINDOW_CLOSED, next_attempt_at=NOW)]
    ),
    "schedule": lambda: schedule_card("The next check is due on Monday.", [with_windows()] * 200, WEEKLY, now=NOW),
    "schedule alone": lambda: schedule_card("No check is scheduled.", [platform_image()], WEEKLY, now=NOW),
    "rebuild requested": lambda: rebuild_card(
        rebuild(cause=Cause.REQUESTED, requested_by=MEGAN, reason="new certificate"), platform_image(), now=NOW
    ),
    "first build": lambda: rebuild_card(rebuild(cause=Cause.FIRST_BUILD, old_digest=None), platform_image(), now=NOW),
    "rebuild that waits in Azure": lambda: rebuild_card(
        rebuild(State.RUNNING, stage_approvals=(stage_approval(instructions="Announced?", votes=(vote(),)),)),
        platform_image(),
        now=NOW,
    ),
    "rebuild rejected in Azure": lambda: rebuild_card(
        rebuild(State.FAILED, stage_approvals=(stage_approval(state=StageApprovalState.REJECTED),)),
        platform_image(),
        now=NOW,
    ),
    "pending in Azure": lambda: certain(
        pending_card([rebuild(State.RUNNING, stage_approvals=(stage_approval(),))], now=NOW)
    ),
    "parent of one": lambda: parent_of(child()),
    "parent of several": lambda: parent_of(child(1), child(2), child(3, State.CANCELLED)),
    **{
        f"child {state}": lambda state=state: rebuild_card(child(1, state), platform_image(), now=NOW)  # type: ignore[misc]
        for state in State
    },
    "decided": lambda: decided_card(OUTCOMES, "approved"),
    "check of two": lambda: check_of(
        verdict(), verdict("dotnet-sdk-8"), rebuilds=[rebuild(), rebuild(id="abcdefgh", image="dotnet-sdk-8")]
    ),
    "weekly check with a chart": lambda: check_of(verdict(), rebuilds=[rebuild()], latencies=TOOK),
    "weekly check of what is fresh": lambda: check_of(FRESH, replace(FRESH, support=OVER), latencies=TOOK),
    "check with news and support": lambda: check_of(
        verdict(news=moved_base(17), support=OVER), FRESH, rebuilds=[rebuild(news=moved_base(17), support=OVER)]
    ),
    "rebuild with news and support": lambda: rebuild_card(
        rebuild(news=moved_base(17), support=OVER), platform_image(), now=NOW
    ),
    "status with news and support": lambda: status_card_of(verdict(news=moved_base(17), support=OVER)),
    "pending with news and support": lambda: certain(
        pending_card([rebuild(news=moved_base(17), support=OVER)], now=NOW)
    ),
    "rebuild that was an update": lambda: rebuild_card(
        rebuild(
            State.SUCCEEDED, base_seen_at=NOW - timedelta(hours=30), found="the base moved for linux/amd64 (label)"
        ),
        platform_image(),
        now=NOW,
    ),
    "check": lambda: check_of(verdict(), UNKNOWN, UNBUILT, FRESH, rebuilds=[rebuild()]),
    "check that works again": lambda: check_of(MENDED, UNKNOWN, failed_since=NOW - timedelta(hours=2)),
    "check all fresh again": lambda: check_of(MENDED, FRESH),
    "check all fresh": lambda: check_of(FRESH, FRESH),
    "check failed": lambda: check_card(Check(checked_at=NOW, problem="the disk is full"), {}, {}, now=NOW),
    **{
        f"check row {state}": lambda state=state: check_of(verdict(), rebuilds=[rebuild(state)])  # type: ignore[misc]
        for state in State
    },
    **{
        f"check for {who}": lambda audience=audience: check_of(  # type: ignore[misc]
            verdict(), UNBUILT, rebuilds=[rebuild()], audience=audience
        )
        for who, audience in AUDIENCES.items()
    },
    **{
        f"rebuild for {who}": lambda audience=audience: rebuild_card(  # type: ignore[misc]
            rebuild(), platform_image(), audience=audience, now=NOW
        )
        for who, audience in AUDIENCES.items()
    },
    "status stale": lambda: status_card_of(verdict(), open=rebuild(), history=(rebuild(State.SUCCEEDED),)),
    "status fresh": lambda: status_card_of(FRESH),
    "status unknown": lambda: status_card_of(UNKNOWN),
    "status unbuilt": lambda: status_card_of(UNBUILT),
    "check on hold": lambda: check_of(verdict(), rebuilds=[rebuild(State.SUPERSEDED)], holds={"dotnet-sdk-6": hold()}),
    "check row that waits for a rollback": lambda: check_of(verdict(), rebuilds=[rollback()]),
    "check row that somebody asked for": lambda: check_of(
        verdict(), rebuilds=[rebuild(cause=Cause.REQUESTED, requested_by=MEGAN, new_digest=None, reason="we need it")]
    ),
    "check all fresh, one on hold": lambda: check_of(FRESH, holds={FRESH.name: hold()}),
    "rebuild on hold": lambda: rebuild_card(rebuild(State.RUNNING), platform_image(), hold=hold(), now=NOW),
    "status on hold": lambda: status_card_of(verdict(), hold=hold()),
    "status snoozed": lambda: status_card_of(verdict(), hold=hold(HoldKind.SNOOZE, until=NOW + timedelta(days=3))),
    "hold": lambda: hold_card(hold()),
    "list on hold": lambda: list_card([status_of(verdict(), hold=hold())], now=NOW),
    "status running": lambda: status_card_of(verdict(), open=rebuild(State.RUNNING)),
    "status never checked": lambda: status_card_of(None, checked_at=None),
    "list": lambda: list_card([status_of(each) for each in (FRESH, UNKNOWN, None, UNBUILT, verdict())], now=NOW),
    "empty list": lambda: list_card([], now=NOW),
    "pending": lambda: certain(pending_card([rebuild(), rebuild(id="abcdefgh", votes=(vote(),))], now=NOW)),
    "pending with links": lambda: certain(
        pending_card([rebuild()], audience=AUDIENCES["everybody"], links={"k7m2pq9x": RUN_URL}, now=NOW)
    ),
    "history": lambda: history_of([rebuild(state) for state in State], older=True),
    "history on hold": lambda: history_card(
        HistoryPage(rebuilds=(rollback(State.SUCCEEDED),), newest=True, older=False, hold=hold()), name="dotnet-sdk-6"
    ),
    "history of all": lambda: history_of([rebuild(state) for state in State], name=None),
    "no history": lambda: history_of([]),
    "older history": lambda: history_of([rebuild(state) for state in State], newest=False, older=True),
    "no older history": lambda: history_of([], newest=False),
    "help": lambda: help_card([("status [IMAGE]", "one image, or all of them"), ("approve ID|IMAGE [comment]", "x")]),
    "text": lambda: text_card("Did you mean dotnet-sdk-6?", suggestion="status dotnet-sdk-6"),
}

every_card = pytest.mark.parametrize("build", EVERY_CARD.values(), ids=EVERY_CARD)


# All cards


def without_teams_extensions(node: Any) -> Any:
    """The card as a client shows it that knows nothing newer than its version."""
    if isinstance(node, dict) and str(node.get("type")).startswith("Chart."):
        return without_teams_extensions(node["fallback"])
    if isinstance(node, dict):
        return {key: without_teams_extensions(value) for key, value in node.items() if key != "msteams"}
    return [without_teams_extensions(item) for item in node] if isinstance(node, list) else node


def deepest(error: jsonschema.ValidationError) -> str:
    """The schema answers everything with one anyOf: the error farthest down the card is the one to read."""
    errors = [error]
    for each in errors:
        errors += each.context or []
    worst = max(errors, key=lambda each: len(each.absolute_path))
    return f"{worst.json_path}: {worst.message[:300]}"


@pytest.fixture(scope="module")
def schema() -> Mapping[str, Any]:
    if not SCHEMA.is_file():
        pytest.skip(f"The schema of Adaptive Cards 1.5 is not at {SCHEMA}.")
    document: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8-sig"))
    return document


@every_card
def test_every_card_is_an_adaptive_card_1_5(build: Callable[[], Card], schema: Mapping[str, Any]) -> None:
    """Every card in every state is valid by Microsoft's schema, Teams' own extensions aside."""
    content = without_teams_extensions(build().content)
    errors = list(jsonschema.Draft6Validator(schema).iter_errors(content))
    assert not errors, "\n".join(map(deepest, errors))
    assert content["version"] == "1.5"


@every_card
def test_every_card_keeps_the_house_rules(build: Callable[[], Card]) -> None:
    """Full width, a language, a summary, at most three buttons in a row, no emoji and no exclamation marks."""
    card = build()
    assert card.content["msteams"] == {"width": "Full"}
    assert card.content["lang"] == "en"
    assert card.summary == card.content["fallbackText"]
    assert card.summary.strip()
    assert length(card) <= BUDGET
    rows = [node.get("actions", []) for node in elements(visible(card.content))]
    assert max(map(len, rows)) <= 3
    text = words(card.content) + card.summary
    assert "!" not in text
    assert {char for char in text if not char.isascii()} <= MARKS


@every_card
def test_every_card_but_one_liners_has_a_heading_first(build: Callable[[], Card]) -> None:
    """The first line is a heading, which says what happened to which image."""
    card = build()
    first = next(node for node in elements(card.content["body"]) if node.get("type") in ("TextBlock", "RichTextBlock"))
    assert card.text or first["style"] == "heading"


@every_card
def test_ids_are_unique_within_a_card(build: Callable[[], Card]) -> None:
    """Phones show nothing of a card in which two elements have the same id."""
    ids = [node["id"] for node in elements(build().content) if "id" in node]
    assert len(ids) == len(set(ids))


@every_card
def test_whole_digests_are_only_behind_why(build: Callable[[], Card]) -> None:
    """Twelve characters of a digest are in sight; the others open on demand."""
    assert not WHOLE_DIGEST.search(json.dumps(visible(build().content)))


@every_card
def test_every_execute_falls_back_to_the_same_submit(build: Callable[[], Card]) -> None:
    """A client that does not know Action.Execute sends the same command, with the verb in the data."""
    for node in elements(build().content):
        if node.get("type") == "Action.Execute":
            assert node["fallback"]["type"] == "Action.Submit"
            assert node["fallback"]["data"] == node["data"] | {"verb": node["verb"]}


def test_why_shows_both_whole_digests() -> None:
    """Behind *Why?* are the digests as they can be pasted into a registry client."""
    card = rebuild_card(rebuild(), platform_image(), now=NOW)
    [hidden] = [node for node in elements(card.content) if node.get("isVisible") is False]
    assert action(card, "Why?")["targetElements"] == [hidden["id"]]
    assert {digest("old"), digest("new")} <= set(re.findall(r"sha256:[0-9a-f]{64}", words(hidden)))


@pytest.mark.parametrize(
    ("names", "others", "channels", "told"),
    [
        ([], 0, [], "nobody"),
        (["Alex Wilber"], 0, [], "Alex Wilber"),
        (["Alex Wilber", "Megan Bowen"], 0, ["platform-team"], "Alex Wilber, Megan Bowen or a member of platform-team"),
        (list("ABCDEF"), 1, [], "A, B, C, D or 3 more"),
        ([], 2, [], "2 people whom the catalog names"),
    ],
)
def test_who_may_is_told_by_name(names: list[str], others: int, channels: list[str], told: str) -> None:
    """Names first, cut when there are many; whoever has no known name is counted."""
    assert one_of(names, others, channels) == told


# Outside text


def compared(text: str = "CVE-2026-50651", **changes: Any) -> Comparison:
    """Scans of an image and the one it replaces, with as many names as are kept."""
    found = Finding(name=text, severity=Severity.CRITICAL, uri=CVE_PAGE, package=text)
    group = Group(counts={Severity.CRITICAL: 30, Severity.LOW: 200}, worst=(found,) * 4)
    done: dict[str, Any] = {"state": ScanState.DONE, "fixed": group, "remaining": group, "new": group}
    return Comparison(**(done | changes))


def hostile_cards(text: str) -> list[Card]:
    """Every card that shows outside text, with `text` wherever such text can come from."""
    person = Person(id="x", name=text, mri="29:x")
    news = BaseNews(
        kind=NewsKind.RELEASE,
        old_version=text,
        new_version=text,
        security=True,
        cves=(Cve(id=text, url=CVE_PAGE),) * 17,
    )
    support = Support(what=text, ends=NOW.date(), next_image=text)
    free: dict[str, Any] = {
        "reason": text,
        "requested_by": person,
        "votes": (vote(person, text),) * 9,
        "override": vote(person, text),
        "ended_by": person,
        "ended_reason": text,
        "problem": text,
        "run_number": text,
        "version_tag": text,
        "base": text,
        "log_tail": (text,) * 40,
        "stages": tuple(
            replace(stage(text, state, timedelta(seconds=1)), failed_step=text, errors=(text,) * 9)
            for state in StageState
        )
        * 3,
        "run_id": 77,
        "next_attempt_at": NOW,
        "comparison": compared(text),
        "hold_back": Severity.LOW,
    }
    in_azure = {"instructions": text, "approvers": (text,) * 9, "votes": (vote(person, text),) * 9, "comment": text}
    asked = tuple(
        replace(stage_approval(**in_azure), stage=text, state=state, decided_by=text) for state in StageApprovalState
    )
    rebuilds = [rebuild(state, **free, news=news, support=support, stage_approvals=asked) for state in State]
    rebuilds.append(
        replace(rebuild(State.RUNNING, **free, news=news, support=support, stage_approvals=asked), ended_by=None)
    )
    moves = (TagMove(tag=text, old=digest("a"), new=digest("b")),) * 40
    rollbacks = [rollback(state, **free, previous_tag=text, moves=moves) for state in State]
    bad = verdict(reason=text, base=text, version_tag=text, news=news, support=support)
    unknown = verdict(status=Status.UNKNOWN, reason=text, base=text, version_tag=text)
    held = hold(by=person, reason=text)
    unscanned = compared(state=ScanState.UNAVAILABLE, reason=text)
    return [
        rebuild_card(rebuild(State.SUCCEEDED, comparison=unscanned), platform_image(), now=NOW),
        *(rebuild_card(each, platform_image(), now=NOW) for each in (*rebuilds, *rollbacks)),
        rebuild_card(
            rebuilds[0], platform_image(), audience=Audience(may=dict.fromkeys(MAY, one_of([text] * 9))), now=NOW
        ),
        hold_card(held),
        check_of(bad, holds={bad.name: held}),
        status_card_of(bad, hold=held),
        *(check_of(bad, unknown, rebuilds=[each]) for each in rebuilds),
        check_card(Check(checked_at=NOW, problem=text), {}, {}, now=NOW),
        *(status_card_of(each, open=rebuilds[3], history=tuple(rebuilds[:3])) for each in (bad, unknown)),
        certain(pending_card(rebuilds, now=NOW)),
        certain(pending_card(rollbacks, now=NOW)),
        history_of(rebuilds, name=None),
        history_of(rollbacks, name="dotnet-sdk-6"),
        help_card([(text, text)]),
        text_card(text, suggestion=text),
    ]


def test_hostile_text_finds_no_markdown_where_it_would_be_read() -> None:
    """In titles and facts, where Markdown is read, every mark of it is escaped."""
    for card in hostile_cards(HOSTILE):
        for node in elements(card.content):
            text = node.get("value") if "value" in node and "title" in node else None
            text = node["text"] if node.get("type") == "TextBlock" else text
            if text is not None:
                bare = re.sub(r"\\.", "", MACRO.sub("", text))
                assert not re.search(r"[\\`*_\[\]<>&~]", bare), text
                assert "](" not in text


def test_hostile_text_adds_no_macro_and_no_invisible_characters() -> None:
    """Control, direction and surrogate characters are gone, and only our own date macros are left."""
    for card in hostile_cards(HOSTILE):
        json.dumps(card.content, ensure_ascii=False).encode()
        for node in elements(card.content):
            for text in (value for value in node.values() if isinstance(value, str)):
                assert "{{" not in MACRO.sub("", text)
                assert "2020-01-01" not in "".join(MACRO.findall(text))
                assert text.replace("\u00a0", " ").isprintable()
        assert card.summary.isprintable()


def test_hostile_text_stays_in_rich_text() -> None:
    """What is shown as written stands in text runs, which know no Markdown: mentions and links stay letters."""
    card = rebuild_card(rebuild(State.REJECTED, ended_reason=HOSTILE), platform_image(), now=NOW)
    [block] = [node for node in elements(card.content) if "<at>Alex" in words(node) and node["type"] == "RichTextBlock"]
    assert {run["type"] for run in block["inlines"]} == {"TextRun"}
    assert "entities" not in card.content["msteams"]


@pytest.mark.parametrize(
    "text", ["x" * 10_000, '"' * 10_000, "\\" * 10_000, "*" * 10_000, "🚢" * 10_000, "日本" * 5_000]
)
def test_ten_thousand_characters_are_cut(text: str) -> None:
    """No text is long enough to make a card that Teams refuses."""
    assert max(map(length, hostile_cards(text))) <= BUDGET


def test_a_link_that_is_not_a_web_page_gets_no_button() -> None:
    """Open run opens web pages only."""
    card = rebuild_card(rebuild(State.RUNNING, run_url="javascript:alert(1)"), platform_image(), now=NOW)
    assert "Open run" not in buttons(card)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_no_text_breaks_the_rules(text: str) -> None:
    """Whatever people, registries and pipelines say, cards stay within the budget and can be sent."""
    for card in hostile_cards(text):
        assert length(card) <= BUDGET
        json.dumps(card.content, ensure_ascii=False).encode()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.sampled_from(State), st.sampled_from(list(Status)), st.text(max_size=100))
def test_long_lists_keep_the_budget(count: int, state: State, status: Status, text: str) -> None:
    """Two hundred images in any state need no more than the budget, and none is forgotten."""
    names = [f"dotnet-runtime-deps-10-chiseled-{number:03}" for number in range(count)]
    rebuilds = [rebuild(state, id=f"id{number:06}", image=name, reason=text) for number, name in enumerate(names)]
    check = check_of(*(verdict(name, status, reason=text) for name in names), rebuilds=rebuilds)
    viewed = Audience(may=dict.fromkeys(names, text), refresh=SIXTY)
    asked = check_of(*(verdict(name, status) for name in names), rebuilds=rebuilds, audience=viewed)
    overview = list_card([replace(status_of(FRESH), image=platform_image(name)) for name in names], now=NOW)
    for card in (check, asked, overview, pending_card(rebuilds, now=NOW)):
        if card:
            assert length(card) <= BUDGET
    if count and status is not Status.FRESH:
        [left] = re.findall(r"(\d+) more", seen(check)) or ["0"]
        assert len(re.findall("chiseled-", seen(check))) + int(left) == count


# The card of a rebuild


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.AWAITING_APPROVAL, ["Approve", "Reject…", "Why?"]),
        (State.APPROVED, ["Cancel…", "Why?"]),
        (State.QUEUED, ["Open run", "Cancel…", "Why?"]),
        (State.RUNNING, ["Open run", "Cancel…", "Why?"]),
        (State.VERIFYING, ["Open run", "Why?"]),
        (State.SUCCEEDED, ["Open run", "Why?"]),
        (State.FAILED, ["Retry failed stage", "Open run", "Why?"]),
        (State.CANCELLED, ["Open run", "Why?"]),
        (State.REJECTED, ["Why?"]),
        (State.EXPIRED, ["Why?"]),
        (State.SUPERSEDED, ["Why?"]),
    ],
)
def test_a_rebuild_has_the_buttons_that_mean_something(state: State, expected: list[str]) -> None:
    """A card loses what no longer means anything."""
    assert buttons(rebuild_card(rebuild(state), platform_image(), now=NOW)) == expected


def test_an_image_on_hold_has_a_release_and_no_question() -> None:
    """Wherever the image is shown, people see who holds it and why, and can let it go."""
    summary = check_of(verdict(), rebuilds=[rebuild(State.SUPERSEDED)], holds={"dotnet-sdk-6": hold()})
    status = status_card_of(verdict(), hold=hold())
    for card in (summary, status):
        assert "On hold by Alex Wilber since" in seen(card)
        assert "breaks our proxy" in seen(card)
        assert "Release" in buttons(card)
        assert "Approve" not in buttons(card)


def test_buttons_of_a_decision_go_when_its_time_is_over() -> None:
    """Once the deadline has passed nobody is invited to decide, even before the row says expired."""
    late = NOW + timedelta(days=7)
    assert buttons(rebuild_card(rebuild(), platform_image(), now=late)) == ["Why?"]


def test_a_rebuild_that_is_being_cancelled_cannot_be_cancelled_again() -> None:
    """Azure DevOps was asked already: the card says so and has no Cancel."""
    card = rebuild_card(rebuild(State.RUNNING, ended_by=ALEX), platform_image(), now=NOW)
    assert "being cancelled" in seen(card)
    assert "Cancel…" not in buttons(card)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.AWAITING_APPROVAL, "waits for approval"),
        (State.APPROVED, "approved"),
        (State.QUEUED, "queued"),
        (State.RUNNING, "testing"),
        (State.VERIFYING, "pushed, being verified"),
        (State.SUCCEEDED, f"in ECR as {TAG}"),
        (State.FAILED, "test failed"),
        (State.CANCELLED, "cancelled"),
        (State.REJECTED, "rejected"),
        (State.EXPIRED, "expired"),
        (State.SUPERSEDED, "superseded"),
    ],
)
def test_the_first_line_says_what_happened_to_which_image(state: State, said: str) -> None:
    """A rebuild's state is in words, on the card and in the toast."""
    card = rebuild_card(rebuild(state), platform_image(), now=NOW)
    assert seen(card).splitlines()[0] == f"dotnet-sdk-6 · {said}"
    assert card.summary.endswith(said)


def test_stages_have_marks_words_and_times() -> None:
    """`✓ Build 2 m 10 s`, `● Test since …`, `○ Push`: readable without colour, true while nobody edits the card."""
    strip = seen(rebuild_card(rebuild(State.RUNNING), platform_image(), now=NOW)).splitlines()[1]
    assert strip.split("   ") == ["✓ Build 2 m 10 s", "● Test since {{TIME(2026-11-23T06:15:00Z)}}", "○ Push"]


def test_a_stage_is_not_torn_apart_by_the_end_of_a_line() -> None:
    """On a narrow phone the strip wraps between stages."""
    card = rebuild_card(rebuild(State.RUNNING), platform_image(), now=NOW)
    [build] = [node["text"] for node in elements(card.content) if "Build" in str(node.get("text"))]
    assert " " not in build


def test_skipped_and_failed_stages_have_marks_of_their_own() -> None:
    """A failed stage is `✕`, one that never began `–`."""
    strip = seen(rebuild_card(rebuild(State.FAILED), platform_image(), now=NOW)).splitlines()[1]
    assert "✕ Test 40 s" in strip
    assert "– Push" in strip


def test_stages_of_another_pipeline_are_shown_by_their_names() -> None:
    """Nothing depends on stages being named Build, Test and Push, nor on their being there."""
    scan = stage("Scan for secrets", StageState.RUNNING)
    card = rebuild_card(rebuild(State.RUNNING, stages=(scan,)), platform_image(), now=NOW)
    assert "dotnet-sdk-6 · running Scan for secrets" in seen(card)
    assert "● Scan for secrets since" in seen(card)
    assert "dotnet-sdk-6 · running\n" in seen(rebuild_card(rebuild(State.RUNNING, stages=()), None, now=NOW))


def test_a_failed_rebuild_shows_the_end_of_the_log_in_mono() -> None:
    """The last lines of the failed stage's log are on the card, in order, in a fixed-width font."""
    log = tuple(f"line {number}" for number in range(30))
    card = rebuild_card(rebuild(State.FAILED, log_tail=log), platform_image(), now=NOW)
    mono = [node["text"] for node in elements(visible(card.content)) if node.get("fontType") == "Monospace"]
    assert mono == list(log[-12:])


def test_retry_is_of_the_stage_or_a_new_rebuild() -> None:
    """Retry failed stage is the command `retry`; Retry all is `rebuild` with the failed rebuild as its reason."""
    card = rebuild_card(rebuild(State.FAILED), platform_image(), now=NOW)
    stage, everything = action(card, "Retry failed stage"), action(card, "Retry all")
    assert (stage["verb"], stage["data"]) == ("retry", {"target": "k7m2pq9x"})
    assert everything["verb"] == "rebuild"
    assert everything["data"] == {"target": "dotnet-sdk-6", "reason": "retry of k7m2pq9x"}


@pytest.mark.parametrize("changes", [{"stages": (BUILT,)}, {"run_id": None}], ids=["no stage failed", "no run"])
def test_without_a_failed_stage_only_a_new_run_is_offered(changes: dict[str, Any]) -> None:
    """What failed outside of a stage cannot go on where it stopped."""
    card = rebuild_card(rebuild(State.FAILED, **changes), platform_image(), now=NOW)
    assert buttons(card) == ["Retry all", "Open run", "Why?"]


def test_a_failed_rebuild_names_step_duration_and_errors_before_the_log() -> None:
    """Five errors of the step at most, none of them again in the log below."""
    failed = replace(TEST_FAILED, failed_step="Run the application", errors=tuple(f"error {n}" for n in range(7)))
    card = rebuild_card(rebuild(State.FAILED, stages=(BUILT, failed), log_tail=("a line", "error 1")), None, now=NOW)
    told = seen(card).splitlines()
    assert told[2:9] == ["Test · Run the application failed after 40 s.", *(f"error {n}" for n in range(5)), "a line"]
    assert seen(card).count("error 1") == 1


def test_a_failure_is_told_before_the_end_of_support() -> None:
    """What happened comes first, and what was known before comes after it."""
    told = seen(rebuild_card(rebuild(State.FAILED, support=OVER), platform_image(), now=NOW))
    assert 0 < told.index("failed after 40 s") < told.index("Support of .NET 6.0 ended on 12 Nov 2024.")


def test_a_chart_has_as_many_bars_as_a_phone_can_show() -> None:
    """Twelve weeks are told in words, and the newest ten of them drawn."""
    weeks = tuple((NOW - timedelta(weeks=12 - number), timedelta(days=1)) for number in range(12))
    drawn = check_of(FRESH, latencies=replace(TOOK, weeks=weeks))
    [chart] = [each for each in elements(drawn.content) if each.get("type") == "Chart.VerticalBar"]
    assert [bar["x"] for bar in chart["data"]] == [f"{week}" for week in range(38, 48)]


def test_a_retried_rebuild_shows_its_attempt() -> None:
    """Attempts are told as long as the rebuild has a run, and the time before Azure begins has words of its own."""
    again = rebuild(State.RUNNING, attempt=2)
    assert "run 20261123.4 · attempt 2" in seen(rebuild_card(again, platform_image(), now=NOW))
    waiting = replace(again, retry_until=NOW + timedelta(minutes=1))
    assert "dotnet-sdk-6 · about to be retried" in seen(rebuild_card(waiting, platform_image(), now=NOW))


def test_a_finished_rebuild_tells_tag_digest_size_duration_and_people() -> None:
    """The last state of the card is the record of the rebuild."""
    text = seen(rebuild_card(rebuild(State.SUCCEEDED), platform_image(), now=NOW))
    assert f"Digest {digest('pushed').short} · 211 MB (−3 MB) · took 6 m 02 s" in text
    assert f"Built from base {digest('new').short} as approved." in text
    assert "Run 20261123.4 · approved by Alex Wilber" in text


def test_missing_approvals_are_counted() -> None:
    """Where two have to approve, the card says how many did, and who."""
    image = platform_image(required=2)
    assert "0 of 2 approvals." in seen(rebuild_card(rebuild(), image, now=NOW))
    assert "1 of 2 approvals, by Alex Wilber." in seen(rebuild_card(rebuild(votes=(vote(),)), image, now=NOW))


def test_everybody_who_approved_is_named() -> None:
    """Names are joined as people say them; a crowd is counted."""
    people = [Person(id=name, name=name) for name in ("Ann", "Bob", "Cid", "Dee", "Eve")]
    for count, said in [(1, "by Ann"), (2, "by Ann and Bob"), (3, "Ann, Bob and Cid"), (5, "Ann, Bob, Cid and 2 more")]:
        votes = tuple(map(vote, people[:count]))
        assert said in seen(rebuild_card(rebuild(State.QUEUED, votes=votes), platform_image(), now=NOW))


def test_an_automatic_rebuild_says_that_nobody_was_asked() -> None:
    """In mode auto there is no approver to name."""
    card = rebuild_card(rebuild(State.QUEUED, votes=()), platform_image(mode=Mode.AUTO), now=NOW)
    assert "approved by the catalog (mode auto)" in seen(card)


def test_a_rebuild_that_cannot_be_queued_says_why_and_when_it_is_tried_again() -> None:
    """The approval is kept; the card tells what is in the way."""
    stuck = rebuild(State.APPROVED, problem="Azure DevOps answered 503", next_attempt_at=NOW)
    text = seen(rebuild_card(stuck, platform_image(), now=NOW))
    assert "Cannot be queued yet: Azure DevOps answered 503. Next try {{TIME(2026-11-23T06:00:00Z)}}." in text


def test_a_rejected_rebuild_says_who_and_why() -> None:
    """Those who ask why find name and reason on the card."""
    assert "By Megan Bowen: wait for the security team." in seen(rebuild_card(rebuild(State.REJECTED), None, now=NOW))


def test_a_superseded_rebuild_names_its_successor() -> None:
    """The old card leads to the new question."""
    text = seen(rebuild_card(rebuild(State.SUPERSEDED), None, now=NOW))
    assert "The base moved again. Its successor is h3n8w2ab." in text


def test_who_asked_and_why_is_told() -> None:
    """A request by a person names them and gives their reason."""
    asked = rebuild(cause=Cause.REQUESTED, requested_by=MEGAN, reason="new certificate")
    text = seen(rebuild_card(asked, platform_image(), now=NOW))
    assert "Reason: new certificate" in text
    assert "Asked by Megan Bowen, {{DATE(2026-11-23T06:00:00Z,SHORT)}}" in text


def test_reject_needs_a_reason_and_cancel_a_second_press() -> None:
    """Nothing is destroyed by one press: both open a form whose button does it."""
    form = action(rebuild_card(rebuild(), None, now=NOW), "Reject…")["card"]
    [reason], [reject] = form["body"], form["actions"]
    assert reason["isRequired"] is True
    assert reason["errorMessage"]
    assert (reject["verb"], reject["data"]) == ("reject", {"target": "k7m2pq9x"})
    [cancel] = action(rebuild_card(rebuild(State.RUNNING), None, now=NOW), "Cancel…")["card"]["actions"]
    assert (cancel["verb"], cancel["data"]) == ("cancel", {"target": "k7m2pq9x"})


def test_inputs_arrive_as_the_arguments_of_the_command() -> None:
    """What a button sends, its inputs under ids of their own, is the command's arguments again."""
    card = rebuild_card(rebuild(), None, now=NOW)
    inputs = {node["id"]: "because" for node in elements(card.content) if node.get("type") == "Input.Text"}
    sent = action(card, "Approve")["data"] | inputs
    assert arguments(sent) == {"target": "k7m2pq9x", "comment": "because", "reason": "because"}


def test_a_rollback_asks_with_tags_and_versions() -> None:
    """The question names what moves, from where to where, and that nothing is built."""
    text = seen(rebuild_card(rollback(), platform_image(), now=NOW))
    assert "dotnet-sdk-6 · rollback to 1.3.0 waits for approval" in text
    assert "Move 6.0, latest from 1.4.0 back to 1.3.0 · no build" in text
    assert "Reason: breaks our proxy" in text


def test_a_rollback_that_is_done_offers_the_way_out_of_its_hold() -> None:
    """The result names the tags; the first button ends the hold, but for the way back to a newer version."""
    card = rebuild_card(rollback(State.SUCCEEDED), platform_image(), now=NOW)
    assert "Moved 6.0, latest from 1.4.0 back to 1.3.0." in seen(card)
    assert buttons(card) == ["Release", "History", "Why?"]
    on = rollback(State.SUCCEEDED, version_tag=TAG, previous_tag="6.0-bullseye-slim-1.3.0")
    assert "moved on to 1.4.0" in seen(rebuild_card(on, platform_image(), now=NOW))
    assert "Release" not in buttons(rebuild_card(on, platform_image(), now=NOW))


def test_history_offers_the_version_before_the_one_in_use_first() -> None:
    """Of what is known, the version in use is not offered, and newer ones come last."""
    done = [
        rebuild(
            State.SUCCEEDED, version_tag=f"6.0-bullseye-slim-1.{new}.0", previous_tag=f"6.0-bullseye-slim-1.{old}.0"
        )
        for new, old in ((4, 3), (3, 2))
    ]
    card = history_of([rollback(State.SUCCEEDED), *done])
    (choices,) = [node for node in elements(card.content) if node.get("type") == "Input.ChoiceSet"]
    assert [choice["value"] for choice in choices["choices"]] == ["1.2.0", "1.4.0"]
    assert choices["value"] == "1.2.0"


def test_a_child_that_waits_says_for_what() -> None:
    """That its parent is not ready yet is something normal, not trouble."""
    card = rebuild_card(child(1, State.APPROVED, version_tag=None), platform_image(), now=NOW)
    assert "orders-1 · waits for dotnet-sdk-6" in seen(card)
    assert "on what its rebuild k7m2pq9x pushes" in seen(card)
    assert "Cannot be queued" not in seen(card)


def test_a_parent_shows_its_children_and_decides_about_those_that_wait() -> None:
    """One child has its own decision; several have one for all, and one for each behind a third button."""
    alone = parent_of(child(1), child(2, State.CANCELLED, ended_reason="skipped: dotnet-sdk-6 failed", waits_for=""))
    assert "orders-2 cancelled · skipped: dotnet-sdk-6 failed" in seen(alone).replace("\u00a0", " ").replace("  ", " ")
    assert buttons(alone)[:2] == ["Approve", "Reject…"]
    several = parent_of(child(1), child(2))
    assert buttons(several)[:3] == ["Approve 2 children", "Reject all…", "One by one"]
    assert action(several, "Approve 2 children")["data"] == {"target": "all", "after": "k7m2pq9x"}
    decided = parent_of(child(1, State.RUNNING))
    assert buttons(decided) == buttons(parent_of())


def test_a_parent_of_hundreds_keeps_the_budget() -> None:
    """Children that find no room are counted."""
    card = rebuild_card(
        rebuild(State.FAILED, log_tail=("x" * 160,) * 12), platform_image(), [child(n) for n in range(300)], now=NOW
    )
    assert length(card) <= BUDGET
    assert "more: pending" in seen(card)


def test_a_decision_about_several_has_a_line_for_each() -> None:
    """Done, counted, or refused with the reason; whoever pressed a button gets the same as text."""
    card = decided_card(OUTCOMES, "approved")
    lines = ["1 of 3 approved", "✓ dotnet-sdk-6", "● dotnet-sdk-8", "✕ dotnet-aspnet-8"]
    assert [line.startswith(start) for line, start in zip(card.text.splitlines(), lines, strict=True)] == [True] * 4
    assert "1 of 2 approvals" in card.text
    assert "You may not approve" in seen(card)


def test_what_may_not_be_new_is_told() -> None:
    """An old scan of the version before knows less than today's of the new one."""
    told = "The version before was last scanned"
    assert told in seen(EVERY_CARD["rebuild whose predecessor was scanned long ago"]())
    assert told not in seen(EVERY_CARD["rebuild with scans"]())


def test_an_update_tells_its_way_to_ecr() -> None:
    """Behind Why?: when the base was seen, and how long each step took."""
    card = EVERY_CARD["rebuild that was an update"]()
    text = words(card.content)
    assert "The base moved for linux/amd64 (label)." in text
    assert "asked after 1.2 days, approved after 10 minutes, in ECR after 11 minutes: 1.3 days in all." in text
    assert "1.3 days in all" not in seen(card)


@pytest.mark.parametrize(
    ("took", "told"),
    [
        (timedelta(seconds=50), "less than a minute"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(hours=5.3), "5.3 hours"),
        (timedelta(days=1), "1.0 days"),
    ],
)
def test_how_long_an_update_took_is_told_in_its_largest_unit(took: timedelta, told: str) -> None:
    """And never as nothing."""
    assert span(took) == told


# The card of a check


def test_the_weekly_card_tells_how_long_updates_take() -> None:
    """Median and worst in words; the chart has the weeks, and so has the text for clients without charts."""
    card = EVERY_CARD["weekly check with a chart"]()
    assert "median 2.5 days, worst 6.0 days (dotnet-aspnet-8); 3 updates" in seen(card)
    [chart] = [node for node in elements(card.content) if node.get("type") == "Chart.VerticalBar"]
    assert chart["data"] == [{"x": "46", "y": 6.0}, {"x": "47", "y": 1.2}]
    assert buttons(card)[-1] == "By week"
    assert "Chart" not in json.dumps(visible(card.content))
    assert "9 Nov 6.0 days · 16 Nov 1.2 days" in words(chart["fallback"])


def test_one_week_needs_no_chart() -> None:
    """A single number is a sentence."""
    card = check_of(verdict(), rebuilds=[rebuild()], latencies=replace(TOOK, weeks=TOOK.weeks[:1]))
    assert "median 2.5 days" in seen(card)
    assert "Chart" not in json.dumps(card.content)


def test_a_long_weekly_card_with_a_chart_keeps_the_budget() -> None:
    """The chart and the buttons for all of them take their room from the rows."""
    names = [f"dotnet-{number}" for number in range(200)]
    rebuilds = [rebuild(id=f"id{number:06}", image=name) for number, name in enumerate(names)]
    weeks = tuple((NOW - timedelta(weeks=age), timedelta(days=age)) for age in range(12, 0, -1))
    card = check_of(*map(verdict, names), rebuilds=rebuilds, latencies=replace(TOOK, weeks=weeks))
    assert length(card) <= BUDGET
    assert "Chart.VerticalBar" in json.dumps(card.content)


def test_why_tells_what_the_check_rests_on() -> None:
    """Evidence and platform, both digests, first sight, and other tags of the version."""
    found = verdict(tags=("6.0", "6.0-bullseye-slim-1.3.0", "latest"))
    for card in (check_of(found, rebuilds=[rebuild()]), status_card_of(found)):
        text = words(card.content)
        assert "The base moved for linux/amd64 (label)." in text
        assert digest("old") in text
        assert digest("new") in text
        assert "This base was first seen {{DATE(2026-11-23T06:00:00Z,SHORT)}}" in text
        assert "another one last {{DATE(2026-11-16T06:00:00Z,SHORT)}}" in text
        assert "The same image in ECR: 6.0, latest." in text
    assert "(2 days ago)" in words(status_card_of(found).content)


def test_everything_that_waits_is_decided_at_once_for_this_check_only() -> None:
    """From two questions on there are buttons for all of them, which carry the check."""
    one = check_of(verdict(), rebuilds=[rebuild()])
    assert "Approve all" not in " ".join(buttons(one))
    two = EVERY_CARD["check of two"]()
    assert buttons(two)[-2:] == ["Approve all 2", "Reject all…"]
    assert action(two, "Approve all 2")["data"] == {"target": "all", "check": "0"}
    [reject] = action(two, "Reject all…")["card"]["actions"]
    assert (reject["verb"], reject["data"]) == ("reject", {"target": "all", "check": "0"})


def test_a_check_without_findings_is_one_line() -> None:
    """Nobody is told more than needed: one paragraph, no buttons."""
    card = check_of(FRESH, replace(FRESH, name="dotnet-sdk-10"))
    assert seen(card) == "Monday check · {{DATE(2026-11-23T06:00:00Z,SHORT)}} · all 2 images are fresh"
    assert len(card.content["body"]) == 1
    assert buttons(card) == []


def test_a_check_that_somebody_asked_for_has_its_time_in_the_title() -> None:
    """Scheduled checks are named by their day, others by their moment."""
    card = check_card(Check(checked_at=NOW, verdicts=(FRESH,)), {}, {}, now=NOW)
    assert seen(card).startswith("Check · {{DATE(2026-11-23T06:00:00Z,SHORT)}} {{TIME(2026-11-23T06:00:00Z)}}")
    assert seen(card).endswith("dotnet-sdk-8 is fresh")


def test_a_check_asks_for_each_waiting_image() -> None:
    """A stale image has its digests, since when, and its own buttons."""
    card = check_of(verdict(), FRESH, rebuilds=[rebuild()])
    text = seen(card)
    assert "1 stale · 1 fresh" in text
    assert "○ dotnet-sdk-6  waits for approval" in text
    since = "{{DATE(2026-11-16T06:00:00Z,SHORT)}} and {{DATE(2026-11-23T06:00:00Z,SHORT)}}"
    assert f"Base moved between {since}" in text
    assert f"{digest('old').short} → {digest('new').short}" in text
    assert buttons(card) == ["Approve", "Reject…", "Why?"]
    assert action(card, "Approve")["data"] == {"target": "k7m2pq9x"}
    assert card.summary == "dotnet-sdk-6: update waits for approval"


@pytest.mark.parametrize(
    ("first_seen", "moved_after", "said"),
    [
        (NOW, None, "New base first seen {{DATE(2026-11-23T06:00:00Z,SHORT)}} {{TIME(2026-11-23T06:00:00Z)}}"),
        (NOW, NOW - timedelta(minutes=5), "Base moved {{DATE(2026-11-23T06:00:00Z,SHORT)}} {{TIME("),
        (NOW, NOW - timedelta(hours=5), "between {{TIME(2026-11-23T01:00:00Z)}} and {{TIME(2026-11-23T06:00:00Z)}}"),
        (None, None, "The base moved\n"),
    ],
)
def test_since_when_is_as_exact_as_it_is_known(first_seen: Any, moved_after: Any, said: str) -> None:
    """The base moved between two looks at it; without an earlier one it was first seen."""
    stale = verdict(first_seen=first_seen, moved_after=moved_after)
    assert said in seen(check_of(stale, rebuilds=[rebuild()]))


@pytest.mark.parametrize("state", [state for state in State if state is not State.AWAITING_APPROVAL])
def test_rows_follow_what_became_of_the_question(state: State) -> None:
    """Once answered a row says what happened and has no buttons."""
    answered = rebuild(state)
    card = check_of(verdict(), rebuilds=[answered])
    said = rebuild_card(answered, None, now=NOW).summary.removeprefix("dotnet-sdk-6: ")
    assert f"dotnet-sdk-6  {said}" in seen(card)
    assert buttons(card) == []


def test_an_image_that_could_not_be_checked_gives_the_reason() -> None:
    """Unknown is neither fresh nor stale: it is shown, and asks for nothing."""
    card = check_of(UNKNOWN, FRESH)
    assert "✕ dotnet-runtime-10  unknown" in seen(card)
    assert "Could not be checked: mcr.microsoft.com answered 429" in seen(card)
    assert buttons(card) == []


def test_an_outage_tells_its_beginning() -> None:
    """On the card of a check and on the status of the image."""
    odd = replace(UNKNOWN, unknown_since=NOW - timedelta(days=7))
    for card in (check_of(odd), status_card_of(odd)):
        assert "Could not be checked since {{DATE(2026-11-16T06:00:00Z,SHORT)}}" in seen(card)


def test_what_works_again_is_said() -> None:
    """The first check after a failure, and images that can be checked again, with since when they could not."""
    card = check_of(MENDED, UNKNOWN, failed_since=NOW - timedelta(hours=2))
    since = "{{DATE(2026-11-16T06:00:00Z,SHORT)}} {{TIME(2026-11-16T06:00:00Z)}}"
    assert "Checks work again; they had failed since {{DATE(2026-11-23T04:00:00Z,SHORT)}}" in seen(card)
    assert f"Could be checked again: dotnet-sdk-8 (unknown since {since})." in seen(card)
    assert f"Could be checked again: dotnet-sdk-8 (unknown since {since})." in seen(check_of(MENDED))


def test_many_images_that_work_again_are_counted() -> None:
    """The line stays short, whatever went wrong for however many."""
    card = check_of(*(replace(MENDED, name=f"image-{number}") for number in range(30)))
    assert "image-7 (unknown since" in seen(card)
    assert "image-8" not in seen(card)
    assert "and 22 more." in seen(card)


def test_a_rejected_base_is_not_asked_for_again() -> None:
    """A stale image without a question says why it has none."""
    card = check_of(verdict(), catalog={"dotnet-sdk-6": platform_image()})
    assert "This base was rejected" in seen(card)
    assert buttons(card) == []


def test_an_image_that_is_only_told_about_can_be_rebuilt() -> None:
    """In mode notify nobody is asked, but a person may start it."""
    card = check_of(verdict(), catalog={"dotnet-sdk-6": platform_image(mode=Mode.NOTIFY)})
    assert "mode notify" in seen(card)
    assert action(card, "Rebuild")["data"] == {"target": "dotnet-sdk-6"}


def test_an_unbuilt_image_asks_for_its_first_build() -> None:
    """No version in ECR is a normal first build, not an error."""
    first = rebuild(image="dotnet-aspnet-8", cause=Cause.FIRST_BUILD, old_digest=None)
    card = check_of(UNBUILT, rebuilds=[first])
    assert "1 never built" in seen(card)
    assert "No version is in ECR yet" in seen(card)
    assert "Approve" in buttons(card)


def test_a_conversation_sees_only_its_images() -> None:
    """Rows and counts are restricted to the images that a conversation asked for."""
    card = check_of(verdict(), UNKNOWN, FRESH, rebuilds=[rebuild()], images=("dotnet-runtime-10",))
    assert "dotnet-sdk-6" not in seen(card)
    assert "1 unknown" in seen(card).splitlines()
    assert buttons(check_of(verdict(), FRESH, rebuilds=[rebuild()], images=("dotnet-sdk-8",))) == []


def test_a_failed_check_says_so() -> None:
    """Silence would look like good news."""
    card = check_card(Check(checked_at=NOW, slot=NOW, problem="the disk is full"), {}, {}, now=NOW)
    assert seen(card).splitlines()[0].endswith("failed")
    assert "No image was checked: the disk is full" in seen(card)
    assert buttons(card) == ["Check now"]


def test_a_long_check_pages_to_the_list() -> None:
    """What does not fit is counted, and the command that shows it is named."""
    names = [f"dotnet-{number}" for number in range(200)]
    rebuilds = [rebuild(id=f"id{number:06}", image=name) for number, name in enumerate(names)]
    card = check_of(*map(verdict, names), rebuilds=rebuilds)
    shown = len(re.findall("waits for approval", seen(card)))
    assert shown >= 10
    assert f"{200 - shown} more: list" in seen(card)
    assert action(card, "Show all")["verb"] == "list"


# Answers


def test_status_says_how_long_an_image_is_stale() -> None:
    """The answer to `status` has age, version, base, digests and the next check."""
    text = seen(status_card_of(verdict(), history=(rebuild(State.SUCCEEDED), rebuild(State.FAILED))))
    assert text.splitlines()[0] == "dotnet-sdk-6 · stale for 2 days"
    assert "In ECR: 6.0-bullseye-slim-1.3.0, pushed {{DATE(2026-11-09T06:00:00Z,SHORT)}}, 214 MB" in text
    assert f"Built on: {BASE} at {digest('old').short}" in text
    assert f"Now: {digest('new').short}, first seen" in text
    assert "Last: ✓ 1.4.0 approved by Alex Wilber; ✕ test failed" in text
    assert "next check {{DATE(2026-11-30T06:00:00Z,SHORT)}}" in text


@pytest.mark.parametrize(
    ("status", "open_", "expected"),
    [
        (verdict(), None, ["Rebuild", "History", "Why?"]),
        (FRESH, None, ["Rebuild", "History", "Why?"]),
        (verdict(), rebuild(), ["Approve", "Reject…", "Why?"]),
        (verdict(), rebuild(State.RUNNING), ["Open run", "History", "Why?"]),
        (verdict(), rebuild(State.APPROVED), ["History", "Why?"]),
    ],
    ids=["stale", "fresh", "waiting", "running", "approved"],
)
def test_status_offers_what_comes_next(status: Verdict, open_: Rebuild | None, expected: list[str]) -> None:
    """The first button is what most people want now."""
    assert buttons(status_card_of(status, open=open_)) == expected


def test_list_begins_with_what_needs_somebody() -> None:
    """Stale before never built before unknown before fresh; the heading counts them."""
    statuses = [
        replace(status_of(each), image=platform_image(name))
        for name, each in [("fresh-one", FRESH), ("odd-one", UNKNOWN), ("stale-one", verdict()), ("new-one", UNBUILT)]
    ]
    lines = seen(list_card(statuses, now=NOW)).splitlines()
    assert lines[0] == "4 images · 1 stale, 1 never built, 1 unknown, 1 fresh"
    assert [line.split()[1] for line in lines[1:]] == ["stale-one", "new-one", "odd-one", "fresh-one"]


def test_pending_has_a_decision_per_row_or_is_nothing() -> None:
    """Each waiting rebuild can be decided where it is listed."""
    card = certain(pending_card([rebuild(), rebuild(id="abcdefgh", image="dotnet-sdk-8")], now=NOW))
    assert buttons(card) == ["Approve", "Reject…", "Why?"] * 2
    assert pending_card([], now=NOW) is None


def test_history_tells_how_each_ended() -> None:
    """Newest first, with the outcome in words, when, and who."""
    card = history_of([rebuild(State.SUCCEEDED), rebuild(State.REJECTED)])
    text = seen(card)
    assert text.splitlines()[0] == "dotnet-sdk-6 · last 2 rebuilds"
    assert f"✓ in ECR as {TAG}" in text
    assert "By Megan Bowen: wait for the security team" in text


def test_history_tells_people_digests_and_durations() -> None:
    """Who asked and approved, what it was built on, which version, how long, with the run one press away."""
    started = NOW + timedelta(minutes=15)
    ended = rebuild(
        State.FAILED,
        requested_by=MEGAN,
        queued_at=started,
        run_finished_at=started + timedelta(minutes=6),
        ended_at=NOW + WEEK,
    )
    card = history_of([ended])
    text = seen(card)
    assert "asked by Megan Bowen · approved by Alex Wilber · 6.0-bullseye-slim-1.4.0 · ran 6 m 00 s" in text
    assert f"7 days from the question · run 20261123.4 · {digest('old').short} → {digest('new').short}" in text
    (opened,) = [node["selectAction"] for node in elements(card.content) if "selectAction" in node]
    assert opened["url"] == RUN_URL
    assert "asked by a check" in seen(history_of([rebuild()]))


def test_history_goes_on_after_the_last_row_that_fits() -> None:
    """However long reasons and names are, *Older* starts where the card ends."""
    long = [rebuild(State.REJECTED, id=f"rebuild{number}", ended_reason="\u00e9" * 500) for number in range(10)]
    several = [replace(each, votes=(vote(Person(id="x", name="\u00e9" * 300)),) * 4) for each in long]
    card = history_of(several, name=None)
    shown = seen(card).count("✕") + seen(card).count("– dotnet")
    assert 1 < shown < 10
    assert action(card, "Older")["data"] == {"target": "", "before": f"rebuild{shown - 1}"}
    assert "Older" not in buttons(history_of(long[:2]))


def test_help_lists_usage_and_meaning() -> None:
    """Brackets of a usage are letters, not links."""
    assert "status [IMAGE]  one image" in seen(help_card([("status [IMAGE]", "one image")]))


def test_a_suggestion_can_be_run() -> None:
    """The button of a one-liner carries the command line that was meant; the line can be said without a card."""
    card = text_card("Did you mean dotnet-sdk-6?", suggestion="status dotnet-sdk-6")
    button = action(card, "status dotnet-sdk-6")
    assert (button["verb"], button["data"]) == ("run", {"text": "status dotnet-sdk-6"})
    assert card.text == "Did you mean dotnet-sdk-6?"


# Notices


def test_a_notice_calls_everybody_once() -> None:
    """Whoever asked, approved or ended a rebuild is mentioned; somebody Teams does not know is named."""
    silent = Person(id="nobody", name="No Mri")
    done = rebuild(State.SUCCEEDED, requested_by=ALEX, votes=(vote(ALEX), vote(MEGAN), vote(silent)))
    said = notice(done)
    assert said.text == f"dotnet-sdk-6: in ECR as {TAG}. <at>Alex Wilber</at> <at>Megan Bowen</at> No Mri"
    assert said.mentions == (ALEX, MEGAN)


@pytest.mark.parametrize(
    ("principal_name", "second"),
    [
        pytest.param("alex.wilber2@contoso.com", "Alex Wilber (alex.wilber2@contoso.com)", id="with principal names"),
        pytest.param("", "Alex Wilber (2)", id="without"),
    ],
)
def test_people_of_the_same_name_are_told_apart(principal_name: str, second: str) -> None:
    """Teams finds who is meant by the text of a mention, so no two are the same, and each has its own person."""
    other = Person(id="other", name="Alex Wilber", mri="29:other", principal_name=principal_name)
    said = notice(rebuild(State.SUCCEEDED, requested_by=ALEX, votes=(vote(other),)))
    assert said.text.endswith(f". <at>Alex Wilber</at> <at>{second}</at>")
    assert [(person.name, person.mri) for person in said.mentions] == [("Alex Wilber", ALEX.mri), (second, "29:other")]


def test_somebody_without_a_name_is_not_called() -> None:
    """An empty mention would be refused by Teams."""
    said = notice(rebuild(State.SUCCEEDED, votes=(vote(Person(id="x", name=" \u200b ", mri="29:x")),)))
    assert said.mentions == ()
    assert "<at>" not in said.text


def test_a_notice_is_well_formed_whatever_people_are_called() -> None:
    """A name cannot close its mention, and text and mentions agree, or Teams refuses the message."""
    person = Person(id="x", name=f"A </at><at>B</at> {HOSTILE}", mri="29:x")
    said = notice(rebuild(State.FAILED, votes=(vote(person),), stages=(stage(HOSTILE, StageState.FAILED),)))
    called = ElementTree.fromstring(f"<text>{said.text}</text>").findall("at")
    assert [at.text for at in called] == [person.name for person in said.mentions]
    assert [person.mri for person in said.mentions] == ["29:x"]


# Formats


@pytest.mark.parametrize(
    ("took", "said"),
    [
        (timedelta(seconds=40), "40 s"),
        (timedelta(minutes=2, seconds=10), "2 m 10 s"),
        (timedelta(minutes=6, seconds=2), "6 m 02 s"),
        (timedelta(hours=1, minutes=5), "1 h 05 m"),
        (timedelta(seconds=-3), "0 s"),
    ],
)
def test_durations(took: timedelta, said: str) -> None:
    """Durations are short, and never negative when two clocks disagree."""
    assert duration(took) == said


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (timedelta(days=3, hours=5), "3 days"),
        (timedelta(days=1), "1 day"),
        (timedelta(hours=23), "23 hours"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(seconds=10), "less than a minute"),
    ],
)
def test_ages(old: timedelta, said: str) -> None:
    """Ages have one unit."""
    assert age(old) == said


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (211_000_000, 214_000_000, "211 MB (−3 MB)"),
        (214_000_000, 211_000_000, "214 MB (+3 MB)"),
        (211_000_000, 211_000_000, "211 MB (±0 MB)"),
        (211_000_000, None, "211 MB"),
        (201_400, 200_900, "201 kB (±0 kB)"),
    ],
)
def test_sizes(now: int, before: int | None, said: str) -> None:
    """Sizes tell the difference to the version before."""
    assert size(now, before) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dotnet-sdk-6", "dotnet-sdk-6"),
        ("- item", "\\- item"),
        ("1. one", "1\\. one"),
        ("1.4.0", "1.4.0"),
        ("# title", "\\# title"),
        ("a*b_c", "a\\*b\\_c"),
        ("[a](b)", "\\[a\\] (b)"),
        ("<at>x</at>", "\\<at\\>x\\</at\\>"),
    ],
)
def test_escape(text: str, said: str) -> None:
    """Marks of Markdown get a backslash where they would be read as marks; hyphens within names stay plain."""
    assert escape(text) == said


def test_clean_keeps_what_people_wrote() -> None:
    """Ordinary text, in any script, is left alone."""
    for text in ("Zoë's naïve fix (#12): 50% & more", "日本語の理由", "a_b*c"):
        assert clean(text) == text


def moved_base(count: int) -> BaseNews:
    fixed = tuple(Cve(id=f"CVE-2026-{50600 + n}", url=CVE_PAGE) for n in range(count))
    return BaseNews(kind=NewsKind.RELEASE, old_version="8.0.28", new_version="8.0.29", security=bool(count), cves=fixed)


def test_the_tenth_fix_is_the_last_that_is_named() -> None:
    """Seventeen CVEs are counted in sight, ten of them named behind Why?, and the rest counted again."""
    shown = rebuild_card(rebuild(news=moved_base(17)), platform_image(), now=NOW)
    text = json.dumps(shown.content)
    assert "security: 17 CVEs" in text
    assert "CVE-2026-50609" in text
    assert "CVE-2026-50610" not in text
    assert " and 7 more." in text


def test_twenty_updates_with_fixes_fit_on_one_card() -> None:
    """Links give way before details do, so that every question of a large check keeps its buttons."""
    names = [f"dotnet-sdk-{n}" for n in range(20)]
    found = [verdict(name, rebuild_id=name, news=moved_base(17)) for name in names]
    asked = [rebuild(id=name, image=name, news=moved_base(17)) for name in names]
    shown = check_of(*found, rebuilds=asked)
    assert length(shown) <= BUDGET
    assert json.dumps(shown.content).count("security: 17 CVEs") > 3
    few = json.dumps(check_of(*found[:2], rebuilds=asked[:2]).content)
    assert few.count(CVE_PAGE) == 20


def test_all_that_is_known_of_an_update_fits_on_its_card() -> None:
    """What scans say by name does not push out what the release fixes, nor the other way round."""
    shown = rebuild_card(
        rebuild(State.SUCCEEDED, news=moved_base(17), comparison=compared()), platform_image(), now=NOW
    )
    text = json.dumps(shown.content)
    for words in ("New: ", "Fixed: ", "Remaining: ", "CVE-2026-50609"):
        assert words in text
    assert "vulnerabilities: fixes 30 critical, 200 low" in text.lower()


@pytest.mark.parametrize(("count", "told"), [(1, "app-0."), (4, "app-0, app-1, app-2, app-3."), (6, "and 3 more.")])
def test_fresh_images_out_of_support_are_named(count: int, told: str) -> None:
    """By name as far as that is short; one is never hidden behind a number."""
    over = [replace(FRESH, name=f"app-{number}", support=OVER) for number in range(count)]
    assert told in seen(check_of(FRESH, *over)).partition("Fresh, but out of support: ")[2]
