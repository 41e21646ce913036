"""For whom a card is drawn: who may decide, who sees the buttons, and who only sees who may."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from microsoft_teams.cards.core import CardElement, ExecuteAction, RefreshDefinition

from bot.core.conversations import Subject
from bot.teams.cards.card import button, line

MOST_NAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who looks at a card.

    `may` says for each image who may decide about it. `refresh` are the Teams ids of people whose clients ask for a
    card of their own; the posted card then has no buttons that decide. `own` is for the card of one person: the
    images about which they may decide.
    """

    may: Mapping[str, str] = field(default_factory=dict)
    refresh: tuple[str, ...] = ()
    own: frozenset[str] | None = None

    def decides(self, image: str) -> bool:
        """Whether the card has the buttons that decide about an image."""
        return not self.refresh if self.own is None else image in self.own

    def who_may(self, image: str) -> list[CardElement]:
        """The line that tells who may decide; nothing where nobody can tell."""
        if image not in self.may:
            return []
        aside = " You are not among them." if self.own is not None and image not in self.own else ""
        return [line(f"May approve: {self.may[image]}.", aside, subtle=True)]


EVERYBODY = Audience()


def view(subject: Subject, target: str, audience: Audience) -> ExecuteAction | None:
    """The button of a posted card that leads to one's own; None where the card has all buttons, or is one's own."""
    return _view(subject, target) if audience.refresh and audience.own is None else None


def refresh(subject: Subject, target: str, audience: Audience) -> RefreshDefinition | None:
    """What makes Teams ask for the cards of those who may decide.

    https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/universal-actions-for-adaptive-cards/user-specific-views
    """
    if not audience.refresh:
        return None
    return RefreshDefinition(action=_view(subject, target), user_ids=list(audience.refresh))


def _view(subject: Subject, target: str) -> ExecuteAction:
    return button("Approve or reject…", "view", subject=subject.value, target=target)


def one_of(names: Sequence[str], others: int = 0, channels: Sequence[str] = ()) -> str:
    """`Alex Wilber, Megan Bowen or a member of platform-team`; `others` have no name that anybody would know."""
    others += len(names[MOST_NAMES:])
    rest = [f"{others} more" if names else f"{others} people whom the catalog names"] if others else []
    words = [*names[:MOST_NAMES], *rest, *(f"a member of {channel}" for channel in channels[:2])]
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))) or "nobody"
