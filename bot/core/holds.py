"""Holds: somebody said that an image is to stay as it is, for a while or until somebody releases it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.durations import UNITS
from bot.core.images import Digest
from bot.core.people import Person
from bot.core.rebuilds import Cause, Rebuild, State

SHORTEST, LONGEST = timedelta(minutes=5), timedelta(days=365)


class HoldKind(StrEnum):
    """A hold stops everything. A snooze only puts off the question about one digest of the base."""

    HOLD = "hold"
    SNOOZE = "snooze"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What stops an image. `until` is None when only a release ends it; `digest` is the base that a snooze is about.

    `rollback` is the id of the rollback that came with the hold, empty when a person set it.
    """

    image: str
    kind: HoldKind
    by: Person
    at: datetime
    until: datetime | None = None
    reason: str = ""
    digest: Digest | None = None
    rollback: str = ""

    def is_over(self, now: datetime) -> bool:
        return self.until is not None and self.until <= now

    def __str__(self) -> str:
        """The end of a sentence: `on hold by Alex Wilber until 26 Nov 2026 14:00 UTC: breaks our proxy`."""
        what = "on hold" if self.kind is HoldKind.HOLD else "snoozed"
        until = f" until {self.until:%d %b %Y %H:%M} UTC" if self.until else ""
        return f"{what} by {self.by.name}{until}" + (f": {self.reason}" if self.reason else "")


def stopping(hold: Hold | None, rebuild: Rebuild, now: datetime) -> Hold | None:
    """The hold if it ends a rebuild which has no run yet. A snooze is about the question for one digest only."""
    if hold is None or hold.is_over(now) or rebuild.is_rollback:
        return None
    asked = rebuild.state is State.AWAITING_APPROVAL and rebuild.cause is not Cause.REQUESTED
    snoozed = asked and hold.digest in (None, rebuild.new_digest)
    return hold if hold.kind is HoldKind.HOLD or snoozed else None


def in_force(holds: Mapping[str, Hold], now: datetime) -> dict[str, Hold]:
    """Those whose time is not over."""
    return {image: hold for image, hold in holds.items() if not hold.is_over(now)}


def parse_pause(text: str) -> timedelta | None:
    """`3d`, `12h`, `90m` or `2w` as people type it; None when the word is not a duration at all.

    Raises ValueError, with a sentence, for one that makes no sense.
    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text.lower())
    if match is None:
        return None
    pause = timedelta(**{UNITS[match[2]]: int(match[1])})
    if not SHORTEST <= pause <= LONGEST:
        raise ValueError(f"{text} makes no sense here: between five minutes and a year can be waited")
    return pause
