"""`shipshape audit`: every row as a file, as a program of its own beside a running bot."""

import csv
import io
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.audit import FIELDS, moment
from bot.core.people import Person
from bot.core.rebuilds import AuditEntry
from bot.errors import CommandError
from bot.store.audit import AUDIT_PAGE
from bot.store.store import SqlStore
from tests.conftest import Bot
from tests.peers.teams import ALEX

ROOT = Path(__file__).parents[1]
NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"
HOSTILE = '=HYPERLINK("http://x"),\r\n"quoted", Ünïcode \U0001f40b'


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'shipshape.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    async with SqlStore(url) as store:
        yield store


def entry(days: int, image: str = SDK, comment: str = "", actor: Person | None = None) -> AuditEntry:
    extra = {"window": "nights"}
    at = NOW + timedelta(days=days)
    return AuditEntry(at=at, actor=actor, action="approve", image=image, comment=comment, extra=extra)


def audit(url: str, *options: str, through: str = "cat") -> subprocess.CompletedProcess[bytes]:
    """Run the command, with its output going through another one, and a terminal that knows ASCII alone."""
    environment = {"SHIPSHAPE_DATABASE_URL": url, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = f"set -o pipefail; {shlex.join([sys.executable, '-m', 'bot', 'audit', *options])} | {through}"
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, timeout=60)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_every_row_is_one_object_per_line(store: SqlStore, url: str) -> None:
    """With all fields in their order, whoever acted, while the database is in use; no other setting is needed."""
    await store.audit(entry(0, actor=Person(id="a1", name="Alex", principal_name="alex@contoso.com"), comment=HOSTILE))
    await store.audit(entry(1))
    first, second = lines(audit(url))
    assert tuple(first) == FIELDS
    assert first == {
        "at": "2026-11-23T06:00:00.000+00:00",
        "actor_id": "a1",
        "actor_name": "Alex",
        "actor_principal_name": "alex@contoso.com",
        "action": "approve",
        "image": SDK,
        "rebuild_id": "",
        "old_state": "",
        "new_state": "",
        "old_digest": "",
        "new_digest": "",
        "comment": HOSTILE,
        "extra": {"window": "nights"},
    }
    assert second["actor_id"] == "shipshape"


async def test_csv_is_read_back_and_holds_no_formula(store: SqlStore, url: str) -> None:
    """RFC 4180 in UTF-8; what a spreadsheet would run starts with an apostrophe."""
    for comment in (HOSTILE, "+1", "-1", "@SUM(A1)", "\tx", 'plain, "quoted"\nsecond line', ""):
        await store.audit(entry(0, comment=comment))
    done = audit(url, "--csv")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(",".join(FIELDS).encode() + b"\r\n")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode("utf-8"), newline="")))
    comments = [row["comment"] for row in rows]
    assert comments == [f"'{HOSTILE}", "'+1", "'-1", "'@SUM(A1)", "'\tx", 'plain, "quoted"\nsecond line', ""]
    assert json.loads(rows[0]["extra"]) == {"window": "nights"}


@pytest.mark.parametrize(
    ("options", "days"),
    [
        pytest.param(["--since", "2026-11-24T06:00Z", "--until", "2026-11-24"], [1], id="one day"),
        pytest.param(["--since", "2200-01-01"], [], id="in the future"),
        pytest.param(["--image", ASPNET], [2], id="one image"),
    ],
)
async def test_what_is_asked_for(store: SqlStore, url: str, options: list[str], days: list[int]) -> None:
    """Only rows of the time and image that were asked for; none is no error."""
    for day in range(3):
        await store.audit(entry(day, image=ASPNET if day == 2 else SDK))
    times = [datetime.fromisoformat(str(row["at"])) for row in lines(audit(url, *options))]
    assert times == [NOW + timedelta(days=day) for day in days]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        pytest.param("2026-01-31", "2026-01-31T00:00:00+00:00", "2026-02-01T00:00:00+00:00", id="a day counts whole"),
        pytest.param("2026-01-31T06:30", "2026-01-31T06:30:00+00:00", "2026-01-31T06:30:00+00:00", id="a time"),
        pytest.param("2026-01-31T06:30+02:00", "2026-01-31T06:30:00+02:00", "2026-01-31T06:30:00+02:00", id="its zone"),
        pytest.param("30d", "2026-10-24T06:00:00+00:00", "2026-10-24T06:00:00+00:00", id="days ago"),
        pytest.param("9999w", "1835-04-06T06:00:00+00:00", "1835-04-06T06:00:00+00:00", id="long ago"),
    ],
)
def test_since_and_until(text: str, start: str, end: str) -> None:
    """A day, a time, or how long ago; the last day is part of what was asked for."""
    assert moment("--since", text, NOW).isoformat() == start
    assert moment("--until", text, NOW, end=True).isoformat() == end


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "-1d", "0d", "9999-12-31", "30", "x" * 1000])
def test_no_time_is_told_with_its_option(text: str) -> None:
    """What is neither a day nor a duration."""
    with pytest.raises(CommandError, match=r"^--until: .{1,45} is not a day such as 2026-01-31, nor a duration"):
        moment("--until", text, NOW, end=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param(["--since", "yesterday"], "--since: 'yesterday' is not a day such as 2026-01-31", id="no day"),
        pytest.param(["--since", "1d", "--until", "2d"], "--since 1d is not before --until 2d", id="backwards"),
        pytest.param(["--json", "--csv"], "--json or --csv, not both", id="both"),
    ],
)
def test_bad_options_are_told_in_a_sentence(url: str, options: list[str], told: str) -> None:
    """Nothing is printed, and the exit code is 1."""
    done = audit(url, *options)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().startswith(f"shipshape: {told}")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A wrong path would otherwise look like an empty audit."""
    missing = tmp_path / "nowhere.db"
    done = audit(f"sqlite+aiosqlite:///{missing}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"SHIPSHAPE_DATABASE_URL: there is no database at {missing}" in done.stderr.decode()
    assert not missing.exists()


def test_a_database_of_something_else_is_told(tmp_path: Path) -> None:
    """A file without our tables is left as it is."""
    (tmp_path / "other.db").write_bytes(b"")
    done = audit(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert "the database cannot be opened: no such table: audit" in done.stderr.decode()
    assert (tmp_path / "other.db").read_bytes() == b""


async def test_many_rows_come_page_by_page(store: SqlStore, url: str) -> None:
    """Every row once and in order, and whoever has read enough may go: nothing is complained about."""
    for number in range(AUDIT_PAGE * 2 + 1):
        await store.audit(entry(0, comment=f"{number} {'x' * 200}"))
    found = [str(row["comment"]).partition(" ")[0] for row in lines(audit(url))]
    assert found == [str(number) for number in range(AUDIT_PAGE * 2 + 1)]
    done = audit(url, through="head -1")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, b"", 1)


async def test_what_people_did_is_in_it(bot: Bot, tmp_path: Path, url: str) -> None:
    """A subscription and a refused attempt of a running bot are rows with names."""
    await bot.teams.channel().ask(f"subscribe {SDK}")
    rows = lines(audit(url, "--since", "9999d"))
    assert [(row["action"], row["actor_name"], row["comment"]) for row in rows] == [
        ("subscribe", ALEX.name, f"Platform images: {SDK}")
    ]
