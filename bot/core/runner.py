"""Moves rebuilds along: queues what is approved, follows runs, verifies what was pushed.

Every step is decided from the row and from the outside truth, so it does not matter what woke it,
how often it is called, or where the process stopped the last time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from functools import partial

from bot.core import stage_approvals
from bot.core.audit import system_entry
from bot.core.checker import Checker
from bot.core.checks import Status, Verdict
from bot.core.conversations import ALL_CARDS, Subject
from bot.core.hints import Hints
from bot.core.holds import Hold, HoldKind
from bot.core.images import Digest, PlatformImage, next_version
from bot.core.meaning import Meaning
from bot.core.order import Order
from bot.core.ports import Clock, ImageRepository, Pipelines, Store, Wake
from bot.core.rebuilds import (
    ENDED,
    WITH_RUN,
    AuditEntry,
    Cause,
    Rebuild,
    Run,
    RunRequest,
    RunState,
    Stage,
    State,
    is_forgotten,
    new_id,
    retry_delay,
    until_open,
)
from bot.core.rollbacks import Line, move_tags
from bot.core.scanning import Scanning, cards_at_end, why_held_back
from bot.errors import Conflict, PeerError, PeerRefused, PeerUnavailable

logger = logging.getLogger(__name__)

QUEUE_LEASE = timedelta(minutes=2)  # within it nobody else queues the same rebuild; longer than any call may take
FOLLOWED = frozenset({State.QUEUED, State.RUNNING})
LOG_LINES = 12


Step = Callable[[Rebuild], Awaitable[None]]


class Pace(StrEnum):
    """How soon the next look is due."""

    IDLE = "idle"  # nothing is under way
    HINTS = "hints"  # all that is under way are scans, or runs whose changes announce themselves
    POLL = "poll"


class Runner:
    """Owns the part of a rebuild's life that nobody has to press a button for."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        checker: Checker,
        meaning: Meaning,
        repository: ImageRepository,
        pipelines: Pipelines,
        clock: Clock,
        wake: Wake,
        hints: Hints,
        order: Order,
        scanning: Scanning,
        verify_timeout: timedelta,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._checker = checker
        self._meaning = meaning
        self._repository = repository
        self._pipelines = pipelines
        self._clock = clock
        self._wake = wake
        self._hints = hints
        self._order = order
        self._scanning = scanning
        self._verify_timeout = verify_timeout
        self.one_pass = asyncio.Lock()

    async def advance(self) -> Pace:
        """One pass over everything that is open."""
        async with self.one_pass:
            await self._each(await self._store.rebuilds(states={State.AWAITING_APPROVAL}), self._watch)
            await self._each(await self._store.rebuilds(states={State.APPROVED}), self._queue)
            await self._follow(await self._store.rebuilds(states=FOLLOWED))
            await self._each(await self._store.rebuilds(states={State.VERIFYING}), self._verify)
            waiting = await self._store.rebuilds(states={State.AWAITING_APPROVAL, State.APPROVED})
            await self._each(waiting, self._order.settle)
            await self._scanning.advance()
            active = await self._store.rebuilds(states=WITH_RUN | {State.APPROVED})
            return self._pace([each for each in active if not each.waits_for_window and not each.waits_for])

    def _pace(self, under_way: list[Rebuild]) -> Pace:
        if not under_way:
            return Pace.HINTS if self._scanning.pending else Pace.IDLE
        in_azure = all(rebuild.state in FOLLOWED for rebuild in under_way)
        return Pace.HINTS if in_azure and self._hints.relied_on else Pace.POLL

    async def _each(self, rebuilds: list[Rebuild], step: Step) -> None:
        """Run a step for each; the trouble of one is its own and is tried again at the next pass."""
        for rebuild in rebuilds:
            try:
                await step(rebuild)
            except Conflict:
                logger.info("rebuild %s was changed meanwhile", rebuild.id)
            except PeerError as error:
                logger.warning("rebuild %s cannot go on: %s", rebuild.id, error)
                self._hints.missed()

    async def _watch(self, rebuild: Rebuild) -> None:
        """A question ends by itself when nobody decides, or its image is stopped or leaves the catalog."""
        now = self._clock.now()
        if rebuild.image not in self._catalog:
            await self._end(rebuild, State.CANCELLED, f"{rebuild.image} is no longer in the catalog", show=())
        elif rebuild.is_overdue(now):
            await self._save(rebuild, rebuild.move(State.EXPIRED, now), "expire", show=(Subject.NOTICE,))
        elif hold := await self._stopped_by(rebuild):
            await self._end(rebuild, State.SUPERSEDED, str(hold), show=())
        elif is_forgotten(self._catalog[rebuild.image].approval, rebuild, now):
            await self._save(rebuild, replace(rebuild, reminded_at=now), "remind", show=(Subject.REMINDER,))

    async def _stopped_by(self, rebuild: Rebuild) -> Hold | None:
        """The hold that ends a rebuild which has no run yet. A snooze is about the question for one digest only."""
        hold = await self._store.hold(rebuild.image)
        if hold is None or hold.is_over(self._clock.now()) or rebuild.is_rollback:
            return None
        asked = rebuild.state is State.AWAITING_APPROVAL and rebuild.cause is not Cause.REQUESTED
        snoozed = asked and hold.digest in (None, rebuild.new_digest)
        return hold if hold.kind is HoldKind.HOLD or snoozed else None

    # From approved to queued: reserve, queue, record

    async def _queue(self, rebuild: Rebuild) -> None:
        now = self._clock.now()
        # A wait for a window is decided anew at every look: the catalog may have changed, or somebody overrode it.
        if rebuild.next_attempt_at and rebuild.next_attempt_at > now and not rebuild.waits_for_window:
            return
        image = self._catalog.get(rebuild.image)
        if image is None:
            await self._end(rebuild, State.CANCELLED, f"{rebuild.image} is no longer in the catalog")
            return
        try:
            if rebuild.is_rollback:
                await self._begin_rollback(rebuild, image)
            elif run := await self._run_of_an_earlier_attempt(rebuild, image):
                await self._record(rebuild, run)
            elif hold := await self._stopped_by(rebuild):
                await self._end(rebuild, State.SUPERSEDED, str(hold), show=(Subject.REBUILD,))
            elif in_turn := await self._order.in_turn(rebuild, image):
                rebuild = until_open(in_turn, image.windows, now)
                if rebuild.waits_for_window:
                    await self._wait_for_window(in_turn, rebuild)
                elif ready := await self._prepare(rebuild, image):
                    await self._reserve_and_queue(ready, image)
        except PeerError as error:
            await self._try_later(rebuild, error)

    async def _wait_for_window(self, rebuild: Rebuild, waiting: Rebuild) -> None:
        if waiting != rebuild:
            await self._store.save_rebuild(waiting, show=(Subject.REBUILD,))
            self._wake.cards()

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
            await self._end(rebuild, State.SUPERSEDED, reason, show=(Subject.REBUILD,))
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
            rebuild,
            id=new_id(),
            state=State.AWAITING_APPROVAL,
            cause=Cause.BASE_MOVED,
            new_digest=verdict.current_digest,
            old_digest=verdict.recorded_digest,
            found=verdict.why,
            base_seen_at=sighting.first_seen if sighting else None,
            base_before_at=sighting.other_last_seen if sighting else None,
            after=None,
            offered=False,
            news=await self._meaning.news(image, verdict.recorded_digest, verdict.current_digest),
            votes=(),
            reminded_at=None,
            override=None,
            created_at=now,
            expires_at=now + image.approval.expires,
            approved_at=None,
            queue_attempts=0,
            next_attempt_at=None,
            problem="",
            revision=1,
        )
        old = replace(rebuild.move(State.SUPERSEDED, now), ended_reason="the base moved again", successor=asked.id)
        entry = self._entry(rebuild, old, "supersede")
        await self._store.supersede(old, asked, entry, show=(Subject.REBUILD,))
        self._wake.cards()

    async def _reserve_and_queue(self, ready: Rebuild, image: PlatformImage) -> None:
        """Reserve in the store first: a crash after this line is found again by the request id."""
        if busy := await other_run(self._pipelines, ready, image):
            waiting = PeerUnavailable(
                f"run {busy.number} of this image is under way; this one starts after it", retry_after_s=30
            )
            await self._try_later(ready, waiting)
            return
        attempts = ready.queue_attempts + 1
        lease = self._clock.now() + QUEUE_LEASE
        reserved = await self._store.save_rebuild(replace(ready, queue_attempts=attempts, next_attempt_at=lease))
        try:
            run = await self._pipelines.queue(self._request(reserved, image))
        except PeerError as error:
            await self._try_later(reserved, error)
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
            await self._save(rebuild, queued, "queue", show=(Subject.REBUILD,))
        except Conflict:
            await self._drop_if_cancelled(rebuild.id, run)

    async def _drop_if_cancelled(self, rebuild_id: str, run: Run) -> None:
        """Somebody cancelled between reserving and recording: nobody follows the run, so end it."""
        present = await self._store.rebuild(rebuild_id)
        if present and present.state in ENDED:
            await self._pipelines.cancel(run.project, run.id)

    async def _try_later(self, rebuild: Rebuild, error: PeerError) -> None:
        """Keep the approval, say on the card why nothing happens yet, and try again."""
        wait = retry_delay(max(rebuild.queue_attempts, 1), getattr(error, "retry_after_s", None))
        later = replace(rebuild, problem=str(error), next_attempt_at=self._clock.now() + wait)
        if later.problem != rebuild.problem:
            logger.warning("rebuild %s cannot go on yet: %s", rebuild.id, error)
        await self._store.save_rebuild(later, show=(Subject.REBUILD,))
        self._wake.cards()

    # Following runs

    async def _follow(self, rebuilds: list[Rebuild]) -> None:
        """One list call per project for all runs, then the timeline of each that has begun."""
        hinted = self._hints.read()
        projects: dict[str, dict[int, Rebuild]] = {}
        for rebuild in rebuilds:
            if rebuild.run_id is not None:
                projects.setdefault(rebuild.run_project, {})[rebuild.run_id] = rebuild
        for project, by_run in projects.items():
            try:
                runs = {run.id: run for run in await self._pipelines.look(project, list(by_run))}
            except PeerError as error:
                logger.warning("runs of %s cannot be read: %s", project, error)
                self._hints.missed()
                continue
            for run_id, rebuild in by_run.items():
                await self._each([rebuild], partial(self._step, run=runs.get(run_id)))
        if await self._moved([rebuild for rebuild in rebuilds if not {rebuild.run_id, None} & hinted]):
            self._hints.missed()

    async def _moved(self, unannounced: list[Rebuild]) -> bool:
        """Whether a look found a change that nothing had hinted at."""
        present = await self._store.rebuilds_by_id(rebuild.id for rebuild in unannounced)
        return any(present[rebuild.id].revision != rebuild.revision for rebuild in unannounced)

    async def _step(self, rebuild: Rebuild, run: Run | None) -> None:
        if run is None:
            await self._end(rebuild, State.FAILED, f"run {rebuild.run_number} no longer exists in Azure DevOps")
            return
        stages = tuple(await self._pipelines.stages(run.project, run.id))
        rebuild = await self._note_approvals(rebuild, stages)
        if run.state is RunState.WAITING:
            return
        if run.state is not RunState.RUNNING and self._about_to_begin_again(rebuild, stages):
            return
        seen = replace(rebuild, stages=stages, retry_until=None)
        if run.state is RunState.RUNNING:
            if rebuild.state is State.QUEUED:
                await self._save(rebuild, seen.move(State.RUNNING, self._clock.now()), "start")
            elif seen != rebuild:
                await self._store.save_rebuild(seen)
                self._wake.cards()
            return
        await self._finished(replace(seen, run_finished_at=run.finished_at or self._clock.now()), run)

    async def _note_approvals(self, rebuild: Rebuild, stages: tuple[Stage, ...]) -> Rebuild:
        """Save what Azure waits for before a stage, and what was decided there."""
        approvals = await stage_approvals.look(self._pipelines, rebuild, stages)
        if approvals == rebuild.stage_approvals:
            return rebuild
        decided = stage_approvals.decisions(rebuild.stage_approvals, approvals)
        noted = replace(rebuild, stage_approvals=approvals)
        comment = "; ".join(map(stage_approvals.told, decided))
        entry = replace(self._entry(rebuild, noted, "decided in Azure"), comment=comment) if decided else None
        saved = await self._store.save_rebuild(noted, entry)
        self._wake.cards()
        return saved

    def _about_to_begin_again(self, rebuild: Rebuild, stages: tuple[Stage, ...]) -> bool:
        """Whether this is still the end of the attempt before, which somebody asked Azure to retry a moment ago."""
        if rebuild.retry_until is None or rebuild.retry_until <= self._clock.now():
            return False
        return [stage.attempt for stage in stages] == [stage.attempt for stage in rebuild.stages]

    async def _finished(self, rebuild: Rebuild, run: Run) -> None:
        if run.state is RunState.SUCCEEDED:
            verifying = rebuild.move(State.VERIFYING, self._clock.now())
            await self._save(rebuild, verifying, "finish")
        elif run.state is RunState.CANCELLED:
            await self._end(rebuild, State.CANCELLED, _why_cancelled(rebuild))
        else:
            failed = rebuild.failed_stage
            tail = await self._log_tail(run, failed)
            reason = f"stage {failed.name} failed" if failed else "the run failed"
            reason = stage_approvals.rejection(rebuild) or reason
            await self._end(replace(rebuild, log_tail=tail), State.FAILED, reason)

    async def _log_tail(self, run: Run, stage: Stage | None) -> tuple[str, ...]:
        """The end of the failed stage's log; its error lines when the log cannot be had."""
        if stage is None:
            return ()
        if stage.log_id is None:
            return stage.errors
        try:
            return tuple(await self._pipelines.log_tail(run.project, run.id, stage.log_id, LOG_LINES))
        except PeerRefused:
            return stage.errors

    # Verifying

    async def _verify(self, rebuild: Rebuild) -> None:
        """Succeeded means: ECR has the version tag, and that image is built from the approved digest."""
        if rebuild.is_rollback:
            await self._roll_back(rebuild)
            return
        image = self._catalog.get(rebuild.image)
        if image is None or rebuild.version_tag is None or rebuild.new_digest is None:
            await self._end(rebuild, State.FAILED, f"{rebuild.image} is no longer in the catalog")
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
        found = replace(rebuild, pushed_digest=published.digest, pushed_size=published.size)
        if verdict.status is Status.FRESH:
            await self._order.parent_pushed(found)
            scanned = await self._scanning.first_look(found)
            await self._end(scanned, State.SUCCEEDED, why_held_back(scanned), cards_at_end(scanned))
            await self._order.look_again(found)
        elif verdict.status is Status.STALE:
            built = Digest(verdict.recorded_digest).short if verdict.recorded_digest else "another base"
            await self._end(found, State.FAILED, f"{rebuild.version_tag} is built from {built}, not as approved")
        else:
            await self._not_verified_yet(found, verdict.reason)

    async def _not_verified_yet(self, rebuild: Rebuild, reason: str) -> None:
        finished = rebuild.run_finished_at or rebuild.created_at
        if self._clock.now() - finished >= self._verify_timeout:
            await self._end(rebuild, State.FAILED, f"the run succeeded, but {reason}")
        elif rebuild.problem != reason:
            await self._store.save_rebuild(replace(rebuild, problem=reason))
            self._wake.cards()

    # Rolling back: no run, only tags

    async def _begin_rollback(self, rebuild: Rebuild, image: PlatformImage) -> None:
        """Write down what is about to move, so that the next pass ends what this one cannot. Raises PeerError."""
        assert rebuild.target is not None
        moves = Line(image, await self._repository.tags(image)).moves(rebuild.target)
        moving = replace(rebuild.move(State.VERIFYING, self._clock.now()), moves=moves)
        await self._save(rebuild, moving, "move tags", show=(Subject.REBUILD,))

    async def _roll_back(self, rebuild: Rebuild) -> None:
        """Succeeded means: every floating tag points to the approved digest, and the image is on hold."""
        image = self._catalog.get(rebuild.image)
        if image is None:
            await self._end(rebuild, State.FAILED, f"{rebuild.image} is no longer in the catalog")
            return
        if rebuild.next_attempt_at and rebuild.next_attempt_at > self._clock.now():
            return
        try:
            line = await move_tags(self._repository, image, rebuild)
        except PeerRefused as error:
            await self._end(rebuild, State.FAILED, str(error))
        except PeerError as error:
            await self._try_later(rebuild, error)
        else:
            await self._hold_at(rebuild, line)
            await self._end(rebuild, State.SUCCEEDED, "")

    async def _hold_at(self, rebuild: Rebuild, line: Line) -> None:
        """Nothing undoes a rollback until somebody releases the image; a way back to the newest version does so."""
        present, now = await self._store.hold(rebuild.image), self._clock.now()
        entry = AuditEntry(at=now, actor=None, action="hold", image=rebuild.image, rebuild_id=rebuild.id)
        if rebuild.target == next(iter(line.versions.values())):
            if present and present.rollback:
                await self._store.lift_hold(present, replace(entry, action="release", comment=present.reason))
        elif present is None or present.rollback != rebuild.id:
            reason = f"rolled back to {rebuild.version}" + (f": {rebuild.reason}" if rebuild.reason else "")
            by = rebuild.votes[-1].person
            hold = Hold(image=rebuild.image, kind=HoldKind.HOLD, by=by, at=now, reason=reason, rollback=rebuild.id)
            await self._store.set_hold(hold, replace(entry, actor=by, comment=reason))

    # Saving

    async def _end(self, rebuild: Rebuild, state: State, reason: str, show: tuple[Subject, ...] = ALL_CARDS) -> None:
        ended = replace(rebuild.move(state, self._clock.now()), ended_reason=reason)
        await self._save(rebuild, ended, state.value, show=show)

    async def _save(self, old: Rebuild, new: Rebuild, action: str, show: tuple[Subject, ...] = ()) -> None:
        await self._store.save_rebuild(new, self._entry(old, new, action), show)
        self._wake.cards()

    def _entry(self, old: Rebuild, new: Rebuild, action: str) -> AuditEntry:
        return system_entry(old, new, action, self._clock)


async def other_run(pipelines: Pipelines, rebuild: Rebuild, image: PlatformImage) -> Run | None:
    """A run of the same image that somebody else started, queued or in progress. Raises PeerError."""
    for run in await pipelines.active(image.pipeline):
        if run.parameters.get("image") == image.name and run.parameters.get("request_id") != rebuild.id:
            return run
    return None


def _why_cancelled(rebuild: Rebuild) -> str:
    return rebuild.ended_reason or stage_approvals.rejection(rebuild) or "the run was cancelled in Azure DevOps"
