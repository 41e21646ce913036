"""Where the bot talks, and what all of these places are told."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from bot.core.conversations import Announcement, Conversation
from bot.store import tables as t
from bot.store.database import Database, decode, encode, insert_or_ignore
from bot.store.deliveries import take_delivery
from bot.store.wanted import want_announcement


class Conversations(Database):
    """Conversations, and announcements to them."""

    async def conversation(self, conversation_id: str) -> Conversation | None:
        rows = await self._rows(select(t.conversations.c.body).where(t.conversations.c.id == conversation_id))
        return decode(rows[0].body, Conversation) if rows else None

    async def change_conversation(
        self, conversation_id: str, change: Callable[[Conversation | None], Conversation]
    ) -> Conversation:
        table = t.conversations
        query = select(table.c.body).where(table.c.id == conversation_id).with_for_update()
        async with self._write() as connection:
            known = (await connection.execute(query)).first()
            if known is None:
                added = change(None)
                if await insert_or_ignore(connection, table, {"id": conversation_id, **_row(added)}):
                    return added
                known = (await connection.execute(query)).one()  # somebody else was faster
            changed = change(decode(known.body, Conversation))
            await connection.execute(update(table).where(table.c.id == conversation_id).values(_row(changed)))
        return changed

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


def _row(conversation: Conversation) -> dict[str, Any]:
    return {"subscribed": conversation.subscribed, "gone_at": None, "body": encode(conversation)}
