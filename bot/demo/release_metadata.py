"""Microsoft's release metadata of .NET in small, as `builds.dotnet.microsoft.com` serves it.

https://github.com/dotnet/core/tree/main/release-notes/schemas
"""

import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from bot.demo.registry import Failure

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNote:
    """One release: version of the runtime, day, version of the SDK, and the vulnerabilities that it fixes."""

    version: str
    day: str
    sdk: str
    cves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One version of .NET. `releases` has the oldest first."""

    ends: str
    kind: str = "lts"
    releases: tuple[ReleaseNote, ...]

    def release(self, version: str) -> ReleaseNote:
        return next(release for release in self.releases if release.version == version)


CHANNELS = {
    "6.0": Channel(
        ends="2024-11-12",
        releases=(
            ReleaseNote(version="6.0.33", day="2024-08-13", sdk="6.0.425"),
            ReleaseNote(
                version="6.0.35",
                day="2024-10-08",
                sdk="6.0.427",
                cves=("CVE-2024-43483", "CVE-2024-43484", "CVE-2024-43485"),
            ),
        ),
    ),
    "8.0": Channel(
        ends="2026-11-10",
        releases=(
            ReleaseNote(version="8.0.20", day="2025-09-09", sdk="8.0.414"),
            ReleaseNote(
                version="8.0.21",
                day="2025-10-14",
                sdk="8.0.415",
                cves=("CVE-2025-55247", "CVE-2025-55248", "CVE-2025-55315"),
            ),
            ReleaseNote(version="8.0.22", day="2025-11-11", sdk="8.0.416"),
        ),
    ),
    "10.0": Channel(
        ends="2028-11-14",
        releases=(
            ReleaseNote(
                version="10.0.9",
                day="2026-06-09",
                sdk="10.0.301",
                cves=("CVE-2026-45490", "CVE-2026-45491", "CVE-2026-45591"),
            ),
        ),
    ),
}


class LocalReleases:
    """The server; an async context manager that listens on 127.0.0.1 while entered, `url` is known then.

    `channels` may be changed at any time. `requests` has path and status of every answer. While `failure` is set it
    answers instead.
    """

    def __init__(self, *, port: int = 0, channels: Mapping[str, Channel] = CHANNELS) -> None:
        self.url = ""
        self.channels = dict(channels)
        self.requests: list[tuple[str, int]] = []
        self.failure: Failure | None = None
        self._port = port

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = web.Application(middlewares=[self._meet])
        app.router.add_get("/releases-index.json", self._index)
        app.router.add_get("/{channel}/releases.json", self._releases)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def index(self) -> Json:
        """The document about all versions."""
        return {"releases-index": [self._in_index(name, channel) for name, channel in self.channels.items()]}

    def notes(self, name: str) -> Json:
        """The document about the releases of one version, newest first as at Microsoft's."""
        channel = self.channels[name]
        latest = channel.releases[-1]
        return {
            "channel-version": name,
            "latest-release": latest.version,
            "latest-release-date": latest.day,
            "latest-release-security": bool(latest.cves),
            "latest-runtime": latest.version,
            "latest-sdk": latest.sdk,
            "product": ".NET",
            "support-phase": "active",
            "release-type": channel.kind,
            "eol-date": channel.ends,
            "lifecycle-policy": "https://aka.ms/dotnetcoresupport",
            "patch-releases-index-uri": f"{self.url}/{name}/patch-releases-index.json",
            "supported-os-info-uri": f"{self.url}/{name}/supported-os.json",
            "os-packages-info-uri": f"{self.url}/{name}/os-packages.json",
            "releases": [_release(release) for release in reversed(channel.releases)],
        }

    def _in_index(self, name: str, channel: Channel) -> Json:
        latest = channel.releases[-1]
        return {
            "channel-version": name,
            "latest-release": latest.version,
            "latest-release-date": latest.day,
            "security": bool(latest.cves),
            "latest-runtime": latest.version,
            "latest-sdk": latest.sdk,
            "product": ".NET",
            "support-phase": "active",
            "eol-date": channel.ends,
            "release-type": channel.kind,
            "releases.json": f"{self.url}/{name}/releases.json",
            "patch-releases-info-uri": f"{self.url}/{name}/releases.json",
        }

    @web.middleware
    async def _meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await (self.failure(request, handler) if self.failure else handler(request))
        except web.HTTPException as error:
            self.requests.append((request.path, error.status))
            raise
        self.requests.append((request.path, response.status))
        return response

    async def _index(self, request: web.Request) -> web.Response:
        return _answer(request, self.index())

    async def _releases(self, request: web.Request) -> web.Response:
        channel = request.match_info["channel"]
        if channel not in self.channels:
            raise web.HTTPNotFound
        return _answer(request, self.notes(channel))


def _answer(request: web.Request, document: Json) -> web.Response:
    body = json.dumps(document).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    if request.headers.get(hdrs.IF_NONE_MATCH) == etag:
        return web.Response(status=304, headers={hdrs.ETAG: etag})
    return web.Response(body=body, content_type="application/json", headers={hdrs.ETAG: etag})


def _release(release: ReleaseNote) -> Json:
    channel = release.version.rpartition(".")[0]
    sdk = {
        **_component(release.sdk),
        "runtime-version": release.version,
        "vs-support": "",
        "csharp-version": "",
        "fsharp-version": "",
        "vb-version": "",
    }
    return {
        "release-date": release.day,
        "release-version": release.version,
        "security": bool(release.cves),
        "cve-list": [
            {"cve-id": cve, "cve-url": f"https://cve.mitre.org/cgi-bin/cvename.cgi?name={cve}"} for cve in release.cves
        ],
        "release-notes": f"https://github.com/dotnet/core/blob/main/release-notes/{channel}/{release.version}.md",
        "runtime": _component(release.version),
        "sdk": sdk,
        "sdks": [sdk],
        "aspnetcore-runtime": {**_component(release.version), "version-aspnetcoremodule": []},
    }


def _component(version: str) -> Json:
    return {"version": version, "version-display": version, "vs-version": "", "files": []}
