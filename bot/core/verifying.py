"""Verifying what a run pushed: a rebuild is done when ECR has what was approved."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from bot.core.checker import Checker
from bot.core.checks import Status, Verdict
from bot.core.images import Digest, PlatformImage
from bot.core.order import Order
from bot.core.ports import Clock, ImageRepository
from bot.core.progress import Progress
from bot.core.rebuilds import Rebuild, State
from bot.core.scanning import Scanning, cards_at_end, why_held_back
from bot.errors import PeerError


class Verifying:
    """Looks into ECR after a run that succeeded, for as long as `timeout`."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        checker: Checker,
        repository: ImageRepository,
        order: Order,
        scanning: Scanning,
        progress: Progress,
        clock: Clock,
        timeout: timedelta,
    ) -> None:
        self._catalog = catalog
        self._checker = checker
        self._repository = repository
        self._order = order
        self._scanning = scanning
        self._progress = progress
        self._clock = clock
        self._timeout = timeout

    async def step(self, rebuild: Rebuild) -> None:
        """Succeeded means: ECR has the version tag, and that image is built from the approved digest."""
        image = self._catalog.get(rebuild.image)
        if image is None or rebuild.version_tag is None or rebuild.new_digest is None:
            await self._progress.end(rebuild, State.FAILED, f"{rebuild.image} is no longer in the catalog")
            return
        try:
            published = await self._repository.find(image, rebuild.version_tag)
        except PeerError as error:
            await self._not_verified_yet(rebuild, str(error))
            return
        if published is None:
            await self._not_verified_yet(rebuild, f"{rebuild.version_tag} is not in ECR")
            return
        verdict = await self._checker.against(image, rebuild.new_digest, published)
        await self._judge(replace(rebuild, pushed_digest=published.digest, pushed_size=published.size), verdict)

    async def _judge(self, found: Rebuild, verdict: Verdict) -> None:
        if verdict.status is Status.FRESH:
            await self._order.parent_changed(found)
            scanned = await self._scanning.first_look(found)
            await self._progress.end(scanned, State.SUCCEEDED, why_held_back(scanned), cards_at_end(scanned))
            await self._order.look_again(found)
        elif verdict.status is Status.STALE:
            built = Digest(verdict.recorded_digest).short if verdict.recorded_digest else "another base"
            await self._progress.end(found, State.FAILED, f"{found.version_tag} is built from {built}, not as approved")
        else:
            await self._not_verified_yet(found, verdict.reason)

    async def _not_verified_yet(self, rebuild: Rebuild, reason: str) -> None:
        finished = rebuild.run_finished_at or rebuild.created_at
        if self._clock.now() - finished >= self._timeout:
            await self._progress.end(rebuild, State.FAILED, f"the run succeeded, but {reason}")
        elif rebuild.problem != reason:
            await self._progress.note(replace(rebuild, problem=reason))
