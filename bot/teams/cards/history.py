"""What was: rebuilds with their outcome, people, digests and durations, newest first, a page at a time."""

from collections.abc import Sequence
from datetime import timedelta

from microsoft_teams.cards.core import CardElement, Container, OpenUrlAction, TextRun

from bot.core.images import Version
from bot.core.reading import HistoryPage
from bot.core.rebuilds import Rebuild, State, version_in
from bot.teams.cards.card import Card, button, card, fitting, heading, line, link, run
from bot.teams.cards.decisions import roll_back
from bot.teams.cards.formats import Safe, age, clean, duration, moment, plural
from bot.teams.cards.hold import hold_line
from bot.teams.cards.states import approvers, asker, capital, digests, ending, row, standing

LONGEST_REASON = 120
MOST_VERSIONS = 8  # to choose from
IN_DAYS = timedelta(days=2)


def history_card(page: HistoryPage, *, name: str | None) -> Card:
    """The answer to `history [IMAGE] [PAGE]`. *Older* goes on after the last row, also when newer rebuilds came."""
    told = f"{name or 'All images'} · {_title(page)}"
    rows = fitting(_past(rebuild, named=name is None) for rebuild in page.rebuilds)
    more = page.older or len(rows) < len(page.rebuilds)
    actions = [
        button("Older", "history", target=name or "", before=page.rebuilds[len(rows) - 1].id)
        if more and rows
        else None,
        button("Newest", "history", target=name or "") if not page.newest else None,
        roll_back(name, _earlier(page.rebuilds)) if name and page.newest else None,
        button("Status", "status", target=name) if name else None,
    ]
    held = [hold_line(page.hold)] if page.hold else []
    return card(told, [heading(told), *held, *rows], actions)


def _earlier(rebuilds: Sequence[Rebuild]) -> list[str]:
    """The versions of an image that its history knows, but the one in use; the one before that comes first."""
    done = [rebuild for rebuild in rebuilds if rebuild.state is State.SUCCEEDED]
    tags = [tag for rebuild in done for tag in (rebuild.version_tag, rebuild.previous_tag) if tag]
    known = {version: None for tag in tags if (version := Version.parse(version_in(tag)))}
    in_use = Version.parse(done[0].version) if done else None
    others = sorted((version for version in known if version != in_use), reverse=True)
    older_first = sorted(others, key=lambda version: bool(in_use and version > in_use))
    return [str(version) for version in older_first[:MOST_VERSIONS]]


def _title(page: HistoryPage) -> str:
    if page.newest:
        return f"last {plural(len(page.rebuilds), 'rebuild')}" if page.rebuilds else "never rebuilt"
    return "older rebuilds" if page.rebuilds else "no older rebuilds"


def _past(rebuild: Rebuild, *, named: bool) -> CardElement:
    old, new = rebuild.digests
    moved: list[str | TextRun] = [Safe(" · "), *digests(old, new)]
    first = row(rebuild.image if named else "", standing(rebuild))
    second = line(*_facts(rebuild), *(moved if new else []), subtle=True, spacing="None")
    reason = capital(clean(ending(rebuild), LONGEST_REASON))
    third = [line(reason, subtle=True, spacing="None")] if reason else []
    return Container(items=[first, second, *third], spacing="Small")


def _facts(rebuild: Rebuild) -> list[str | TextRun]:
    """When, who, which version, how long, and the run."""
    who = approvers(rebuild)
    version = rebuild.version_tag if rebuild.state is not State.SUCCEEDED else None  # which its outcome tells
    told = [
        moment(rebuild.ended_at or rebuild.created_at),
        Safe(f"asked by {asker(rebuild)}"),
        Safe(f"approved by {who}" if who else ""),
        clean(version or ""),
        *_durations(rebuild),
    ]
    parts: list[str | TextRun] = [Safe(" · ".join(filter(None, told)))]
    opened = link(clean(f"Open run {rebuild.run_number}"), rebuild.run_url)
    return [*parts, Safe(" · "), _linked(f"run {rebuild.run_number}", opened)] if opened else parts


def _durations(rebuild: Rebuild) -> list[Safe]:
    ran = rebuild.run_finished_at - rebuild.queued_at if rebuild.run_finished_at and rebuild.queued_at else None
    whole = rebuild.ended_at - rebuild.created_at if rebuild.ended_at else None
    return [
        Safe(f"ran {_took(ran)}" if ran is not None else ""),
        Safe(f"{_took(whole)} from the question" if whole is not None else ""),
    ]


def _took(took: timedelta) -> str:
    return age(took) if took >= IN_DAYS else duration(took)


def _linked(text: str, action: OpenUrlAction) -> TextRun:
    linked = run(text)
    linked.select_action = action
    return linked
