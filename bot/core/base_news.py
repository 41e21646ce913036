"""Why a base moved: a release of .NET, with what it fixes, or a rebuild of the same version."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# https://semver.org, as .NET numbers its releases: 8.0.21, 11.0.0-preview.6.26359.118
VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:-([0-9A-Za-z.-]{1,40}))?")

VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


class NewsKind(StrEnum):
    """What a new base brings."""

    RELEASE = "release"
    REBUILD = "rebuild"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cve:
    """A vulnerability that a release fixes. `url` is a web page or empty."""

    id: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release of .NET by the version of its runtime."""

    version: str
    security: bool
    cves: tuple[Cve, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The .NET inside an image. `sdk` is empty where there is none."""

    runtime: str
    sdk: str = ""

    @property
    def channel(self) -> str:
        """`8.0` of `8.0.21`."""
        return ".".join(self.runtime.split(".")[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseNews:
    """What changed between two digests of a base.

    The versions are those of the runtime, or of the SDK when that alone changed (`sdk_only`). `security` is None when
    Microsoft's release notes could not be had or do not reach that far.
    """

    kind: NewsKind
    old_version: str
    new_version: str
    sdk_only: bool = False
    security: bool | None = None
    cves: tuple[Cve, ...] = ()


def versions_of(environment: Mapping[str, str]) -> Versions | None:
    """What Microsoft's images say they hold; None for others, such as runtime-deps.

    https://github.com/dotnet/dotnet-docker/blob/main/documentation/supported-platforms.md
    """
    runtime = environment.get("DOTNET_VERSION") or environment.get("ASPNET_VERSION") or ""
    sdk = environment.get("DOTNET_SDK_VERSION", "")
    if not VERSION.fullmatch(runtime):
        return None
    return Versions(runtime=runtime, sdk=sdk if VERSION.fullmatch(sdk) else "")


def news_between(old: Versions, new: Versions, notes: Iterable[Release] | None) -> BaseNews:
    """What the move from one image to the other means. `notes` are the releases of the new one's channel, if known."""
    if old.runtime == new.runtime:
        if old.sdk != new.sdk and old.sdk and new.sdk:
            return BaseNews(kind=NewsKind.RELEASE, old_version=old.sdk, new_version=new.sdk, sdk_only=True)
        return BaseNews(kind=NewsKind.REBUILD, old_version=old.runtime, new_version=new.runtime, security=False)
    between = _between(old, new, notes or ())
    return BaseNews(
        kind=NewsKind.RELEASE,
        old_version=old.runtime,
        new_version=new.runtime,
        security=_is_security(new, between),
        cves=tuple({cve.id: cve for release in between for cve in release.cves}.values()),
    )


def is_security_release(news: BaseNews | None) -> bool:
    """Whether a move of a base is known to bring security fixes of .NET."""
    return news is not None and news.security is True


def _between(old: Versions, new: Versions, notes: Iterable[Release]) -> list[Release]:
    """The releases after the old one up to the new one; a jump may pass several. Empty across channels."""
    if old.channel != new.channel:
        return []
    first, last = _key(old.runtime), _key(new.runtime)
    readable = [release for release in notes if VERSION.fullmatch(release.version)]
    return [release for release in readable if first < _key(release.version) <= last]


def _is_security(new: Versions, between: list[Release]) -> bool | None:
    """One security release on the way is enough; without one the notes have to reach as far as the image."""
    if any(release.security for release in between):
        return True
    return False if any(release.version == new.runtime for release in between) else None


def _key(version: str) -> VersionKey:
    """Compares like the versions: numbers as numbers, and a preview before its release."""
    match = VERSION.fullmatch(version)
    assert match is not None
    *numbers, preview = match.groups()
    return tuple(map(int, numbers)), preview is None, tuple(map(_part, (preview or "").split(".")))


def _part(text: str) -> tuple[bool, int, str]:
    return (False, int(text), "") if text.isdecimal() else (True, 0, text)
