"""What is known about images and rebuilds, for people who ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.core.checker import Checker
from bot.core.checks import Verdict
from bot.core.conversations import Conversation
from bot.core.holds import Hold, HoldKind, in_force
from bot.core.images import PlatformImage
from bot.core.order import parents_first
from bot.core.ports import Clock, Members, Store, Wake
from bot.core.rebuilds import OPEN, Rebuild, State
from bot.errors import CommandError

HISTORY = 10
STATUS_LIVES = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStatus:
    """All that is known about one image. `checked_at` is None when it was never checked.

    `approvers` are those who may approve, as the end of a sentence; empty where nobody asked.
    """

    image: PlatformImage
    checked_at: datetime | None
    verdict: Verdict | None
    open: Rebuild | None
    history: tuple[Rebuild, ...]
    hold: Hold | None = None
    approvers: str = ""

    @property
    def in_use(self) -> str | None:
        """The version tag that its floating tags point to, where that is not the newest version."""
        newest, in_use = (self.verdict.version_tag, self.verdict.in_use_tag) if self.verdict else (None, None)
        for rebuild in reversed(self.history):
            later = rebuild.ended_at and self.checked_at and rebuild.ended_at >= self.checked_at
            if rebuild.state is State.SUCCEEDED and later:
                in_use = rebuild.version_tag
                newest = newest if rebuild.is_rollback else in_use
        return in_use if in_use != newest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Rebuilds, newest first. `newest` when there are no newer ones, `older` when there are older ones.

    `hold` is what stops the image now, where the page is of one.
    """

    rebuilds: tuple[Rebuild, ...]
    newest: bool
    older: bool
    hold: Hold | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    changes: int
    at: datetime
    status: ImageStatus


class ReadService:
    """Changes nothing. Methods raise CommandError, whose text is the answer."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        checker: Checker,
        members: Members,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self.catalog = catalog
        self._store = store
        self._checker = checker
        self._members = members
        self._clock = clock
        self._wake = wake
        self._statuses: dict[str, _Read] = {}

    def image(self, name: str) -> PlatformImage:
        """Raises CommandError when the catalog does not have it."""
        if name not in self.catalog:
            raise CommandError(f"{name} is not in the catalog.")
        return self.catalog[name]

    async def find(self, which: str) -> Rebuild:
        """The rebuild with this id, or the open or else newest one of the image. Raises CommandError."""
        if which not in self.catalog:
            if rebuild := await self._store.rebuild(which):
                return rebuild
            raise CommandError(f"There is no rebuild {which}.")
        if rebuild := await self._store.open_rebuild(which):
            return rebuild
        if history := await self._store.history(which, 1):
            return history[0]
        raise CommandError(f"{which} has never been rebuilt.")

    async def hold(self, name: str) -> Hold | None:
        """What stops the image now."""
        hold = await self._store.hold(name)
        return None if hold is None or hold.is_over(self._clock.now()) else hold

    async def must_not_be_on_hold(self, name: str) -> None:
        """Raises CommandError when somebody stopped the image."""
        hold = await self.hold(name)
        if hold and hold.kind is HoldKind.HOLD:
            raise CommandError(f"{name} is {hold}. Release it first.", suggestion=f"release {name}")

    async def status(self, name: str) -> ImageStatus:
        """What is known about one image; it is checked now when it never was.

        Read once a second at most, and anew after every change of ours: what another replica changed shows a second
        later.
        """
        image, now = self.image(name), self._clock.now()
        read = self._statuses.get(name)
        if read is None or read.changes != self._wake.changes or now - read.at >= STATUS_LIVES:
            read = _Read(changes=self._wake.changes, at=now, status=await self._read_status(image))
            self._statuses[name] = read
        return read.status

    async def _read_status(self, image: PlatformImage) -> ImageStatus:
        name = image.name
        latest = await self._store.latest_verdict(name)
        if latest is None:
            now = self._clock.now()
            verdicts, _ = await self._checker.check([image])
            latest = (now, verdicts[0])
        history = await self._store.history(name, 4)
        return ImageStatus(
            image=image,
            checked_at=latest[0],
            verdict=latest[1],
            open=next((rebuild for rebuild in history if rebuild.is_open), None),
            history=tuple(rebuild for rebuild in history if not rebuild.is_open)[:3],
            hold=await self.hold(name),
            approvers=await self._members.who(image.approval),
        )

    async def overview(self) -> list[ImageStatus]:
        """All images in the order of the catalog, as last checked."""
        latest = await self._store.latest_verdicts()
        open_ = {rebuild.image: rebuild for rebuild in await self._store.rebuilds(states=OPEN)}
        holds = in_force(await self._store.holds(), self._clock.now())
        return [
            ImageStatus(
                image=image,
                checked_at=latest[image.name][0] if image.name in latest else None,
                verdict=latest[image.name][1] if image.name in latest else None,
                open=open_.get(image.name),
                history=(),
                hold=holds.get(image.name),
            )
            for image in self.catalog.values()
        ]

    async def pending(self) -> list[Rebuild]:
        """What waits for an approval, oldest first: ours, or one that Azure asks for."""
        found = await self._store.rebuilds(states={State.AWAITING_APPROVAL, State.QUEUED, State.RUNNING})
        return [each for each in found if each.state is State.AWAITING_APPROVAL or each.waiting_approval]

    async def waiting(self, *, check: str | None, after: str | None, told: Conversation) -> list[Rebuild]:
        """What waits for an approval, parents before children: of one check, of one parent's rebuild, or all of it.

        Of a check, by its id as a button has it, only what its card shows in the conversation that is `told`.
        """
        if after is not None:
            found = await self._store.following(after)
        elif check is not None:
            found = await self._of_check(int(check), told) if check.isdecimal() and len(check) < 10 else []
        else:
            found = await self.pending()
        by_image = {rebuild.image: rebuild for rebuild in found if rebuild.state is State.AWAITING_APPROVAL}
        return [by_image[name] for name in parents_first(by_image, self.catalog)]

    async def _of_check(self, check_id: int, told: Conversation) -> list[Rebuild]:
        check = await self._store.check(check_id)
        if check is None:
            return []
        shown = told.images_of(check)
        needy = [verdict for verdict in check.verdicts if not shown or verdict.name in shown]
        ids = [verdict.rebuild_id for verdict in needy if verdict.rebuild_id]
        found = await self._store.rebuilds_by_id(ids)
        return [found[id_] for id_ in ids if id_ in found]

    async def history(self, name: str | None, *, before: str = "", page: int = 1) -> HistoryPage:
        """Ten rebuilds, newest first, of one image or of all: those older than one, or a page counted from 1."""
        image = self.image(name).name if name else None
        last = await self.find(before) if before else None
        found = await self._store.history(image, HISTORY + 1, before=last, skip=(page - 1) * HISTORY)
        return HistoryPage(
            rebuilds=tuple(found[:HISTORY]),
            newest=last is None and page == 1,
            older=len(found) > HISTORY,
            hold=await self.hold(image) if image else None,
        )
