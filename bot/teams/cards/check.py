"""The summary of one check: which images need something, with the question for each. Its rows follow the answers."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from types import MappingProxyType

from microsoft_teams.cards.core import Action, CardElement, TextRun

from bot.core.checks import Check, Status, Verdict
from bot.core.conversations import Subject
from bot.core.holds import Hold
from bot.core.images import PlatformImage
from bot.core.latency import Latencies
from bot.core.rebuilds import Rebuild
from bot.teams.cards.audience import EVERYBODY, Audience, refresh, view
from bot.teams.cards.card import (
    ROOM,
    Card,
    button,
    card,
    heading,
    line,
    more,
    run,
    weight,
)
from bot.teams.cards.check_rows import Finding, check_rows
from bot.teams.cards.decisions import approve_all, reject_all
from bot.teams.cards.formats import Safe, clean, day, moment
from bot.teams.cards.latency import latency_rows
from bot.teams.cards.meaning import (
    support_mark,
    support_over,
    support_toast,
    support_warnings,
)
from bot.teams.cards.states import FOUND, decidable

MOST_MENDED = 8
ORDER = (Status.STALE, Status.UNBUILT, Status.UNKNOWN)


def check_card(
    check: Check,
    rebuilds: Mapping[str, Rebuild],
    catalog: Mapping[str, PlatformImage],
    *,
    images: Collection[str] = (),
    holds: Mapping[str, Hold] = MappingProxyType({}),
    audience: Audience = EVERYBODY,
    latencies: Latencies | None = None,
    zone: tzinfo = UTC,
    now: datetime,
) -> Card:
    """The card of one check. `rebuilds` are those its verdicts name, by id; `images` restricts the rows.

    `holds` are those in force, by image; `latencies` is what the weekly card tells; `zone` is that of the schedule.
    """
    name, title = _title(check, zone)
    if check.problem:
        body = [heading(*title, " · failed"), line("No image was checked: ", check.problem)]
        return card(f"{name} failed", body, [button("Check now", "check", style="positive")])
    verdicts = [verdict for verdict in check.verdicts if not images or verdict.name in images]
    today = check.checked_at.date()
    notes = [*_mended(check, verdicts), *support_warnings(verdicts, today)]
    if len(verdicts) > 1:
        notes += support_over(verdicts, today)
    ringing = support_toast(verdicts, today)
    needy = [verdict for status in ORDER for verdict in verdicts if verdict.status is status]
    took = latency_rows(latencies) if latencies else []
    if not needy:
        told = _all_fresh(verdicts) + _stopped(verdicts, holds) + _unsupported(verdicts, today)
        return card(f"{name}: {told}{ringing}", [heading(*title, f" · {told}"), *notes, *took])
    findings = [_finding(verdict, rebuilds, catalog, holds, audience) for verdict in needy]
    counts = [(status, sum(verdict.status is status for verdict in verdicts)) for status in (*ORDER, Status.FRESH)]
    top = [heading(*title), _counts(counts, _unsupported(verdicts, today)), *notes]
    again = refresh(Subject.CHECK, str(check.id), audience)
    decisions = _all_at_once(check, [finding for finding in findings if finding.decides], now)
    taken = [*map(weight, [*notes, *took]), *map(weight, decisions), weight(again) if again else 0]
    rows = check_rows(findings, now, today, ROOM - sum(taken))
    left = len(findings) - len(rows)
    show_all = button("Show all", "list") if left else None
    toast = _toast(name, findings, counts, now) + ringing
    actions = [view(Subject.CHECK, str(check.id), audience), *decisions, show_all]
    return card(toast, [*top, *rows, *more(left, "list"), *took], actions, refresh=again)


def _title(check: Check, zone: tzinfo) -> tuple[str, list[str | Safe]]:
    """What the check is called in a toast, and at the head of its card."""
    at = check.slot or check.checked_at
    weekly = check.slot is not None and not check.partial
    name = f"{at.astimezone(zone):%A} check" if weekly else "Check"
    return name, [f"{name} · ", day(at) if weekly else moment(at)]


def _finding(
    verdict: Verdict,
    rebuilds: Mapping[str, Rebuild],
    catalog: Mapping[str, PlatformImage],
    holds: Mapping[str, Hold],
    audience: Audience,
) -> Finding:
    rebuild = rebuilds.get(verdict.rebuild_id or "")
    return Finding(verdict, rebuild, catalog.get(verdict.name), holds.get(verdict.name), audience)


def _mended(check: Check, verdicts: Sequence[Verdict]) -> list[CardElement]:
    """What works again."""
    lines: list[CardElement] = []
    if check.failed_since:
        lines.append(line("Checks work again; they had failed since ", moment(check.failed_since), "."))
    again = [
        Safe(f"{clean(verdict.name)} (unknown since {moment(verdict.unknown_since)})")
        for verdict in verdicts
        if verdict.unknown_since and verdict.status is not Status.UNKNOWN
    ]
    if again:
        more_of_them = f" and {len(again) - MOST_MENDED} more" if len(again) > MOST_MENDED else ""
        lines.append(line("Could be checked again: ", Safe(", ".join(again[:MOST_MENDED])), more_of_them, "."))
    return lines


def _all_fresh(verdicts: Sequence[Verdict]) -> str:
    if len(verdicts) == 1:
        return f"{verdicts[0].name} is fresh"
    return f"all {len(verdicts)} images are fresh" if verdicts else "no images"


def _stopped(verdicts: Sequence[Verdict], holds: Mapping[str, Hold]) -> str:
    """A fresh image that somebody holds is not simply fine."""
    count = sum(verdict.name in holds for verdict in verdicts)
    return f" · {count} on hold" if count else ""


def _unsupported(verdicts: Sequence[Verdict], today: date) -> str:
    """An image out of support is never just fresh."""
    if len(verdicts) == 1:
        return support_mark(verdicts[0].support, today)
    count = sum(verdict.support is not None and verdict.support.is_over(today) for verdict in verdicts)
    return f" · {count} out of support" if count else ""


def _counts(counts: Sequence[tuple[Status, int]], unsupported: str) -> CardElement:
    runs: list[str | TextRun] = []
    for status, count in counts:
        if count:
            runs += [run(f"{count} {FOUND[status].words}", bold=status is not Status.FRESH), Safe(" · ")]
    return line(*runs[:-1], unsupported)


def _waiting(findings: Sequence[Finding], now: datetime) -> list[str]:
    return [finding.verdict.name for finding in findings if finding.rebuild and decidable(finding.rebuild, now)]


def _all_at_once(check: Check, findings: Sequence[Finding], now: datetime) -> list[Action]:
    """The buttons carry the check, so that an old card decides about nothing newer."""
    count, scope = len(_waiting(findings, now)), str(check.id)
    if count < 2:
        return []
    return [approve_all(f"Approve all {count}", check=scope), reject_all(f"Reject all {count}", check=scope)]


def _toast(name: str, findings: Sequence[Finding], counts: Sequence[tuple[Status, int]], now: datetime) -> str:
    waiting = _waiting(findings, now)
    secure = [name for name in waiting if any(name == f.verdict.name and f.is_security for f in findings)]
    if len(waiting) == 1:
        return f"{waiting[0]}: {'security update' if secure else 'update'} waits for approval"
    if waiting:
        urgent = f"; security: {', '.join(secure)}" if secure else ""
        return f"{len(waiting)} images wait for approval: {', '.join(waiting)}{urgent}"
    return f"{name}: " + ", ".join(f"{count} {FOUND[status].words}" for status, count in counts if count)
