"""The timer: which moments an expression means, and that each of them is checked once."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.app import SystemClock
from bot.config import read
from bot.core.checks import Check
from bot.core.ports import Clock
from bot.core.timetable import Crontab, Timetable
from bot.errors import ConfigError
from bot.schedule import LOOK_AGAIN, Schedule
from bot.store.checks import CLAIM_LEASE
from bot.store.store import SqlStore
from tests.conftest import MONDAY, Bot, FakeClock, StartBot

WEEKLY = "0 6 * * 1"
DEADLINE_S = 5.0


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def timetable(crontab: str, timezone: str = "UTC") -> Timetable:
    return Timetable(Crontab.parse(crontab), timezone)


def slots(crontab: str, timezone: str, start: datetime, days: float) -> list[datetime]:
    """Every slot of these days, found by asking for the newest one every half hour."""
    table, now = timetable(crontab, timezone), start
    found: list[datetime] = []
    while now < start + timedelta(days=days):
        slot = table.latest(now)
        if slot and slot > start and slot not in found:
            found.append(slot)
        now += timedelta(minutes=30)
    return found


@pytest.mark.parametrize(
    ("now", "latest", "upcoming"),
    [
        ("2026-11-22 23:59", "2026-11-16 06:00", "2026-11-23 06:00"),
        ("2026-11-23 05:59:59.999", "2026-11-16 06:00", "2026-11-23 06:00"),
        ("2026-11-23 06:00", "2026-11-23 06:00", "2026-11-30 06:00"),
        ("2026-11-29 12:00", "2026-11-23 06:00", "2026-11-30 06:00"),
    ],
)
def test_monday_is_monday(now: str, latest: str, upcoming: str) -> None:
    """`0 6 * * 1` is Monday at six, to the second, although APScheduler's own day 1 is Tuesday."""
    weekly = timetable(WEEKLY)
    assert (weekly.latest(at(now)), weekly.upcoming(at(now))) == (at(latest), at(upcoming))
    assert at(upcoming).strftime("%A") == "Monday"


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("sun", "Sun"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("MON-Fri", "Mon Tue Wed Thu Fri"),
        ("0-2", "Sun Mon Tue"),
        ("5-7", "Fri Sat Sun"),
        ("sat-sun", "Sat Sun"),
        ("6-0", "Sat Sun"),
        ("0-7", "Sun Mon Tue Wed Thu Fri Sat"),
        ("0,3", "Sun Wed"),
        ("1-5/2", "Mon Wed Fri"),
        ("*/2", "Sun Tue Thu Sat"),
        ("*", "Sun Mon Tue Wed Thu Fri Sat"),
    ],
)
def test_days_of_the_week_count_as_in_crontab(field: str, days: str) -> None:
    """Sunday is 0 and 7, and numbers, names, ranges, lists and steps mean what crontab(5) says."""
    found = slots(f"0 6 * * {field}", "UTC", at("2026-11-21 12:00"), 7)
    assert sorted(slot.strftime("%a") for slot in found) == sorted(days.split())


@pytest.mark.parametrize(
    ("crontab", "upcoming"),
    [
        ("30 0 6 * * 1", "2026-11-30 06:00:30"),
        ("*/15 * * * *", "2026-11-25 12:15"),
        ("0 6 1 * *", "2026-12-01 06:00"),
        ("0 6 last * *", "2026-11-30 06:00"),
        ("0 6 * jan mon", "2027-01-04 06:00"),
        ("0 6 29 2 *", "2028-02-29 06:00"),
    ],
)
def test_other_fields(crontab: str, upcoming: str) -> None:
    """A sixth field in front is seconds; the other fields are crontab's."""
    assert timetable(crontab).upcoming(at("2026-11-25 12:00")) == at(upcoming)


@pytest.mark.parametrize(
    ("crontab", "told"),
    [
        ("0 6 * *", "does not have five fields, such as 0 6 * * 1"),
        ("0 6 * * 1 2 3", "does not have five fields"),
        ("@weekly", "does not have five fields"),
        ("60 6 * * 1", "cannot be read: "),
        ("0 24 * * 1", "cannot be read: "),
        ("*/0 * * * *", "cannot be read: "),
        ("a b c d e", "cannot be read: "),
        ("0 6 * * 8", "cannot be read: '8' is not a day of the week"),
        ("0 6 * * 1-8", "cannot be read: '1-8' is not a day of the week"),
        ("0 6 * * -1", "cannot be read: '-1' is not a day of the week"),
        ("0 6 * * 1-", "cannot be read: '1-' is not a day of the week"),
        ("0 6 * * ,", "cannot be read: '' is not a day of the week"),
        ("0 6 * * 1/2", "cannot be read: '1/2' is not a day of the week"),
        ("0 6 * * 5-2", "cannot be read: '5-2' ends before it begins"),
        ("0 6 * * monday", "cannot be read: 'monday' is not a day of the week"),
        ("0 6 31 2 *", "names a time that never comes"),
    ],
)
def test_what_cannot_be_read_is_told(crontab: str, told: str) -> None:
    """An expression that is wrong is one sentence with the setting's name and the expression."""
    with pytest.raises(ConfigError) as refused:
        read({"SHIPSHAPE_SCHEDULE": crontab}, env_file=None)
    (problem,) = refused.value.problems
    assert problem.startswith(f"SHIPSHAPE_SCHEDULE: {crontab!r} {told}")


async def test_a_wrong_schedule_stops_the_start(start_bot: StartBot) -> None:
    """The bot does not start with an expression it cannot read."""
    with pytest.raises(ConfigError, match="SHIPSHAPE_SCHEDULE: '0 6'"):
        async with start_bot(SCHEDULE="0 6"):
            pass


def test_the_time_zone_counts() -> None:
    """Six o'clock in Madrid is five in winter and four in summer, in UTC."""
    weekly = timetable(WEEKLY, "Europe/Madrid")
    assert weekly.after(at("2026-01-14")) == at("2026-01-19 05:00")
    assert weekly.after(at("2026-07-15")) == at("2026-07-20 04:00")


@pytest.mark.parametrize(
    ("crontab", "timezone", "start", "expected"),
    [
        pytest.param(
            "30 2 * * *",
            "Europe/Madrid",
            "2026-03-28 00:00",
            ["2026-03-28 01:30", "2026-03-29 01:30", "2026-03-30 00:30"],
            id="skipped: an hour later by the clock",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Madrid",
            "2026-10-24 00:00",
            ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"],
            id="shown twice: the first time",
        ),
        pytest.param(
            "0 6 * * *",
            "Europe/Madrid",
            "2026-10-24 00:00",
            ["2026-10-24 04:00", "2026-10-25 05:00", "2026-10-26 05:00"],
            id="another hour of that day",
        ),
        pytest.param(
            "30 2,3 * * *",
            "Europe/Madrid",
            "2026-03-28 12:00",
            ["2026-03-29 01:30", "2026-03-30 00:30", "2026-03-30 01:30"],
            id="skipped and shown at the same moment",
        ),
        pytest.param(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-02 16:00",
            ["2026-10-03 15:45", "2026-10-04 15:15"],
            id="half an hour",
        ),
    ],
)
def test_nights_when_the_clocks_change(crontab: str, timezone: str, start: str, expected: list[str]) -> None:
    """A time that clocks skip comes that much later, one that they show twice once; nothing hangs, nothing doubles."""
    last = at(expected[-1])
    days = (last - at(start)) / timedelta(days=1) + 0.1
    assert slots(crontab, timezone, at(start), days) == list(map(at, expected))


@pytest.mark.parametrize(
    ("crontab", "timezone", "now", "latest", "upcoming"),
    [
        ("50 2 * * *", "Europe/Madrid", "2026-03-29 00:59", "2026-03-28 01:50", "2026-03-29 01:50"),
        ("50 2 * * *", "Europe/Madrid", "2026-03-29 01:40", "2026-03-28 01:50", "2026-03-29 01:50"),
        ("50 2 * * *", "Europe/Madrid", "2026-03-29 01:50", "2026-03-29 01:50", "2026-03-30 00:50"),
        ("50 2 * * *", "Europe/Madrid", "2026-10-25 00:50", "2026-10-25 00:50", "2026-10-26 01:50"),
        ("50 2 * * *", "Europe/Madrid", "2026-10-25 01:50", "2026-10-25 00:50", "2026-10-26 01:50"),
        ("20,48 2 * * *", "Australia/Lord_Howe", "2026-10-03 15:47", "2026-10-02 16:18", "2026-10-03 15:48"),
        ("20,48 2 * * *", "Australia/Lord_Howe", "2026-10-03 15:49", "2026-10-03 15:48", "2026-10-03 15:50"),
        ("20,48 2 * * *", "Australia/Lord_Howe", "2026-10-03 15:50", "2026-10-03 15:50", "2026-10-04 15:20"),
    ],
)
def test_moments_around_the_change(crontab: str, timezone: str, now: str, latest: str, upcoming: str) -> None:
    """Within the hour of the change too, the newest and the next slot are right: a skipped one comes, in its order."""
    table = timetable(crontab, timezone)
    assert (table.latest(at(now)), table.upcoming(at(now))) == (at(latest), at(upcoming))


@pytest.mark.parametrize("start", ["2026-03-28 21:00", "2026-10-24 21:00"])
def test_the_timer_wakes_at_every_slot(start: str) -> None:
    """What APScheduler is told to wait for is the next slot, always later than now, also when the clocks change."""
    table, now = timetable("*/30 * * * *", "Europe/Madrid"), at(start)
    while now < at(start) + timedelta(hours=9):
        upcoming = table.after(now)
        assert upcoming is not None
        assert upcoming > now
        now = upcoming
        assert table.latest(now) == upcoming


# Once per slot, whoever asks


class Replica:
    """A process with the database, that checks what is due: claims the slot and writes the check that finishes it."""

    def __init__(self, store: SqlStore, clock: Clock, crontab: str = WEEKLY) -> None:
        self.checked: list[datetime] = []
        self.dies = False
        self._store, self._clock = store, clock
        self.schedule = Schedule(timetable(crontab), clock, self._check)

    async def _check(self, slot: datetime) -> None:
        if await self._store.claim_slot(slot, self._clock.now()) and not self.dies:
            self.checked.append(slot)
            await self._store.add_check(Check(checked_at=self._clock.now(), slot=slot), everywhere=False)


StartReplica = Callable[[], Awaitable[Replica]]


@pytest.fixture
async def start_replica(tmp_path: Path, clock: FakeClock) -> AsyncIterator[StartReplica]:
    """Starts replicas on one database whose first slot is done."""
    stores: list[SqlStore] = []

    async def start() -> Replica:
        store = SqlStore(f"sqlite+aiosqlite:///{tmp_path}/slots.db")
        stores.append(await store.__aenter__())
        return Replica(store, clock)

    await (await start()).schedule.run_due()
    yield start
    for store in stores:
        await store.__aexit__()


async def test_a_dead_replica_is_succeeded_after_its_lease(clock: FakeClock, start_replica: StartReplica) -> None:
    """A slot that was claimed and not finished is left alone for the lease, then taken over, once."""
    dying, heir, third = [await start_replica() for _ in range(3)]
    clock.advance(timedelta(days=7))
    dying.dies = True
    await dying.schedule.run_due()
    clock.advance(CLAIM_LEASE - timedelta(seconds=1))
    await heir.schedule.run_due()
    assert heir.checked == []
    clock.advance(timedelta(seconds=1))
    await heir.schedule.run_due()
    await third.schedule.run_due()
    clock.advance(CLAIM_LEASE)
    await third.schedule.run_due()
    assert (heir.checked, third.checked) == ([MONDAY + timedelta(days=7)], [])


async def test_many_replicas_check_a_slot_once(clock: FakeClock, start_replica: StartReplica) -> None:
    """However many look at the same moment, one of them checks."""
    replicas = [await start_replica() for _ in range(5)]
    for week in range(1, 4):
        clock.advance(timedelta(days=7))
        await asyncio.gather(*(replica.schedule.run_due() for replica in replicas for _ in range(2)))
        done = [slot for replica in replicas for slot in replica.checked]
        assert sorted(done) == [MONDAY + timedelta(days=7 * past) for past in range(1, week + 1)]


async def test_a_database_that_fails_does_not_end_the_timer(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """What a check raises is logged and never reaches the timer."""

    async def fails(_: datetime) -> None:
        raise OSError("no space left on device")

    await Schedule(timetable(WEEKLY), clock, fails).run_due()
    assert f"it is tried again in {LOOK_AGAIN}" in caplog.text
    assert "no space left on device" in caplog.text


async def test_the_timer_runs(tmp_path: Path) -> None:
    """APScheduler itself wakes the check at its slots, in real time, and no longer once it is stopped."""
    async with SqlStore(f"sqlite+aiosqlite:///{tmp_path}/slots.db") as store:
        replica = Replica(store, SystemClock(), "* * * * * *")
        await replica.schedule.start()
        async with asyncio.timeout(DEADLINE_S):
            while len(replica.checked) < 2:  # noqa: ASYNC110 -- the timer tells nobody
                await asyncio.sleep(0.05)
        await replica.schedule.stop()
        before = len(replica.checked)
        await asyncio.sleep(1.1)
    first, second = replica.checked[:2]
    assert second - first == timedelta(seconds=1)
    assert len(replica.checked) == before


async def test_a_slow_check_holds_up_neither_start_nor_end(clock: FakeClock) -> None:
    """A missed slot is caught up beside everything else; the end cancels it, and waits for what it still writes."""
    begun, released = asyncio.Event(), asyncio.Event()

    async def hangs(_: datetime) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _turn in range(100):  # turns of the loop, as a database takes some
                await asyncio.sleep(0)
            released.set()

    schedule = Schedule(timetable(WEEKLY), clock, hangs)
    async with asyncio.timeout(DEADLINE_S):
        await schedule.start()
        await begun.wait()
        await schedule.stop()
    assert released.is_set()


# The same with the bot that runs


async def scheduled_checks(bot: Bot) -> list[Check]:
    """All scheduled checks that the bot has done, oldest first."""
    latest = await bot.app.store.latest_check()
    checks = [await bot.app.store.check(number) for number in range(1, (latest.id if latest else 0) + 1)]
    return [check for check in checks if check and check.slot]


async def hide(folder: Path, table: str) -> None:
    """Take a table away from the bot's database, so that everything that needs it fails."""
    await asyncio.to_thread(_rename, folder, table, "hidden")


async def show(folder: Path, table: str) -> None:
    """Give it back."""
    await asyncio.to_thread(_rename, folder, "hidden", table)


def _rename(folder: Path, table: str, name: str) -> None:
    with closing(sqlite3.connect(folder / "shipshape.db", timeout=5)) as database:
        database.execute(f"ALTER TABLE {table} RENAME TO {name}")


async def test_the_first_start_does_not_check_the_past(start_bot: StartBot) -> None:
    """A new database was not there at the last slot, so nothing is caught up; the next slot is checked."""
    async with start_bot() as bot:
        await bot.check()
        assert await scheduled_checks(bot) == []
        await bot.next_week()
        assert [check.slot for check in await scheduled_checks(bot)] == [MONDAY + timedelta(days=7)]


async def test_a_slot_missed_while_down_is_caught_up_once(start_bot: StartBot, clock: FakeClock) -> None:
    """After three Mondays without the bot the newest of them is checked, once, however often the timer looks."""
    async with start_bot() as bot:
        await bot.check()
    clock.advance(timedelta(days=23))
    for _ in range(2):
        async with start_bot() as bot:
            await bot.check()
            await bot.check()
            done = await scheduled_checks(bot)
            assert [check.slot for check in done] == [MONDAY + timedelta(days=21)]
            assert done[0].checked_at == clock.time


async def test_two_bots_on_one_database_check_once(start_bot: StartBot, clock: FakeClock) -> None:
    """Of two replicas whose timers fire together one checks, and the channel is told."""
    async with start_bot() as one, start_bot() as other:
        await one.check()
        await one.teams.channel().install()
        clock.advance(timedelta(days=7))
        await asyncio.gather(one.check(), other.check())
        assert len(await scheduled_checks(one)) == 1
        await one.teams.until_shown("all 3 images are fresh")


async def test_a_check_that_fails_is_told_once_and_tried_again(bot: Bot, tmp_path: Path) -> None:
    """While the check itself does not work the channel hears of it once; when it works again its card comes."""
    await hide(tmp_path, "base_digests")
    await bot.next_week()
    await bot.teams.until_shown("could not be finished")
    await bot.check()
    await bot.app.notifier.deliver()
    assert len(bot.teams.messages) == 1
    assert await scheduled_checks(bot) == []

    await show(tmp_path, "base_digests")
    await bot.check()
    await bot.check()
    await bot.teams.until_shown("all 3 images are fresh")
    assert [check.slot for check in await scheduled_checks(bot)] == [MONDAY + timedelta(days=7)]


async def test_what_a_failed_check_had_to_ask_is_asked(bot: Bot, tmp_path: Path) -> None:
    """A check that fails after it opened a request posts the question when it works again."""
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh")
    bot.move_base("dotnet-sdk-6")
    await hide(tmp_path, "check_rebuilds")
    await bot.next_week()
    await bot.teams.until_shown("could not be finished")
    assert await bot.app.store.open_rebuild("dotnet-sdk-6") is not None

    await show(tmp_path, "check_rebuilds")
    await bot.check()
    message = await bot.teams.until_shown("dotnet-sdk-6", "waits for approval")
    assert "Approve" in message.buttons
