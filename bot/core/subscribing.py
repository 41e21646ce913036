"""What conversations are told about."""

from collections.abc import Callable

from bot.core.conversations import Conversation
from bot.core.people import Person
from bot.core.ports import CardStore, Clock, Store
from bot.core.rebuilds import AuditEntry

Wish = Callable[[Conversation], Conversation]


class SubscribeService:
    """Anybody in a conversation may say what it is told about."""

    def __init__(self, store: Store, conversations: CardStore, clock: Clock) -> None:
        self._store = store
        self._conversations = conversations
        self._clock = clock

    async def present(self, conversation: Conversation) -> Conversation:
        """The conversation with what it is told about now."""
        return await self._conversations.conversation(conversation.id) or conversation

    async def tell(self, conversation: Conversation, wish: Wish, person: Person, action: str) -> Conversation:
        """Tell a conversation what it wants to be told from now on. Returns it as it is then."""
        told = await self._conversations.change_conversation(conversation.id, lambda known: wish(known or conversation))
        comment = f"{told.name or told.id}: {told.about}"
        await self._store.audit(AuditEntry(at=self._clock.now(), actor=person, action=action, comment=comment))
        return told
