"""Whether a platform image is stale: what its base was when it was built, against what the base is now.

Dates are never compared. A digest that moved is an update only if the child manifest of a platform we build moved:
on .NET 6 and 7 default tags a third of all index changes left linux/amd64 as it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bot.core.checks import Evidence, Status, Verdict
from bot.core.images import Digest, ImageConfig, ImagePlatform, Manifest, PlatformImage, PublishedImage
from bot.core.ports import Contents
from bot.errors import NotFound, PeerError

# https://github.com/opencontainers/image-spec/blob/main/annotations.md
BASE_DIGEST = "org.opencontainers.image.base.digest"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found for one platform."""

    status: Status
    reason: str
    recorded: Digest | None = None
    evidence: Evidence = Evidence.NONE


async def judge(
    image: PlatformImage, base: str, current: Digest, bases: Contents, own: Contents, published: PublishedImage | None
) -> Verdict:
    """Compare one image with its base. `bases` reads the base's repository, `own` the image's.

    Never raises PeerError: what cannot be read is unknown, with the reason.
    """
    if published is None:
        reason = f"no version of {image.tag} is in {image.repository} yet"
        return Verdict(name=image.name, status=Status.UNBUILT, reason=reason, base=base, current_digest=current)
    findings = [await _look(platform, current, bases, own, published.digest) for platform in image.platforms]
    worst = _worst(findings)
    return Verdict(
        name=image.name,
        status=worst.status,
        reason=worst.reason,
        base=base,
        recorded_digest=worst.recorded,
        current_digest=current,
        evidence=worst.evidence,
        version_tag=published.version_tag,
        in_use_tag=published.in_use_tag,
        pushed_at=published.pushed_at,
        size=published.size,
        tags=published.tags,
    )


async def same_children(platforms: Iterable[ImagePlatform], bases: Contents, one: Digest, other: Digest) -> bool:
    """Whether two digests of a base are the same image for each of the platforms. Raises PeerError."""
    first, second = await bases.manifest(one), await bases.manifest(other)
    return all(_for_platform(first, p, "the base") == _for_platform(second, p, "the base") for p in platforms)


async def config_of(platform: ImagePlatform, contents: Contents, digest: Digest) -> ImageConfig:
    """The configuration of an image, or of an index's image for the platform. Raises PeerError."""
    child = _for_platform(await contents.manifest(digest), platform, "the base")
    return await contents.config(_config(await contents.manifest(child)))


async def _recorded_base(platform: ImagePlatform, own: Contents, digest: Digest) -> tuple[Digest | None, Evidence]:
    """The base digest an image says it was built from, and where it says so. Raises PeerError.

    Annotations come first, because they cost no further request; then the label in the configuration.
    """
    manifest = await own.manifest(digest)
    if recorded := _digest(manifest.annotations.get(BASE_DIGEST)):
        return recorded, Evidence.ANNOTATION
    if manifest.children is not None:
        manifest = await own.manifest(_child(manifest, platform, "the image in ECR"))
        if recorded := _digest(manifest.annotations.get(BASE_DIGEST)):
            return recorded, Evidence.ANNOTATION
    recorded = _digest((await own.config(_config(manifest))).labels.get(BASE_DIGEST))
    return recorded, Evidence.LABEL if recorded else Evidence.NONE


def _worst(findings: Iterable[Finding]) -> Finding:
    order = {Status.STALE: 0, Status.UNKNOWN: 1, Status.FRESH: 2}
    return min(findings, key=lambda finding: order[finding.status])


async def _look(platform: ImagePlatform, current: Digest, bases: Contents, own: Contents, published: Digest) -> Finding:
    try:
        recorded, evidence = await _recorded_base(platform, own, published)
        if recorded == current:
            return Finding(Status.FRESH, "built from the current base", recorded, evidence)
        now = _for_platform(await bases.manifest(current), platform, "the base")
        if recorded:
            try:
                return await _compare_children(platform, now, bases, recorded, evidence)
            except NotFound:
                pass  # the registry no longer has the old base: the layers decide
        return await _compare_layers(platform, now, bases, own, published)
    except PeerError as error:
        return Finding(Status.UNKNOWN, str(error))


async def _compare_children(
    platform: ImagePlatform, now: Digest, bases: Contents, recorded: Digest, evidence: Evidence
) -> Finding:
    if recorded != now and _for_platform(await bases.manifest(recorded), platform, "the old base") != now:
        return Finding(Status.STALE, f"the base moved for {platform}", recorded, evidence)
    reason = f"the base moved for other platforms only; {platform} is the same"
    return Finding(Status.FRESH, reason, recorded, evidence)


async def _compare_layers(
    platform: ImagePlatform, now: Digest, bases: Contents, own: Contents, published: Digest
) -> Finding:
    layers = (await bases.config(_config(await bases.manifest(now)))).diff_ids
    image = _for_platform(await own.manifest(published), platform, "the image in ECR")
    ours = (await own.config(_config(await own.manifest(image)))).diff_ids
    if not layers:
        return Finding(Status.UNKNOWN, "the base has no layers to compare with")
    if ours[: len(layers)] == layers:
        return Finding(Status.FRESH, "its first layers are the current base's", None, Evidence.LAYERS)
    return Finding(Status.STALE, "its first layers are not the current base's", None, Evidence.LAYERS)


def _digest(value: str | None) -> Digest | None:
    try:
        return Digest(value) if value else None
    except ValueError:
        return None


def _config(manifest: Manifest) -> Digest:
    if manifest.config is None:
        raise NotFound(f"manifest {manifest.digest.short} has no configuration")
    return manifest.config


def _for_platform(manifest: Manifest, platform: ImagePlatform, whose: str) -> Digest:
    return manifest.digest if manifest.children is None else _child(manifest, platform, whose)


def _child(index: Manifest, platform: ImagePlatform, whose: str) -> Digest:
    children = index.children or {}
    if platform not in children:
        have = ", ".join(sorted(map(str, children))) or "no platform"
        raise NotFound(f"{whose} has no {platform} at {index.digest.short}; it has {have}")
    return children[platform]
