"""The reply that rings when a rebuild has ended: plain text with mentions."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

from bot.core.rebuilds import Person, Rebuild
from bot.teams.cards.formats import clean
from bot.teams.cards.mentions import call
from bot.teams.cards.states import sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """`text` is XML and holds `<at>NAME</at>`, escaped, for each of `mentions`; Teams refuses it when they differ.

    https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/channel-and-group-conversations#add-mentions-to-your-messages
    """

    text: str
    mentions: tuple[Person, ...]


def notice(rebuild: Rebuild) -> Notice:
    """What is said about a rebuild to those who asked for it, approved it or ended it."""
    called, mentioned = call(rebuild.people)
    return Notice(text=f"{escape(clean(sentence(rebuild)))}.{called}", mentions=mentioned)
