"""Durable state in any SQLAlchemy async database: SQLite for one process, PostgreSQL for several replicas."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Row, Select, String, cast, delete, event, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.core.checks import Check, Sighting, Verdict
from bot.core.conversations import Announcement, Conversation, DueCard, Subject, notice_id
from bot.core.holds import Hold
from bot.core.images import Digest
from bot.core.pages import Page
from bot.core.rebuilds import AuditEntry, Rebuild, State
from bot.errors import ConfigError, Conflict
from bot.store import tables as t

KEY, EXAMPLE = "SHIPSHAPE_DATABASE_URL", "sqlite+aiosqlite:///shipshape.db"
AUDIT_PAGE = 500
CLAIM_LEASE = timedelta(minutes=10)  # after that a replica that claimed a slot is taken to be dead
LONGEST_LIFE = timedelta(days=120)  # from question to end: nearly all of it may be waiting for an approval
SHOW_ORDER = (Subject.REBUILD, Subject.REMINDER, Subject.NOTICE)  # the card before what replies to it
MIGRATION_LOCK = 7_467_747_274  # any number that nobody else locks in this database


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


T = TypeVar("T")


def _decode(body: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(body, type=kind, dec_hook=lambda custom, value: custom(value))


class SqlStore:
    """Implements the ports `Store`, `DocumentCache`, `PageCache` and `CardStore`. Use as an async context manager.

    Raises ConfigError when the database cannot be used or opened.
    """

    def __init__(self, url: str) -> None:
        patience = {"timeout": 30} if url.startswith("sqlite") else {}
        try:
            self._engine = create_async_engine(url, connect_args=patience)
            # A read is one statement, so it needs no round trips to begin and end a transaction.
            self._reader = create_async_engine(
                url,
                connect_args=patience,
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                pool_size=4,
                max_overflow=0,
            )
        except ImportError as error:
            raise ConfigError([f"{KEY}: needs the package {error.name}, which is not installed"]) from None
        except (ArgumentError, InvalidRequestError, ValueError):  # whose texts may hold parts of a password
            raise ConfigError([f"{KEY}: is not a URL such as {EXAMPLE}, with a driver for asyncio"]) from None
        if self._engine.dialect.name == "sqlite":
            _make_sqlite_transactional(self._engine)

    async def __aenter__(self) -> "SqlStore":
        try:
            async with self._engine.begin() as connection:
                if self._engine.dialect.name == "postgresql":  # replicas that start together migrate one by one
                    await connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                await connection.run_sync(_migrate)
        except (SQLAlchemyError, CommandError, OSError) as error:
            await self._engine.dispose()
            await asyncio.sleep(0.1)  # aiosqlite's thread has yet to tell this loop that it ends
            raise _unusable(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.dispose()
        await self._engine.dispose()

    @classmethod
    @asynccontextmanager
    async def existing(cls, url: str) -> "AsyncIterator[SqlStore]":
        """A database that somebody else made, to read from: nothing is migrated. Raises ConfigError."""
        store = cls(url)
        _must_exist(store._engine)
        try:
            await store._rows(select(t.audit.c.id).limit(1))
        except (SQLAlchemyError, OSError) as error:
            await store.__aexit__()
            await asyncio.sleep(0.1)
            raise _unusable(error) from error
        async with AsyncExitStack() as stack:
            stack.push_async_exit(store)
            yield store

    async def ping(self) -> None:
        """Raises whatever the database raises when it cannot be used."""
        await self._rows(select(literal(1)))

    # Rebuilds

    async def add_rebuild(self, rebuild: Rebuild, audit: AuditEntry, show: Collection[Subject] = ()) -> None:
        async with self._write() as connection:
            await self._insert_rebuild(connection, rebuild, show)
            await connection.execute(insert(t.audit).values(**_audit_row(audit)))

    async def save_rebuild(
        self, rebuild: Rebuild, audit: AuditEntry | None = None, show: Collection[Subject] = ()
    ) -> Rebuild:
        async with self._write() as connection:
            saved = await self._update_rebuild(connection, rebuild)
            await self._want(connection, show, rebuild)
            if audit:
                await connection.execute(insert(t.audit).values(**_audit_row(audit)))
        return saved

    async def supersede(self, old: Rebuild, new: Rebuild, *audit: AuditEntry, show: Collection[Subject] = ()) -> None:
        async with self._write() as connection:
            await self._update_rebuild(connection, old)
            await self._insert_rebuild(connection, new, show)
            await connection.execute(insert(t.audit).values([_audit_row(entry) for entry in audit]))

    async def show(self, rebuild: Rebuild, conversation_id: str) -> None:
        async with self._write() as connection:
            await self._want(connection, [Subject.REBUILD], replace(rebuild, conversation_id=conversation_id))

    async def rebuild(self, rebuild_id: str) -> Rebuild | None:
        return await self._one_rebuild(select(t.rebuilds.c.body).where(t.rebuilds.c.id == rebuild_id))

    async def open_rebuild(self, image: str) -> Rebuild | None:
        return await self._one_rebuild(select(t.rebuilds.c.body).where(t.rebuilds.c.open_image == image))

    async def rebuilds(self, *, states: Collection[State]) -> list[Rebuild]:
        query = select(t.rebuilds.c.body).where(t.rebuilds.c.state.in_(list(states)))
        return [_decode(row.body, Rebuild) for row in await self._rows(query.order_by(t.rebuilds.c.created_at))]

    async def rebuilds_by_id(self, ids: Iterable[str]) -> dict[str, Rebuild]:
        query = select(t.rebuilds.c.body).where(t.rebuilds.c.id.in_(list(ids)))
        return {rebuild.id: rebuild for rebuild in [_decode(row.body, Rebuild) for row in await self._rows(query)]}

    async def following(self, rebuild_id: str) -> list[Rebuild]:
        joined = t.rebuilds.join(t.children, t.children.c.child_id == t.rebuilds.c.id)
        query = select(t.rebuilds.c.body).select_from(joined).where(t.children.c.parent_id == rebuild_id)
        found = [_decode(row.body, Rebuild) for row in await self._rows(query.order_by(t.rebuilds.c.created_at))]
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
        return [_decode(row.body, Rebuild) for row in await self._rows(query)]

    async def succeeded(self, since: datetime) -> list[Rebuild]:
        columns = t.rebuilds.c
        where = (columns.state == State.SUCCEEDED, columns.created_at >= since - LONGEST_LIFE)
        return [_decode(row.body, Rebuild) for row in await self._rows(select(columns.body).where(*where))]

    async def rejected(self, image: str) -> Rebuild | None:
        columns = t.rebuilds.c
        rejected = (columns.state == State.REJECTED, columns.new_digest.is_not(None))
        query = select(columns.body).where(columns.image == image, *rejected)
        return await self._one_rebuild(query.order_by(columns.created_at.desc()).limit(1))

    async def _one_rebuild(self, query: Select[Any]) -> Rebuild | None:
        rows = await self._rows(query)
        return _decode(rows[0].body, Rebuild) if rows else None

    async def _insert_rebuild(self, connection: AsyncConnection, rebuild: Rebuild, show: Collection[Subject]) -> None:
        try:
            await connection.execute(insert(t.rebuilds).values(id=rebuild.id, **_rebuild_row(rebuild)))
        except IntegrityError as error:
            raise Conflict(f"{rebuild.image} has an open rebuild") from error
        await self._tie(connection, rebuild)
        await self._want(connection, show, rebuild)

    async def _tie(self, connection: AsyncConnection, rebuild: Rebuild) -> None:
        if rebuild.after:
            row = {"parent_id": rebuild.after, "child_id": rebuild.id}
            await connection.execute(self._insert_or_ignore(t.children).values(row))

    async def _update_rebuild(self, connection: AsyncConnection, rebuild: Rebuild) -> Rebuild:
        saved = replace(rebuild, revision=rebuild.revision + 1)
        # Cards of checks show states only, so they follow a change of state and not every step of a run.
        moved = select(t.rebuilds.c.id).where(t.rebuilds.c.id == rebuild.id, t.rebuilds.c.state != rebuild.state)
        of_it = select(t.check_rebuilds.c.check_id).where(t.check_rebuilds.c.rebuild_id.in_(moved))
        bump = update(t.checks).where(t.checks.c.id.in_(of_it)).values(revision=t.checks.c.revision + 1)
        await connection.execute(bump)
        where = (t.rebuilds.c.id == rebuild.id, t.rebuilds.c.revision == rebuild.revision)
        try:
            result = await connection.execute(update(t.rebuilds).where(*where).values(**_rebuild_row(saved)))
        except IntegrityError as error:
            raise Conflict(f"{rebuild.image} has another open rebuild") from error
        if result.rowcount != 1:
            raise Conflict(f"rebuild {rebuild.id} was changed meanwhile")
        await self._tie(connection, saved)
        return saved

    async def audit(self, entry: AuditEntry) -> None:
        async with self._write() as connection:
            await connection.execute(insert(t.audit).values(**_audit_row(entry)))

    async def first_delivery(self, delivery_id: str, now: datetime, *, remembered: timedelta) -> bool:
        async with self._write() as connection:
            await connection.execute(delete(t.deliveries).where(t.deliveries.c.at < now - remembered))
            return await self._take_delivery(connection, delivery_id, now)

    async def _take_delivery(self, connection: AsyncConnection, delivery_id: str, now: datetime) -> bool:
        row = {"id": delivery_id, "at": now}
        taken = await connection.execute(self._insert_or_ignore(t.deliveries).values(row))
        return taken.rowcount == 1

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

    # Holds

    async def hold(self, image: str) -> Hold | None:
        rows = await self._rows(select(t.holds.c.body).where(t.holds.c.image == image))
        return _decode(rows[0].body, Hold) if rows else None

    async def holds(self) -> dict[str, Hold]:
        return {row.image: _decode(row.body, Hold) for row in await self._rows(select(t.holds))}

    async def set_hold(self, hold: Hold, audit: AuditEntry) -> None:
        async with self._write() as connection:
            upsert = self._insert(t.holds).values(image=hold.image, body=_encode(hold))
            changed = {"body": upsert.excluded.body}
            await connection.execute(upsert.on_conflict_do_update(index_elements=["image"], set_=changed))
            await self._hold_changed(connection, audit)

    async def lift_hold(self, hold: Hold, audit: AuditEntry) -> bool:
        where = (t.holds.c.image == hold.image, t.holds.c.body == _encode(hold))
        async with self._write() as connection:
            lifted = await connection.execute(delete(t.holds).where(*where))
            if lifted.rowcount == 1:
                await self._hold_changed(connection, audit)
            return lifted.rowcount == 1

    async def _hold_changed(self, connection: AsyncConnection, audit: AuditEntry) -> None:
        """Holds are shown on the cards of checks: those that people look at are the newest ones."""
        newest = select(func.max(t.checks.c.id)).union(select(func.max(t.checks.c.id)).where(t.checks.c.told))
        bump = update(t.checks).where(t.checks.c.id.in_(newest)).values(revision=t.checks.c.revision + 1)
        await connection.execute(bump)
        await connection.execute(insert(t.audit).values(**_audit_row(audit)))

    # Checks

    async def claim_slot(self, slot: datetime, now: datetime) -> bool:
        async with self._write() as connection:
            newest = (await connection.execute(select(func.max(t.slots.c.slot)))).scalar()
            if newest is None or slot > newest:
                row = {"slot": slot, "claimed_at": now, "finished": newest is None}
                taken = await connection.execute(self._insert_or_ignore(t.slots).values(row))
                return newest is not None and taken.rowcount == 1
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
            await connection.execute(update(t.checks).where(t.checks.c.id == saved.id).values(body=_encode(saved)))
            if check.slot:
                done = update(t.slots).where(t.slots.c.slot == check.slot).values(finished=True)
                await connection.execute(done)
            told = [verdict.name for verdict in check.verdicts] if everywhere else about
            for verdict in check.verdicts:
                known = verdict.once_told() if verdict.name in told else verdict
                await self._note_verdict(connection, saved, known)
            for conversation in await self._reachable(connection):
                if conversation.id == check.conversation_id or conversation.wants_check(saved, told):
                    await self._want_card(connection, Subject.CHECK, str(saved.id), conversation)
        return saved

    async def _note_verdict(self, connection: AsyncConnection, check: Check, verdict: Verdict) -> None:
        row = {"image": verdict.name, "checked_at": check.checked_at, "body": _encode(verdict)}
        upsert = self._insert(t.verdicts).values(row)
        changed = {"checked_at": upsert.excluded.checked_at, "body": upsert.excluded.body}
        await connection.execute(upsert.on_conflict_do_update(index_elements=["image"], set_=changed))
        if verdict.rebuild_id:
            link = {"check_id": check.id, "rebuild_id": verdict.rebuild_id}
            await connection.execute(self._insert_or_ignore(t.check_rebuilds).values(link))

    async def check(self, check_id: int) -> Check | None:
        return await self._one_check(select(t.checks).where(t.checks.c.id == check_id))

    async def latest_check(self) -> Check | None:
        return await self._one_check(select(t.checks).order_by(t.checks.c.id.desc()).limit(1))

    async def last_told(self) -> Check | None:
        return await self._one_check(select(t.checks).where(t.checks.c.told).order_by(t.checks.c.id.desc()).limit(1))

    async def _one_check(self, query: Select[Any]) -> Check | None:
        rows = await self._rows(query)
        return replace(_decode(rows[0].body, Check), revision=rows[0].revision) if rows else None

    async def latest_verdicts(self) -> dict[str, tuple[datetime, Verdict]]:
        return {row.image: (row.checked_at, _decode(row.body, Verdict)) for row in await self._rows(select(t.verdicts))}

    async def latest_verdict(self, image: str) -> tuple[datetime, Verdict] | None:
        rows = await self._rows(select(t.verdicts).where(t.verdicts.c.image == image))
        return (rows[0].checked_at, _decode(rows[0].body, Verdict)) if rows else None

    async def seen(self, digests: Mapping[str, Digest], now: datetime) -> dict[str, Sighting]:
        columns = t.base_digests.c
        async with self._write() as connection:
            for base, digest in digests.items():
                row = {"base": base, "digest": digest, "first_seen": now, "last_seen": now}
                upsert = self._insert(t.base_digests).values(row)
                await connection.execute(
                    upsert.on_conflict_do_update(index_elements=["base", "digest"], set_={"last_seen": now})
                )
            known = await connection.execute(select(t.base_digests).where(columns.base.in_(list(digests))))
            rows = list(known)
        return {base: _sighting(digest, [row for row in rows if row.base == base]) for base, digest in digests.items()}

    # Documents that never change

    async def get(self, digest: Digest) -> bytes | None:
        rows = await self._rows(select(t.documents.c.content).where(t.documents.c.digest == digest))
        return rows[0].content if rows else None

    async def put(self, digest: Digest, content: bytes) -> None:
        async with self._write() as connection:
            row = {"digest": digest, "content": content}
            await connection.execute(self._insert_or_ignore(t.documents).values(row))

    # Pages that do

    async def page(self, url: str) -> Page | None:
        rows = await self._rows(select(t.pages).where(t.pages.c.url == url))
        return Page(**rows[0]._mapping) if rows else None

    async def keep_page(self, page: Page) -> None:
        row = {"etag": page.etag, "fetched_at": page.fetched_at, "body": page.body}
        async with self._write() as connection:
            upsert = self._insert(t.pages).values(url=page.url, **row)
            await connection.execute(upsert.on_conflict_do_update(index_elements=["url"], set_=row))

    # Conversations and cards

    async def conversation(self, conversation_id: str) -> Conversation | None:
        rows = await self._rows(select(t.conversations.c.body).where(t.conversations.c.id == conversation_id))
        return _decode(rows[0].body, Conversation) if rows else None

    async def save_conversation(self, conversation: Conversation) -> None:
        """Add or replace a conversation; one that was gone is back."""
        async with self._write() as connection:
            row = {"subscribed": conversation.subscribed, "gone_at": None, "body": _encode(conversation)}
            upsert = self._insert(t.conversations).values(id=conversation.id, **row)
            await connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=row))

    async def team(self, team_id: str) -> list[Conversation]:
        known = [_decode(row.body, Conversation) for row in await self._rows(select(t.conversations.c.body))]
        return [conversation for conversation in known if conversation.team_id == team_id]

    async def mark_gone(self, conversation_id: str, now: datetime, announcement: Announcement | None = None) -> bool:
        """Post nothing more to a conversation until it says something again, and tell the others."""
        where = (t.conversations.c.id == conversation_id, t.conversations.c.gone_at.is_(None))
        async with self._write() as connection:
            marked = await connection.execute(update(t.conversations).where(*where).values(gone_at=now))
            if marked.rowcount and announcement:
                await self._announce(connection, announcement)
        return bool(marked.rowcount)

    async def reach(self) -> tuple[int, int]:
        rows = await self._rows(select(t.conversations.c.gone_at).where(t.conversations.c.subscribed))
        gone = sum(row.gone_at is not None for row in rows)
        return len(rows) - gone, gone

    async def announce(self, announcement: Announcement, *, once: str = "") -> bool:
        async with self._write() as connection:
            wanted = not once or await self._take_delivery(connection, once, announcement.at)
            if wanted:
                await self._announce(connection, announcement)
        return wanted

    async def announcement(self, announcement_id: int) -> Announcement | None:
        rows = await self._rows(select(t.announcements.c.body).where(t.announcements.c.id == announcement_id))
        return replace(_decode(rows[0].body, Announcement), id=announcement_id) if rows else None

    async def _announce(self, connection: AsyncConnection, announcement: Announcement) -> None:
        row = {"at": announcement.at, "body": _encode(announcement)}
        key = (await connection.execute(insert(t.announcements).values(row))).inserted_primary_key
        for conversation in await self._reachable(connection):
            if conversation.wants(announcement.image) if announcement.image else conversation.subscribed:
                await self._want_card(connection, Subject.ANNOUNCEMENT, str(key[0] if key else 0), conversation)

    async def subscribed(self) -> list[Conversation]:
        """The conversations that are told about checks and rebuilds, and can be reached."""
        query = select(t.conversations.c.body).where(t.conversations.c.subscribed, t.conversations.c.gone_at.is_(None))
        return [_decode(row.body, Conversation) for row in await self._rows(query)]

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

    async def _want(self, connection: AsyncConnection, show: Collection[Subject], rebuild: Rebuild) -> None:
        if not show:
            return
        for conversation in await self._reachable(connection):
            if not (conversation.wants_rebuild(rebuild) or conversation.id == rebuild.conversation_id):
                continue
            asked_above = await self._is_asked_above(connection, rebuild, conversation)
            for subject in sorted(show, key=SHOW_ORDER.index):
                if subject is not Subject.REBUILD or not asked_above:
                    subject_id = notice_id(rebuild.id, rebuild.attempt) if subject is Subject.NOTICE else rebuild.id
                    await self._want_card(connection, subject, subject_id, conversation)

    async def _is_asked_above(self, connection: AsyncConnection, rebuild: Rebuild, conversation: Conversation) -> bool:
        """A child that waits for an approval is asked for on its parent's card, where that one is."""
        if rebuild.after is None or rebuild.state is not State.AWAITING_APPROVAL:
            return False
        card = {"subject": Subject.REBUILD, "subject_id": rebuild.after, "conversation_id": conversation.id}
        return (await connection.execute(select(t.cards.c.id).filter_by(**card))).first() is not None

    async def _want_card(
        self, connection: AsyncConnection, subject: Subject, subject_id: str, conversation: Conversation
    ) -> None:
        row = {"subject": subject, "subject_id": subject_id, "conversation_id": conversation.id}
        await connection.execute(self._insert_or_ignore(t.cards).values(delivered=0, fingerprint="", attempts=0, **row))

    async def _reachable(self, connection: AsyncConnection) -> list[Conversation]:
        query = select(t.conversations.c.body).where(t.conversations.c.gone_at.is_(None)).order_by(t.conversations.c.id)
        return [_decode(row.body, Conversation) for row in await connection.execute(query)]

    # Connections

    async def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        async with self._reader.connect() as connection:
            return list(await connection.execute(query))

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            yield connection

    def _insert(self, table: Any) -> Any:
        return (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)

    def _insert_or_ignore(self, table: Any) -> Any:
        return self._insert(table).on_conflict_do_nothing()


def _must_exist(engine: AsyncEngine) -> None:
    """SQLite makes a file that is missing, and then it is empty."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).is_file():
        raise ConfigError([f"{KEY}: there is no database at {file}"])


def _unusable(error: Exception) -> ConfigError:
    reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return ConfigError([f"{KEY}: the database cannot be opened: {reason}"])


def _sighting(digest: Digest, rows: list[Row[Any]]) -> Sighting:
    first_seen = next(row.first_seen for row in rows if row.digest == digest)
    others = [row.last_seen for row in rows if row.digest != digest and row.last_seen <= first_seen]
    return Sighting(first_seen=first_seen, other_last_seen=max(others, default=None))


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
        conversation=_decode(row.conversation, Conversation),
        activity_id=row.activity_id,
        fingerprint=row.fingerprint,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
    )


def _rebuild_row(rebuild: Rebuild) -> dict[str, Any]:
    return {
        "image": rebuild.image,
        "open_image": rebuild.image if rebuild.is_open else None,
        "state": rebuild.state,
        "new_digest": rebuild.new_digest,
        "revision": rebuild.revision,
        "created_at": rebuild.created_at,
        "body": _encode(rebuild),
    }


def _audit_row(entry: AuditEntry) -> dict[str, Any]:
    actor = entry.actor
    row = {name: getattr(entry, name) for name in entry.__slots__ if name != "actor"}
    return row | {
        "actor_id": actor.id if actor else "shipshape",
        "actor_name": actor.name if actor else "Shipshape",
        "actor_principal_name": actor.principal_name if actor else "",
    }


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _make_sqlite_transactional(engine: AsyncEngine) -> None:
    """Real transactions that take the write lock at their start, so that none fails half-way as "locked".

    https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl
    """

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
