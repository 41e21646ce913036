"""Microsoft's release metadata: as it is published, as the local world serves it, and from a server that is no good."""

import json
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from yarl import URL

from bot.clients.dotnet_releases import DotnetReleases
from bot.clients.http import Limits, open_session
from bot.core.base_news import Cve, Release, Versions, news_between
from bot.core.pages import Page
from bot.demo.registry import answering, hang
from bot.demo.release_metadata import LocalReleases
from tests.conftest import FakeClock
from tests.peers.registry import Pauses

CONTRACT = Path(__file__).resolve().parents[2] / "shared" / "contracts" / "dotnet"
published = pytest.mark.skipif(not CONTRACT.is_dir(), reason="Microsoft's documents are not here")
IMPATIENT = Limits(total_s=0.2, tries=2, longest_pause_s=1)


class MemoryPages:
    """The port `PageCache`, in memory."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}

    async def page(self, url: str) -> Page | None:
        return self.pages.get(url)

    async def keep_page(self, page: Page) -> None:
        self.pages[page.url] = page


@pytest.fixture
async def server() -> AsyncIterator[LocalReleases]:
    async with LocalReleases() as server:
        yield server


@pytest.fixture
async def releases(server: LocalReleases, clock: FakeClock) -> AsyncIterator[DotnetReleases]:
    async with open_session(IMPATIENT) as session:
        yield DotnetReleases(session, MemoryPages(), clock, url=server.url, limits=IMPATIENT, sleep=Pauses())


def document(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text("utf-8"))


@published
@pytest.mark.parametrize(
    ("old", "new", "security", "fixed"),
    [("8.0.20", "8.0.21", True, 3), ("8.0.21", "8.0.22", False, 0), ("8.0.20", "8.0.22", True, 3)],
)
async def test_microsofts_own_notes_are_read(
    server: LocalReleases, releases: DotnetReleases, old: str, new: str, security: bool, fixed: int
) -> None:
    """8.0.21 fixed three vulnerabilities, 8.0.22 none, and a jump over 8.0.21 brings its fixes."""
    body = (CONTRACT / "releases.8.0.trimmed.json").read_bytes()
    server.failure = answering(200, body=body)
    news = news_between(Versions(runtime=old), Versions(runtime=new), await releases.notes("8.0"))
    assert (news.security, len(news.cves)) == (security, fixed)
    assert all(URL(cve.url).host for cve in news.cves)


@published
async def test_microsofts_own_index_is_read(server: LocalReleases, releases: DotnetReleases) -> None:
    """Versions end when Microsoft says; a preview has no end yet."""
    server.failure = answering(200, body=(CONTRACT / "releases-index.json").read_bytes())
    ends = await releases.ends()
    assert (ends["6.0"], ends["8.0"]) == (date(2024, 11, 12), date(2026, 11, 10))
    assert "11.0" not in ends


@published
def test_the_local_documents_have_microsofts_shape() -> None:
    """What the local world serves is valid by Microsoft's own schemas."""
    server = LocalReleases()
    jsonschema.validate(server.index(), document("schema.dotnet-releases-index.json"))
    for channel in server.channels:
        jsonschema.validate(server.notes(channel), document("schema.dotnet-releases.json"))


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(answering(404), id="absent"),
        pytest.param(answering(500), id="broken"),
        pytest.param(answering(200, body=b'{"releases": [{}]}'), id="malformed"),
        pytest.param(answering(200, body=b" " * 50_000_000), id="50 MB"),
        pytest.param(hang, id="slow"),
    ],
)
async def test_a_server_that_is_no_good_means_not_known(
    server: LocalReleases, releases: DotnetReleases, failure: Any
) -> None:
    """Nothing raises and nothing is invented, and the server is left in peace for a while."""
    server.failure = failure
    assert await releases.notes("8.0") is None
    assert await releases.ends() == {}
    server.failure = None
    assert await releases.notes("8.0") is None


async def test_what_was_read_stays_while_the_server_is_no_good(
    server: LocalReleases, releases: DotnetReleases, clock: FakeClock
) -> None:
    """A page that is due for another look keeps its content when that look fails."""
    before = await releases.notes("8.0")
    clock.time = clock.time.replace(year=clock.time.year + 1)
    server.failure = answering(200, body=b"<html>")
    assert await releases.notes("8.0") == before


async def test_a_link_leads_where_we_say(server: LocalReleases, releases: DotnetReleases) -> None:
    """The page of a vulnerability is found by its number; neither another address nor a strange id is a link."""
    cves = [{"cve-id": id_, "cve-url": "https://evil.example/"} for id_ in ("CVE-2024-43483", "CVE-1&x=CVE-2024-1")]
    notes = {"releases": [{"security": True, "runtime": {"version": "8.0.21"}, "cve-list": cves}]}
    server.failure = answering(200, body=json.dumps(notes).encode())
    found = await releases.notes("8.0")
    assert found
    assert [cve.url for cve in found[0].cves] == ["https://www.cve.org/CVERecord?id=CVE-2024-43483"]


def test_versions_compare_as_numbers_and_across_previews() -> None:
    """10 comes after 9, a release after its preview, and a step back or to another version claims nothing."""
    notes = [Release(version=version, security=version == "8.0.10") for version in ("8.0.9", "8.0.10", "8.0.0-rc.2")]
    assert news_between(Versions(runtime="8.0.9"), Versions(runtime="8.0.10"), notes).security is True
    assert news_between(Versions(runtime="8.0.0-rc.2"), Versions(runtime="8.0.9"), notes).security is False
    assert news_between(Versions(runtime="8.0.10"), Versions(runtime="8.0.9"), notes).security is None
    assert news_between(Versions(runtime="8.0.10"), Versions(runtime="10.0.1"), notes).security is None
    ten = [Release(version="10.0.1", security=True, cves=(Cve(id="CVE-2026-50651"),))]
    across = news_between(Versions(runtime="8.0.10"), Versions(runtime="10.0.1"), ten)
    assert (across.security, across.cves) == (None, ())
    assert news_between(Versions(runtime="8.0.10"), Versions(runtime="8.0.11"), notes).security is None
