"""What was fetched from others."""

from sqlalchemy import select

from bot.core.images import Digest
from bot.core.pages import Page
from bot.store import tables as t
from bot.store.database import Database, insert_or_ignore, upsert


class Documents(Database):
    """Implements the port `DocumentCache`: documents that never change."""

    async def get(self, digest: Digest) -> bytes | None:
        rows = await self._rows(select(t.documents.c.content).where(t.documents.c.digest == digest))
        return rows[0].content if rows else None

    async def put(self, digest: Digest, content: bytes) -> None:
        async with self._write() as connection:
            await insert_or_ignore(connection, t.documents, {"digest": digest, "content": content})


class Pages(Database):
    """Implements the port `PageCache`: pages that do."""

    async def page(self, url: str) -> Page | None:
        rows = await self._rows(select(t.pages).where(t.pages.c.url == url))
        return Page(**rows[0]._mapping) if rows else None

    async def keep_page(self, page: Page) -> None:
        row = {"etag": page.etag, "fetched_at": page.fetched_at, "body": page.body}
        async with self._write() as connection:
            await upsert(connection, t.pages, {"url": page.url}, row)
