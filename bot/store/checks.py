"""Checks, when they are due, and what they found."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.core.checks import Check, Sighting, Verdict
from bot.core.conversations import Subject
from bot.core.images import Digest
from bot.store import tables as t
from bot.store.database import Database, decode, encode, insert_or_ignore, upsert
from bot.store.wanted import reachable, want_card

CLAIM_LEASE = timedelta(minutes=10)  # after that a replica that claimed a slot is taken to be dead


class Checks(Database):
    """Slots of the timer, checks with the newest verdict of each image, and digests that bases had."""

    async def claim_slot(self, slot: datetime, now: datetime) -> bool:
        async with self._write() as connection:
            newest = (await connection.execute(select(func.max(t.slots.c.slot)))).scalar()
            if newest is None or slot > newest:
                row = {"slot": slot, "claimed_at": now, "finished": newest is None}
                return await insert_or_ignore(connection, t.slots, row) and newest is not None
            abandoned = (t.slots.c.slot == slot, ~t.slots.c.finished, t.slots.c.claimed_at <= now - CLAIM_LEASE)
            taken = await connection.execute(update(t.slots).where(*abandoned).values(claimed_at=now))
            return taken.rowcount == 1

    async def last_slot(self, before: datetime) -> datetime | None:
        query = select(func.max(t.slots.c.slot)).where(t.slots.c.slot < before, t.slots.c.finished)
        newest: datetime | None = (await self._rows(query))[0][0]
        return newest

    async def release_slot(self, slot: datetime) -> None:
        """Give a claimed slot back unfinished, so that the next look runs it."""
        async with self._write() as connection:
            await connection.execute(delete(t.slots).where(t.slots.c.slot == slot, ~t.slots.c.finished))

    async def add_check(self, check: Check, *, everywhere: bool, about: Collection[str] = ()) -> Check:
        async with self._write() as connection:
            row = {"checked_at": check.checked_at, "told": everywhere, "revision": check.revision, "body": b""}
            key = (await connection.execute(insert(t.checks).values(row))).inserted_primary_key
            saved = replace(check, id=key[0] if key else 0)
            await connection.execute(update(t.checks).where(t.checks.c.id == saved.id).values(body=encode(saved)))
            if check.slot:
                done = update(t.slots).where(t.slots.c.slot == check.slot).values(finished=True)
                await connection.execute(done)
            told = [verdict.name for verdict in check.verdicts] if everywhere else about
            for verdict in check.verdicts:
                known = verdict.once_told() if verdict.name in told else verdict
                await _note_verdict(connection, saved, known)
            for conversation in await reachable(connection):
                if conversation.id == check.conversation_id or conversation.wants_check(saved, told):
                    await want_card(connection, Subject.CHECK, str(saved.id), conversation)
        return saved

    async def check(self, check_id: int) -> Check | None:
        return await self._one_check(select(t.checks).where(t.checks.c.id == check_id))

    async def latest_check(self) -> Check | None:
        return await self._one_check(select(t.checks).order_by(t.checks.c.id.desc()).limit(1))

    async def last_told(self) -> Check | None:
        return await self._one_check(select(t.checks).where(t.checks.c.told).order_by(t.checks.c.id.desc()).limit(1))

    async def _one_check(self, query: Select[Any]) -> Check | None:
        rows = await self._rows(query)
        return replace(decode(rows[0].body, Check), revision=rows[0].revision) if rows else None

    async def latest_verdicts(self) -> dict[str, tuple[datetime, Verdict]]:
        return {row.image: (row.checked_at, decode(row.body, Verdict)) for row in await self._rows(select(t.verdicts))}

    async def latest_verdict(self, image: str) -> tuple[datetime, Verdict] | None:
        rows = await self._rows(select(t.verdicts).where(t.verdicts.c.image == image))
        return (rows[0].checked_at, decode(rows[0].body, Verdict)) if rows else None

    async def seen(self, digests: Mapping[str, Digest], now: datetime) -> dict[str, Sighting]:
        columns = t.base_digests.c
        async with self._write() as connection:
            for base, digest in digests.items():
                key = {"base": base, "digest": digest}
                await upsert(connection, t.base_digests, key, {"last_seen": now}, first_seen=now)
            known = await connection.execute(select(t.base_digests).where(columns.base.in_(list(digests))))
            rows = list(known)
        return {base: _sighting(digest, [row for row in rows if row.base == base]) for base, digest in digests.items()}


async def _note_verdict(connection: AsyncConnection, check: Check, verdict: Verdict) -> None:
    row = {"checked_at": check.checked_at, "body": encode(verdict)}
    await upsert(connection, t.verdicts, {"image": verdict.name}, row)
    if verdict.rebuild_id:
        await insert_or_ignore(connection, t.check_rebuilds, {"check_id": check.id, "rebuild_id": verdict.rebuild_id})


def _sighting(digest: Digest, rows: list[Row[Any]]) -> Sighting:
    first_seen = next(row.first_seen for row in rows if row.digest == digest)
    others = [row.last_seen for row in rows if row.digest != digest and row.last_seen <= first_seen]
    return Sighting(first_seen=first_seen, other_last_seen=max(others, default=None))
