"""What was done: rows that are only ever added."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.core.rebuilds import AuditEntry
from bot.store import tables as t
from bot.store.database import Database

AUDIT_PAGE = 500


class Audit(Database):
    """Who did what, when."""

    async def audit(self, entry: AuditEntry) -> None:
        async with self._write() as connection:
            await write_audit(connection, entry)

    async def audit_rows(self) -> list[dict[str, Any]]:
        """All audit rows, oldest first."""
        return [row async for row in self.audit_between()]

    async def audit_between(
        self, since: datetime | None = None, until: datetime | None = None, image: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The audit rows from `since` to before `until`, oldest first, as many at a time as fit into memory."""
        columns, last = t.audit.c, 0
        query = select(t.audit).order_by(columns.id).limit(AUDIT_PAGE)
        for condition in (
            columns.at >= since if since else None,
            columns.at < until if until else None,
            columns.image == image if image else None,
        ):
            query = query if condition is None else query.where(condition)
        while rows := await self._rows(query.where(columns.id > last)):
            for row in rows:
                yield dict(row._mapping)
            last = rows[-1].id


async def write_audit(connection: AsyncConnection, *entries: AuditEntry) -> None:
    """Add rows in the transaction of what they tell about."""
    await connection.execute(insert(t.audit), [_row(entry) for entry in entries])


def _row(entry: AuditEntry) -> dict[str, Any]:
    actor = entry.actor
    row = {name: getattr(entry, name) for name in entry.__slots__ if name != "actor"}
    return row | {
        "actor_id": actor.id if actor else "shipshape",
        "actor_name": actor.name if actor else "Shipshape",
        "actor_principal_name": actor.principal_name if actor else "",
    }
