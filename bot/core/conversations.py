"""Where people are told: conversations, their subscriptions, and which card each has."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from bot.core.checks import Check
from bot.core.rebuilds import Rebuild, State


class ConversationKind(StrEnum):
    """Teams' own words. https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/conversation-basics"""

    PERSONAL = "personal"
    GROUP = "groupChat"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation the bot may post to. `id` is without `;messageid=`: a channel, not one of its threads.

    `images` are the images it is told about; empty means all of them but those `excluded`, also the ones that join the
    catalog later. An image that left the catalog stays in either. `decided` is whether somebody said so, in words.
    `team_id` is of the team that owns a channel.
    """

    id: str
    service_url: str
    kind: ConversationKind
    tenant_id: str = ""
    name: str = ""
    bot_id: str = ""
    team_id: str = ""
    subscribed: bool = False
    images: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    failures_only: bool = False
    decided: bool = False

    def subscribe(self, names: Iterable[str], *, failures_only: bool) -> "Conversation":
        """Told about all images, or with names about these as well.

        From all images a name narrows to that one, unless it was excluded: then it no longer is.
        """
        named = tuple(names)
        told = replace(self, subscribed=True, images=(), excluded=(), failures_only=failures_only, decided=True)
        if not named:
            return told
        if not self.subscribed:
            return replace(told, images=_once(named))
        if set(named) & set(self.excluded):
            return replace(told, excluded=_without(self.excluded, named))
        return replace(told, images=_once((*self.images, *named)))

    def unsubscribe(self, names: Iterable[str]) -> "Conversation":
        """Told about nothing, or with names about the others it was told about.

        Cards that it has go on showing the images it was told about before.
        """
        named = tuple(names)
        left = _without(self.images, named)
        told = replace(self, decided=True)
        if not self.subscribed or not named or (self.images and not left):
            return replace(told, subscribed=False)
        if left:
            return replace(told, images=left)
        return replace(told, excluded=_once((*self.excluded, *named)))

    def install(self) -> "Conversation":
        """Told about all images where the bot was added, unless somebody decided otherwise; no personal chat is."""
        if self.decided or self.kind is ConversationKind.PERSONAL:
            return self
        return replace(self, subscribed=True)

    @property
    def about(self) -> str:
        """What it is told about, as the end of a sentence."""
        if not self.subscribed:
            return "nothing"
        exceptions = f" except {', '.join(self.excluded)}" if self.excluded else ""
        images = ", ".join(self.images) or f"all images{exceptions}"
        return f"failures of {images}" if self.failures_only else images

    def wants(self, image: str) -> bool:
        """Whether it is told about an image."""
        return self.subscribed and self._covers(image)

    def _covers(self, image: str) -> bool:
        return image in self.images if self.images else image not in self.excluded

    def wants_rebuild(self, rebuild: Rebuild) -> bool:
        """Whether it is told about a rebuild as it is now."""
        in_trouble = rebuild.state is State.FAILED or bool(rebuild.held_back)
        return self.wants(rebuild.image) and (in_trouble or not self.failures_only)

    def images_of(self, check: Check) -> list[str]:
        """The images that a check's card shows here; empty is all of them, as where the check was asked for."""
        if check.conversation_id == self.id:
            return []
        return [verdict.name for verdict in check.verdicts if self._covers(verdict.name)]

    def wants_check(self, check: Check, images: Collection[str]) -> bool:
        """Whether it is told about a check that has something to say about these images.

        With failures only that is a check that failed, the first one after it, and what could not be checked.
        """
        if check.problem:
            return self.subscribed
        wanted = [verdict for verdict in check.verdicts if self.wants(verdict.name)]
        concerned = any(verdict.name in images for verdict in wanted)
        trouble = check.failed_since or any(verdict.unknown_since for verdict in wanted)
        return concerned and (not self.failures_only or bool(trouble))


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _without(names: Iterable[str], others: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


class Subject(StrEnum):
    """What a card is about. A notice is a reply that rings, with mentions, when a rebuild ended.

    A reminder is such a reply about a question that nobody answers.
    A rebuild that is retried may end again, so a notice is of one attempt: see `notice_id`. An announcement is a plain
    message that is about no check and no rebuild.
    """

    CHECK = "check"
    REBUILD = "rebuild"
    NOTICE = "notice"
    REMINDER = "reminder"
    ANNOUNCEMENT = "announcement"


ALL_CARDS = (Subject.REBUILD, Subject.NOTICE)
"""What tells that a rebuild ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Something that people have to know, told once in plain text.

    With an `image` it goes to those who are told about that image, else to everybody who is subscribed.
    """

    id: int = 0
    at: datetime
    text: str
    image: str = ""


def notice_id(rebuild_id: str, attempt: int) -> str:
    """The subject's id of the notice about the end of an attempt."""
    return rebuild_id if attempt == 1 else f"{rebuild_id}.{attempt}"


def noticed(subject_id: str) -> tuple[str, int]:
    """Which rebuild a notice is about, and the end of which attempt."""
    rebuild_id, _, attempt = subject_id.partition(".")
    return rebuild_id, int(attempt or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCard:
    """A card that a conversation does not have yet, or has in an older revision.

    `revision` is the subject's now; `activity_id` is None until the card was posted for the first time.
    `fingerprint` is of what was delivered last, so that a revision that looks the same costs no edit.
    """

    id: int
    subject: Subject
    subject_id: str
    revision: int
    conversation: Conversation
    activity_id: str | None
    fingerprint: str
    attempts: int
    next_attempt_at: datetime | None
