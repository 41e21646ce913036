"""The summary of one check: which images need something, with the question for each. Its rows follow the answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from microsoft_teams.cards.core import Action, CardElement, Container, TextColor, TextRun

from bot.core.checks import Check, Evidence, Status, Verdict
from bot.core.images import Mode, PlatformImage
from bot.core.rebuilds import ENDED, Rebuild
from bot.teams.cards.card import Card, action_set, button, card, details, fitting, heading, line, run
from bot.teams.cards.decisions import approve, reject
from bot.teams.cards.formats import Safe, clean, day, moment, time
from bot.teams.cards.states import approvals, decidable, digests, standing, whole

COLORS: dict[Status, TextColor] = {
    Status.FRESH: "Good",
    Status.STALE: "Warning",
    Status.UNKNOWN: "Attention",
    Status.UNBUILT: "Accent",
}
WORDS = {Status.FRESH: "fresh", Status.STALE: "stale", Status.UNKNOWN: "unknown", Status.UNBUILT: "never built"}
ORDER = (Status.STALE, Status.UNBUILT, Status.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what the check found, what became of it, and the image as the catalog has it."""

    verdict: Verdict
    rebuild: Rebuild | None
    image: PlatformImage | None


def check_card(
    check: Check,
    rebuilds: Mapping[str, Rebuild],
    catalog: Mapping[str, PlatformImage],
    *,
    images: Collection[str] = (),
    now: datetime,
) -> Card:
    """The card of one check. `rebuilds` are those its verdicts name, by id; `images` restricts the rows."""
    at = check.slot or check.checked_at
    name = f"{at:%A} check" if check.slot else "Check"
    title = [f"{name} · ", day(at) if check.slot else moment(at)]
    if check.problem:
        body = [heading(*title, " · failed"), line("No image was checked: ", check.problem)]
        return card(f"{name} failed", body, [button("Check now", "check", style="positive")])
    verdicts = [verdict for verdict in check.verdicts if not images or verdict.name in images]
    needy = [verdict for status in ORDER for verdict in verdicts if verdict.status is status]
    if not needy:
        told = _all_fresh(verdicts)
        return card(f"{name}: {told}", [heading(*title, f" · {told}")])
    findings = [
        Finding(verdict, rebuilds.get(verdict.rebuild_id or ""), catalog.get(verdict.name)) for verdict in needy
    ]
    counts = [(status, sum(verdict.status is status for verdict in verdicts)) for status in (*ORDER, Status.FRESH)]
    top = [heading(*title), _counts(counts)]
    rows = _rows(findings, now)
    left = len(findings) - len(rows)
    more: list[CardElement] = [line(f"{left} more: ", run("list", mono=True), separator=True, spacing="Medium")]
    actions = [button("Show all", "list")] if left else []
    return card(_toast(name, findings, counts, now), [*top, *rows, *(more if left else [])], actions)


def _all_fresh(verdicts: Sequence[Verdict]) -> str:
    if len(verdicts) == 1:
        return f"{verdicts[0].name} is fresh"
    return f"all {len(verdicts)} images are fresh" if verdicts else "no images"


def _counts(counts: Sequence[tuple[Status, int]]) -> CardElement:
    runs: list[str | TextRun] = []
    for status, count in counts:
        if count:
            runs += [run(f"{count} {WORDS[status]}", bold=status is not Status.FRESH), Safe(" · ")]
    return line(*runs[:-1])


def _toast(name: str, findings: Sequence[Finding], counts: Sequence[tuple[Status, int]], now: datetime) -> str:
    waiting = [finding.verdict.name for finding in findings if finding.rebuild and decidable(finding.rebuild, now)]
    if len(waiting) == 1:
        return f"{waiting[0]}: update waits for approval"
    if waiting:
        return f"{len(waiting)} images wait for approval: {', '.join(waiting)}"
    return f"{name}: " + ", ".join(f"{count} {WORDS[status]}" for status, count in counts if count)


def _rows(findings: Sequence[Finding], now: datetime) -> list[CardElement]:
    """All rows; without their details when there is no room for these, and the first ones when there is none at all."""
    for detailed in (True, False):
        rows = fitting(_row(finding, now, detailed=detailed) for finding in findings)
        if len(rows) == len(findings):
            break
    return rows


def _row(finding: Finding, now: datetime, *, detailed: bool) -> CardElement:
    items = [_first_line(finding), *_more_lines(finding)]
    actions = _actions(finding, now)
    if actions and detailed:
        hidden, why = details(finding.verdict.name, *_details(finding))
        items += [hidden]
        actions += [why]
    if actions:
        items.append(action_set(*actions))
    return Container(items=items, separator=True, spacing="Medium")


def _first_line(finding: Finding) -> CardElement:
    verdict, rebuild = finding.verdict, finding.rebuild
    name = run(verdict.name, bold=True)
    if rebuild is None or verdict.status is Status.UNKNOWN:
        words = "could not be checked" if verdict.status is Status.UNKNOWN else WORDS[verdict.status]
        return line(name, Safe("  "), run(words, color=COLORS[verdict.status]))
    now = standing(rebuild)
    votes = approvals(rebuild, finding.image) if rebuild.state not in ENDED else ""
    return line(name, Safe("  "), run(f"{now.mark} {now.words}", color=now.color), f" · {votes}" if votes else "")


def _more_lines(finding: Finding) -> list[CardElement]:
    verdict, rebuild = finding.verdict, finding.rebuild
    if verdict.status is Status.UNKNOWN:
        lines: list[CardElement] = [line(verdict.reason)]
        if rebuild:
            lines.append(line(f"Its rebuild {rebuild.id}: {standing(rebuild).words}.", subtle=True))
        return lines
    if rebuild and rebuild.state in ENDED:
        return _ending(rebuild)
    return [line(*_since(verdict), subtle=True), line(*_moved(verdict)), *_silence(finding)]


def _ending(rebuild: Rebuild) -> list[CardElement]:
    who = f"By {clean(rebuild.ended_by.name, 60)}: " if rebuild.ended_by else ""
    return [line(f"{who}{clean(rebuild.ended_reason, 200)}", subtle=True)] if rebuild.ended_reason else []


def _since(verdict: Verdict) -> list[str]:
    """When the base moved: between two checks, which is all that is known."""
    if verdict.status is Status.UNBUILT:
        return ["no version is in ECR yet"]
    if verdict.first_seen is None:
        return ["the base moved"]
    if verdict.moved_after is None:
        return ["new base first seen ", moment(verdict.first_seen)]
    gap = verdict.first_seen - verdict.moved_after
    if gap < timedelta(hours=1):
        return ["base moved ", moment(verdict.first_seen)]
    if verdict.first_seen.date() == verdict.moved_after.date():
        return [
            "base moved ",
            day(verdict.first_seen),
            " between ",
            time(verdict.moved_after),
            " and ",
            time(verdict.first_seen),
        ]
    return ["base moved between ", day(verdict.moved_after), " and ", day(verdict.first_seen)]


def _moved(verdict: Verdict) -> list[str | TextRun]:
    return digests(verdict.recorded_digest, verdict.current_digest)


def _silence(finding: Finding) -> list[CardElement]:
    """Why a stale image has no question."""
    if finding.verdict.rebuild_id:
        return []
    if finding.image and finding.image.mode is Mode.NOTIFY:
        return [line("The catalog only tells about this image (mode notify).", subtle=True)]
    return [line("This base was rejected; it is asked for again when it moves.", subtle=True)]


def _actions(finding: Finding, now: datetime) -> list[Action | None]:
    if finding.rebuild and finding.verdict.status is not Status.UNKNOWN and decidable(finding.rebuild, now):
        return [approve(finding.rebuild), reject(finding.rebuild)]
    if finding.verdict.rebuild_id is None and finding.image and finding.image.mode is Mode.NOTIFY:
        return [button("Rebuild", "rebuild", target=finding.verdict.name)]
    return []


def _details(finding: Finding) -> list[CardElement]:
    verdict = finding.verdict
    source = f" ({verdict.evidence})" if verdict.evidence is not Evidence.NONE else ""
    lines: list[CardElement] = [
        line(f"{verdict.reason[:1].upper()}{verdict.reason[1:]}{source}."),
        line("Base ", run(clean(verdict.base, 200), mono=True, subtle=True)),
        *whole("Built on", verdict.recorded_digest),
        *whole("Now", verdict.current_digest),
    ]
    if verdict.version_tag:
        lines.append(line("In ECR ", run(clean(verdict.version_tag, 200), mono=True, subtle=True)))
    if finding.rebuild and finding.rebuild.expires_at:
        lines.append(line(f"Rebuild {finding.rebuild.id}, open until ", moment(finding.rebuild.expires_at), "."))
    return lines
