"""From approved to queued: prepare, reserve, queue, record."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bot.core.checker import Checker
from bot.core.checks import Status, Verdict
from bot.core.conversations import Subject
from bot.core.holds import stopping
from bot.core.images import PlatformImage, next_version
from bot.core.meaning import Meaning
from bot.core.order import Order
from bot.core.ports import Clock, Pipelines, Store
from bot.core.progress import Progress
from bot.core.rebuilds import ENDED, Cause, Rebuild, State, new_id, until_open
from bot.core.retagging import Retagging
from bot.core.runs import Run, RunRequest
from bot.errors import Conflict, PeerError, PeerUnavailable

QUEUE_LEASE = timedelta(minutes=2)  # within it nobody else queues the same rebuild; longer than any call may take


class Queueing:
    """Has Azure Pipelines build what is approved, in its turn, and at most once."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        checker: Checker,
        meaning: Meaning,
        pipelines: Pipelines,
        order: Order,
        retagging: Retagging,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._checker = checker
        self._meaning = meaning
        self._pipelines = pipelines
        self._order = order
        self._retagging = retagging
        self._progress = progress
        self._clock = clock

    async def step(self, rebuild: Rebuild) -> None:
        """Queue an approved rebuild, or begin a rollback, if it is time. Raises Conflict."""
        now = self._clock.now()
        # A wait for a window is decided anew at every look: the catalog may have changed, or somebody overrode it.
        if rebuild.next_attempt_at and rebuild.next_attempt_at > now and not rebuild.waits_for_window:
            return
        image = self._catalog.get(rebuild.image)
        if image is None:
            await self._progress.end(rebuild, State.CANCELLED, f"{rebuild.image} is no longer in the catalog")
            return
        try:
            if rebuild.is_rollback:
                await self._retagging.begin(rebuild, image)
            elif run := await self._run_of_an_earlier_attempt(rebuild, image):
                await self._record(rebuild, run)
            elif hold := stopping(await self._store.hold(rebuild.image), rebuild, now):
                await self._progress.end(rebuild, State.SUPERSEDED, str(hold), show=(Subject.REBUILD,))
            elif in_turn := await self._order.in_turn(rebuild, image):
                rebuild = until_open(in_turn, image.windows, now)
                if rebuild.waits_for_window:
                    await self._wait_for_window(in_turn, rebuild)
                elif ready := await self._prepare(rebuild, image):
                    await self._reserve_and_queue(ready, image)
        except PeerError as error:
            await self._progress.try_later(rebuild, error)

    async def _wait_for_window(self, rebuild: Rebuild, waiting: Rebuild) -> None:
        if waiting != rebuild:
            await self._progress.note(waiting, show=(Subject.REBUILD,))

    async def _run_of_an_earlier_attempt(self, rebuild: Rebuild, image: PlatformImage) -> Run | None:
        """The run that was queued when the answer, or this process, was lost before it could be recorded."""
        return await self._pipelines.find(image.pipeline, rebuild.id) if rebuild.queue_attempts else None

    async def _prepare(self, rebuild: Rebuild, image: PlatformImage) -> Rebuild | None:
        """Pin the digest and choose the version; None when the rebuild ended or has to wait. Raises PeerError."""
        digest = await self._checker.current(image)
        published = await self._checker.newest(image)
        verdict = await self._checker.against(image, digest, published)
        if rebuild.cause is not Cause.REQUESTED and verdict.status is Status.FRESH:
            reason = f"{verdict.version_tag} is built from the current base already"
            await self._progress.end(rebuild, State.SUPERSEDED, reason, show=(Subject.REBUILD,))
            return None
        approved = rebuild.new_digest if rebuild.votes and rebuild.cause is not Cause.REQUESTED else None
        if approved and not await self._checker.same_for(image, approved, digest):
            await self._ask_again(rebuild, image, verdict)
            return None
        version = next_version(published.version if published else None, new_base=verdict.status is not Status.FRESH)
        return replace(
            rebuild,
            new_digest=approved or digest,
            old_digest=rebuild.old_digest or verdict.recorded_digest,
            version_tag=image.version_tag(version),
            previous_size=published.size if published else None,
            previous_tag=published.version_tag if published else None,
            previous_digest=published.digest if published else None,
        )

    async def _ask_again(self, rebuild: Rebuild, image: PlatformImage, verdict: Verdict) -> None:
        """An approval is for a digest: the base moved since, so a new question takes its place."""
        now = self._clock.now()
        digests = {verdict.base: verdict.current_digest} if verdict.current_digest else {}
        sighting = (await self._store.seen(digests, now)).get(verdict.base)
        asked = replace(
            _anew(rebuild, now, now + image.approval.expires),
            cause=Cause.BASE_MOVED,
            new_digest=verdict.current_digest,
            old_digest=verdict.recorded_digest,
            found=verdict.why,
            base_seen_at=sighting.first_seen if sighting else None,
            base_before_at=sighting.other_last_seen if sighting else None,
            news=await self._meaning.news(image, verdict.recorded_digest, verdict.current_digest),
        )
        old = replace(rebuild.move(State.SUPERSEDED, now), ended_reason="the base moved again", successor=asked.id)
        await self._progress.supersede(rebuild, old, asked)

    async def _reserve_and_queue(self, ready: Rebuild, image: PlatformImage) -> None:
        """Reserve in the store first: a crash after this line is found again by the request id."""
        if busy := await other_run(self._pipelines, ready, image):
            waiting = PeerUnavailable(
                f"run {busy.number} of this image is under way; this one starts after it", retry_after_s=30
            )
            await self._progress.try_later(ready, waiting)
            return
        attempts = ready.queue_attempts + 1
        lease = self._clock.now() + QUEUE_LEASE
        reserved = await self._store.save_rebuild(replace(ready, queue_attempts=attempts, next_attempt_at=lease))
        try:
            run = await self._pipelines.queue(self._request(reserved, image))
        except PeerError as error:
            await self._progress.try_later(reserved, error)
            return
        await self._record(reserved, run)

    def _request(self, rebuild: Rebuild, image: PlatformImage) -> RunRequest:
        assert rebuild.new_digest is not None
        assert rebuild.version_tag is not None
        return RunRequest(
            pipeline=image.pipeline,
            parameters={
                "image": image.name,
                "base": str(self._checker.base(image).at(rebuild.new_digest)),
                "version_tag": rebuild.version_tag,
                "extra_tags": ",".join(image.extra_tags),
                "skip_update": "true",
                "request_id": rebuild.id,
                "reason": rebuild.reason or rebuild.cause.value,
            },
        )

    async def _record(self, rebuild: Rebuild, run: Run) -> None:
        queued = replace(
            rebuild.move(State.QUEUED, self._clock.now()),
            version_tag=run.parameters.get("version_tag") or rebuild.version_tag,
            run_id=run.id,
            run_number=run.number,
            run_url=run.url,
            run_project=run.project,
        )
        try:
            await self._progress.save(rebuild, queued, "queue", show=(Subject.REBUILD,))
        except Conflict:
            await self._drop_if_cancelled(rebuild.id, run)

    async def _drop_if_cancelled(self, rebuild_id: str, run: Run) -> None:
        """Somebody cancelled between reserving and recording: nobody follows the run, so end it."""
        present = await self._store.rebuild(rebuild_id)
        if present and present.state in ENDED:
            await self._pipelines.cancel(run.project, run.id)


def _anew(rebuild: Rebuild, now: datetime, expires_at: datetime) -> Rebuild:
    """The same wish as a new question, about which nothing was decided or tried."""
    return replace(
        rebuild,
        id=new_id(),
        state=State.AWAITING_APPROVAL,
        after=None,
        offered=False,
        votes=(),
        reminded_at=None,
        override=None,
        created_at=now,
        expires_at=expires_at,
        approved_at=None,
        queue_attempts=0,
        next_attempt_at=None,
        problem="",
        revision=1,
    )


async def other_run(pipelines: Pipelines, rebuild: Rebuild, image: PlatformImage) -> Run | None:
    """A run of the same image that somebody else started, queued or in progress. Raises PeerError."""
    for run in await pipelines.active(image.pipeline):
        if run.parameters.get("image") == image.name and run.parameters.get("request_id") != rebuild.id:
            return run
    return None
