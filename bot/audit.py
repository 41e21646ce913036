"""The audit as a file: one JSON object per line, or CSV for spreadsheets. Field names and their order are stable."""

import csv
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from bot.core.durations import parse_duration
from bot.errors import CommandError

FIELDS = (
    "at",
    "actor_id",
    "actor_name",
    "actor_principal_name",
    "action",
    "image",
    "rebuild_id",
    "old_state",
    "new_state",
    "old_digest",
    "new_digest",
    "comment",
    "extra",
)
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Rows = AsyncIterator[Mapping[str, Any]]


def moment(option: str, text: str, now: datetime, *, end: bool = False) -> datetime:
    """`2026-01-31`, `2026-01-31T06:00` (UTC without a zone) or `30d` ago. As an `end` a day counts whole.

    Raises CommandError.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        whole_day = end and len(text) <= len("2026-01-31")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)) + timedelta(days=whole_day)
    except (ValueError, OverflowError):
        raise CommandError(
            f"{option}: {text[:40]!r} is not a day such as 2026-01-31, nor a duration such as 30d"
        ) from None


async def write_json(rows: Rows, out: TextIO) -> None:
    """One object per line. `at` is a time with its offset, `extra` an object."""
    async for row in rows:
        print(json.dumps({field: _plain(row[field]) for field in FIELDS}), file=out)


async def write_csv(rows: Rows, out: TextIO) -> None:
    """A header and a line per row, as in RFC 4180; `extra` is JSON.

    A cell that a spreadsheet would take for a formula starts with an apostrophe.
    """
    table = csv.writer(out)
    table.writerow(FIELDS)
    async for row in rows:
        table.writerow([_cell(_plain(row[field])) for field in FIELDS])


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(FORMULA) else text
