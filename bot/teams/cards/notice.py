"""The replies that ring, when a rebuild has ended or waits for too long: plain text with mentions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.sax.saxutils import escape

from bot.core.findings import ScanState
from bot.core.people import Person
from bot.core.rebuilds import Rebuild, State
from bot.teams.cards.formats import age, clean
from bot.teams.cards.mentions import call
from bot.teams.cards.states import ending, sentence
from bot.teams.cards.vulnerabilities import advice, not_compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """`text` is XML and holds `<at>NAME</at>`, escaped, for each of `mentions`; Teams refuses it when they differ.

    https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/channel-and-group-conversations#add-mentions-to-your-messages
    """

    text: str
    mentions: tuple[Person, ...]


def notice(rebuild: Rebuild) -> Notice:
    """What is said about a rebuild to those who asked for it, approved it or ended it."""
    if rebuild.state is State.REJECTED:
        told = f"{sentence(rebuild)} {ending(rebuild)}"
        return _calling([person for person in rebuild.people if person != rebuild.ended_by], f"{clean(told)}.")
    return _calling(rebuild.people, f"{clean(sentence(rebuild))}.{_of_scans(rebuild)}")


def _of_scans(rebuild: Rebuild) -> str:
    """What scans say, where the catalog wants to know that before anybody is told to use it."""
    if rebuild.held_back:
        return f" New: {rebuild.held_back}. {advice(rebuild)}"
    if rebuild.hold_back and rebuild.comparison and rebuild.comparison.state is ScanState.UNAVAILABLE:
        return f" {not_compared(rebuild.comparison)}"
    return ""


def expiry(rebuild: Rebuild, deciders: Sequence[Person]) -> Notice:
    """That nobody decided, to whoever asked and has approved; to those who may decide when a check asked."""
    again = f"Ask again with: rebuild {rebuild.image}" if rebuild.requested_by else "The next check asks again"
    if rebuild.is_rollback:
        again = "No tag was moved"
    told = f"{rebuild.image}: nobody decided in time, so the request has expired. {again}."
    return _calling(rebuild.people if rebuild.requested_by else deciders, told)


def reminder(rebuild: Rebuild, deciders: Sequence[Person], who: str, now: datetime) -> Notice:
    """That a question waits, to those who may decide; to `who` in plain words where nobody can be mentioned."""
    told = f"{rebuild.image} has waited for an approval for {age(now - rebuild.created_at)}."
    if rebuild.expires_at:
        told += f" The request expires in {age(rebuild.expires_at - now)}."
    return _calling(deciders, told if deciders else f"{told} May approve: {clean(who)}.")


def _calling(people: Iterable[Person], told: str) -> Notice:
    called, mentioned = call(people)
    return Notice(text=f"{escape(told)}{called}", mentions=mentioned)
