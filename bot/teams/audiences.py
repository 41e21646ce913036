"""Who may decide, as the members of a conversation are known: finds the `Audience` of a card."""

from collections.abc import Collection, Mapping

from bot.core.conversations import Conversation, ConversationKind
from bot.core.images import ApprovalRules, PlatformImage
from bot.core.people import Person, is_named
from bot.core.permissions import Permissions
from bot.core.ports import CardStore
from bot.core.rebuilds import Rebuild, approval_counts
from bot.errors import PeerError
from bot.teams.cards.audience import Audience
from bot.teams.roster import Roster

# https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/universal-actions-for-adaptive-cards/user-specific-views
MOST_VIEWS = 60
MOST_CALLED = 20


class Audiences:
    """Finds out who looks at a card in a conversation, and what they may do there."""

    def __init__(
        self, catalog: Mapping[str, PlatformImage], conversations: CardStore, roster: Roster, permissions: Permissions
    ) -> None:
        self._catalog = catalog
        self._conversations = conversations
        self._roster = roster
        self._permissions = permissions

    async def of(self, place: Conversation, names: Collection[str], viewer: Person | None = None) -> Audience:
        """For a card with questions about the named images: posted in a place, or for one person there."""
        images = [self._catalog[name] for name in names]
        refresh = await self._refresh(place, images)
        may = {image.name: await self._roster.who(image.approval) for image in images}
        if viewer is None:
            return Audience(may=may, refresh=refresh)
        own = [image.name for image in images if await self._sees_buttons(image, viewer)]
        return Audience(may=may, refresh=refresh, own=frozenset(own))

    async def present(self, place: Conversation, rules: ApprovalRules) -> list[Person] | None:
        """The members of a place who may approve; None when Teams does not tell."""
        people = await self._roster.people(place)
        members: set[str] = set()
        for channel_id in rules.channels:
            channel = await self._conversations.conversation(channel_id)
            of_channel = await self._roster.people(channel) if channel else None
            if of_channel is None:
                return None
            members |= {person.id for person in of_channel}
        if people is None:
            return None
        return [person for person in people if person.id in members or is_named(rules, person)]

    async def called(self, place: Conversation, rebuild: Rebuild) -> list[Person]:
        """Those in a place whose approval is missing; nobody where Teams does not tell, or where they are a crowd."""
        rules = self._catalog[rebuild.image].approval
        present = await self.present(place, rules) or []
        missing = [person for person in present if approval_counts(rules, rebuild, person) is None]
        return missing if len(missing) <= MOST_CALLED else []

    async def _refresh(self, place: Conversation, images: Collection[PlatformImage]) -> tuple[str, ...]:
        """The Teams ids of all who may decide about any of the images; nobody where that cannot be told for each."""
        if place.kind is ConversationKind.PERSONAL:
            return ()
        found: set[str] = set()
        for image in images:
            present = await self.present(place, image.approval)
            if not present:
                return ()
            found |= {person.mri for person in present}
        return tuple(sorted(found)) if len(found) <= MOST_VIEWS else ()

    async def _sees_buttons(self, image: PlatformImage, person: Person) -> bool:
        """Who cannot be checked now sees the buttons, and hears about it at the click."""
        try:
            return await self._permissions.may_approve(image, person)
        except PeerError:
            return True
