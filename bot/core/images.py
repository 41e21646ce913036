"""What an image is: references, digests, platforms, and the company's platform images."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from bot.core.findings import Severity
from bot.core.timetable import Crontab
from bot.core.windows import ALWAYS, Windows

LATEST = "latest"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
HOST = re.compile(r"[a-zA-Z0-9.-]+(?::\d+)?")


class Digest(str):
    """`sha256:` and 64 hex digits, checked on construction. Raises ValueError."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not DIGEST.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not a sha256 digest")
        return super().__new__(cls, value)

    @property
    def short(self) -> str:
        """The first 12 hex digits, as shown on cards."""
        return self[7:19]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """`registry/repository:tag` or `registry/repository@digest`."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference that names its registry. Raises ValueError with what is wrong."""
        registry, slash, rest = text.partition("/")
        if not slash or not HOST.fullmatch(registry) or ("." not in registry and ":" not in registry):
            raise ValueError(f"{text!r} does not start with a registry host, such as mcr.microsoft.com/")
        name, at, digest = rest.partition("@")
        name, colon, tag = name.partition(":")
        if not REPOSITORY.fullmatch(name):
            raise ValueError(f"{name!r} is not a repository name")
        if colon and not TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is not a tag")
        if not colon and not at:
            raise ValueError(f"{text!r} has neither a tag nor a digest")
        return cls(registry=registry, repository=name, tag=tag or None, digest=Digest(digest) if at else None)

    def at(self, digest: Digest) -> "ImageReference":
        """The same repository, pinned to a digest."""
        return ImageReference(registry=self.registry, repository=self.repository, digest=digest)

    @property
    def name(self) -> str:
        """Registry and repository without tag or digest."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True, order=True)
class ImagePlatform:
    """Operating system, architecture and variant, normalised so that arm64 and arm64/v8 are equal."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Self:
        default = {"arm64": "v8", "arm": "v7"}.get(architecture)
        return cls(os, architecture, "" if variant == default else variant)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `linux/amd64` or `linux/arm64/v8`. Raises ValueError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text!r} is not a platform such as linux/amd64")
        return cls.of(*parts)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """The version of a platform image, compared as numbers: 1.10.0 is newer than 1.9.0."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> "Version | None":
        """The version, or None when the text is not exactly three plain numbers."""
        match = re.fullmatch(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", text)
        return cls(*map(int, match.groups())) if match else None

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class Mode(StrEnum):
    """What happens when an image is stale."""

    ASK = "ask"
    AUTO = "auto"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRules:
    """Who may approve, and how many of them are needed.

    `approvers` are Entra object ids or user principal names in lower case; `channels` are conversation ids, whose
    members may approve as well.
    """

    approvers: frozenset[str]
    channels: tuple[str, ...] = ()
    required: int = 1
    self_approve: bool = True
    expires: timedelta = timedelta(days=7)
    remind: timedelta | None = timedelta(days=1)  # None: never


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineReference:
    """A pipeline of Azure DevOps: project name and numeric definition id."""

    project: str
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """One image of the catalog. Exactly one of `base` and `parent` is set."""

    name: str
    base: ImageReference | None
    parent: str | None = None
    registry_id: str
    region: str
    repository: str
    tag: str
    extra_tags: tuple[str, ...] = ()
    pipeline: PipelineReference
    platforms: tuple[ImagePlatform, ...]
    mode: Mode = Mode.ASK
    approval: ApprovalRules
    windows: Windows = ALWAYS
    schedule: Crontab | None = None  # of its own, besides the check of all images
    watch: bool = False
    hold_back: Severity | None = None  # something new as bad as this turns the word of an update into a warning

    @property
    def registry(self) -> str:
        """The ECR host. https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html"""
        suffix = ".cn" if self.region.startswith("cn-") else ""
        return f"{self.registry_id}.dkr.ecr.{self.region}.amazonaws.com{suffix}"

    @property
    def floating_tags(self) -> tuple[str, ...]:
        """The tags that follow its versions, each once: the line's own, the extra ones, and `latest`."""
        return tuple(dict.fromkeys((self.tag, *self.extra_tags, LATEST)))

    def reference(self, tag: str) -> ImageReference:
        """One of this image's own tags in ECR."""
        return ImageReference(registry=self.registry, repository=self.repository, tag=tag)

    def version_of(self, tag: str) -> Version | None:
        """The version in a tag of this image's line, None for any other tag."""
        prefix, _, version = tag.rpartition("-")
        return Version.parse(version) if prefix == self.tag else None

    def version_tag(self, version: Version) -> str:
        return f"{self.tag}-{version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest or an index, as read by digest.

    `children` maps platform to digest for an index and is None for a single image.
    `config` is the digest of the configuration blob of a single image.
    """

    digest: Digest
    children: Mapping[ImagePlatform, Digest] | None = None
    config: Digest | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The part of an image configuration that is needed: labels, layer diff ids (bottom first), platform, variables."""

    labels: Mapping[str, str]
    diff_ids: tuple[str, ...]
    platform: ImagePlatform
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedImage:
    """The newest version of a platform image in ECR. `size` is in bytes, as ECR counts it (compressed).

    In use is the newest version that a floating tag points to; None when not known.
    """

    version: Version
    version_tag: str
    digest: Digest
    tags: tuple[str, ...]
    pushed_at: datetime | None
    size: int | None
    in_use_tag: str | None = None
    in_use_digest: Digest | None = None


def next_version(newest: Version | None, *, new_base: bool) -> Version:
    """The version after the newest existing one: minor for a new base, patch for a rebuild without one."""
    if newest is None:
        return Version(1, 0, 0)
    if new_base:
        return Version(newest.major, newest.minor + 1, 0)
    return Version(newest.major, newest.minor, newest.patch + 1)
