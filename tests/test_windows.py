"""Maintenance windows: which moments they mean, also in the nights when clocks are set, and how mistakes are told."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.catalog.catalog import load
from bot.core.windows import LONGEST_SEARCH, Windows
from bot.errors import ConfigError
from tests.conftest import CATALOG, MONDAY

OFFICE = ["mon-thu 08:00-17:00"]
ZONES = ["UTC", "Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Antarctica/Troll"]


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def windows(allow: list[str] | None = None, deny: list[str] | None = None, timezone: str = "UTC") -> Windows:
    return Windows.parse(timezone, allow or [], deny or [])


@pytest.mark.parametrize(
    ("allow", "deny", "moment", "is_open"),
    [
        pytest.param([], [], "2026-11-23 06:00", True, id="no window is always"),
        pytest.param(OFFICE, [], "2026-11-23 07:59:59", False, id="before"),
        pytest.param(OFFICE, [], "2026-11-23 08:00", True, id="at its start"),
        pytest.param(OFFICE, [], "2026-11-23 16:59:59", True, id="to its end"),
        pytest.param(OFFICE, [], "2026-11-23 17:00", False, id="not at its end"),
        pytest.param(OFFICE, [], "2026-11-27 12:00", False, id="another day"),
        pytest.param([*OFFICE, "fri 10:00-11:00"], [], "2026-11-27 10:30", True, id="one of two"),
        pytest.param([], ["fri 12:00-24:00"], "2026-11-27 23:59", False, id="to midnight"),
        pytest.param([], ["fri 12:00-24:00"], "2026-11-28 00:00", True, id="and no longer"),
        pytest.param(OFFICE, ["mon 09:00-10:00"], "2026-11-23 09:30", False, id="deny wins"),
        pytest.param(["fri 22:00-02:00"], [], "2026-11-28 01:59", True, id="past midnight"),
        pytest.param(["fri 22:00-02:00"], [], "2026-11-27 01:59", False, id="of the day it starts on"),
        pytest.param(["sun 22:00-02:00"], [], "2026-11-23 01:00", True, id="past the week"),
        pytest.param(["daily 03:00-04:00"], [], "2026-11-29 03:30", True, id="daily"),
        pytest.param(["mon,wed 03:00-04:00"], [], "2026-11-25 03:30", True, id="a list of days"),
        pytest.param(["mon,wed 03:00-04:00"], [], "2026-11-24 03:30", False, id="and not between them"),
        pytest.param(["sat-mon 03:00-04:00"], [], "2026-11-23 03:30", True, id="days over the week's end"),
        pytest.param(["sat-mon 03:00-04:00"], [], "2026-11-24 03:30", False, id="and no other days"),
        pytest.param([], ["2026-12-18..2027-01-06"], "2026-12-17 23:59", True, id="before the dates"),
        pytest.param([], ["2026-12-18..2027-01-06"], "2026-12-18 00:00", False, id="the first date"),
        pytest.param([], ["2026-12-18..2027-01-06"], "2027-01-06 23:59", False, id="the last date"),
        pytest.param([], ["2026-05-01"], "2026-05-01 12:00", False, id="one date"),
        pytest.param(["2026-11-24"], [], "2026-11-24 12:00", True, id="an allowed date"),
        pytest.param(["MON-THU  08:00-17:00"], [], "2026-11-23 08:00", True, id="however it is written"),
        pytest.param(["mon, wed 08:00-17:00"], [], "2026-11-25 08:00", True, id="with a space in the list"),
    ],
)
def test_open(allow: list[str], deny: list[str], moment: str, is_open: bool) -> None:
    """Open is what no deny covers and, when there are any, an allow does."""
    assert windows(allow, deny).is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    ("allow", "deny", "timezone", "moment", "opening"),
    [
        pytest.param(OFFICE, [], "UTC", "2026-11-23 09:00", "2026-11-23 09:00", id="now"),
        pytest.param(OFFICE, [], "UTC", "2026-11-23 17:00", "2026-11-24 08:00", id="tomorrow"),
        pytest.param(OFFICE, [], "UTC", "2026-11-26 17:00", "2026-11-30 08:00", id="after the weekend"),
        pytest.param(OFFICE, [], "Europe/Madrid", "2026-11-23 06:00", "2026-11-23 07:00", id="winter"),
        pytest.param(OFFICE, [], "Europe/Madrid", "2026-07-20 05:00", "2026-07-20 06:00", id="summer"),
        pytest.param(
            OFFICE, ["2026-12-18..2027-01-06"], "UTC", "2026-12-17 17:00", "2027-01-07 08:00", id="after the holidays"
        ),
        pytest.param([], ["fri 12:00-24:00"], "UTC", "2026-11-27 15:00", "2026-11-28 00:00", id="when a deny ends"),
        pytest.param(OFFICE, ["mon 08:00-09:30"], "UTC", "2026-11-23 06:00", "2026-11-23 09:30", id="later that day"),
        pytest.param(
            ["daily 02:30-04:00"], [], "Europe/Madrid", "2026-03-29 00:00", "2026-03-29 01:00", id="clocks go forward"
        ),
        pytest.param(
            ["daily 02:10-02:20"], [], "Europe/Madrid", "2026-03-29 00:00", "2026-03-30 00:10", id="skipped by clocks"
        ),
        pytest.param(
            ["daily 02:30-04:00"], [], "Europe/Madrid", "2026-10-25 00:00", "2026-10-25 00:30", id="clocks go back"
        ),
        pytest.param(
            ["daily 02:30-02:40"], [], "Europe/Madrid", "2026-10-25 00:45", "2026-10-25 01:30", id="shown twice"
        ),
        pytest.param(
            ["daily 02:05-03:00"],
            [],
            "Australia/Lord_Howe",
            "2026-10-03 15:00",
            "2026-10-03 15:30",
            id="by half an hour",
        ),
        pytest.param(
            [], ["daily 00:00-03:00"], "Europe/Madrid", "2026-03-28 23:30", "2026-03-29 01:00", id="deny is shortened"
        ),
    ],
)
def test_next_opening(allow: list[str], deny: list[str], timezone: str, moment: str, opening: str) -> None:
    """The next opening is the first moment at which clocks show an open time."""
    assert windows(allow, deny, timezone).next_open(at(moment)) == at(opening)


def test_what_never_opens_has_no_opening() -> None:
    """The search ends after 400 days."""
    assert windows(["mon 08:00-09:00"], ["mon-fri 07:00-10:00"]).next_open(MONDAY) is None
    assert windows(["2026-11-22"]).next_open(MONDAY) is None
    last = MONDAY.date() + LONGEST_SEARCH - timedelta(days=1)
    assert windows([str(last)]).next_open(MONDAY) == at(str(last))
    assert windows([str(last + timedelta(days=1))]).next_open(MONDAY) is None


hours = st.tuples(st.integers(0, 23), st.sampled_from([0, 10, 30, 45])).map(lambda time: f"{time[0]:02}:{time[1]:02}")
spans = st.tuples(st.sampled_from(["daily", "sun", "sat-mon", "mon,wed", "fri-sun"]), hours, hours).filter(
    lambda span: span[1] != span[2]
)
entries = st.lists(spans.map(lambda span: f"{span[0]} {span[1]}-{span[2]}"), max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    entries, entries, st.sampled_from(ZONES), st.sampled_from(["2026-03-28", "2026-10-24", "2026-10-03", "2026-11-23"])
)
def test_nothing_opens_before_the_next_opening(allow: list[str], deny: list[str], timezone: str, day: str) -> None:
    """Looked at every five minutes, also when clocks change, it is closed before the next opening and open at it."""
    rules, start = windows(allow, deny, timezone), at(day)
    opening = rules.next_open(start)
    assert opening is None or (opening >= start and rules.is_open(opening))
    looks = (start + timedelta(minutes=5 * step) for step in range(3 * 24 * 12))
    first = next((moment for moment in looks if rules.is_open(moment)), None)
    if first is not None:
        assert opening is not None
        assert first - timedelta(minutes=5) < opening <= first


# In the catalog


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[str], list[str]]:
    """The problems of the windows of an image, without the name of the file."""

    def problems(text: str) -> list[str]:
        file = tmp_path / "catalog.yml"
        file.write_text(f"{CATALOG}    windows: {text}\n")
        with pytest.raises(ConfigError) as refused:
            load(file, MONDAY)
        return [problem.removeprefix(str(file)) for problem in refused.value.problems]

    return problems


LINE = len(CATALOG.splitlines()) + 1
HERE = f":{LINE}: images.dotnet-aspnet-8.windows"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{allow: [mo 08:00-17:00]}", "allow.0 is wrong: 'mo' is not a day such as mon, mon-fri or daily"),
        ("{allow: [mon- 08:00-17:00]}", "allow.0 is wrong: '' is not a day such as mon, mon-fri or daily"),
        ("{allow: [mon 08:00-25:00]}", "allow.0 is wrong: '25:00' is not a time from 00:00 to 24:00"),
        ("{allow: [mon 08:60-17:00]}", "allow.0 is wrong: '08:60' is not a time from 00:00 to 24:00"),
        ("{allow: [mon 08:00-24:01]}", "allow.0 is wrong: '24:01' is not a time from 00:00 to 24:00"),
        (
            "{deny: [mon 24:00-08:00]}",
            "deny.0 is wrong: '24:00-08:00' starts at the end of the day; 24:00 can only be an end",
        ),
        (
            "{deny: [mon 09:00-10:00, mon 08:00-08:00]}",
            "deny.1 is wrong: '08:00-08:00' is empty; a whole day is 00:00-24:00",
        ),
        (
            "{deny: [2027-01-06..2026-12-18]}",
            "deny.0 is wrong: '2027-01-06..2026-12-18' ends before it begins",
        ),
        ("{deny: ['2026-02-31']}", "deny.0 is wrong: '2026-02-31' is not a date such as 2026-12-18"),
        ("{deny: [2026-12-18..]}", "deny.0 is wrong: '' is not a date such as 2026-12-18"),
        ("{deny: [2026-12-18 10:00:00]}", "deny.0 is not text: write it in quotes"),
        ("{deny: [7]}", "deny.0 is not text: write it in quotes"),
        (
            "{deny: [weekends]}",
            "deny.0 is wrong: 'weekends' is neither days with times, such as mon-fri 08:00-17:00,"
            " nor a date or two, such as 2026-12-18..2027-01-06",
        ),
        (
            "{timezone: Europe/Madird}",
            "timezone is wrong: 'Europe/Madird' is not a time zone such as UTC or Europe/Madrid",
        ),
        ("{timezone: Europe}", "timezone is wrong: 'Europe' is not a time zone such as UTC or Europe/Madrid"),
        ("{allow: mon 08:00-17:00}", "allow is wrong: Input should be a valid list"),
        ("{alow: []}", "alow is not known here"),
    ],
)
def test_mistakes_are_told_with_their_line(problems: Callable[[str], list[str]], text: str, told: str) -> None:
    """Each kind of mistake is one sentence where it stands."""
    assert problems(text) == [f"{HERE}.{told}"]


@pytest.mark.parametrize(
    "text",
    [
        "{allow: [mon 08:00-09:00], deny: [mon-fri 00:00-24:00]}",
        "{deny: [daily 00:00-12:00, daily 12:00-24:00]}",
        "{allow: ['2026-11-22']}",
        "{deny: [2026-11-01..2030-01-01]}",
    ],
    ids=["covered by a deny", "denied altogether", "past", "too far away"],
)
def test_windows_that_never_open_are_refused(problems: Callable[[str], list[str]], text: str) -> None:
    """A rebuild that could never start is a mistake of the catalog, by the time at which it is read."""
    assert problems(text) == [f"{HERE} never opens in the next 400 days"]


def test_windows_of_the_defaults_are_told_once(tmp_path: Path) -> None:
    """What is wrong in the defaults is one mistake there."""
    file = tmp_path / "catalog.yml"
    file.write_text(CATALOG.replace("images:\n", "  windows: {allow: ['2026-11-22']}\nimages:\n"))
    with pytest.raises(ConfigError) as refused:
        load(file, MONDAY)
    assert refused.value.problems == [f"{file}:6: defaults.windows never opens in the next 400 days"]


def test_windows_are_merged_and_dates_need_no_quotes(tmp_path: Path) -> None:
    """An image keeps the defaults' keys it does not replace; a date of YAML's own is a date here."""
    file = tmp_path / "catalog.yml"
    common = "  windows: {timezone: Europe/Madrid, allow: [mon-thu 08:00-17:00], deny: [2026-12-24]}\nimages:\n"
    file.write_text(
        CATALOG.replace("images:\n", common) + "    windows: {allow: [], deny: [2026-05-01, '2026-05-02']}\n"
    )
    catalog = load(file, MONDAY)
    assert str(catalog["dotnet-sdk-6"].windows) == "mon-thu 08:00-17:00, never 2026-12-24 (Europe/Madrid)"
    assert str(catalog["dotnet-aspnet-8"].windows) == "never 2026-05-01, 2026-05-02 (Europe/Madrid)"
    assert not catalog["dotnet-aspnet-8"].windows.is_open(at("2026-05-01 12:00"))
