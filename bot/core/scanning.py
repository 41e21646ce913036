"""After a rebuild: what scans say of the new image against the one it replaced. Never holds up or fails a rebuild."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bot.core.audit import system_entry
from bot.core.conversations import ALL_CARDS, Subject
from bot.core.findings import Comparison, Scan, ScanState, compare, merge
from bot.core.images import Digest, PlatformImage
from bot.core.ports import Clock, ImageRepository, Store, Wake
from bot.core.rebuilds import Rebuild
from bot.errors import Conflict, PeerError, PeerUnavailable

logger = logging.getLogger(__name__)

PATIENCE = timedelta(hours=1)  # from the end of a rebuild, for its scans to finish
BETWEEN_LOOKS = timedelta(seconds=30)
BETWEEN_SEARCHES = timedelta(minutes=5)  # for what another replica has left behind
FIRST_LOOK_S = 10  # the result of a rebuild is not held up longer than this
FRESH_SCAN = timedelta(hours=24)  # ECR scans an image again once a day at most


def why_held_back(rebuild: Rebuild) -> str:
    """For its row; empty when it is not."""
    return f"held back: it brings new vulnerabilities ({rebuild.held_back})" if rebuild.held_back else ""


def cards_at_end(rebuild: Rebuild) -> tuple[Subject, ...]:
    """What tells of it: no notice before it is known whether it is held back, where the catalog wants that."""
    pending = rebuild.comparison is not None and rebuild.comparison.state is ScanState.PENDING
    return (Subject.REBUILD,) if rebuild.hold_back and pending else ALL_CARDS


class Scanning:
    """Looks at the scans of what rebuilds pushed until both images are scanned, for an hour at most."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        repository: ImageRepository,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._repository = repository
        self._clock = clock
        self._wake = wake
        self._next_look: datetime | None = None
        self.pending = False

    def look_now(self) -> None:
        """A scan is said to have finished."""
        self._next_look = None

    async def first_look(self, rebuild: Rebuild) -> Rebuild:
        """The same rebuild with what scans say at its end; as it is when it replaced nothing."""
        if rebuild.previous_digest is None:
            return rebuild
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                found = await self._compare(rebuild)
        except TimeoutError:
            found = Comparison(state=ScanState.PENDING)
        if found.state is ScanState.PENDING:
            self.pending = True
            self._next_look = self._clock.now() + BETWEEN_LOOKS
        return replace(rebuild, comparison=found, hold_back=self._catalog[rebuild.image].hold_back)

    async def advance(self) -> None:
        """One pass over the rebuilds whose scans are waited for, if it is time for one."""
        now = self._clock.now()
        if self._next_look is not None and now < self._next_look:
            return
        self._next_look = now + BETWEEN_LOOKS  # before the work: a hint that comes meanwhile counts
        waiting = [rebuild for rebuild in await self._store.succeeded(now - 2 * PATIENCE) if rebuild.waits_for_scan]
        left = [rebuild for rebuild in waiting if not await self._settle(rebuild)]
        self.pending = bool(left)
        if not left and self._next_look is not None:
            self._next_look = now + BETWEEN_SEARCHES

    async def _settle(self, rebuild: Rebuild) -> bool:
        """Whether nothing is left to wait for."""
        found = await self._compare(rebuild)
        if found.state is ScanState.PENDING and self._is_over(rebuild):
            reason = f": {found.reason}" if found.reason else ""
            found = Comparison(state=ScanState.UNAVAILABLE, reason=f"the scan did not finish within an hour{reason}")
        if found != rebuild.comparison:
            try:
                await self._save(rebuild, replace(rebuild, comparison=found))
            except Conflict:
                return False
            self._wake.cards()
        return found.state is not ScanState.PENDING

    async def _save(self, old: Rebuild, new: Rebuild) -> None:
        """With the notice that has waited for what the scans say, where the catalog wants that."""
        new = replace(new, ended_reason=why_held_back(new))
        entry = system_entry(old, new, "hold back", self._clock) if new.held_back else None
        await self._store.save_rebuild(new, entry, cards_at_end(new) if new.hold_back else ())

    def _is_over(self, rebuild: Rebuild) -> bool:
        return rebuild.ended_at is None or self._clock.now() - rebuild.ended_at >= PATIENCE

    async def _compare(self, rebuild: Rebuild) -> Comparison:
        image = self._catalog.get(rebuild.image)
        if image is None or rebuild.pushed_digest is None or rebuild.previous_digest is None:
            return Comparison(state=ScanState.UNAVAILABLE, reason=f"{rebuild.image} is no longer in the catalog")
        since = (rebuild.ended_at or self._clock.now()) - FRESH_SCAN
        # Both, whatever the first says: a scan that has to be started is started now.
        old = await self._scan(image, rebuild.previous_digest, since)
        return compare(old, await self._scan(image, rebuild.pushed_digest, since), since)

    async def _scan(self, image: PlatformImage, digest: Digest, since: datetime) -> Scan:
        """The scan of an image, of an index those of the image's platforms: an index itself is never scanned."""
        try:
            manifest = await self._repository.contents(image).manifest(digest)
            children = manifest.children or {}
            digests = [children[platform] for platform in image.platforms if platform in children] or [digest]
            return merge([await self._repository.scan(image, each, since) for each in digests])
        except PeerUnavailable as error:
            return Scan(state=ScanState.PENDING, reason=str(error))
        except PeerError as error:
            logger.info("no scan of %s: %s", image.name, error)
            return Scan(state=ScanState.UNAVAILABLE, reason=str(error))
