"""Which cards are wanted in which conversations: written in the same transaction as what they show."""

from collections.abc import Collection

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.core.conversations import Announcement, Conversation, Subject, notice_id
from bot.core.rebuilds import Rebuild, State
from bot.store import tables as t
from bot.store.database import decode, encode, insert_or_ignore

SHOW_ORDER = (Subject.REBUILD, Subject.REMINDER, Subject.NOTICE)  # the card before what replies to it


async def want_rebuild(connection: AsyncConnection, show: Collection[Subject], rebuild: Rebuild) -> None:
    """Want cards of a rebuild wherever it is told about, and where it was asked for."""
    if not show:
        return
    for conversation in await reachable(connection):
        if not (conversation.wants_rebuild(rebuild) or conversation.id == rebuild.conversation_id):
            continue
        asked_above = await _is_asked_above(connection, rebuild, conversation)
        for subject in sorted(show, key=SHOW_ORDER.index):
            if subject is not Subject.REBUILD or not asked_above:
                subject_id = notice_id(rebuild.id, rebuild.attempt) if subject is Subject.NOTICE else rebuild.id
                await want_card(connection, subject, subject_id, conversation)


async def _is_asked_above(connection: AsyncConnection, rebuild: Rebuild, conversation: Conversation) -> bool:
    """A child that waits for an approval is asked for on its parent's card, where that one is."""
    if rebuild.after is None or rebuild.state is not State.AWAITING_APPROVAL:
        return False
    card = {"subject": Subject.REBUILD, "subject_id": rebuild.after, "conversation_id": conversation.id}
    return (await connection.execute(select(t.cards.c.id).filter_by(**card))).first() is not None


async def want_card(connection: AsyncConnection, subject: Subject, subject_id: str, conversation: Conversation) -> None:
    """Wanting a card twice is wanting it once."""
    row = {"subject": subject, "subject_id": subject_id, "conversation_id": conversation.id}
    await insert_or_ignore(connection, t.cards, {"delivered": 0, "fingerprint": "", "attempts": 0, **row})


async def want_announcement(connection: AsyncConnection, announcement: Announcement) -> None:
    """Keep an announcement, and want it wherever it is told about."""
    row = {"at": announcement.at, "body": encode(announcement)}
    key = (await connection.execute(insert(t.announcements).values(row))).inserted_primary_key
    for conversation in await reachable(connection):
        if conversation.wants(announcement.image) if announcement.image else conversation.subscribed:
            await want_card(connection, Subject.ANNOUNCEMENT, str(key[0] if key else 0), conversation)


async def reachable(connection: AsyncConnection) -> list[Conversation]:
    """The conversations that are not gone."""
    query = select(t.conversations.c.body).where(t.conversations.c.gone_at.is_(None)).order_by(t.conversations.c.id)
    return [decode(row.body, Conversation) for row in await connection.execute(query)]
