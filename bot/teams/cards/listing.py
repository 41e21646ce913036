"""Answers that list: all images, what waits, what was."""

from collections.abc import Sequence
from datetime import datetime

from microsoft_teams.cards.core import CardElement, Container, TextColor, TextRun

from bot.core.checks import Status
from bot.core.rebuilds import Cause, Rebuild
from bot.core.service import ImageStatus
from bot.teams.cards.card import Card, action_set, button, card, details, fitting, heading, line, run
from bot.teams.cards.decisions import approve, reject
from bot.teams.cards.formats import Safe, clean, moment, plural
from bot.teams.cards.states import approvals, asked, decidable, digests, names_of, standing, whole
from bot.teams.cards.status import stale_words

LOOKS: dict[Status | None, tuple[str, TextColor | None]] = {
    Status.STALE: ("●", "Warning"),
    Status.UNBUILT: ("○", "Accent"),
    Status.UNKNOWN: ("✕", "Attention"),
    None: ("–", None),
    Status.FRESH: ("✓", "Good"),
}
ORDER = list(LOOKS)


def list_card(statuses: list[ImageStatus], *, now: datetime) -> Card:
    """The answer to `list`: every image in a line, those that need something first."""
    ranked = sorted(statuses, key=lambda status: ORDER.index(status.verdict.status if status.verdict else None))
    told = f"{plural(len(statuses), 'image')} · {_tally(statuses)}" if statuses else "The catalog is empty"
    rows = fitting(_image(status, now) for status in ranked)
    left = len(ranked) - len(rows)
    more: list[CardElement] = [line(f"{left} more: ", run("status IMAGE", mono=True), separator=True)] if left else []
    waiting = sum(status.open is not None and decidable(status.open, now) for status in statuses)
    actions = [
        button(f"What waits ({waiting})", "pending", style="positive") if waiting else None,
        button("Check now", "check"),
    ]
    return card(told, [heading(told), *rows, *more], actions)


def _tally(statuses: Sequence[ImageStatus]) -> str:
    kinds = [status.verdict.status if status.verdict else None for status in statuses]
    names = {Status.UNBUILT: "never built", None: "not checked"}
    return ", ".join(f"{kinds.count(kind)} {names.get(kind, kind)}" for kind in ORDER if kind in kinds)


def _image(status: ImageStatus, now: datetime) -> CardElement:
    verdict = status.verdict
    mark, color = LOOKS[verdict.status if verdict else None]
    words = stale_words(verdict, now) if verdict else "not checked"
    tag = f" · {verdict.version_tag}" if verdict and verdict.version_tag else ""
    rebuild = f" · {standing(status.open).words}" if status.open else ""
    return line(run(status.image.name, bold=True), Safe("  "), run(f"{mark} {words}", color=color), f"{rebuild}{tag}")


def pending_card(rebuilds: list[Rebuild], *, now: datetime) -> Card | None:
    """The answer to `pending`, None when nothing waits."""
    if not rebuilds:
        return None
    told = "1 rebuild waits for approval" if len(rebuilds) == 1 else f"{len(rebuilds)} rebuilds wait for approval"
    rows = fitting(_question(rebuild, now) for rebuild in rebuilds)
    left = len(rebuilds) - len(rows)
    more: list[CardElement] = [line(f"{left} more: ", run("status IMAGE", mono=True), separator=True)] if left else []
    return card(told, [heading(told), *rows, *more])


def _question(rebuild: Rebuild, now: datetime) -> CardElement:
    told = {Cause.BASE_MOVED: "base moved  ", Cause.FIRST_BUILD: "first build  ", Cause.REQUESTED: "asked for  "}
    votes = approvals(rebuild, None)
    items: list[CardElement] = [
        line(
            run(rebuild.image, bold=True),
            Safe("  "),
            told[rebuild.cause],
            *digests(rebuild.old_digest, rebuild.new_digest),
        ),
        line(*asked(rebuild), subtle=True),
    ]
    if votes or rebuild.reason:
        items.append(line(" · ".join(filter(None, (votes, clean(rebuild.reason, 200))))))
    if not decidable(rebuild, now):
        return Container(items=[*items, line("Too late to decide.")], separator=True, spacing="Medium")
    hidden, why = details(
        rebuild.id,
        *whole("Base before", rebuild.old_digest),
        *whole("Base now", rebuild.new_digest),
        line(f"Rebuild {rebuild.id}."),
    )
    actions = action_set(approve(rebuild), reject(rebuild), why)
    return Container(items=[*items, hidden, actions], separator=True, spacing="Medium")


def history_card(rebuilds: Sequence[Rebuild], *, name: str | None, now: datetime) -> Card:
    """The answer to `history [IMAGE]`, newest first."""
    whose = name or "All images"
    told = f"{whose} · last {plural(len(rebuilds), 'rebuild')}" if rebuilds else f"{whose} · never rebuilt"
    rows = fitting(_past(rebuild, named=name is None) for rebuild in rebuilds)
    actions = [button("Status", "status", target=name)] if name else []
    return card(told, [heading(told), *rows], actions)


def _past(rebuild: Rebuild, *, named: bool) -> CardElement:
    now = standing(rebuild)
    image: list[str | TextRun] = [run(rebuild.image, bold=True), Safe("  ")] if named else []
    who = names_of(vote.person.name for vote in rebuild.votes)
    reason = clean(rebuild.ended_reason, 120)
    told = "".join(f" · {part}" for part in (f"approved by {who}" if who else "", reason) if part)
    return Container(
        items=[
            line(*image, run(f"{now.mark} {now.words}", color=now.color)),
            line(moment(rebuild.ended_at or rebuild.created_at), clean(told, 500), subtle=True, spacing="None"),
        ],
        spacing="Small",
    )
