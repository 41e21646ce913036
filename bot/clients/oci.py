"""Registries that speak the OCI distribution API, such as MCR.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import date

import aiohttp
from yarl import URL

from bot.clients.documents import (
    CONFIG_LIMIT,
    LIFECYCLE,
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    Documents,
    RepositoryContents,
    nonsense,
    parse_lifecycle,
    parse_manifest,
)
from bot.clients.http import Answer, HttpClient, Limits, Sleep, status_words
from bot.clients.registry_tokens import RegistryTokens, Token
from bot.core.hosts import is_loopback
from bot.core.images import Digest, ImageReference
from bot.core.ports import DocumentCache
from bot.errors import ConfigError, NotFound, PeerRefused, PeerUnavailable

# Docker Hub's images are named after a host that does not serve them.
KNOWN_HOSTS = {"docker.io": "https://registry-1.docker.io"}


class OciRegistry:
    """Implements the port `Registry` for any number of registries, over one session that the caller closes.

    `mirrors` maps a registry host to the base URL that is asked instead of `https://host`. Raises ConfigError for a
    mirror that is plain http and not on this machine.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        cache: DocumentCache,
        *,
        mirrors: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        sleep: Sleep = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests = 0
        self._addresses = {host: _address(host, url) for host, url in (KNOWN_HOSTS | dict(mirrors or {})).items()}
        self._http = HttpClient(session, self._count, limits=limits or Limits(), sleep=sleep)
        self._tokens = RegistryTokens(self._http, now)
        self._documents = Documents(cache)

    async def current(self, reference: ImageReference) -> Digest:
        """What a tag points to now. Raises NotFound, PeerRefused, PeerUnavailable."""
        path = f"manifests/{reference.digest or reference.tag}"
        answer = await self._ask("HEAD", reference, path, MANIFEST_LIMIT)
        digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:  # allowed by older versions of the specification
            answer = await self._ask("GET", reference, path, MANIFEST_LIMIT)
            return parse_manifest(answer.content, reference.registry).digest
        try:
            return Digest(digest)
        except ValueError as error:
            raise nonsense(reference.registry, str(error)) from None

    async def end_of_life(self, reference: ImageReference, digest: Digest) -> date | None:
        """The last day of support that Microsoft attaches to images, None when nothing is attached.

        https://github.com/dotnet/dotnet-docker/blob/main/documentation/vulnerability-reporting.md
        https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers
        Raises PeerRefused, PeerUnavailable.
        """
        path = f"referrers/{digest}?artifactType={LIFECYCLE}"
        try:
            answer = await self._ask("GET", reference.at(digest), path, MANIFEST_LIMIT)
        except NotFound:  # also what a registry without referrers answers
            return None
        return parse_lifecycle(answer.content, reference.registry)

    def contents(self, reference: ImageReference) -> RepositoryContents:
        """The documents of the reference's repository."""

        async def manifest(digest: Digest) -> bytes:
            return (await self._ask("GET", reference.at(digest), f"manifests/{digest}", MANIFEST_LIMIT)).content

        async def config(digest: Digest) -> bytes:
            return (await self._ask("GET", reference.at(digest), f"blobs/{digest}", CONFIG_LIMIT)).content

        return RepositoryContents(
            documents=self._documents, peer=reference.registry, fetch_manifest=manifest, fetch_config=config
        )

    async def _ask(self, method: str, reference: ImageReference, path: str, limit: int) -> Answer:
        registry = self._addresses.get(reference.registry) or URL(f"https://{reference.registry}")

        async def ask(token: Token | None) -> Answer:
            headers = {"Accept": ", ".join(MANIFEST_TYPES)} if path.startswith("manifests/") else {}
            if token:
                headers["Authorization"] = f"Bearer {token.value}"
            url = URL(f"{registry}/v2/{reference.repository}/{path}")
            return await self._http.ask(method, url, peer=reference.registry, limit=limit, headers=headers)

        token = self._tokens.get(reference.name)
        answer = await ask(token)
        if answer.status == 401:
            challenges = answer.headers.getall("WWW-Authenticate", [])
            peer = reference.registry
            token = await self._tokens.renew(reference.name, token, challenges, peer=peer, registry=registry)
            answer = await ask(token)
        _require_ok(answer, reference)
        return answer

    def _count(self) -> None:
        self.requests += 1


def _address(host: str, url: str) -> URL:
    address = URL(url.rstrip("/"))
    if address.scheme != "https" and not (address.scheme == "http" and is_loopback(address.host)):
        raise ConfigError([f"the mirror of {host} has to start with https:// (plain http only on loopback)"])
    return address


def _require_ok(answer: Answer, reference: ImageReference) -> None:
    """Raise for every status but 200."""
    suffix = f"@{reference.digest.short}" if reference.digest else f":{reference.tag}"
    name = f"{reference.repository}{suffix}"
    match answer.status:
        case 200:
            return
        case 404:
            raise NotFound(f"{reference.registry} has no {name}")
        case 401 | 403:
            raise PeerRefused(f"{reference.registry} refused {name}: {status_words(answer.status)}")
    raise PeerUnavailable(f"{reference.registry} answered {status_words(answer.status)}")
