"""Until when the base of an image is supported, and what may take its place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from bot.core.images import ImageReference, PlatformImage

WARN = timedelta(days=90)
URGE = timedelta(days=30)
RING = timedelta(days=7)

# https://github.com/dotnet/dotnet-docker/blob/main/documentation/supported-tags.md
CHANNEL = re.compile(r"(\d{1,3}\.\d{1,3})(?![0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """`what` is `.NET 8.0`, or the tag when its support ends first. `ends` is the last day of support.

    `next_image` is the catalog's image of the same kind with the next version, empty when there is none.
    """

    what: str
    ends: date
    next_image: str = ""

    def left(self, today: date) -> timedelta:
        """The time to the last day; negative when it has passed."""
        return self.ends - today

    def is_over(self, today: date) -> bool:
        return today > self.ends

    def ends_soon(self, today: date) -> bool:
        """Whether it is time to warn."""
        return timedelta() <= self.left(today) <= WARN


def channel_of(base: ImageReference) -> str | None:
    """The .NET version that a tag of Microsoft's .NET images names, None for other images."""
    match = CHANNEL.match(base.tag or "")
    return match[1] if match and "dotnet" in base.repository.split("/") else None


def support_of(
    base: ImageReference, version_ends: date | None, tag_ends: date | None, next_image: str
) -> Support | None:
    """The earlier of the two ends; None when neither is known."""
    if tag_ends and (version_ends is None or tag_ends < version_ends):
        return Support(what=f"the tag {base.tag}", ends=tag_ends, next_image=next_image)
    if version_ends:
        return Support(what=f".NET {channel_of(base)}", ends=version_ends, next_image=next_image)
    return None


def next_image(
    base: ImageReference, catalog: Mapping[str, PlatformImage], ends: Mapping[str, date], today: date
) -> str:
    """The image with the next higher .NET version on a base of the same repository; empty when there is none.

    `ends` is the last day of each version's support, as far as it is known: what is over is no advice.
    """
    own, kin = channel_of(base), [image for image in catalog.values() if image.base and image.base.name == base.name]
    channels = {image.name: channel for image in kin if image.base and (channel := channel_of(image.base))}
    higher = [
        (_number(channel), name)
        for name, channel in channels.items()
        if own and _number(channel) > _number(own) and ends.get(channel, today) >= today
    ]
    return min(higher)[1] if higher else ""


def _number(channel: str) -> tuple[int, ...]:
    return tuple(map(int, channel.split(".")))
