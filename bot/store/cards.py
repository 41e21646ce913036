"""Which card was delivered where, and in which revision of its subject."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, String, cast, func, or_, select, update

from bot.core.conversations import Conversation, DueCard, Subject
from bot.store import tables as t
from bot.store.database import Database, decode


class Cards(Database):
    """Cards that were wanted, see `wanted`, and their way into the conversations."""

    async def due_cards(self, now: datetime) -> list[DueCard]:
        """Cards that are wanted and not delivered in their present revision, oldest first; not those on a pause."""
        pause = t.cards.c.next_attempt_at
        rows = await self._rows(_due().where(or_(pause.is_(None), pause <= now)))
        return [_due_card(row) for row in rows]

    async def next_card_at(self) -> datetime | None:
        """When the first card on a pause may be tried again."""
        paused = _due().with_only_columns(func.min(t.cards.c.next_attempt_at)).order_by(None)
        rows = await self._rows(paused)
        return rows[0][0] if rows else None

    async def card_of(self, rebuild_id: str, conversation_id: str) -> str | None:
        cards, shown = t.cards.c, t.check_rebuilds.c
        checks = select(cast(shown.check_id, String)).where(shown.rebuild_id == rebuild_id)
        parents = select(t.children.c.parent_id).where(t.children.c.child_id == rebuild_id)
        of_check = (cards.subject == Subject.CHECK) & cards.subject_id.in_(checks)
        own_or_parents = or_(cards.subject_id == rebuild_id, cards.subject_id.in_(parents))
        of_rebuild = (cards.subject == Subject.REBUILD) & own_or_parents
        posted = (cards.conversation_id == conversation_id, cards.activity_id != "", or_(of_rebuild, of_check))
        rows = await self._rows(select(t.cards).where(*posted).order_by(cards.id.desc()))
        own = [row.activity_id for row in rows if row.subject_id == rebuild_id]
        return next(iter([*own, *(row.activity_id for row in rows)]), None)

    async def claim_card(self, card: DueCard, now: datetime, until: datetime) -> bool:
        columns = t.cards.c
        free = or_(columns.next_attempt_at.is_(None), columns.next_attempt_at <= now)
        async with self._write() as connection:
            where = (columns.id == card.id, columns.delivered < card.revision, free)
            claimed = await connection.execute(update(t.cards).where(*where).values(next_attempt_at=until))
            return claimed.rowcount == 1

    async def card_delivered(self, card: DueCard, activity_id: str, fingerprint: str) -> None:
        async with self._write() as connection:
            done = {
                "activity_id": activity_id,
                "delivered": card.revision,
                "fingerprint": fingerprint,
                "attempts": 0,
                "next_attempt_at": None,
            }
            await connection.execute(update(t.cards).where(t.cards.c.id == card.id).values(**done))

    async def card_failed(self, card: DueCard, next_attempt_at: datetime, *, lost: bool = False) -> None:
        """Try again later; `lost` when the posted activity is no longer there, so that a new one is posted."""
        async with self._write() as connection:
            values: dict[str, Any] = {"attempts": card.attempts + 1, "next_attempt_at": next_attempt_at}
            if lost:
                values |= {"activity_id": None, "fingerprint": ""}
            await connection.execute(update(t.cards).where(t.cards.c.id == card.id).values(**values))


def _due() -> Select[Any]:
    """Cards joined with their subject's revision. Notices and announcements never change: their revision is 1.

    The card of a rebuild shows those of its child images, so their revisions count as well.
    """
    cards, checks, rebuilds, conversations = t.cards, t.checks, t.rebuilds, t.conversations
    child = t.rebuilds.alias("child")
    below = (
        select(func.coalesce(func.sum(child.c.revision), 0))
        .select_from(t.children.join(child, t.children.c.child_id == child.c.id))
        .where(t.children.c.parent_id == rebuilds.c.id)
        .correlate(rebuilds)
        .scalar_subquery()
    )
    of_check = (cards.c.subject == Subject.CHECK) & (cards.c.subject_id == cast(checks.c.id, String))
    of_rebuild = (cards.c.subject == Subject.REBUILD) & (cards.c.subject_id == rebuilds.c.id)
    revision = func.coalesce(checks.c.revision, rebuilds.c.revision + below, 1)
    source = (
        cards.join(conversations, cards.c.conversation_id == conversations.c.id)
        .outerjoin(checks, of_check)
        .outerjoin(rebuilds, of_rebuild)
    )
    return (
        select(cards, revision.label("revision"), conversations.c.body.label("conversation"))
        .select_from(source)
        .where(conversations.c.gone_at.is_(None), revision > cards.c.delivered)
        .order_by(cards.c.id)
    )


def _due_card(row: Row[Any]) -> DueCard:
    return DueCard(
        id=row.id,
        subject=Subject(row.subject),
        subject_id=row.subject_id,
        revision=row.revision,
        conversation=decode(row.conversation, Conversation),
        activity_id=row.activity_id,
        fingerprint=row.fingerprint,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
    )
