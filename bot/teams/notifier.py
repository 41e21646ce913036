"""Delivers cards: whatever a conversation lacks is posted or edited, and recorded only after Teams accepted it.

A refused or lost delivery is repeated, so a card can at the worst arrive twice when the answer to a post is lost;
it never stays away.
"""

import asyncio
import hashlib
import logging
from datetime import datetime, timedelta
from xml.sax.saxutils import escape

from botbuilder.schema import Activity, Attachment, ChannelAccount, Mention

from bot.core.conversations import Conversation, ConversationKind, DueCard, Subject, noticed
from bot.core.losses import Losses
from bot.core.ports import CardStore, Clock
from bot.errors import BotError, Denied, NotFound, PeerUnavailable
from bot.teams.cards.card import Card
from bot.teams.cards.notice import Notice
from bot.teams.connector import Connector, Connectors, document
from bot.teams.drawings import Drawings

logger = logging.getLogger(__name__)

CARD_TYPE = "application/vnd.microsoft.card.adaptive"
LONGEST_PAUSE_S = 3600
LONGEST_QUIET_S = 300  # of a conversation in which Teams takes nothing, and does not say for how long
CLAIM = timedelta(minutes=1)  # longer than a call to Teams may take
DENIALS = 10  # as many refusals of one card, which take some minutes, and the conversation is gone


class Notifier:
    """Brings every conversation's cards up to date. `deliver` may be called by anybody at any time."""

    def __init__(
        self,
        store: CardStore,
        connectors: Connectors,
        drawings: Drawings,
        clock: Clock,
        losses: Losses,
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._drawings = drawings
        self._clock = clock
        self._losses = losses
        self._quiet: dict[str, datetime] = {}  # conversations in which Teams takes nothing, and until when
        self.one_pass = asyncio.Lock()

    async def deliver(self) -> None:
        """One pass over all cards that are due: side by side for conversations, in order within each."""
        async with self.one_pass:
            now = self._clock.now()
            by_conversation: dict[str, list[DueCard]] = {}
            for card in await self._store.due_cards(now):
                if self._quiet.get(card.conversation.id, now) <= now:
                    by_conversation.setdefault(card.conversation.id, []).append(card)
            await asyncio.gather(*map(self._deliver_in_order, by_conversation.values()))

    async def _deliver_in_order(self, cards: list[DueCard]) -> None:
        for card in cards:
            now = self._clock.now()
            if not await self._store.claim_card(card, now, now + CLAIM):
                return  # another replica is at it, and what comes after it would overtake it
            try:
                await self._deliver_one(card)
            except NotFound as error:
                if card.activity_id is None:
                    await self._losses.conversation(card.conversation.id, str(error))
                    return
                # Somebody deleted it: the next pass posts it anew, before what comes after it.
                await self._store.card_failed(card, now, lost=True)
                return
            except BotError as error:
                if isinstance(error, Denied) and card.attempts + 1 >= DENIALS:
                    await self._losses.conversation(card.conversation.id, str(error))
                    return
                logger.warning("%s %s cannot be delivered yet: %s", card.subject, card.subject_id, error)
                again = self._clock.now() + _pause(card, error)
                await self._store.card_failed(card, again)
                if isinstance(error, PeerUnavailable):
                    # What comes after it, also later, would overtake it, or be refused as well.
                    self._quiet[card.conversation.id] = again
                    return

    async def _deliver_one(self, card: DueCard) -> None:
        activity = await self._render(card)
        if activity is None:
            await self._store.card_delivered(card, card.activity_id or "", card.fingerprint)
            return
        fingerprint = hashlib.sha256(repr(document(activity)).encode()).hexdigest()
        activity_id = card.activity_id or ""
        if fingerprint != card.fingerprint:
            activity_id = await self._send(card, activity, self._connectors.at(card.conversation.service_url))
        await self._store.card_delivered(card, activity_id, fingerprint)

    async def _send(self, card: DueCard, activity: Activity, connector: Connector) -> str:
        if card.activity_id:
            await connector.update_activity(_thread(card.conversation, card.activity_id), card.activity_id, activity)
            return card.activity_id
        root = None
        if card.subject in (Subject.NOTICE, Subject.REMINDER):
            rebuild_id, _ = noticed(card.subject_id)
            root = await self._store.card_of(rebuild_id, card.conversation.id)
        try:
            posted = await connector.send_to_conversation(_thread(card.conversation, root), activity)
        except NotFound:
            if root is None:
                raise
            posted = await connector.send_to_conversation(card.conversation.id, activity)  # the thread was deleted
        return str(posted.id)

    async def _render(self, card: DueCard) -> Activity | None:
        """What the card looks like now; None when its subject no longer exists, or is no news any more."""
        if card.subject is Subject.ANNOUNCEMENT:
            announcement = await self._store.announcement(int(card.subject_id))
            return notice_activity(Notice(text=escape(announcement.text), mentions=())) if announcement else None
        if card.subject in (Subject.NOTICE, Subject.REMINDER):
            return await self._reply(card)
        drawn = await self._drawings.draw(card.subject, card.subject_id, card.conversation)
        return card_activity(drawn) if drawn else None

    async def _reply(self, card: DueCard) -> Activity | None:
        rebuild_id, attempt = noticed(card.subject_id)
        rebuild = await self._store.rebuild(rebuild_id)
        if rebuild is None or rebuild.attempt != attempt:
            return None
        words = self._drawings.reminder if card.subject is Subject.REMINDER else self._drawings.notice
        told = await words(rebuild, card.conversation)
        return notice_activity(told) if told else None


def card_activity(card: Card) -> Activity:
    """A message that holds nothing but a card: text beside it would be split off and could not be edited."""
    attachment = Attachment(content_type=CARD_TYPE, content=card.content)
    return Activity(type="message", attachments=[attachment], summary=card.summary)


def notice_activity(notice: Notice) -> Activity:
    """A plain message with mentions, which rings."""
    entities = [_mention(person.mri, person.name) for person in notice.mentions]
    return Activity(type="message", text=notice.text, text_format="xml", entities=entities)


def _mention(mri: str, name: str) -> Mention:
    return Mention(type="mention", mentioned=ChannelAccount(id=mri, name=name), text=f"<at>{escape(name)}</at>")


def _thread(conversation: Conversation, root: str | None) -> str:
    """The conversation id of a thread: only channels have them.

    https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/channel-and-group-conversations
    """
    in_thread = root and conversation.kind is ConversationKind.CHANNEL
    return f"{conversation.id};messageid={root}" if in_thread else conversation.id


def _pause(card: DueCard, error: BotError) -> timedelta:
    """What Teams asked for, else a second doubling; an hour at most, or minutes when a whole conversation waits."""
    if not isinstance(error, PeerUnavailable):
        return timedelta(seconds=min(2**card.attempts, LONGEST_PAUSE_S))
    if error.retry_after_s is None:
        return timedelta(seconds=min(2**card.attempts, LONGEST_QUIET_S))
    return timedelta(seconds=min(error.retry_after_s, LONGEST_PAUSE_S))
