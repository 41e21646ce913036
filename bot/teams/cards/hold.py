"""What stops an image: the answer to `hold` and `snooze`, and the line that every card of the image has."""

from microsoft_teams.cards.core import CardElement

from bot.core.holds import Hold, HoldKind
from bot.teams.cards.card import Card, card, heading, line, run
from bot.teams.cards.decisions import release
from bot.teams.cards.formats import Safe, clean, moment
from bot.teams.cards.states import name_of

WORDS = {HoldKind.HOLD: "on hold", HoldKind.SNOOZE: "snoozed"}


def hold_card(hold: Hold) -> Card:
    """The answer when somebody stopped an image."""
    title = f"{hold.image} · {WORDS[hold.kind]}"
    end = "then" if hold.until else "somebody releases it"
    told = {
        HoldKind.HOLD: f"Nothing is asked, queued or rebuilt for it until {end}. A run under way goes on.",
        HoldKind.SNOOZE: "The question comes again then, or earlier when the base moves once more.",
    }
    return card(title, [heading(title), hold_line(hold), line(told[hold.kind], subtle=True)], [release(hold.image)])


def hold_line(hold: Hold) -> CardElement:
    """`On hold by Alex Wilber since …: breaks our proxy`"""
    reason = f": {clean(hold.reason)}" if hold.reason else ""
    until = [" until ", moment(hold.until)] if hold.until else [" since ", moment(hold.at)]
    title = run(Safe(WORDS[hold.kind].capitalize()), bold=True)
    return line(title, " by ", name_of(hold.by), *until, reason, "" if reason.endswith(".") else ".")
