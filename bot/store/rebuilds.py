"""Rebuilds, from question to end."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.core.conversations import Subject
from bot.core.images import Digest
from bot.core.rebuilds import AuditEntry, Rebuild, State
from bot.errors import Conflict
from bot.store import tables as t
from bot.store.audit import write_audit
from bot.store.database import Database, decode, encode, insert_or_ignore
from bot.store.wanted import want_rebuild

LONGEST_LIFE = timedelta(days=120)  # from question to end: nearly all of it may be waiting for an approval


class Rebuilds(Database):
    """Rows that move on only when nobody else moved them, with the audit and the cards of each move."""

    async def add_rebuild(self, rebuild: Rebuild, audit: AuditEntry, show: Collection[Subject] = ()) -> None:
        async with self._write() as connection:
            await _insert_rebuild(connection, rebuild, show)
            await write_audit(connection, audit)

    async def save_rebuild(
        self, rebuild: Rebuild, audit: AuditEntry | None = None, show: Collection[Subject] = ()
    ) -> Rebuild:
        async with self._write() as connection:
            saved = await _update_rebuild(connection, rebuild)
            await want_rebuild(connection, show, rebuild)
            if audit:
                await write_audit(connection, audit)
        return saved

    async def supersede(self, old: Rebuild, new: Rebuild, *audit: AuditEntry, show: Collection[Subject] = ()) -> None:
        async with self._write() as connection:
            await _update_rebuild(connection, old)
            await _insert_rebuild(connection, new, show)
            await write_audit(connection, *audit)

    async def show(self, rebuild: Rebuild, conversation_id: str) -> None:
        async with self._write() as connection:
            await want_rebuild(connection, [Subject.REBUILD], replace(rebuild, conversation_id=conversation_id))

    async def rebuild(self, rebuild_id: str) -> Rebuild | None:
        return await self._one(select(t.rebuilds.c.body).where(t.rebuilds.c.id == rebuild_id))

    async def open_rebuild(self, image: str) -> Rebuild | None:
        return await self._one(select(t.rebuilds.c.body).where(t.rebuilds.c.open_image == image))

    async def rebuilds(self, *, states: Collection[State]) -> list[Rebuild]:
        query = select(t.rebuilds.c.body).where(t.rebuilds.c.state.in_(list(states)))
        return await self._all(query.order_by(t.rebuilds.c.created_at))

    async def rebuilds_by_id(self, ids: Iterable[str]) -> dict[str, Rebuild]:
        query = select(t.rebuilds.c.body).where(t.rebuilds.c.id.in_(list(ids)))
        return {rebuild.id: rebuild for rebuild in await self._all(query)}

    async def following(self, rebuild_id: str) -> list[Rebuild]:
        joined = t.rebuilds.join(t.children, t.children.c.child_id == t.rebuilds.c.id)
        query = select(t.rebuilds.c.body).select_from(joined).where(t.children.c.parent_id == rebuild_id)
        found = await self._all(query.order_by(t.rebuilds.c.created_at))
        return [rebuild for rebuild in found if rebuild.after == rebuild_id]

    async def history(
        self, image: str | None, limit: int, *, before: Rebuild | None = None, skip: int = 0
    ) -> list[Rebuild]:
        columns = t.rebuilds.c
        query = select(columns.body).order_by(columns.created_at.desc()).limit(limit).offset(skip)
        if before is not None:
            same_time = (columns.created_at == before.created_at) & (columns.id < before.id)
            query = query.where(or_(columns.created_at < before.created_at, same_time))
        # Rebuilds of several images, such as those of one check, may begin at the same time.
        query = query.order_by(columns.id.desc()) if image is None else query.where(columns.image == image)
        return await self._all(query)

    async def succeeded(self, since: datetime) -> list[Rebuild]:
        columns = t.rebuilds.c
        where = (columns.state == State.SUCCEEDED, columns.created_at >= since - LONGEST_LIFE)
        return await self._all(select(columns.body).where(*where))

    async def rejected(self, image: str) -> list[Digest]:
        columns = t.rebuilds.c
        rejected = (columns.state == State.REJECTED, columns.new_digest.is_not(None))
        query = select(columns.new_digest).where(columns.image == image, *rejected)
        return [Digest(row.new_digest) for row in await self._rows(query.order_by(columns.created_at.desc()))]

    async def _one(self, query: Select[Any]) -> Rebuild | None:
        found = await self._all(query)
        return found[0] if found else None

    async def _all(self, query: Select[Any]) -> list[Rebuild]:
        return [decode(row.body, Rebuild) for row in await self._rows(query)]


async def _insert_rebuild(connection: AsyncConnection, rebuild: Rebuild, show: Collection[Subject]) -> None:
    try:
        await connection.execute(insert(t.rebuilds).values(id=rebuild.id, **_row(rebuild)))
    except IntegrityError as error:
        raise Conflict(f"{rebuild.image} has an open rebuild") from error
    await _tie(connection, rebuild)
    await want_rebuild(connection, show, rebuild)


async def _tie(connection: AsyncConnection, rebuild: Rebuild) -> None:
    if rebuild.after:
        await insert_or_ignore(connection, t.children, {"parent_id": rebuild.after, "child_id": rebuild.id})


async def _update_rebuild(connection: AsyncConnection, rebuild: Rebuild) -> Rebuild:
    saved = replace(rebuild, revision=rebuild.revision + 1)
    # Cards of checks show states only, so they follow a change of state and not every step of a run.
    moved = select(t.rebuilds.c.id).where(t.rebuilds.c.id == rebuild.id, t.rebuilds.c.state != rebuild.state)
    of_it = select(t.check_rebuilds.c.check_id).where(t.check_rebuilds.c.rebuild_id.in_(moved))
    bump = update(t.checks).where(t.checks.c.id.in_(of_it)).values(revision=t.checks.c.revision + 1)
    await connection.execute(bump)
    where = (t.rebuilds.c.id == rebuild.id, t.rebuilds.c.revision == rebuild.revision)
    try:
        result = await connection.execute(update(t.rebuilds).where(*where).values(**_row(saved)))
    except IntegrityError as error:
        raise Conflict(f"{rebuild.image} has another open rebuild") from error
    if result.rowcount != 1:
        raise Conflict(f"rebuild {rebuild.id} was changed meanwhile")
    await _tie(connection, saved)
    return saved


def _row(rebuild: Rebuild) -> dict[str, Any]:
    return {
        "image": rebuild.image,
        "open_image": rebuild.image if rebuild.is_open else None,
        "state": rebuild.state,
        "new_digest": rebuild.new_digest,
        "revision": rebuild.revision,
        "created_at": rebuild.created_at,
        "body": encode(rebuild),
    }
