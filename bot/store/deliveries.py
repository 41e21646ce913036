"""Which deliveries of others were taken, so that each is taken once."""

from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store import tables as t
from bot.store.database import Database, insert_or_ignore


class Deliveries(Database):
    """Ids of deliveries, for a time."""

    async def first_delivery(self, delivery_id: str, now: datetime, *, remembered: timedelta) -> bool:
        async with self._write() as connection:
            await connection.execute(delete(t.deliveries).where(t.deliveries.c.at < now - remembered))
            return await take_delivery(connection, delivery_id, now)


async def take_delivery(connection: AsyncConnection, delivery_id: str, now: datetime) -> bool:
    """Whether the delivery is taken now, and was not before."""
    return await insert_or_ignore(connection, t.deliveries, {"id": delivery_id, "at": now})
