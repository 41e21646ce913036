"""The answer to one decision about several rebuilds: a line for each."""

from collections.abc import Sequence

from bot.core.deciding import Outcome
from bot.core.rebuilds import State
from bot.teams.cards.card import Card, card, fitting, heading
from bot.teams.cards.formats import clean
from bot.teams.cards.states import Standing, row

MOST_LINES = 20


def decided_card(outcomes: Sequence[Outcome], decision: str) -> Card:
    """`decision` is what was wanted, `approved` or `rejected`. Its text is for whoever pressed a button."""
    done = sum(_is_done(outcome) for outcome in outcomes)
    told = f"{done} of {len(outcomes)} {decision}"
    standings = [(outcome.image, _standing(outcome, decision)) for outcome in outcomes]
    lines = [clean(f"{stands.mark} {image}: {stands.words}") for image, stands in standings[:MOST_LINES]]
    left = [f"{len(outcomes) - MOST_LINES} more"] if len(outcomes) > MOST_LINES else []
    rows = fitting(row(image, stands) for image, stands in standings)
    return card(told, [heading(told), *rows], text="\n".join([told, *lines, *left]))


def _is_done(outcome: Outcome) -> bool:
    return outcome.rebuild is not None and outcome.rebuild.state is not State.AWAITING_APPROVAL


def _standing(outcome: Outcome, decision: str) -> Standing:
    if outcome.rebuild is None:
        return Standing("✕", outcome.refusal, "Attention")
    if not _is_done(outcome):
        return Standing("●", f"{len(outcome.rebuild.votes)} of {outcome.required} approvals", "Accent")
    return Standing("✓", decision, "Good")
