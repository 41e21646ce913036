"""Checks: when one is due, what it leads to, and who is told."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bot.core.audit import system_entry
from bot.core.checker import Checker
from bot.core.checks import Check, Status, Verdict
from bot.core.conversations import Subject
from bot.core.holds import Hold, HoldKind
from bot.core.images import Digest, Mode, PlatformImage
from bot.core.meaning import Meaning
from bot.core.order import parents_first
from bot.core.people import Person
from bot.core.ports import Clock, Store, Wake
from bot.core.rebuilds import AuditEntry, Cause, Rebuild, State, braked, new_id, until_open
from bot.core.timetable import Timetable
from bot.errors import Conflict, PeerError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # how often a change is decided anew when somebody else was faster
HISTORY = 10  # rebuilds that are looked at for failures in a row
TOLD_AT_LEAST = timedelta(hours=20)  # a daily check that starts a little early is still daily


class CheckService:
    """Runs checks and opens, replaces or closes the requests that follow from them."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        timetable: Timetable,
        store: Store,
        checker: Checker,
        meaning: Meaning,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._catalog = catalog
        self._timetable = timetable
        self._store = store
        self._checker = checker
        self._meaning = meaning
        self._clock = clock
        self._wake = wake

    async def check_slot(self, slot: datetime) -> Check | None:
        """The scheduled check: once per slot, whoever calls and however often; None when it is done.

        It is of all images, or of those that had a slot of their own since the one before.
        """
        if not await self._store.claim_slot(slot, self._clock.now()):
            return None
        try:
            names = self._timetable.due(await self._store.last_slot(slot), slot)
            images = [image for image in self._catalog.values() if names is None or image.name in names]
            return await self._check(images, slot=slot, partial=names is not None)
        except asyncio.CancelledError:
            await self._store.release_slot(slot)  # the next start checks at once
            raise
        except Exception:
            await self._store.release_slot(slot)
            await self._tell_failure()
            raise

    async def _tell_failure(self) -> None:
        """Say once that the check itself does not work; what is wrong with one image is that image's unknown."""
        told = await self._store.last_told()
        if told is None or not told.problem:
            problem = "the check could not be finished; the log says why, and it is tried again"
            await self._store.add_check(Check(checked_at=self._clock.now(), problem=problem), everywhere=True)
            self._wake.cards()

    async def check(self, names: Collection[str], person: Person, conversation_id: str) -> Check:
        """A check that a person asked for: of the named images of the catalog, or of all.

        Its card goes to the conversation, and to everybody subscribed when the check has something new to ask.
        """
        images = [self._catalog[name] for name in names] or self._catalog.values()
        asked = " ".join(names) or "all images"
        await self._store.audit(AuditEntry(at=self._clock.now(), actor=person, action="check", comment=asked))
        return await self._check(images, conversation_id=conversation_id)

    async def end_holds(self) -> None:
        """Check the images whose hold is over, so that people are asked when they expect it, and forget the hold."""
        now = self._clock.now()
        for hold in (await self._store.holds()).values():
            if hold.is_over(now):
                if hold.image in self._catalog:
                    await self._check([self._catalog[hold.image]])
                await self._store.lift_hold(hold, _over(hold, now, "its time is over"))

    async def look(self, names: Collection[str], tell: Collection[str] = ()) -> Check:
        """A check that something else led to: its card goes to everybody subscribed when it has something to ask.

        So it does when there is nothing to ask but one of the images to `tell` about is in it.
        """
        return await self._check([self._catalog[name] for name in names], tell=tell)

    async def _check(
        self,
        images: Iterable[PlatformImage],
        *,
        slot: datetime | None = None,
        partial: bool = False,
        tell: Collection[str] = (),
        conversation_id: str | None = None,
    ) -> Check:
        now = self._clock.now()
        order = parents_first([image.name for image in images], self._catalog)
        verdicts, requests = await self._checker.check(self._catalog[name] for name in order)
        verdicts = await self._meaning.explain(await self._date(verdicts, now))
        asked: list[str] = []
        verdicts = [await self._act(verdict, asked) for verdict in verdicts]
        told = await self._store.last_told()
        check = Check(
            checked_at=now,
            slot=slot,
            partial=partial,
            verdicts=tuple(verdicts),
            requests=requests,
            conversation_id=conversation_id,
            failed_since=told.checked_at if slot and told and told.problem else None,
        )
        about = {verdict.name for verdict in verdicts if verdict.rebuild_id in asked or (slot and verdict.is_news)}
        everywhere = bool(slot) and _is_time(told, check)
        check = await self._store.add_check(check, everywhere=everywhere, about=about.union(tell))
        logger.info("checked %d images, %d new requests", len(verdicts), len(asked))
        self._wake.cards()
        self._wake.runs()
        return check

    async def _date(self, verdicts: list[Verdict], now: datetime) -> list[Verdict]:
        """The verdicts with when their bases moved, and since when they could not be checked."""
        digests = {verdict.base: verdict.current_digest for verdict in verdicts if verdict.current_digest}
        sightings = await self._store.seen(digests, now)
        before = await self._store.latest_verdicts()
        known = {name: verdict for name, (_, verdict) in before.items()}
        verdicts = [verdict.after(known.get(verdict.name), now) for verdict in verdicts]
        return [
            replace(verdict, first_seen=sighting.first_seen, moved_after=sighting.other_last_seen)
            if verdict.current_digest and (sighting := sightings.get(verdict.base))
            else verdict
            for verdict in verdicts
        ]

    async def _act(self, verdict: Verdict, asked: list[str]) -> Verdict:
        """Open, replace or close the image's request, and tie the verdict to its rebuild."""
        for _ in range(ATTEMPTS):
            try:
                rebuild = await self._request_for(verdict, asked)
                return replace(verdict, rebuild_id=rebuild.id) if rebuild else verdict
            except Conflict:
                continue  # a person or another replica was faster: look again
        raise Conflict(f"{verdict.name} is being changed by somebody else all the time")

    async def _request_for(self, verdict: Verdict, asked: list[str]) -> Rebuild | None:
        image, present = self._catalog[verdict.name], await self._present(verdict.name)
        if verdict.status is Status.UNKNOWN or (present and not _replaceable(present)):
            return present
        if verdict.status is Status.FRESH:
            if present and present.cause not in (Cause.REQUESTED, Cause.ROLLBACK):
                await self._close(present, f"{verdict.version_tag} is built from the current base")
            return None
        if await self._stopped(verdict):
            return present
        if present and await self._is_for(present, verdict):
            return present
        if image.mode is Mode.NOTIFY or await self._rejected(verdict):
            if present:
                await self._close(present, "the base moved again, to one that is not asked for")
            return None
        if present is None and (tried := await self._just_tried(verdict)):
            return tried
        new = await self._new_request(image, verdict)
        if present:
            await self._replace(present, new)
        else:
            show = (Subject.REBUILD,) if new.state is State.APPROVED else ()
            await self._store.add_rebuild(new, system_entry(None, new, "ask", self._clock), show)
        asked.append(new.id)
        return new

    async def _present(self, name: str) -> Rebuild | None:
        """The image's open rebuild. A request that is overdue has ended, also when nobody has swept it yet."""
        present = await self._store.open_rebuild(name)
        if present is None or not present.is_overdue(self._clock.now()):
            return present
        expired = present.move(State.EXPIRED, self._clock.now())
        entry = system_entry(present, expired, "expire", self._clock)
        await self._store.save_rebuild(expired, entry, (Subject.NOTICE,))
        return None

    async def _is_for(self, rebuild: Rebuild, verdict: Verdict) -> bool:
        """Whether a rebuild is for the base as it is now."""
        return await self._is_still(rebuild.new_digest, verdict)

    async def _is_still(self, digest: Digest | None, verdict: Verdict) -> bool:
        """Whether the base is still the same for the image's platforms; also when that cannot be read."""
        if digest is None or verdict.current_digest is None:
            return True
        try:
            return await self._checker.same_for(self._catalog[verdict.name], digest, verdict.current_digest)
        except PeerError:
            return True

    async def _stopped(self, verdict: Verdict) -> bool:
        """Whether somebody holds the image, or put off the question about the base as it is now."""
        hold, now = await self._store.hold(verdict.name), self._clock.now()
        if hold is None or hold.is_over(now):
            return False
        if hold.kind is HoldKind.HOLD or await self._is_still(hold.digest, verdict):
            return True
        await self._store.lift_hold(hold, _over(hold, now, "the base moved again"))
        return False

    async def _rejected(self, verdict: Verdict) -> bool:
        rejected = await self._store.rejected(verdict.name)
        return verdict.current_digest in rejected or (bool(rejected) and await self._is_still(rejected[0], verdict))

    async def _just_tried(self, verdict: Verdict) -> Rebuild | None:
        """The rebuild of this base that failed or was cancelled a short while ago: its card has the Retry."""
        for newest in await self._store.history(verdict.name, 1):
            vain = newest.state in (State.FAILED, State.CANCELLED) and not newest.is_rollback and newest.ended_at
            skipped = newest.after is not None and newest.new_digest is None
            if (
                vain
                and not skipped
                and self._clock.now() - vain < TOLD_AT_LEAST
                and await self._is_for(newest, verdict)
            ):
                return newest
        return None

    async def _close(self, present: Rebuild, reason: str) -> None:
        closed = replace(present.move(State.SUPERSEDED, self._clock.now()), ended_reason=reason)
        await self._store.save_rebuild(closed, system_entry(present, closed, "supersede", self._clock))

    async def _replace(self, present: Rebuild, new: Rebuild) -> None:
        closed = replace(
            present.move(State.SUPERSEDED, self._clock.now()),
            ended_reason="the base moved again",
            successor=new.id,
        )
        entries = (
            system_entry(present, closed, "supersede", self._clock),
            system_entry(None, new, "ask", self._clock),
        )
        await self._store.supersede(closed, new, *entries)

    async def _new_request(self, image: PlatformImage, verdict: Verdict) -> Rebuild:
        now = self._clock.now()
        stopped = image.mode is Mode.AUTO and braked(await self._store.history(image.name, HISTORY))
        automatic = image.mode is Mode.AUTO and not stopped
        request = Rebuild(
            id=new_id(),
            image=image.name,
            state=State.APPROVED if automatic else State.AWAITING_APPROVAL,
            cause=Cause.FIRST_BUILD if verdict.status is Status.UNBUILT else Cause.BASE_MOVED,
            base=verdict.base,
            old_digest=verdict.recorded_digest,
            new_digest=verdict.current_digest,
            news=verdict.news,
            support=verdict.support,
            reason="three runs in a row failed, so this one is not queued by itself" if stopped else "",
            found=verdict.why,
            base_seen_at=verdict.first_seen if verdict.status is Status.STALE else None,
            base_before_at=verdict.moved_after if verdict.status is Status.STALE else None,
            created_at=now,
            approved_at=now if automatic else None,
            expires_at=None if automatic else now + image.approval.expires,
        )
        return until_open(request, image.windows, now) if automatic else request


def _replaceable(present: Rebuild) -> bool:
    """Whether a question may take its place: it is one itself, or an approval that waits for its window.

    Not as long as its base has yet to be pushed.
    """
    if present.waits_for:
        return False
    return present.state is State.AWAITING_APPROVAL or (present.waits_for_window and bool(present.votes))


def _over(hold: Hold, now: datetime, why: str) -> AuditEntry:
    action = f"end {hold.kind}"
    return AuditEntry(at=now, actor=None, action=action, image=hold.image, old_state=hold.kind, comment=why)


def _is_time(told: Check | None, check: Check) -> bool:
    """Silence means a problem, so a check of all images is told to all at least daily; any other only if it has news.

    After a check that failed it always is: that one may have opened requests and not shown them.
    """
    if told and told.problem:
        return True
    if check.partial:
        return False
    return told is None or told.partial or check.checked_at - told.checked_at >= TOLD_AT_LEAST
