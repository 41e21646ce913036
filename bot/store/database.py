"""The connections to any SQLAlchemy async database, and what all queries share."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Row, Select, Table, event, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.errors import ConfigError
from bot.store import tables as t

KEY, EXAMPLE = "SHIPSHAPE_DATABASE_URL", "sqlite+aiosqlite:///shipshape.db"
MIGRATION_LOCK = 7_467_747_274  # any number that nobody else locks in this database

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """A value as the JSON of a column."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(body: bytes, kind: type[T]) -> T:
    """A value from the JSON of a column."""
    return msgspec.json.decode(body, type=kind, dec_hook=lambda custom, value: custom(value))


class Database:
    """A database as an async context manager. Raises ConfigError when it cannot be used or opened."""

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

    async def __aenter__(self) -> Self:
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
    async def existing(cls, url: str) -> AsyncIterator[Self]:
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

    async def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        async with self._reader.connect() as connection:
            return list(await connection.execute(query))

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            yield connection


async def insert_or_ignore(connection: AsyncConnection, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether the row was inserted: one with the same key stays as it is."""
    inserted = await connection.execute(_insert(connection, table).values(row).on_conflict_do_nothing())
    return inserted.rowcount == 1


async def upsert(
    connection: AsyncConnection, table: Table, key: Mapping[str, Any], row: Mapping[str, Any], **first: Any
) -> None:
    """Insert a row, or change the one with this key; columns in `first` are written at the insert only."""
    statement = _insert(connection, table).values(**key, **row, **first)
    await connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=row))


def _insert(connection: AsyncConnection, table: Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _must_exist(engine: AsyncEngine) -> None:
    """SQLite makes a file that is missing, and then it is empty."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).is_file():
        raise ConfigError([f"{KEY}: there is no database at {file}"])


def _unusable(error: Exception) -> ConfigError:
    reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return ConfigError([f"{KEY}: the database cannot be opened: {reason}"])


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
        # Whoever meets another connection at this is refused at once, whatever its patience. The mode is the file's.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
