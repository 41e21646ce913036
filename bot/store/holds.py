"""What is stopped, one hold per image."""

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.core.holds import Hold
from bot.core.rebuilds import AuditEntry
from bot.store import tables as t
from bot.store.audit import write_audit
from bot.store.database import Database, decode, encode, upsert


class Holds(Database):
    """Holds and snoozes."""

    async def hold(self, image: str) -> Hold | None:
        rows = await self._rows(select(t.holds.c.body).where(t.holds.c.image == image))
        return decode(rows[0].body, Hold) if rows else None

    async def holds(self) -> dict[str, Hold]:
        return {row.image: decode(row.body, Hold) for row in await self._rows(select(t.holds))}

    async def set_hold(self, hold: Hold, audit: AuditEntry) -> None:
        async with self._write() as connection:
            await upsert(connection, t.holds, {"image": hold.image}, {"body": encode(hold)})
            await _hold_changed(connection, audit)

    async def lift_hold(self, hold: Hold, audit: AuditEntry) -> bool:
        of_image = t.holds.c.image == hold.image
        async with self._write() as connection:
            # Holds are compared and not their bytes, which an earlier version may have written without some fields.
            row = (await connection.execute(select(t.holds.c.body).where(of_image).with_for_update())).first()
            if row is None or decode(row.body, Hold) != hold:
                return False
            await connection.execute(delete(t.holds).where(of_image))
            await _hold_changed(connection, audit)
        return True


async def _hold_changed(connection: AsyncConnection, audit: AuditEntry) -> None:
    """Holds are shown on the cards of checks: those that people look at are the newest ones."""
    newest = select(func.max(t.checks.c.id)).union(select(func.max(t.checks.c.id)).where(t.checks.c.told))
    bump = update(t.checks).where(t.checks.c.id.in_(newest)).values(revision=t.checks.c.revision + 1)
    await connection.execute(bump)
    await write_audit(connection, audit)
