"""What a check's findings mean: why a base moved, and until when it is supported."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from bot.core.base_news import BaseNews, news_between
from bot.core.checker import Checker
from bot.core.checks import Status, Verdict
from bot.core.images import Digest, ImageReference, PlatformImage
from bot.core.ports import Clock, Registry, Releases
from bot.core.support import channel_of, next_image, support_of
from bot.errors import PeerError

ASK_AGAIN = timedelta(days=1)  # for the end of a tag's support


@dataclass(frozen=True, slots=True, kw_only=True)
class _TagEnd:
    digest: Digest
    asked_at: datetime
    ends: date | None


class Meaning:
    """Adds to verdicts what Microsoft publishes about its images. What cannot be had is left out, never an error.

    Without `releases` nothing is asked and nothing is added.
    """

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        checker: Checker,
        registry: Registry,
        releases: Releases | None,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._checker = checker
        self._registry = registry
        self._releases = releases
        self._clock = clock
        self._tag_ends: dict[str, _TagEnd] = {}

    async def explain(self, verdicts: Iterable[Verdict]) -> list[Verdict]:
        """The verdicts with news and support. Bases that did not move cost no request but one a day for their tag."""
        verdicts = list(verdicts)
        if self._releases is None:
            return verdicts
        ends, tag_ends = await asyncio.gather(self._releases.ends(), self._ask_tags(verdicts))
        return list(await asyncio.gather(*(self._explain(verdict, ends, tag_ends) for verdict in verdicts)))

    async def news(self, image: PlatformImage, old: Digest | None, new: Digest | None) -> BaseNews | None:
        """Why the base moved; None when an image does not say which .NET is in it, or cannot be read."""
        if self._releases is None or old is None or new is None:
            return None
        try:
            before, after = await asyncio.gather(self._checker.versions(image, old), self._checker.versions(image, new))
        except PeerError:
            return None
        if before is None or after is None:
            return None
        notes = await self._releases.notes(after.channel) if before.runtime != after.runtime else None
        return news_between(before, after, notes)

    async def _explain(
        self, verdict: Verdict, ends: Mapping[str, date], tag_ends: Mapping[str, date | None]
    ) -> Verdict:
        image = self._catalog[verdict.name]
        stale = verdict.status is Status.STALE
        news = await self.news(image, verdict.recorded_digest, verdict.current_digest) if stale else None
        base = self._microsofts(image)
        if base is None:
            return replace(verdict, news=news)
        following = next_image(base, self._catalog, ends, self._clock.now().date())
        support = support_of(base, ends.get(channel_of(base) or ""), tag_ends.get(str(base)), following)
        return replace(verdict, news=news, support=support)

    def _microsofts(self, image: PlatformImage) -> ImageReference | None:
        """The .NET base at the bottom of an image, also when images of ours lie between; None for other images."""
        while image.base is None:
            image = self._catalog[image.parent or ""]
        return image.base if channel_of(image.base) else None

    async def _ask_tags(self, verdicts: Iterable[Verdict]) -> dict[str, date | None]:
        """When support of each base's tag ends; asked once a day, and when the tag moved."""
        current: dict[str, tuple[ImageReference, Digest]] = {}
        for verdict in verdicts:
            base = self._catalog[verdict.name].base
            if base and verdict.current_digest and channel_of(base):
                current[str(base)] = (base, verdict.current_digest)
        await asyncio.gather(*(self._ask_tag(base, digest) for base, digest in current.values()))
        return {base: known.ends for base, known in self._tag_ends.items()}

    async def _ask_tag(self, base: ImageReference, digest: Digest) -> None:
        known, now = self._tag_ends.get(str(base)), self._clock.now()
        if known and known.digest == digest and now - known.asked_at < ASK_AGAIN:
            return
        try:
            ends = await self._registry.end_of_life(base, digest)
        except PeerError:
            ends = known.ends if known and known.digest == digest else None
        self._tag_ends[str(base)] = _TagEnd(digest=digest, asked_at=now, ends=ends)
