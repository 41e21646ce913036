"""Where the bot talks, and what all of these places are told."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import select, update

from bot.core.conversations import Announcement, Conversation
from bot.store import tables as t
from bot.store.database import Database, decode, encode, upsert
from bot.store.deliveries import take_delivery
from bot.store.wanted import want_announcement


class Conversations(Database):
    """Conversations, and announcements to them."""

    async def conversation(self, conversation_id: str) -> Conversation | None:
        rows = await self._rows(select(t.conversations.c.body).where(t.conversations.c.id == conversation_id))
        return decode(rows[0].body, Conversation) if rows else None

    async def save_conversation(self, conversation: Conversation) -> None:
        """Add or replace a conversation; one that was gone is back."""
        async with self._write() as connection:
            row = {"subscribed": conversation.subscribed, "gone_at": None, "body": encode(conversation)}
            await upsert(connection, t.conversations, {"id": conversation.id}, row)

    async def team(self, team_id: str) -> list[Conversation]:
        known = [decode(row.body, Conversation) for row in await self._rows(select(t.conversations.c.body))]
        return [conversation for conversation in known if conversation.team_id == team_id]

    async def mark_gone(self, conversation_id: str, now: datetime, announcement: Announcement | None = None) -> bool:
        """Post nothing more to a conversation until it says something again, and tell the others."""
        where = (t.conversations.c.id == conversation_id, t.conversations.c.gone_at.is_(None))
        async with self._write() as connection:
            marked = await connection.execute(update(t.conversations).where(*where).values(gone_at=now))
            if marked.rowcount and announcement:
                await want_announcement(connection, announcement)
        return bool(marked.rowcount)

    async def reach(self) -> tuple[int, int]:
        rows = await self._rows(select(t.conversations.c.gone_at).where(t.conversations.c.subscribed))
        gone = sum(row.gone_at is not None for row in rows)
        return len(rows) - gone, gone

    async def announce(self, announcement: Announcement, *, once: str = "") -> bool:
        async with self._write() as connection:
            wanted = not once or await take_delivery(connection, once, announcement.at)
            if wanted:
                await want_announcement(connection, announcement)
        return wanted

    async def announcement(self, announcement_id: int) -> Announcement | None:
        rows = await self._rows(select(t.announcements.c.body).where(t.announcements.c.id == announcement_id))
        return replace(decode(rows[0].body, Announcement), id=announcement_id) if rows else None
