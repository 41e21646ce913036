"""How long updates take: from the first sight of a new base to the version in ECR."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from bot.core.rebuilds import Rebuild, State

WEEK = timedelta(weeks=1)
WEEKS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """An update that reached ECR, and how long that took."""

    image: str
    pushed_at: datetime
    took: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """The updates of the last twelve weeks, of which there is at least one.

    `weeks` has the median of each week that has updates, by its first day.
    """

    count: int
    median: timedelta
    worst: Update
    weeks: tuple[tuple[datetime, timedelta], ...]


def patch_latency(rebuild: Rebuild) -> timedelta | None:
    """What one rebuild took; None when it brought no new base to ECR."""
    if rebuild.state is not State.SUCCEEDED or rebuild.base_seen_at is None or rebuild.run_finished_at is None:
        return None
    return max(rebuild.run_finished_at - rebuild.base_seen_at, timedelta())


def latencies(rebuilds: Iterable[Rebuild], until: datetime) -> Latencies | None:
    """Those that were pushed in the twelve weeks until a moment; None without any."""
    updates = [update for update in map(_update, rebuilds) if update and _is_within(update, until)]
    if not updates:
        return None
    by_week: dict[int, list[Update]] = {}
    for update in updates:
        by_week.setdefault(_age_weeks(update, until), []).append(update)
    weeks = tuple((until - (age + 1) * WEEK, _median(by_week[age])) for age in sorted(by_week, reverse=True))
    worst = max(updates, key=lambda update: update.took)
    return Latencies(count=len(updates), median=_median(updates), worst=worst, weeks=weeks)


def _update(rebuild: Rebuild) -> Update | None:
    took = patch_latency(rebuild)
    if took is None or rebuild.run_finished_at is None:
        return None
    return Update(image=rebuild.image, pushed_at=rebuild.run_finished_at, took=took)


def _is_within(update: Update, until: datetime) -> bool:
    return update.pushed_at < until and _age_weeks(update, until) < WEEKS


def _age_weeks(update: Update, until: datetime) -> int:
    return (until - update.pushed_at) // WEEK


def _median(updates: Sequence[Update]) -> timedelta:
    return timedelta(seconds=median(update.took.total_seconds() for update in updates))
