"""Values as words on cards: outside text, moments, durations, ages, sizes."""

import re
from datetime import UTC, datetime, timedelta

# https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format#format-cards-with-markdown
INLINE = re.compile(r"([\\`*_\[\]<>&~])")
BLOCK = re.compile(r"^( *)([-+#]|\d+(?=[.)](?: |$)))")
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
LONGEST = 240


class Safe(str):
    """Text that may stand on a card as it is: cleaned already, or made by us."""

    __slots__ = ()


def clean(text: str, length: int = LONGEST) -> Safe:
    """Outside text as one line of at most `length` visible characters, for where Markdown is not read.

    Control and direction characters go, line breaks become spaces, and `{{` cannot start a date macro.
    """
    text = text[: 4 * length]
    if not (text.isascii() and text.isprintable()):
        text = re.sub(r"\s", " ", TERMINAL_CODES.sub("", text))
        text = "".join(filter(str.isprintable, text))
    return Safe(re.sub(r"{(?={)", "{ ", _cut(text, length)))


def escape(text: str, length: int = LONGEST) -> Safe:
    """Outside text as one line in which a TextBlock finds no Markdown, no mention and no date macro.

    Phones know the backslash before emphasis only, so a link is taken apart besides.
    """
    line = INLINE.sub(r"\\\1", clean(text, length).replace("](", "] ("))
    return Safe(BLOCK.sub(_escape_block, line))


def _escape_block(match: re.Match[str]) -> str:
    """A mark of a list or heading is escaped itself; in `1.` it is the dot, which follows."""
    indent, mark = match.groups()
    return f"{indent}{mark}\\" if mark.isdigit() else f"{indent}\\{mark}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def day(at: datetime) -> Safe:
    """A day in the reader's own calendar.

    https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features#datetime-formatting-and-localization
    """
    return Safe(f"{{{{DATE({_rfc3339(at)},SHORT)}}}}")


def time(at: datetime) -> Safe:
    """A time of day on the reader's own clock."""
    return Safe(f"{{{{TIME({_rfc3339(at)})}}}}")


def moment(at: datetime) -> Safe:
    """Day and time as the reader's calendar and clock show them."""
    return Safe(f"{day(at)} {time(at)}")


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(took: timedelta) -> str:
    """`40 s`, `2 m 10 s` or `1 h 05 m`."""
    seconds = max(0, round(took.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {seconds:02} s" if minutes else f"{seconds} s"


def age(old: timedelta) -> str:
    """`3 days`, `1 hour`, `12 minutes`: the largest unit that fits."""
    for unit, length in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if count := old // length:
            return plural(max(count, 1), unit)
    return "less than a minute"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(size_bytes: int, previous_bytes: int | None = None) -> str:
    """`211 MB`, and with something to compare `211 MB (−3 MB)`. A megabyte is a million bytes, as in ECR.

    What is smaller than ten megabytes is told in kilobytes.
    """
    unit, name = (1_000, "kB") if size_bytes < 10_000_000 else (1_000_000, "MB")
    amount = round(size_bytes / unit)
    if previous_bytes is None:
        return f"{amount} {name}"
    change = amount - round(previous_bytes / unit)
    sign = "+" if change > 0 else "−" if change < 0 else "±"
    return f"{amount} {name} ({sign}{abs(change)} {name})"
