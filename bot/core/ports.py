"""What the rules need from the outside, in our words. The classes behind these are named in `bot/app.py` alone."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Protocol

from bot.core.base_news import Release
from bot.core.checks import Check, Sighting, Verdict
from bot.core.conversations import Announcement, Conversation, DueCard, Subject
from bot.core.findings import Scan
from bot.core.holds import Hold
from bot.core.images import (
    ApprovalRules,
    Digest,
    ImageConfig,
    ImageReference,
    Manifest,
    PipelineReference,
    PlatformImage,
    PublishedImage,
)
from bot.core.pages import Page
from bot.core.people import Person
from bot.core.rebuilds import AuditEntry, Rebuild, State
from bot.core.runs import Run, RunRequest, Stage, StageApproval


class Clock(Protocol):
    """The time, passed in so that tests can own it."""

    def now(self) -> datetime:
        """The present moment in UTC."""


class Contents(Protocol):
    """Documents of one repository, read by digest. They never change, so they are cached for ever."""

    async def manifest(self, digest: Digest) -> Manifest:
        """An index or image manifest. Raises NotFound, PeerRefused, PeerUnavailable."""

    async def config(self, digest: Digest) -> ImageConfig:
        """The configuration blob of an image. Raises like `manifest`."""


class Registry(Protocol):
    """A registry that speaks the OCI distribution API, such as MCR."""

    requests: int  # HTTP requests sent so far

    async def current(self, reference: ImageReference) -> Digest:
        """What a tag points to now. Raises NotFound, PeerRefused, PeerUnavailable."""

    async def end_of_life(self, reference: ImageReference, digest: Digest) -> date | None:
        """The last day of support, as an image's publisher notes it at the registry; None when nothing is noted.

        Raises PeerRefused, PeerUnavailable.
        """

    def contents(self, reference: ImageReference) -> Contents:
        """The documents of the reference's repository."""


class Releases(Protocol):
    """What Microsoft publishes about the releases of .NET. Never raises: what cannot be had is not known."""

    async def notes(self, channel: str) -> Sequence[Release] | None:
        """All releases of a version such as `8.0`; None when they are not known."""

    async def ends(self) -> Mapping[str, date]:
        """The last day of support for each version of which it is known."""


class ImageRepository(Protocol):
    """Where platform images are pushed: AWS ECR."""

    requests: int  # API calls sent so far

    async def newest(self, image: PlatformImage) -> PublishedImage | None:
        """The highest version of the image's line; None when the repository is missing or has no version of it."""

    async def find(self, image: PlatformImage, tag: str) -> PublishedImage | None:
        """One version tag of the image's line, None when it is not there."""

    async def tags(self, image: PlatformImage) -> Mapping[str, Digest]:
        """What every tag of the image's repository points to; empty when the repository is missing."""

    async def move_tag(self, image: PlatformImage, tag: str, digest: Digest) -> None:
        """Let a tag point to an image that the repository has; done as well when it does already.

        Raises PeerRefused where tags are immutable, and NotFound when the repository does not have the digest.
        """

    async def scan(self, image: PlatformImage, digest: Digest, since: datetime) -> Scan:
        """What a scan finds in one image of the repository. One is begun where there is none, or none after `since`.

        Raises NotFound, PeerRefused, PeerUnavailable.
        """

    def contents(self, image: PlatformImage) -> Contents:
        """The documents of the image's repository."""


class Pipelines(Protocol):
    """Azure Pipelines. Every method raises NotFound, PeerRefused or PeerUnavailable."""

    async def queue(self, request: RunRequest) -> Run:
        """Queue a run. Never repeated inside; after PeerUnavailable the run may exist all the same: ask `find`."""

    async def find(self, pipeline: PipelineReference, request_id: str) -> Run | None:
        """The run that carries the request id, among the newest of its pipeline."""

    async def active(self, pipeline: PipelineReference) -> list[Run]:
        """Runs of the pipeline that are queued or in progress."""

    async def look(self, project: str, run_ids: Sequence[int]) -> list[Run]:
        """The named runs, in one call. A run that was deleted is missing from the answer."""

    async def stages(self, project: str, run_id: int) -> list[Stage]:
        """The stages of a run in order; empty before it started."""

    async def log_tail(self, project: str, run_id: int, log_id: int, lines: int) -> list[str]:
        """The last lines of a log, cleaned of time stamps, escape codes and secrets."""

    async def approvals(self, project: str, approval_ids: Sequence[str]) -> list[StageApproval]:
        """How approvals stand that stages of runs ask for; one that does not exist is missing from the answer."""

    async def answer_approval(self, project: str, approval_id: str, *, approve: bool, comment: str) -> StageApproval:
        """Approve or reject as the bot's own identity, which Azure may refuse. Returns how it stands then."""

    async def cancel(self, project: str, run_id: int) -> None:
        """Ask Azure to cancel the run; it ends some time later."""

    async def retry_stage(self, project: str, run_id: int, ref_name: str) -> None:
        """Ask Azure to run what failed of a stage again, and the stages after it; the run begins some time later."""


class Store(Protocol):
    """Durable state of checks and rebuilds. Each method is one transaction.

    `show` names the cards that are wanted from now on, in every conversation that is subscribed to the image
    and in the one where the rebuild was asked for. Wanting a card twice is wanting it once.
    """

    async def add_rebuild(self, rebuild: Rebuild, audit: AuditEntry, show: Collection[Subject] = ()) -> None:
        """Raises Conflict when the image has an open rebuild already."""

    async def save_rebuild(
        self, rebuild: Rebuild, audit: AuditEntry | None = None, show: Collection[Subject] = ()
    ) -> Rebuild:
        """Write the row if nobody changed it since it was read, and return it with its new revision.

        Raises Conflict otherwise.
        """

    async def supersede(self, old: Rebuild, new: Rebuild, *audit: AuditEntry, show: Collection[Subject] = ()) -> None:
        """Save `old`, which has ended, and add `new`, for which `show` counts. Raises Conflict."""

    async def rebuild(self, rebuild_id: str) -> Rebuild | None: ...

    async def rebuilds_by_id(self, ids: Iterable[str]) -> dict[str, Rebuild]: ...

    async def following(self, rebuild_id: str) -> list[Rebuild]:
        """The rebuilds of child images that wait, or waited, for this one; oldest first."""

    async def show(self, rebuild: Rebuild, conversation_id: str) -> None:
        """Want the card of a rebuild in one more conversation."""

    async def open_rebuild(self, image: str) -> Rebuild | None: ...

    async def rebuilds(self, *, states: Collection[State]) -> list[Rebuild]:
        """All rebuilds in one of the states, oldest first."""

    async def history(
        self, image: str | None, limit: int, *, before: Rebuild | None = None, skip: int = 0
    ) -> list[Rebuild]:
        """The newest rebuilds, newest first; of one image or of all.

        Only those that are older than `before`, and without the first `skip`.
        """

    async def succeeded(self, since: datetime) -> list[Rebuild]:
        """The rebuilds that ended in ECR since then, in no order; also some earlier ones."""

    async def rejected(self, image: str) -> list[Digest]:
        """The digests of its base that people rejected for this image, the latest decision first."""

    async def hold(self, image: str) -> Hold | None:
        """What stops the image, also when its time is over and nobody has noticed yet."""

    async def holds(self) -> dict[str, Hold]:
        """All holds, by image."""

    async def set_hold(self, hold: Hold, audit: AuditEntry) -> None:
        """Add or replace the image's hold; the cards of the newest checks follow."""

    async def lift_hold(self, hold: Hold, audit: AuditEntry) -> bool:
        """End exactly this hold. False when it was replaced or is gone."""

    async def audit(self, entry: AuditEntry) -> None: ...

    async def announce(self, announcement: Announcement, *, once: str = "") -> bool:
        """Want a message in all subscribed conversations, or in those that are told about its image.

        Not again for a delivery whose id, of at most 256 characters, is in `once`. Whether it is wanted now.
        """

    async def reach(self) -> tuple[int, int]:
        """How many subscribed conversations can be reached, and how many are gone."""

    async def first_delivery(self, delivery_id: str, now: datetime, *, remembered: timedelta) -> bool:
        """Whether a delivery with this id, of at most 256 characters, comes for the first time.

        Those that are older than `remembered` are forgotten.
        """

    async def claim_slot(self, slot: datetime, now: datetime) -> bool:
        """Whether the scheduled slot is ours to run: nobody has finished it, and no other replica is at it.

        The first slot a new database sees is before its time and counts as finished.
        """

    async def last_slot(self, before: datetime) -> datetime | None:
        """The newest finished slot before a moment; what was due since is to do."""

    async def release_slot(self, slot: datetime) -> None:
        """Give a claimed slot back unfinished, so that the next look runs it."""

    async def add_check(self, check: Check, *, everywhere: bool, about: Collection[str] = ()) -> Check:
        """Write a check, which finishes its slot, and return it with its id.

        Its card is wanted where it was asked for, and in all subscribed conversations when `everywhere`, else in those
        that are told about one of the images `about` which there is something to say.
        """

    async def check(self, check_id: int) -> Check | None: ...

    async def latest_check(self) -> Check | None: ...

    async def last_told(self) -> Check | None:
        """The newest check whose card all subscribed conversations got."""

    async def latest_verdict(self, image: str) -> tuple[datetime, Verdict] | None:
        """When the image was last checked, and what was found."""

    async def latest_verdicts(self) -> dict[str, tuple[datetime, Verdict]]:
        """For each image that was ever checked, when that was last and what was found."""

    async def seen(self, digests: Mapping[str, Digest], now: datetime) -> dict[str, Sighting]:
        """Remember which digest each base has now, and say what is known about the move to it."""


class CardStore(Protocol):
    """Which conversations there are, and which cards each of them has."""

    async def conversation(self, conversation_id: str) -> Conversation | None: ...

    async def change_conversation(
        self, conversation_id: str, change: Callable[[Conversation | None], Conversation]
    ) -> Conversation:
        """Add a conversation (`change` gets None) or replace it, in one step with reading it; one that was gone is
        back.
        """

    async def team(self, team_id: str) -> list[Conversation]:
        """The known channels of a team."""

    async def mark_gone(self, conversation_id: str, now: datetime, announcement: Announcement | None = None) -> bool:
        """Post nothing more to a conversation until it says something again, and tell the others.

        False when that was known already; then nobody is told.
        """

    async def announcement(self, announcement_id: int) -> Announcement | None: ...

    async def reach(self) -> tuple[int, int]:
        """How many subscribed conversations can be reached, and how many are gone."""

    async def due_cards(self, now: datetime) -> list[DueCard]:
        """Cards that are wanted and not delivered in their present revision, oldest first; not those on a pause."""

    async def next_card_at(self) -> datetime | None:
        """When the first card on a pause may be tried again; None when none is."""

    async def card_of(self, rebuild_id: str, conversation_id: str) -> str | None:
        """The activity id of the card that shows a rebuild in a conversation; None when there is none.

        That is its own, else the newest of a check or parent that asks for it.
        """

    async def claim_card(self, card: DueCard, now: datetime, until: datetime) -> bool:
        """Whether the card is ours to deliver: no other replica has it until then."""

    async def card_delivered(self, card: DueCard, activity_id: str, fingerprint: str) -> None: ...

    async def card_failed(self, card: DueCard, next_attempt_at: datetime, *, lost: bool = False) -> None:
        """Try again later; `lost` when the posted activity is no longer there, so that a new one is posted."""

    async def check(self, check_id: int) -> Check | None: ...

    async def rebuild(self, rebuild_id: str) -> Rebuild | None: ...

    async def rebuilds_by_id(self, ids: Iterable[str]) -> dict[str, Rebuild]: ...

    async def following(self, rebuild_id: str) -> list[Rebuild]: ...

    async def succeeded(self, since: datetime) -> list[Rebuild]: ...

    async def holds(self) -> dict[str, Hold]: ...


class Members(Protocol):
    """Who is in which conversation, as Teams says at this moment."""

    async def in_channel(self, channel_id: str, person: Person) -> bool:
        """Whether the person is a member of the team that owns the channel. Raises PeerError when nobody can tell."""

    async def who(self, rules: ApprovalRules) -> str:
        """Who may approve, as the end of a sentence: by name where a name is known."""


class Wake(Protocol):
    """Tells the loops that something changed. A lost call costs time only: both also look by themselves."""

    changes: int  # grows with every call

    def cards(self) -> None:
        """Cards may be out of date."""

    def runs(self) -> None:
        """A rebuild may be able to go on."""


class DocumentCache(Protocol):
    """Documents by digest. What a digest names never changes, so nothing in here ever grows old."""

    async def get(self, digest: Digest) -> bytes | None:
        """The document, None when it is not remembered."""

    async def put(self, digest: Digest, content: bytes) -> None:
        """Remember a document whose bytes were verified."""


class PageCache(Protocol):
    """Pages of the web as they were when last fetched."""

    async def page(self, url: str) -> Page | None:
        """The page, None when it was never kept."""

    async def keep_page(self, page: Page) -> None: ...
