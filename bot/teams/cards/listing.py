"""Answers that list: all images, and what waits."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from microsoft_teams.cards.core import CardElement, Container, TextRun

from bot.core.images import PlatformImage
from bot.core.reading import ImageStatus
from bot.core.rebuilds import Cause, Rebuild
from bot.teams.cards.audience import EVERYBODY, Audience
from bot.teams.cards.card import Card, action_set, button, card, details, fitting, heading, line, linked, more
from bot.teams.cards.decisions import approve, reject
from bot.teams.cards.formats import Safe, age, clean, moment, plural
from bot.teams.cards.hold import WORDS
from bot.teams.cards.meaning import cve_lines, news_lines, support_mark
from bot.teams.cards.rollback import moving
from bot.teams.cards.states import (
    FOUND,
    Standing,
    approvals,
    asked,
    capital,
    digests,
    found,
    row,
    standing,
    undecided,
    whole,
)

ORDER = list(FOUND)
CAUSES = {
    Cause.BASE_MOVED: "base moved",
    Cause.FIRST_BUILD: "first build",
    Cause.REQUESTED: "rebuild asked for",
    Cause.PARENT: "follows its parent",
    Cause.ROLLBACK: "rollback",
}


def list_card(statuses: list[ImageStatus], *, now: datetime) -> Card:
    """The answer to `list`: every image in a line, those that need something first."""
    ranked = sorted(statuses, key=lambda status: ORDER.index(status.verdict.status if status.verdict else None))
    told = f"{plural(len(statuses), 'image')} · {_tally(statuses, now)}" if statuses else "The catalog is empty"
    rows = fitting(_image(status, now) for status in ranked)
    left = len(ranked) - len(rows)
    waiting = sum(status.open is not None and undecided(status.open, now) for status in statuses)
    actions = [
        button(f"What waits ({waiting})", "pending", style="positive") if waiting else None,
        button("Check now", "check"),
    ]
    return card(told, [heading(told), *rows, *more(left, "status IMAGE")], actions)


def _tally(statuses: Sequence[ImageStatus], now: datetime) -> str:
    kinds = [status.verdict.status if status.verdict else None for status in statuses]
    over = sum(bool(support_mark(status.verdict.support, now.date())) for status in statuses if status.verdict)
    told = ", ".join(f"{kinds.count(kind)} {FOUND[kind].words}" for kind in ORDER if kind in kinds)
    return f"{told} · {over} out of support" if over else told


def _image(status: ImageStatus, now: datetime) -> CardElement:
    verdict = status.verdict
    version = status.image.version_of(verdict.version_tag) if verdict and verdict.version_tag else None
    rebuild = f" · {standing(status.open).words}" if status.open else ""
    hold = f" · {WORDS[status.hold.kind]}" if status.hold else ""
    mark = support_mark(verdict.support if verdict else None, now.date())
    return row(status.image.name, found(verdict, now), mark, hold, rebuild, f" · {version}" if version else "")


def pending_card(
    rebuilds: Sequence[Rebuild],
    catalog: Mapping[str, PlatformImage] = MappingProxyType({}),
    *,
    audience: Audience = EVERYBODY,
    links: Mapping[str, str] = MappingProxyType({}),
    now: datetime,
) -> Card | None:
    """The answer to `pending`, None when nothing waits. `links` lead to the cards of rebuilds, by id."""
    if not rebuilds:
        return None
    told = "1 rebuild waits for approval" if len(rebuilds) == 1 else f"{len(rebuilds)} rebuilds wait for approval"
    rows = fitting(
        _question(rebuild, catalog.get(rebuild.image), audience, links.get(rebuild.id, ""), now) for rebuild in rebuilds
    )
    left = len(rebuilds) - len(rows)
    return card(told, [heading(told), *rows, *more(left, "status IMAGE")])


def _waits(rebuild: Rebuild, url: str, now: datetime) -> list[str | TextRun]:
    """For how long, until when, and where its card is."""
    until = [Safe(", until "), moment(rebuild.expires_at)] if rebuild.expires_at else []
    opened: list[str | TextRun] = [Safe(" · "), linked("Open its card", url)] if url else []
    return [f"Waits for {age(now - rebuild.created_at)}", *until, *opened]


def _question(
    rebuild: Rebuild, image: PlatformImage | None, audience: Audience, url: str, now: datetime
) -> CardElement:
    moved = moving(rebuild) if rebuild.is_rollback else []
    if rebuild.cause is Cause.BASE_MOVED:
        moved = digests(rebuild.old_digest, rebuild.new_digest)
    reason = f"reason: {clean(rebuild.reason, 200)}" if rebuild.reason else ""
    told = " · ".join(filter(None, (approvals(rebuild, image), reason)))
    stands = standing(rebuild) if rebuild.waiting_approval else Standing("○", CAUSES[rebuild.cause], "Warning")
    items: list[CardElement] = [
        row(rebuild.image, stands, support_mark(rebuild.support, now.date())),
        *([line(*moved)] if moved else []),
        *news_lines(rebuild.news),
        *([line(capital(told))] if told else []),
        line(*asked(rebuild), subtle=True),
        line(*_waits(rebuild, url, now), subtle=True),
    ]
    if not undecided(rebuild, now):
        return Container(items=[*items, line("Too late to decide.")], separator=True, spacing="Medium")
    items += audience.who_may(rebuild.image)
    hidden, why = details(
        rebuild.id,
        *whole("Base before", rebuild.old_digest),
        *whole("Base now", rebuild.new_digest),
        *whole(clean(rebuild.version_tag or "", 150), rebuild.target),
        line(f"Rebuild {rebuild.id}."),
        links=cve_lines(rebuild.news),
    )
    actions = action_set(approve(rebuild), reject(rebuild), why)
    return Container(items=[*items, hidden, actions], separator=True, spacing="Medium")
