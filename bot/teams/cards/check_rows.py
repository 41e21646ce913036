"""The rows of a check: what was found about each image, and the question that it leads to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import Enum, auto

from microsoft_teams.cards.core import Action, CardElement, Container

from bot.core.base_news import is_security_release
from bot.core.checks import Status, Verdict
from bot.core.holds import Hold
from bot.core.images import Mode, PlatformImage
from bot.core.rebuilds import ENDED, Cause, Rebuild, State
from bot.teams.cards.audience import EVERYBODY, Audience
from bot.teams.cards.card import (
    action_set,
    button,
    details,
    fitting,
    line,
)
from bot.teams.cards.decisions import approve, comment, hold, reject, release, snooze
from bot.teams.cards.explain import explanation
from bot.teams.cards.formats import day, moment, time
from bot.teams.cards.hold import hold_line
from bot.teams.cards.meaning import (
    cve_lines,
    news_lines,
    support_lines,
    support_mark,
)
from bot.teams.cards.rollback import moving
from bot.teams.cards.states import FOUND, approvals, asked, capital, decidable, digests, ending, row, standing


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what the check found, what became of it, and the image as the catalog has it."""

    verdict: Verdict
    rebuild: Rebuild | None
    image: PlatformImage | None
    hold: Hold | None = None
    audience: Audience = EVERYBODY

    def asks(self, now: datetime) -> bool:
        """Whether the row has a question that somebody can still answer."""
        found = self.verdict.status is not Status.UNKNOWN and not _is_stopped(self)
        return found and self.rebuild is not None and decidable(self.rebuild, now)

    @property
    def decides(self) -> bool:
        return self.audience.decides(self.verdict.name)

    @property
    def is_security(self) -> bool:
        return is_security_release(self.verdict.news)


class Extent(Enum):
    """How much a row says, as far as there is room: all, no links, no details."""

    ALL = auto()
    PLAIN = auto()
    BRIEF = auto()


def check_rows(findings: Sequence[Finding], now: datetime, today: date, room: int) -> list[CardElement]:
    """All rows; with less in their details when there is no room, and the first ones when there is none at all."""
    for extent in Extent:
        rows = fitting((_row(finding, now, today, extent) for finding in findings), room)
        if len(rows) == len(findings):
            break
    return rows


def _row(finding: Finding, now: datetime, today: date, extent: Extent) -> CardElement:
    items = [_first_line(finding, today), *_more_lines(finding)]
    if finding.asks(now):
        items += finding.audience.who_may(finding.verdict.name)
    actions = _actions(finding, now)
    if (actions or finding.asks(now)) and extent is not Extent.BRIEF:
        links = cve_lines(finding.verdict.news) if extent is Extent.ALL else []
        hidden, why = details(finding.verdict.name, *_details(finding, now, today), links=links)
        items += [hidden]
        actions += [why]
    if actions:
        items.append(action_set(*actions))
    return Container(items=items, separator=True, spacing="Medium")


def _first_line(finding: Finding, today: date) -> CardElement:
    verdict, rebuild = finding.verdict, finding.rebuild
    mark = support_mark(verdict.support, today)
    if rebuild is None or verdict.status is Status.UNKNOWN or _is_stopped(finding):
        return row(verdict.name, FOUND[verdict.status], mark)
    stands, votes = standing(rebuild), approvals(rebuild, finding.image) if rebuild.state not in ENDED else ""
    if votes.startswith(stands.words):  # approved, by whom
        return row(verdict.name, replace(stands, words=votes), mark)
    return row(verdict.name, stands, f" · {votes}" if votes else "", mark)


def _is_stopped(finding: Finding) -> bool:
    """Whether a hold is all there is to say: what it did not stop is told instead."""
    told = finding.rebuild and finding.rebuild.state not in (State.AWAITING_APPROVAL, State.SUPERSEDED)
    return finding.hold is not None and not told


def _more_lines(finding: Finding) -> list[CardElement]:
    verdict, rebuild = finding.verdict, finding.rebuild
    if verdict.status is Status.UNKNOWN:
        since = [" since ", moment(verdict.unknown_since)] if verdict.unknown_since else []
        lines: list[CardElement] = [line("Could not be checked", *since, ": ", verdict.reason)]
        if rebuild:
            lines.append(line(f"Its rebuild {rebuild.id}: {standing(rebuild).words}.", subtle=True))
        return lines
    if rebuild and rebuild.state is not State.AWAITING_APPROVAL and not _is_stopped(finding):
        told = ending(rebuild) if rebuild.state in ENDED else rebuild.version_tag
        return [line(capital(told) if rebuild.state in ENDED else told, subtle=True)] if told else []
    if rebuild and rebuild.is_rollback and not finding.hold:
        return [line(*moving(rebuild)), *([line("Reason: ", rebuild.reason)] if rebuild.reason else [])]
    moved = digests(verdict.recorded_digest, verdict.current_digest) if verdict.recorded_digest else []
    lines = [line(*_since(verdict), subtle=True), *([line(*moved)] if moved else []), *news_lines(verdict.news)]
    if finding.hold:
        return [*lines, hold_line(finding.hold)]
    if rebuild and rebuild.cause is Cause.REQUESTED:
        lines.append(line(*asked(rebuild), ", for whatever the base is when it begins.", subtle=True))
    if rebuild and rebuild.reason:
        lines.append(line(capital(rebuild.reason), ".", subtle=True))
    return [*lines, *_silence(finding)]


def _since(verdict: Verdict) -> list[str]:
    """When the base moved: between two checks, which is all that is known."""
    if verdict.status is Status.UNBUILT:
        return ["No version is in ECR yet"]
    if verdict.first_seen is None:
        return ["The base moved"]
    if verdict.moved_after is None:
        return ["New base first seen ", moment(verdict.first_seen)]
    gap = verdict.first_seen - verdict.moved_after
    if gap < timedelta(hours=1):
        return ["Base moved ", moment(verdict.first_seen)]
    if verdict.first_seen.date() == verdict.moved_after.date():
        return [
            "Base moved ",
            day(verdict.first_seen),
            " between ",
            time(verdict.moved_after),
            " and ",
            time(verdict.first_seen),
        ]
    return ["Base moved between ", day(verdict.moved_after), " and ", day(verdict.first_seen)]


def _silence(finding: Finding) -> list[CardElement]:
    """Why a stale image has no question."""
    if finding.verdict.rebuild_id:
        return []
    if finding.image and finding.image.mode is Mode.NOTIFY:
        return [line("The catalog only tells about this image (mode notify).", subtle=True)]
    return [line("This base was rejected; it is asked for again when it moves.", subtle=True)]


def _actions(finding: Finding, now: datetime) -> list[Action | None]:
    if _is_stopped(finding):
        return [release(finding.verdict.name)]
    if finding.rebuild and finding.asks(now):
        return [approve(finding.rebuild), reject(finding.rebuild)] if finding.decides else []
    if finding.verdict.rebuild_id is None and finding.image and finding.image.mode is Mode.NOTIFY:
        return [button("Rebuild", "rebuild", target=finding.verdict.name)]
    return []


def _details(finding: Finding, now: datetime, today: date) -> list[CardElement]:
    verdict = finding.verdict
    lines = explanation(verdict)
    lines += support_lines(verdict.support, today)
    if finding.hold is None and finding.decides:
        lines.append(action_set(snooze(verdict.name), hold(verdict.name)))
    if finding.rebuild and finding.rebuild.expires_at:
        lines.append(line(f"Rebuild {finding.rebuild.id}, open until ", moment(finding.rebuild.expires_at), "."))
    if finding.rebuild and finding.asks(now) and finding.decides:
        lines.append(comment(finding.rebuild))
    return lines
