"""The watch: an hourly look at the bases that matter, so that a security release does not wait for the next check."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime

from bot.core.base_news import is_security_release
from bot.core.checker import Checker
from bot.core.checks import Status, Verdict
from bot.core.hints import REMEMBERED
from bot.core.images import Digest, PlatformImage
from bot.core.meaning import Meaning
from bot.core.ports import Clock, Store
from bot.errors import PeerError

logger = logging.getLogger(__name__)


class Watch:
    """Compares the bases of watched images with those of their last check, and has checked what cannot wait.

    That is a security release, and an image that could not be checked the last time. Everything else is left to the
    scheduled check.
    """

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        checker: Checker,
        meaning: Meaning,
        clock: Clock,
        look: Callable[[Collection[str], Collection[str]], Awaitable[object]],
    ) -> None:
        self._images = [image for image in catalog.values() if image.watch and image.base]
        self._store = store
        self._checker = checker
        self._meaning = meaning
        self._clock = clock
        self._look = look

    async def run_due(self) -> None:
        """Once an hour, whoever calls and however often; a lost look costs an hour."""
        now = self._clock.now()
        if not self._images or not await self._store.first_delivery(_hour(now), now, remembered=REMEMBERED):
            return
        current = await self._current(self._images)
        latest = {name: verdict for name, (_, verdict) in (await self._store.latest_verdicts()).items()}
        known = [image for image in self._images if image.name in latest and str(image.base) in current]
        unread = [image.name for image in known if latest[image.name].status is Status.UNKNOWN]
        urgent = [image.name for image in known if await self._is_urgent(image, latest[image.name], current)]
        if unread or urgent:
            logger.info("the watch has checked: %s", ", ".join([*unread, *urgent]))
            await self._look([*unread, *urgent], urgent)

    async def _current(self, images: Iterable[PlatformImage]) -> dict[str, Digest]:
        """What each distinct base is now, without those that cannot be read."""
        bases = {str(image.base): image for image in images}
        digests = await asyncio.gather(*map(self._checker.current, bases.values()), return_exceptions=True)
        for digest in digests:
            if isinstance(digest, BaseException) and not isinstance(digest, PeerError):
                raise digest
        return {base: digest for base, digest in zip(bases, digests, strict=True) if isinstance(digest, str)}

    async def _is_urgent(self, image: PlatformImage, verdict: Verdict, current: Mapping[str, Digest]) -> bool:
        """Whether the base moved since the last check, and to a security release as far as is known."""
        before, now = verdict.current_digest, current[str(image.base)]
        return before != now and is_security_release(await self._meaning.news(image, before, now))


def _hour(now: datetime) -> str:
    return f"watch {now:%Y-%m-%dT%H}Z"
