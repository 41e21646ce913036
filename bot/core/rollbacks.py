"""Rollbacks: the floating tags of an image move to another version that ECR has, by digest and without a build.

The floating tags are the line's own tag, the extra tags and `latest`, as far as they point to a version of the line:
other lines may share the repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bot.core.images import Digest, PlatformImage, Version
from bot.core.ports import ImageRepository
from bot.core.rebuilds import Rebuild, TagMove
from bot.errors import PeerRefused, PeerUnavailable


@dataclass(frozen=True, slots=True)
class Line:
    """The versions of an image in ECR, and what its floating tags point to; `tags` are those of its repository."""

    image: PlatformImage
    tags: Mapping[str, Digest]

    @property
    def versions(self) -> dict[Version, Digest]:
        """Newest first."""
        known = {version: digest for tag, digest in self.tags.items() if (version := self.image.version_of(tag))}
        return dict(sorted(known.items(), reverse=True))

    @property
    def floating(self) -> dict[str, Digest]:
        """The line's own tag first, `latest` last."""
        ours = set(self.versions.values())
        return {name: self.tags[name] for name in self.image.floating_tags if self.tags.get(name) in ours}

    @property
    def in_use(self) -> Version | None:
        """The newest version that a floating tag points to: a pipeline may leave some of them behind."""
        floating = set(self.floating.values())
        return next((version for version, digest in self.versions.items() if digest in floating), None)

    @property
    def previous(self) -> Version | None:
        """The version before the one in use."""
        now, known = self.in_use, self.versions
        if now is None:
            return None
        return next((version for version, digest in known.items() if version < now and digest != known[now]), None)

    def moves(self, target: Digest) -> tuple[TagMove, ...]:
        """What has to move for all floating tags to be at the target."""
        return tuple(TagMove(tag=tag, old=old, new=target) for tag, old in self.floating.items() if old != target)


async def move_tags(repository: ImageRepository, image: PlatformImage, rebuild: Rebuild) -> Line:
    """Move what has not moved yet, and look again; the line as it is then. May be called any number of times.

    Raises PeerUnavailable when it is worth another try, and PeerRefused when it is not: the version is another one
    than was approved, or ECR says no.
    """
    assert rebuild.target is not None
    tags = dict(await repository.tags(image))
    present = tags.get(rebuild.version_tag or "")
    if present != rebuild.target:
        told = f"is {present.short} by now" if present else "is no longer in ECR"
        raise PeerRefused(f"{rebuild.version_tag} {told}, not {rebuild.target.short} as approved")
    left = [move.tag for move in rebuild.moves if tags.get(move.tag) != rebuild.target]
    for number, tag in enumerate(left):
        try:
            await repository.move_tag(image, tag, rebuild.target)
        except PeerRefused as error:
            done = f"; moved before that: {', '.join(left[:number])}" if number else "; no tag was moved"
            raise PeerRefused(f"{error}{done}") from None
    if left:
        tags = dict(await repository.tags(image))
    if behind := [move.tag for move in rebuild.moves if tags.get(move.tag) != rebuild.target]:
        raise PeerUnavailable(f"{', '.join(behind)} did not move yet")
    return Line(image, tags)
