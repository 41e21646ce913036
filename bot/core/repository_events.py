"""What image repositories tell about themselves: hints of where to look. The truth is read from the repository."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot.core.checking import CheckService
from bot.core.conversations import Announcement
from bot.core.hints import REMEMBERED, Outcome
from bot.core.images import Digest, PlatformImage
from bot.core.ports import Clock, ImageRepository, Store, Wake
from bot.core.rebuilds import WITH_RUN
from bot.core.scanning import Scanning

HISTORY = 10  # rebuilds of an image among which the one with a scanned digest is looked for


class EventKind(StrEnum):
    """What happened to an image in a repository."""

    PUSHED = "pushed"
    DELETED = "deleted"
    SCANNED = "scanned"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryEvent:
    """Something that happened in a repository, as somebody says. `id` is the same when it is told again."""

    id: str
    kind: EventKind
    registry_id: str
    region: str
    repository: str
    digest: str
    tags: tuple[str, ...]


class RepositoryEvents:
    """Takes events; they may be lost, late, doubled or wrong."""

    def __init__(
        self,
        catalog: Mapping[str, PlatformImage],
        store: Store,
        repository: ImageRepository,
        checks: CheckService,
        scanning: Scanning,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._repository = repository
        self._checks = checks
        self._scanning = scanning
        self._clock = clock
        self._wake = wake

    async def take(self, event: RepositoryEvent) -> Outcome:
        """Do what an event asks for. Raises PeerError when the repository cannot be asked: take it again later."""
        place = (event.registry_id, event.region, event.repository)
        images = [i for i in self._catalog.values() if (i.registry_id, i.region, i.repository) == place]
        if event.kind is EventKind.DELETED:
            outcomes = [await self._deleted(event, image, tag) for image in images for tag in event.tags]
            return next((outcome for outcome in outcomes if outcome is not Outcome.IGNORED), Outcome.IGNORED)
        names = {image.name for image in images}
        waited_for = self._pushed if event.kind is EventKind.PUSHED else self._scanned
        if not names or not await waited_for(event, names):
            return Outcome.IGNORED
        if not await self._store.first_delivery(_key(event), self._clock.now(), remembered=REMEMBERED):
            return Outcome.REPEATED
        if event.kind is EventKind.SCANNED:
            self._scanning.look_now()
        self._wake.runs()
        return Outcome.TAKEN

    async def _pushed(self, event: RepositoryEvent, names: set[str]) -> bool:
        """Whether a rebuild waits for this version."""
        under_way = await self._store.rebuilds(states=WITH_RUN)
        return any(rebuild.image in names and rebuild.version_tag in event.tags for rebuild in under_way)

    async def _scanned(self, event: RepositoryEvent, names: set[str]) -> bool:
        """Whether a rebuild pushed or replaced what was scanned."""
        for name in names:
            for rebuild in await self._store.history(name, HISTORY):
                if event.digest in (rebuild.pushed_digest, rebuild.previous_digest):
                    return True
        return False

    async def _deleted(self, event: RepositoryEvent, image: PlatformImage, tag: str) -> Outcome:
        """Warn about a tag that people build on, once, and see what the image is now."""
        if tag not in (image.tag, *image.extra_tags) and image.version_of(tag) is None:
            return Outcome.IGNORED
        meaning = _missed(image, tag, await self._repository.tags(image))
        if not meaning:
            return Outcome.IGNORED
        text = f"The tag {tag} of {image.name} was deleted from ECR. {meaning}"
        told = Announcement(at=self._clock.now(), text=text, image=image.name)
        first = await self._store.announce(told, once=f"{_key(event)} {image.name}")
        self._wake.cards()
        await self._checks.look([image.name])
        return Outcome.TAKEN if first else Outcome.REPEATED


def _missed(image: PlatformImage, tag: str, tags: Mapping[str, Digest]) -> str:
    """What it means that a tag is gone; empty when it is there after all, or nobody relies on it."""
    if tag in tags:
        return ""
    deleted = image.version_of(tag)
    if deleted is None:
        return f"Whoever pulls {image.repository}:{tag} gets nothing until it is pushed again; a rebuild does that."
    left = max((version for other in tags if (version := image.version_of(other))), default=None)
    if left is None:
        return "No version of the image is left."
    return f"It was the newest version; now that is {image.version_tag(left)}." if left < deleted else ""


def _key(event: RepositoryEvent) -> str:
    return f"ecr {event.id}"
