"""Answers in one line."""

from bot.teams.cards.card import Card, button, card, line
from bot.teams.cards.formats import clean

LONGEST_ANSWER = 600


def text_card(text: str, *, suggestion: str | None = None) -> Card:
    """A line of plain text, with a button that runs the command line it suggests."""
    told = clean(text, LONGEST_ANSWER)
    actions = [button(suggestion, "run", text=clean(suggestion))] if suggestion else []
    return card(told, [line(told)], actions, text=told)
