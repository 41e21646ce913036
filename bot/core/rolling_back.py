"""Asking for a rollback. It is decided about like a rebuild; the runner carries it out."""

import re
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.core.asking import AskService, Requested
from bot.core.audit import system_entry
from bot.core.checker import Checker
from bot.core.conversations import Subject
from bot.core.deciding import ATTEMPTS
from bot.core.describing import describe
from bot.core.images import PlatformImage, Version
from bot.core.people import Person
from bot.core.permissions import Permissions
from bot.core.ports import Clock, ImageRepository, Store, Wake
from bot.core.reading import ReadService
from bot.core.rebuilds import Cause, Rebuild, State, new_id
from bot.core.rollbacks import Line
from bot.errors import CommandError, Conflict, Refused

SHOWN_VERSIONS = 5
TWICE = timedelta(minutes=10)  # within it the same words are taken for the same wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asks for. An empty `version` is the one before that in use.

    `instead_of` is the version tag that was in use on the card where a button was pressed, empty when typed.
    """

    person: Person
    version: str = ""
    reason: str = ""
    instead_of: str = ""
    conversation_id: str


class RollbackService:
    """Methods raise CommandError, whose text is the answer, or PeerError when ECR cannot be asked."""

    def __init__(
        self,
        reads: ReadService,
        asks: AskService,
        permissions: Permissions,
        store: Store,
        checker: Checker,
        repository: ImageRepository,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._reads = reads
        self._asks = asks
        self._permissions = permissions
        self._store = store
        self._checker = checker
        self._repository = repository
        self._clock = clock
        self._wake = wake

    def looks_like_version(self, name: str, word: str) -> bool:
        """Whether a typed word is meant as a version or tag rather than as the first word of a reason."""
        image = self._reads.image(name)
        return word in image.floating_tags or bool(re.search(r"^v?\d+$|\d\.\d", word))

    async def rollback(self, name: str, wish: Wish) -> Requested:
        """Ask to move the floating tags to another version. An approver's wish is a vote."""
        image = self._reads.image(name)
        async with self._permissions.noting(wish.person, "rollback", name):
            line = Line(image, await self._repository.tags(image))
            asked = await self._asked(image, line, wish)
            await self._must_be_meant(asked, wish)
            return await self._ask(image, asked, wish)

    async def _ask(self, image: PlatformImage, asked: Rebuild, wish: Wish) -> Requested:
        for _ in range(ATTEMPTS):
            present = await self._store.open_rebuild(image.name)
            try:
                if present and present.is_rollback and present.target == asked.target:
                    joined = await self._asks.attach(image, present, wish.person, wish.reason, wish.conversation_id)
                    return Requested(rebuild=joined, attached=True)
                await self._open(image, asked, present, wish.person)
                return Requested(rebuild=asked, attached=False)
            except Conflict:
                continue
        raise CommandError(f"{image.name} is being changed by somebody else; try again.")

    async def _must_be_meant(self, asked: Rebuild, wish: Wish) -> None:
        """A wish that came twice must not go back two versions. Raises CommandError."""
        for newest in [] if wish.version else await self._store.history(asked.image, 1):
            done = newest.is_rollback and newest.state is State.SUCCEEDED and newest.ended_at
            if done and self._clock.now() - done < TWICE:
                again = f"rollback {asked.image} {asked.version}"
                told = f"That was done a moment ago: {describe(newest)}. To go further back, type {again}."
                raise CommandError(told, suggestion=again)

    async def _asked(self, image: PlatformImage, line: Line, wish: Wish) -> Rebuild:
        now, in_use, version = self._clock.now(), line.in_use, _version(line, wish)
        target = line.versions[version]
        asked = Rebuild(
            id=new_id(),
            image=image.name,
            state=State.AWAITING_APPROVAL,
            cause=Cause.ROLLBACK,
            base=str(self._checker.base(image)),
            reason=wish.reason,
            conversation_id=wish.conversation_id,
            requested_by=wish.person,
            created_at=now,
            expires_at=now + image.approval.expires,
            version_tag=image.version_tag(version),
            previous_tag=image.version_tag(in_use) if in_use else None,
            target=target,
            moves=line.moves(target),
        )
        return await self._permissions.with_own_vote(image, asked, wish.person)

    async def _open(self, image: PlatformImage, asked: Rebuild, present: Rebuild | None, person: Person) -> None:
        """Raises CommandError when something is open that has to end first, and Conflict."""
        entry = replace(system_entry(None, asked, "rollback", self._clock), actor=person)
        if present is None:
            await self._store.add_rebuild(asked, entry, (Subject.REBUILD,))
        else:
            await self._must_give_way(image, present, person)
            reason = f"a rollback to {asked.version} was asked for"
            moved = present.move(State.SUPERSEDED, self._clock.now())
            ended = replace(moved, ended_by=person, ended_reason=reason, successor=asked.id)
            closed = replace(system_entry(present, ended, "supersede", self._clock), actor=person)
            await self._store.supersede(ended, asked, closed, entry, show=(Subject.REBUILD,))
        self._wake.cards()
        self._wake.runs()

    async def _must_give_way(self, image: PlatformImage, present: Rebuild, person: Person) -> None:
        """A question does, and an approval that nothing was queued for, when somebody who may approve says so."""
        if present.is_rollback and present.state is State.VERIFYING:
            raise CommandError(f"Wait for it to end: {describe(present)}.")
        waiting = present.state in (State.AWAITING_APPROVAL, State.APPROVED)
        if not waiting or present.queue_attempts:
            raise CommandError(f"Cancel it first: {describe(present)}.", suggestion=f"cancel {image.name}")
        try:
            await self._permissions.must_be_approver(image, person, "rollback", present)
        except Refused:
            raise Refused(f"Only those who may approve can replace it: {describe(present)}.") from None


def _version(line: Line, wish: Wish) -> Version:
    """The version to go to. Raises CommandError when there is none, or nothing would move."""
    name, in_use = line.image.name, line.in_use
    if in_use is None:
        raise CommandError(f"No tag of {name} in ECR moves with its versions, so there is nothing to roll back.")
    if wish.instead_of and wish.instead_of != line.image.version_tag(in_use):
        raise CommandError(f"{name} is at {in_use} by now; to go back all the same, type rollback {name} VERSION.")
    version = _named(line, wish.version) if wish.version else line.previous
    if version is None:
        raise CommandError(f"ECR has no version of {name} before {in_use}.")
    if not line.moves(line.versions[version]):
        raise CommandError(f"The tags of {name} are at {version} already.")
    return version


def _named(line: Line, text: str) -> Version:
    version = Version.parse(text.removeprefix("v")) or line.image.version_of(text)
    if version in line.versions:
        assert version is not None
        return version
    newest = ", ".join(map(str, list(line.versions)[:SHOWN_VERSIONS]))
    raise CommandError(f"ECR has no version {text[:60]} of {line.image.name}. The newest are {newest}.")
