"""Manifests, indexes and configurations: bytes in, our values out, and the memory that reads each of them once.

OCI: https://github.com/opencontainers/image-spec (manifest.md, image-index.md, config.md)
Docker: https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from bot.clients.shared import Shared
from bot.core.images import Digest, ImageConfig, ImagePlatform, Manifest
from bot.core.ports import DocumentCache
from bot.errors import PeerUnavailable

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# All four belong in every question: with fewer a registry may convert the document, and then its digest is another.
MANIFEST_TYPES = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

LIFECYCLE = "application/vnd.microsoft.artifact.lifecycle"
END_OF_LIFE = "vnd.microsoft.artifact.lifecycle.end-of-life.date"

MANIFEST_LIMIT = 4 * 2**20  # bytes, as in the distribution specification
CONFIG_LIMIT = 8 * 2**20

Fetch = Callable[[Digest], Coroutine[Any, Any, bytes]]

_Document = TypeVar("_Document", bound=BaseModel)
_Digest = Annotated[str, AfterValidator(Digest)]


class _Platform(BaseModel):
    os: str
    architecture: str
    variant: str | None = None

    def known(self) -> bool:
        """False for what is no image, such as the attestations of BuildKit, which are `unknown/unknown`."""
        return self.os in ("linux", "windows") and self.architecture != "unknown"

    def value(self) -> ImagePlatform:
        return ImagePlatform.of(self.os, self.architecture, self.variant or "")


class _Descriptor(BaseModel):
    digest: _Digest
    platform: _Platform | None = None


class _Manifest(BaseModel):
    media_type: str | None = Field(None, alias="mediaType")
    manifests: list[_Descriptor] | None = None
    config: _Descriptor | None = None
    annotations: dict[str, str] | None = None


class _Referrer(BaseModel):
    artifact_type: str | None = Field(None, alias="artifactType")
    annotations: dict[str, str] | None = None


class _Referrers(BaseModel):
    manifests: list[_Referrer]


class _RootFs(BaseModel):
    diff_ids: tuple[_Digest, ...]


class _ContainerConfig(BaseModel):
    labels: dict[str, str] | None = Field(None, alias="Labels")
    variables: list[str] | None = Field(None, alias="Env")


class _ImageConfig(_Platform):
    config: _ContainerConfig | None = None
    rootfs: _RootFs


def digest_of(content: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def nonsense(peer: str, problem: str) -> PeerUnavailable:
    """The error for an answer that cannot be what was asked for."""
    return PeerUnavailable(f"{peer} answered nonsense ({problem})")


def parse_manifest(content: bytes, peer: str) -> Manifest:
    """An index or an image manifest, OCI or Docker. Raises PeerUnavailable, in which `peer` names who sent it."""
    document = _parse(_Manifest, content, MANIFEST_LIMIT, peer)
    if document.media_type is not None and document.media_type not in MANIFEST_TYPES:
        raise nonsense(peer, f"a document of type {document.media_type[:80]}")
    # A document that is both would be read as one by us and as the other by the builder (CVE-2021-41190).
    if (document.manifests is None) == (document.config is None):
        raise nonsense(peer, "a document that is not one of index and image manifest")
    return Manifest(
        digest=digest_of(content),
        children=None if document.manifests is None else _children(document.manifests),
        config=Digest(document.config.digest) if document.config else None,
        annotations=document.annotations or {},
    )


def parse_config(content: bytes, peer: str) -> ImageConfig:
    """The configuration blob of an image. Raises PeerUnavailable, in which `peer` names who sent it."""
    document = _parse(_ImageConfig, content, CONFIG_LIMIT, peer)
    container = document.config or _ContainerConfig.model_validate({})
    return ImageConfig(
        labels=container.labels or {},
        diff_ids=document.rootfs.diff_ids,
        platform=document.value(),
        environment=dict(text.split("=", 1) for text in container.variables or () if "=" in text),
    )


def parse_lifecycle(content: bytes, peer: str) -> date | None:
    """The last day of support in a list of referrers, the earliest of several. Raises PeerUnavailable."""
    referrers = _parse(_Referrers, content, MANIFEST_LIMIT, peer).manifests
    notes = [(one.annotations or {}).get(END_OF_LIFE, "") for one in referrers if one.artifact_type == LIFECYCLE]
    try:
        return min(map(date.fromisoformat, filter(None, notes)), default=None)
    except ValueError:
        raise nonsense(peer, "an end of support that is not a date") from None


def _children(descriptors: list[_Descriptor]) -> Mapping[ImagePlatform, Digest]:
    children: dict[ImagePlatform, Digest] = {}
    for descriptor in descriptors:
        if descriptor.platform and descriptor.platform.known():
            # Windows has one child for each os.version; the first is the one an engine without a wish would take.
            children.setdefault(descriptor.platform.value(), Digest(descriptor.digest))
    return children


def _parse(kind: type[_Document], content: bytes, limit: int, peer: str) -> _Document:
    if len(content) > limit:
        raise nonsense(peer, f"a document of {len(content)} bytes")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, mistake["loc"])) or "the document"
        raise nonsense(peer, f"{place}: {mistake['msg']}"[:200]) from None


class Documents:
    """Documents by digest: from the cache, else fetched, verified and remembered."""

    def __init__(self, cache: DocumentCache) -> None:
        self._cache = cache
        self._shared = Shared[Digest, bytes]()

    async def get(self, digest: Digest, fetch: Fetch, peer: str) -> bytes:
        """The document's bytes. Raises what `fetch` raises, and PeerUnavailable when its bytes are others."""
        return await self._shared.get(digest, partial(self._read, digest, fetch, peer))

    async def _read(self, digest: Digest, fetch: Fetch, peer: str) -> bytes:
        cached = await self._cache.get(digest)
        if cached is not None:
            return cached
        content = await fetch(digest)
        if digest_of(content) != digest:
            raise nonsense(peer, f"the bytes of {digest.short} have another digest")
        await self._cache.put(digest, content)
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryContents:
    """Implements the port `Contents` over the two ways in which `peer` hands out documents."""

    documents: Documents
    peer: str
    fetch_manifest: Fetch
    fetch_config: Fetch

    async def manifest(self, digest: Digest) -> Manifest:
        """An index or image manifest. Raises NotFound, PeerRefused, PeerUnavailable."""
        return parse_manifest(await self.documents.get(digest, self.fetch_manifest, self.peer), self.peer)

    async def config(self, digest: Digest) -> ImageConfig:
        """The configuration blob of an image. Raises like `manifest`."""
        return parse_config(await self.documents.get(digest, self.fetch_config, self.peer), self.peer)
