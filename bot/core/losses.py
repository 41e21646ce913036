"""Conversations that can no longer be reached: noticed, marked, and told in the others."""

import logging
from datetime import datetime

from bot.core.conversations import Announcement, Conversation, ConversationKind
from bot.core.ports import CardStore, Clock, Wake

logger = logging.getLogger(__name__)


class Losses:
    """Marks conversations as gone. Whoever speaks in one brings it back, with its subscription as it was."""

    def __init__(self, store: CardStore, clock: Clock, wake: Wake) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self.count = 0  # grows with every conversation that was marked here

    async def conversation(self, conversation_id: str, why: str) -> None:
        """Mark one conversation; `why` ends the sentence that the others are told. It may be unknown or gone."""
        known = await self._store.conversation(conversation_id)
        if known is None:
            return
        now = self._clock.now()
        self.count += 1
        logger.warning("conversation %s is gone: %s", conversation_id, why)
        if await self._store.mark_gone(conversation_id, now, loss(known, why, now)) and known.subscribed:
            await self._complain_when_nobody_is_left()
        self._wake.cards()

    async def team(self, team_id: str, why: str) -> None:
        """Mark all channels of a team; nothing without its id."""
        for conversation in await self._store.team(team_id) if team_id else []:
            await self.conversation(conversation.id, why)

    async def _complain_when_nobody_is_left(self) -> None:
        reachable, gone = await self._store.reach()
        if not reachable:
            logger.error("nobody is told about checks and rebuilds any more: all %d conversations are gone", gone)


def loss(lost: Conversation, why: str, now: datetime) -> Announcement | None:
    """What the others are told; None when they miss nothing: of a personal chat, and of one that was told nothing."""
    if not lost.subscribed or lost.kind is ConversationKind.PERSONAL:
        return None
    kind = "channel" if lost.kind is ConversationKind.CHANNEL else "group chat"
    name = f"The {kind} {lost.name}" if lost.name else f"A {kind} whose name is not known"
    text = (
        f"{name} cannot be reached since {now:%d %B %Y %H:%M} UTC: {why}. It was told about {lost.about}. "
        "To bring it back, add the bot there again if it was removed, and mention it: its subscription is kept."
    )
    return Announcement(at=now, text=text)
