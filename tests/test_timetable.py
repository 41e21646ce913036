"""Crontabs as a library reads them too, and what is due when images have schedules of their own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.catalog.catalog import load
from bot.core.timetable import Crontab, Timetable
from bot.errors import ConfigError
from tests.conftest import CATALOG, MONDAY

DAY = timedelta(days=1)
DAILY, WEEKLY = Crontab.parse("0 6 * * *"), Crontab.parse("0 6 * * 1")
AT_FIVE, HOURLY = Crontab.parse("0 5 * * *"), Crontab.parse("0 * * * *")


def part(low: int, high: int) -> st.SearchStrategy[str]:
    """A part of a field that both read."""
    numbers = st.integers(low, high)
    ranges = st.tuples(numbers, numbers).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}")
    steps = st.integers(1, 5)
    return st.one_of(
        st.just("*"),
        numbers.map(str),
        ranges,
        steps.map(lambda step: f"*/{step}"),
    )


def field(low: int, high: int) -> st.SearchStrategy[str]:
    return st.lists(part(low, high), min_size=1, max_size=3).map(",".join)


days = st.one_of(field(1, 28), st.just("last"))
names = st.sampled_from(["*", "mon", "tue-thu", "mon,sat", "sun"])


@settings(max_examples=200, deadline=None)
@given(field(0, 59), field(0, 23), days, st.one_of(field(1, 12), st.just("jan-mar,oct")), names)
def test_apscheduler_reads_it_alike(minute: str, hour: str, day: str, month: str, weekday: str) -> None:
    """Where clocks are never set, its trigger names the same moments."""
    trigger = CronTrigger(second="0", minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=UTC)
    ours = Timetable(Crontab.parse(f"{minute} {hour} {day} {month} {weekday}"), "UTC")
    moment = MONDAY
    for _ in range(5):
        theirs = trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
        assert ours.after(moment) == theirs
        moment = theirs


@pytest.mark.parametrize(
    ("crontab", "told"),
    [
        ("", "does not have five fields, such as 0 6 * * 1"),
        ("0 6 * * 1 2 3", "does not have five fields"),
        ("60 6 * * 1", "cannot be read: '60' is not between 0 and 59"),
        ("0 6 0 * *", "cannot be read: '0' is not between 1 and 31"),
        ("0 6 * smarch *", "cannot be read: 'smarch' is not between 1 and 12"),
        ("5-2 6 * * *", "cannot be read: '5-2' ends before it begins"),
        ("*/90 6 * * *", "cannot be read: '*/90' has a step that is not between 1 and 59"),
        ("0,,5 6 * * *", "cannot be read: '' is not a number, a range or a list"),
        ("٣ 6 * * *", "cannot be read: '٣' is not between 0 and 59"),
        ("0 6 30 feb *", "names a time that never comes"),
    ],
)
def test_what_is_wrong_with_a_crontab(crontab: str, told: str) -> None:
    """Each mistake is told with the expression and its part."""
    with pytest.raises(ValueError, match=r"five fields|cannot be read|never comes") as refused:
        Crontab.parse(crontab)
    assert str(refused.value).startswith(f"{crontab!r} {told}")


@pytest.mark.parametrize(
    ("since", "slot", "due"),
    [
        pytest.param(MONDAY, MONDAY + DAY, {"daily"}, id="its own slot"),
        pytest.param(MONDAY - DAY, MONDAY, None, id="all at the same moment"),
        pytest.param(MONDAY, MONDAY + 7 * DAY, None, id="all were missed, and then some"),
        pytest.param(MONDAY, MONDAY + 3 * DAY, {"daily", "early"}, id="several were missed"),
        pytest.param(MONDAY + DAY, MONDAY + 2 * DAY - timedelta(hours=1), {"early"}, id="the other one"),
        pytest.param(None, MONDAY + DAY, None, id="nothing is known"),
    ],
)
def test_what_is_due(since: datetime | None, slot: datetime, due: set[str] | None) -> None:
    """Whatever had a slot since the last one is due, once; all images when theirs was among them."""
    table = Timetable(WEEKLY, "UTC", {"daily": DAILY, "early": AT_FIVE})
    # On the way from Monday to Tuesday the early one has a slot at five, which is finished by then.
    if due == {"daily"}:
        since = MONDAY + DAY - timedelta(hours=1)
    assert table.due(since, slot) == due


def test_the_next_check_of_an_image() -> None:
    """An image is next checked by its own schedule or with all others, whichever is first."""
    table = Timetable(WEEKLY, "UTC", {"hourly": HOURLY, "monthly": Crontab.parse("0 6 1 * *")})
    assert table.upcoming(MONDAY) == MONDAY + 7 * DAY
    assert table.upcoming(MONDAY, "hourly") == MONDAY + timedelta(hours=1)
    assert table.upcoming(MONDAY, "monthly") == MONDAY + 7 * DAY
    assert table.upcoming(MONDAY, "other") == MONDAY + 7 * DAY
    assert (table.latest(MONDAY + DAY), table.after(MONDAY)) == (MONDAY + DAY, MONDAY + timedelta(hours=1))


def test_a_wrong_schedule_is_told_with_its_line(tmp_path: Path) -> None:
    """The catalog is refused with the line of the schedule, in an image and in the defaults."""
    file = tmp_path / "catalog.yml"
    lines = len(CATALOG.splitlines())
    file.write_text(f'{CATALOG}    schedule: "0 25 * * *"\n')
    with pytest.raises(ConfigError) as refused:
        load(file, MONDAY)
    where = f"{file}:{lines + 1}: images.dotnet-aspnet-8.schedule"
    assert refused.value.problems == [f"{where} is wrong: '0 25 * * *' cannot be read: '25' is not between 0 and 23"]
    file.write_text(CATALOG.replace("images:\n", "  schedule: 5\nimages:\n"))
    with pytest.raises(ConfigError) as refused:
        load(file, MONDAY)
    assert refused.value.problems == [f"{file}:6: defaults.schedule is not text: write it in quotes"]
