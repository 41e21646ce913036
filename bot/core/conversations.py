"""Where people are told: conversations, their subscriptions, and which card each has."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ConversationKind(StrEnum):
    """Teams' own words. https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/conversation-basics"""

    PERSONAL = "personal"
    GROUP = "groupChat"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation the bot may post to. `id` is without `;messageid=`: a channel, not one of its threads.

    `images` are the images it is told about; empty means all of them. `team_id` is of the team that owns a channel.
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

    def wants(self, image: str) -> bool:
        return self.subscribed and (not self.images or image in self.images)


class Subject(StrEnum):
    """What a card is about. A notice is a reply that rings, with mentions, when a rebuild ended.

    A rebuild that is retried may end again, so a notice is of one attempt: see `notice_id`. An announcement is a plain
    message that is about no check and no rebuild.
    """

    CHECK = "check"
    REBUILD = "rebuild"
    NOTICE = "notice"
    ANNOUNCEMENT = "announcement"


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
