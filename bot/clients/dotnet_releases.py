"""Microsoft's release metadata of .NET: which releases there are, what they fix, how long versions are supported.

https://github.com/dotnet/core/blob/main/release-notes/releases-index.json
https://github.com/dotnet/core/blob/main/release-notes/schemas
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Annotated, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yarl import URL

from bot.clients.documents import nonsense
from bot.clients.http import Answer, HttpClient, Limits, Sleep, status_words
from bot.clients.shared import Shared
from bot.core.base_news import Cve, Release
from bot.core.pages import Page
from bot.core.ports import Clock, PageCache
from bot.errors import NotFound, PeerError, PeerUnavailable

logger = logging.getLogger(__name__)

# A check waits for this, so it is less patient than with what a check is about.
LIMITS = Limits(total_s=8, tries=2, longest_pause_s=2)
PAGE_LIMIT = 16 * 2**20  # bytes; the largest page is below three million
REFRESH = timedelta(hours=6)
TRY_AGAIN = timedelta(minutes=10)  # after a failure
LONGEST_ETAG = 256
CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,10}")
CVE_PAGE = "https://www.cve.org/CVERecord?id="  # the address in the metadata is text of others, and an old one

_Name = Annotated[str, Field(max_length=64)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Channel(_Model):
    version: _Name = Field(alias="channel-version")
    ends: date | None = Field(None, alias="eol-date")


class _Index(_Model):
    channels: list[_Channel] = Field(alias="releases-index")


class _Cve(_Model):
    id: str = Field(alias="cve-id")


class _Runtime(_Model):
    version: _Name


class _Release(_Model):
    security: bool
    cves: list[_Cve] | None = Field(None, alias="cve-list")
    runtime: _Runtime | None = None

    def value(self) -> Release | None:
        """None for a release of the SDK alone."""
        if self.runtime is None:
            return None
        ids = [cve.id for cve in self.cves or () if CVE.fullmatch(cve.id)]
        cves = tuple(Cve(id=id_, url=f"{CVE_PAGE}{id_}") for id_ in ids)
        return Release(version=self.runtime.version, security=self.security, cves=cves)


class _Notes(_Model):
    releases: list[_Release]


_Page = TypeVar("_Page", _Index, _Notes)


class DotnetReleases:
    """Implements the port `Releases` over pages below a base URL, on a session that the caller closes.

    A page is fetched at most every six hours, and kept: what was read once is there while the server is not.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        pages: PageCache,
        clock: Clock,
        *,
        url: str,
        limits: Limits = LIMITS,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._url, self._pages, self._clock = URL(url), pages, clock
        self._index = self._url / "releases-index.json"
        self._http = HttpClient(session, lambda: None, limits=limits, sleep=sleep)
        self._shared = Shared[URL, Page | None]()
        self._read: dict[str, tuple[Page, BaseModel]] = {}
        self._failed_at: dict[URL, datetime] = {}

    async def notes(self, channel: str) -> Sequence[Release] | None:
        """All releases of a version such as `8.0`; None when they are not known."""
        notes = await self._get(self._url / channel / "releases.json", _Notes)
        return [release for entry in notes.releases if (release := entry.value())] if notes else None

    async def ends(self) -> Mapping[str, date]:
        """The last day of support for each version of which it is known."""
        index = await self._get(self._index, _Index)
        return {channel.version: channel.ends for channel in index.channels if channel.ends} if index else {}

    async def look(self) -> int:
        """How many versions of .NET the index names at this moment. Raises PeerError."""
        return len(self._parsed(await self._fetch(self._index, None, self._clock.now()), _Index).channels)

    async def _get(self, url: URL, kind: type[_Page]) -> _Page | None:
        page = await self._shared.get(url, partial(self._current, url, kind))
        return self._parsed(page, kind) if page else None

    async def _current(self, url: URL, kind: type[_Page]) -> Page | None:
        """The page, fetched when it is time to; the kept one while the server has none."""
        kept, now, failed_at = await self._kept(url, kind), self._clock.now(), self._failed_at.get(url)
        if (kept and now - kept.fetched_at < REFRESH) or (failed_at and now - failed_at < TRY_AGAIN):
            return kept
        try:
            page = await self._fetch(url, kept, now)
            self._parsed(page, kind)
        except PeerError as error:
            logger.warning("release metadata cannot be had: %s", error)
            self._failed_at[url] = now
            return kept
        await self._pages.keep_page(page)
        return page

    async def _kept(self, url: URL, kind: type[_Page]) -> Page | None:
        """The kept page, unless this version of the program can no longer read it."""
        page = await self._pages.page(str(url))
        try:
            if page:
                self._parsed(page, kind)
        except PeerError:
            return None
        return page

    async def _fetch(self, url: URL, kept: Page | None, now: datetime) -> Page:
        headers = {"If-None-Match": kept.etag} if kept and kept.etag else {}
        answer = await self._http.ask("GET", url, peer=_peer(url), limit=PAGE_LIMIT, headers=headers)
        if kept and answer.status == 304:
            return replace(kept, fetched_at=now)
        if answer.status != 200:
            raise _refused(url, answer)
        etag = answer.headers.get("ETag", "")
        return Page(url=str(url), etag=etag if len(etag) <= LONGEST_ETAG else "", fetched_at=now, body=answer.content)

    def _parsed(self, page: Page, kind: type[_Page]) -> _Page:
        """The page's content; read anew only when its bytes changed. Raises PeerUnavailable."""
        known = self._read.get(page.url)
        if known and known[0].body == page.body and isinstance(known[1], kind):
            return known[1]
        try:
            parsed = kind.model_validate_json(page.body)
        except ValidationError as error:
            raise nonsense(_peer(URL(page.url)), str(error.errors(include_url=False)[0]["msg"])[:200]) from None
        self._read[page.url] = (page, parsed)
        return parsed


def _peer(url: URL) -> str:
    return f"{url.host} ({'/'.join(url.parts[-2:])})"


def _refused(url: URL, answer: Answer) -> PeerError:
    told = f"{_peer(url)} answered {status_words(answer.status)}"
    return NotFound(told) if answer.status == 404 else PeerUnavailable(told)
