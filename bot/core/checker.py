"""Looks at the outside: what every image's base is now, and what each image was built from."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bot.core.base_news import Versions, versions_of
from bot.core.checks import Requests, Status, Verdict
from bot.core.images import Digest, ImageReference, PlatformImage, PublishedImage
from bot.core.ports import Contents, ImageRepository, Registry
from bot.core.staleness import config_of, judge, same_children
from bot.errors import NotFound, PeerError


class Checker:
    """Compares images with their bases. Reads only; one image's failure is that image's unknown."""

    def __init__(self, catalog: Mapping[str, PlatformImage], registry: Registry, repository: ImageRepository) -> None:
        self._catalog = catalog
        self._registry = registry
        self._repository = repository

    async def check(self, images: Iterable[PlatformImage]) -> tuple[list[Verdict], Requests]:
        """One verdict per image, in order, and what it cost. Every distinct base is asked for once."""
        registry, ecr = self._registry.requests, self._repository.requests
        current: dict[str, asyncio.Task[Digest]] = {}
        verdicts = await asyncio.gather(*(self._judge(image, current) for image in images))
        return verdicts, Requests(registry=self._registry.requests - registry, ecr=self._repository.requests - ecr)

    async def against(self, image: PlatformImage, digest: Digest, published: PublishedImage | None) -> Verdict:
        """Whether a published image is built from one particular digest of its base. Never raises PeerError."""
        base = self.base(image)
        return await judge(image, str(base), digest, self._bases(image), self._repository.contents(image), published)

    async def same_for(self, image: PlatformImage, one: Digest, other: Digest) -> bool:
        """Whether two digests of the base are the same for every platform of the image. Raises PeerError."""
        return one == other or await same_children(image.platforms, self._bases(image), one, other)

    async def versions(self, image: PlatformImage, base: Digest) -> Versions | None:
        """Which .NET a digest of the image's base holds; None when it does not say. Raises PeerError."""
        config = await config_of(image.platforms[0], self._bases(image), base)
        return versions_of(config.environment)

    async def current(self, image: PlatformImage) -> Digest:
        """What the image's base is now: of another platform image the version in use. Raises PeerError."""
        if image.base:
            return await self._registry.current(image.base)
        published = await self._repository.newest(self._parent(image))
        if published is None:
            raise NotFound(f"{image.parent}, its base, has not been built yet")
        return published.in_use_digest or published.digest

    async def newest(self, image: PlatformImage) -> PublishedImage | None:
        """The newest version in ECR. Raises PeerError."""
        return await self._repository.newest(image)

    def base(self, image: PlatformImage) -> ImageReference:
        """The reference of the image's base: Microsoft's, or the line of the parent in ECR."""
        if image.base:
            return image.base
        parent = self._parent(image)
        return parent.reference(parent.tag)

    def _parent(self, image: PlatformImage) -> PlatformImage:
        assert image.parent is not None
        return self._catalog[image.parent]

    def _bases(self, image: PlatformImage) -> Contents:
        return self._registry.contents(image.base) if image.base else self._repository.contents(self._parent(image))

    async def _judge(self, image: PlatformImage, current: dict[str, asyncio.Task[Digest]]) -> Verdict:
        base = str(self.base(image))
        try:
            if base not in current:
                current[base] = asyncio.create_task(self.current(image))
            # Side by side, so that images of one repository share a listing.
            digest, published = await asyncio.gather(current[base], self._repository.newest(image))
        except PeerError as error:
            return Verdict(name=image.name, status=Status.UNKNOWN, reason=str(error), base=base)
        return replace(await self.against(image, digest, published), base=base)
