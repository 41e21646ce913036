"""What the bot can do."""

from collections.abc import Sequence

from bot.teams.cards.card import Card, button, card, heading, line, run
from bot.teams.cards.formats import Safe


def help_card(commands: Sequence[tuple[str, str]]) -> Card:
    """The answer to `help`: usage and explanation of each command."""
    rows = [line(run(usage, mono=True), Safe("\u00a0 "), run(told, subtle=True)) for usage, told in commands]
    title = "What I can do"
    return card(title, [heading(title), *rows], [button("Show all images", "list"), button("What waits", "pending")])
