"""How long updates take: which rebuilds count, and what twelve weeks come to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.core.latency import WEEK, latencies, patch_latency
from bot.core.rebuilds import Cause, Rebuild, State

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def pushed(ago: timedelta, took: timedelta, image: str = "dotnet-sdk-6") -> Rebuild:
    """An update that was pushed so long ago."""
    return Rebuild(
        id="k7m2pq9x",
        image=image,
        state=State.SUCCEEDED,
        cause=Cause.BASE_MOVED,
        base="mcr.microsoft.com/dotnet/sdk:6.0",
        base_seen_at=NOW - ago - took,
        run_finished_at=NOW - ago,
        created_at=NOW - ago,
    )


def test_median_and_worst() -> None:
    """The median of all, the worst with its image, and the median of each week by its first day."""
    found = latencies([pushed(DAY, HOUR), pushed(2 * DAY, 3 * HOUR), pushed(8 * DAY, 9 * DAY, "dotnet-aspnet-8")], NOW)
    assert found
    assert (found.count, found.median, found.worst.image, found.worst.took) == (3, 3 * HOUR, "dotnet-aspnet-8", 9 * DAY)
    assert found.weeks == ((NOW - 2 * WEEK, 9 * DAY), (NOW - WEEK, 2 * HOUR))


@pytest.mark.parametrize(
    ("ago", "counts"),
    [
        (timedelta(), False),
        (timedelta(seconds=1), True),
        (12 * WEEK - timedelta(seconds=1), True),
        (12 * WEEK + timedelta(seconds=1), False),
        (-timedelta(seconds=1), False),
    ],
)
def test_twelve_weeks(ago: timedelta, counts: bool) -> None:
    """Neither what was pushed before them counts, nor what was pushed afterwards: a card says later what it said."""
    assert (latencies([pushed(ago, HOUR)], NOW) is not None) is counts


@pytest.mark.parametrize(
    "changes",
    [{"state": State.FAILED}, {"base_seen_at": None}, {"run_finished_at": None}],
    ids=["failed", "no new base", "never ran"],
)
def test_what_is_no_update(changes: dict[str, object]) -> None:
    """A rebuild that failed, or that brought no new base, says nothing about updates."""
    rebuild = replace(pushed(DAY, HOUR), **changes)  # type: ignore[arg-type]
    assert patch_latency(rebuild) is None
    assert latencies([rebuild], NOW) is None


def test_clocks_that_disagree() -> None:
    """A run that ended before its base was seen took no time, and not less."""
    assert patch_latency(pushed(DAY, -HOUR)) == timedelta()
