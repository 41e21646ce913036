"""Durations as people write them."""

import re
from datetime import timedelta

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> timedelta:
    """`90m`, `12h`, `7d` or `2w`. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,3})([mhdw])", str(text).strip())
    if not match:
        raise ValueError(f"{str(text)[:40]!r} is not a duration such as 12h or 7d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})
