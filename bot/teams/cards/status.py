"""What is known about one image."""

from datetime import datetime

from microsoft_teams.cards.core import Action, CardElement, ContainerStyle, Fact, FactSet

from bot.core.checks import Status, Verdict
from bot.core.images import PlatformImage
from bot.core.reading import ImageStatus
from bot.core.rebuilds import Rebuild, State
from bot.teams.cards.card import Card, action_set, band, button, card, details, heading, line, link, run
from bot.teams.cards.decisions import approve, hold, reject, release, snooze
from bot.teams.cards.explain import explanation
from bot.teams.cards.formats import Safe, clean, day, escape, moment, plural, size
from bot.teams.cards.hold import WORDS, hold_line
from bot.teams.cards.meaning import cve_lines, news_words, support_mark, support_words
from bot.teams.cards.schedule import rules
from bot.teams.cards.states import approvals, found, standing, undecided

STYLES: dict[Status, ContainerStyle] = {
    Status.FRESH: "good",
    Status.STALE: "warning",
    Status.UNKNOWN: "attention",
    Status.UNBUILT: "accent",
}


def status_card(status: ImageStatus, *, next_check: datetime | None, now: datetime) -> Card:
    """The answer to `status IMAGE`."""
    image, verdict = status.image, status.verdict
    over = support_mark(verdict.support if verdict else None, now.date())
    words = found(verdict, now).words + over + (f" · {WORDS[status.hold.kind]}" if status.hold else "")
    style = STYLES[verdict.status] if verdict else "emphasis"
    top = band(heading(f"{image.name} · {words}"), style="warning" if over and style == "good" else style)
    body: list[CardElement] = [top]
    if verdict and verdict.status is Status.UNKNOWN:
        since = [" since ", moment(verdict.unknown_since)] if verdict.unknown_since else []
        body.append(line("Could not be checked", *since, ": ", verdict.reason))
    if status.hold:
        body.append(hold_line(status.hold))
    body.append(FactSet(facts=_facts(status, next_check, now), spacing="Small"))
    asks = status.open is not None and status.open.asks_about_base
    stop = [] if status.hold else [action_set(snooze(image.name) if asks else None, hold(image.name))]
    links = cve_lines(verdict.news) if verdict else []
    timed = rules(image, next_check, now)
    hidden, why = details(image.name, *_details(status, now), *timed, *stop, links=links)
    return card(f"{image.name}: {words}", [*body, hidden], [*_actions(status, now), why])


def _facts(status: ImageStatus, next_check: datetime | None, now: datetime) -> list[Fact]:
    verdict = status.verdict
    facts: list[Fact] = []
    if verdict:
        facts.append(_fact("In ECR", *_published(verdict)))
    if status.in_use:
        facts.append(_fact("In use", status.in_use, ", by the tags that follow its versions"))
    if verdict:
        facts += _bases(verdict)
    if verdict and verdict.news:
        facts.append(_fact("Update", news_words(verdict.news)))
    if verdict and verdict.support:
        facts.append(_fact("Support", support_words(verdict.support, now.date())))
    if status.open:
        stands = standing(status.open)
        facts.append(_fact("Rebuild", f"{stands.mark} {stands.words}"))
    if status.history:
        facts.append(_fact("Last", "; ".join(_brief(rebuild, status.image) for rebuild in status.history)))
    if status.checked_at:
        following = ["; next check ", moment(next_check)] if next_check else []
        facts.append(_fact("Checked", moment(status.checked_at), *following))
    return facts


def _fact(title: str, *parts: str) -> Fact:
    return Fact(title=title, value="".join(part if isinstance(part, Safe) else escape(part) for part in parts))


def _published(verdict: Verdict) -> list[str]:
    if verdict.version_tag is None:
        return ["nothing yet"] if verdict.status is Status.UNBUILT else ["not known"]
    pushed = [", pushed ", day(verdict.pushed_at)] if verdict.pushed_at else []
    return [verdict.version_tag, *pushed, f", {size(verdict.size)}" if verdict.size is not None else ""]


def _bases(verdict: Verdict) -> list[Fact]:
    recorded = verdict.recorded_digest.short if verdict.recorded_digest else ""
    facts = [_fact("Built on", verdict.base, f" at {recorded}" if recorded else "")]
    if verdict.current_digest and verdict.status is not Status.FRESH:
        seen = [", first seen ", moment(verdict.first_seen)] if verdict.first_seen else []
        facts.append(_fact("Now", verdict.current_digest.short, *seen))
    return facts


def _brief(rebuild: Rebuild, image: PlatformImage) -> str:
    """`✓ 1.4.0 approved by Alex`, `✕ test failed`"""
    stands = standing(rebuild)
    version = image.version_of(rebuild.version_tag or "")
    if rebuild.state is not State.SUCCEEDED or version is None or rebuild.is_rollback:
        return f"{stands.mark} {stands.words}"
    return " ".join(filter(None, (stands.mark, str(version), approvals(rebuild, image))))


def _details(status: ImageStatus, now: datetime) -> list[CardElement]:
    image, verdict = status.image, status.verdict
    lines = explanation(verdict, now) if verdict else []
    needed = image.approval.required
    return [
        *lines,
        line("ECR ", run(clean(f"{image.registry}/{image.repository}", 300), mono=True, subtle=True)),
        line("Platforms ", ", ".join(map(str, image.platforms))),
        line(f"Mode {image.mode}; {plural(needed, 'approval')} needed of {status.approvers}."),
    ]


def _actions(status: ImageStatus, now: datetime) -> list[Action | None]:
    if status.open and undecided(status.open, now):
        return [approve(status.open), reject(status.open)]
    if status.hold and status.open is None:
        return [release(status.image.name), button("History", "history", target=status.image.name)]
    history = button("History", "history", target=status.image.name)
    if status.open:
        return [link("Open run", status.open.run_url), history]
    needed = status.verdict is not None and status.verdict.status in (Status.STALE, Status.UNBUILT)
    rebuild = button("Rebuild", "rebuild", style="positive" if needed else None, target=status.image.name)
    return [rebuild, history]
