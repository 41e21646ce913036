"""What the card of a rollback says and offers."""

from microsoft_teams.cards.core import Action, CardElement, TextRun

from bot.core.rebuilds import Rebuild, State, TagMove, version_in
from bot.teams.cards.card import button, line, run
from bot.teams.cards.decisions import release
from bot.teams.cards.formats import Safe, clean
from bot.teams.cards.states import whole

MOST_TAGS = 8


def moving(rebuild: Rebuild) -> list[str | TextRun]:
    """`Move 6.0, latest from 1.4.0 back to 1.3.0 · no build`"""
    return ["Move ", run(_tags(rebuild.moves), bold=True), f" {_way(rebuild)} · no build"]


def rollback_result(rebuild: Rebuild) -> list[CardElement]:
    """Which tags moved, and what keeps them there."""
    told: list[str | TextRun] = ["No tag had to move."]
    if rebuild.moves:
        told = ["Moved ", run(_tags(rebuild.moves), bold=True), f" {_way(rebuild)}."]
    if rebuild.target:
        told += [" Digest ", run(Safe(rebuild.target.short), mono=True), "."]
    back = "A hold keeps it there: release it to get updates again. The next version that is pushed moves the tags on."
    return [line(*told), *([] if rebuild.goes_on else [line(back, subtle=True)])]


def rollback_details(rebuild: Rebuild) -> list[CardElement]:
    """Both digests, each with its version."""
    old, new = rebuild.digests
    before = whole(clean(rebuild.previous_tag or "Before", 150), old)
    return [*before, *whole(clean(rebuild.version_tag or "", 150), new)]


def rollback_actions(rebuild: Rebuild) -> list[Action | None]:
    """For one that has ended."""
    history = button("History", "history", target=rebuild.image)
    if rebuild.state is State.SUCCEEDED:
        return [None if rebuild.goes_on else release(rebuild.image), history]
    if rebuild.state is State.FAILED:
        reason = clean(rebuild.reason, 80) or f"retry of {rebuild.id}"
        return [
            button("Try again", "rollback", target=rebuild.image, version=clean(rebuild.version, 40), reason=reason),
            history,
        ]
    return [history]


def _tags(moves: tuple[TagMove, ...]) -> str:
    more = f" and {len(moves) - MOST_TAGS} more" if len(moves) > MOST_TAGS else ""
    return clean(", ".join(clean(move.tag, 60) for move in moves[:MOST_TAGS]), 500) + more or "nothing"


def _way(rebuild: Rebuild) -> str:
    old = version_in(rebuild.previous_tag)
    start = f"from {clean(old, 40)} " if old else ""
    return f"{start}{'on' if rebuild.goes_on else 'back'} to {clean(rebuild.version, 40)}"
