"""On the card of a rebuild: the images that are based on it, each with what becomes of it."""

from collections.abc import Sequence
from datetime import datetime

from microsoft_teams.cards.core import Action, CardElement, Container, ToggleVisibilityAction

from bot.core.conversations import Subject
from bot.core.rebuilds import ENDED, Rebuild
from bot.teams.cards.audience import Audience, view
from bot.teams.cards.card import action_set, fitting, line, more
from bot.teams.cards.decisions import approve, approve_all, comment, reject, reject_all
from bot.teams.cards.states import decidable, ending, row, standing

ROWS_ROOM, FORMS_ROOM = 3_500, 5_000


def remarks(children: Sequence[Rebuild], audience: Audience, now: datetime) -> list[CardElement]:
    """What the Approve of a child that waits alone sends along; for behind *Why?*."""
    waiting = [child for child in children if decidable(child, now) and audience.decides(child.image)]
    return [comment(child) for child in waiting] if len(waiting) == 1 else []


def family(parent: Rebuild, children: Sequence[Rebuild], audience: Audience, now: datetime) -> list[CardElement]:
    """A row per child, and the decision about those that wait; nothing without children."""
    if not children:
        return []
    rows = fitting(map(_row, children), ROWS_ROOM)
    items: list[CardElement] = [line("Based on it:", subtle=True), *rows, *more(len(children) - len(rows), "pending")]
    asked = [child for child in children if decidable(child, now)]
    own = view(Subject.REBUILD, parent.id, audience) if asked and not decidable(parent, now) else None
    if own:
        items.append(action_set(own))
    waiting = [child for child in asked if audience.decides(child.image)]
    if len(waiting) == 1:
        items.append(action_set(approve(waiting[0]), reject(waiting[0])))
    elif waiting:
        items += _several(parent, waiting)
    return [Container(items=items, separator=True, spacing="Medium")]


def _row(child: Rebuild) -> CardElement:
    reason = ending(child) if child.state in ENDED else ""
    return row(child.image, standing(child), f" · {reason}" if reason else "")


def _several(parent: Rebuild, waiting: Sequence[Rebuild]) -> list[CardElement]:
    """All of them at once, or each behind a third button."""
    single: list[CardElement] = []
    for child in waiting:
        decision = [comment(child), action_set(approve(child), reject(child))]
        single.append(Container(items=decision, spacing="Small"))
    hidden = Container(id=f"each.{parent.id}", items=fitting(single, FORMS_ROOM), is_visible=False)
    actions: list[Action] = [
        approve_all(f"Approve {len(waiting)} children", after=parent.id),
        reject_all(f"Reject {len(waiting)} children", after=parent.id),
        ToggleVisibilityAction(title="One by one", target_elements=[f"each.{parent.id}"]),
    ]
    return [action_set(*actions), hidden]
