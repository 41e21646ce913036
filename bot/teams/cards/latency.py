"""How long updates take, on the weekly card: a sentence, and a chart of the weeks for those who look closer."""

from datetime import datetime, timedelta

from microsoft_teams.cards.core import (
    CardElement,
    Container,
    ToggleVisibilityAction,
    VerticalBarChart,
    VerticalBarChartDataValue,
)

from bot.core.latency import WEEKS, Latencies, patch_latency
from bot.core.rebuilds import Rebuild
from bot.teams.cards.card import action_set, line
from bot.teams.cards.formats import moment, plural

MOST_BARS = 10  # with more their numbers are cut off on a phone
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def latency_rows(latencies: Latencies) -> list[CardElement]:
    """The chart comes with its numbers as text, for clients that have no charts."""
    told = (
        f"From new base to ECR, last {WEEKS} weeks: median {span(latencies.median)}, "
        f"worst {span(latencies.worst.took)} ({latencies.worst.image}); {plural(latencies.count, 'update')}."
    )
    rows: list[CardElement] = [line(told, subtle=True, separator=True, spacing="Medium")]
    if len(latencies.weeks) < 2:
        return rows
    hidden = Container(id="weeks", items=[_chart(latencies)], is_visible=False)
    return [*rows, action_set(ToggleVisibilityAction(title="By week", target_elements=["weeks"])), hidden]


def _chart(latencies: Latencies) -> CardElement:
    """Bars by the number of the week, the newest ones."""
    unit, name = (DAY, "days") if latencies.median >= DAY else (HOUR, "hours")
    days = [f"{first.day} {first:%b} {span(took)}" for first, took in latencies.weeks]
    bars = [
        VerticalBarChartDataValue(x=str(first.isocalendar().week), y=round(took / unit, 1))
        for first, took in latencies.weeks[-MOST_BARS:]
    ]
    return VerticalBarChart(
        title=f"Median {name} from new base to ECR",
        x_axis_title="calendar week",
        y_axis_title=name,
        color="categoricalBlue",
        data=bars,
        fallback=line("Median of the week from: ", " · ".join(days), subtle=True),
    )


def way(rebuild: Rebuild) -> list[CardElement]:
    """How an update came to ECR, step by step; nothing for other rebuilds."""
    took, seen = patch_latency(rebuild), rebuild.base_seen_at
    if took is None or seen is None:
        return []
    steps, before = [], seen
    for step, at in _steps(rebuild):
        steps.append(f"{step} after {span(at - before)}" if at - before >= MINUTE else f"{step} at once")
        before = at
    return [line("New base first seen ", moment(seen), f", {', '.join(steps)}: {span(took)} in all.", subtle=True)]


def _steps(rebuild: Rebuild) -> list[tuple[str, datetime]]:
    moments = [("asked", rebuild.created_at), ("approved", rebuild.approved_at), ("in ECR", rebuild.run_finished_at)]
    return [(step, at) for step, at in moments if at]


def span(took: timedelta) -> str:
    """`2.1 days`, `5.3 hours`, `12 minutes` or `less than a minute`."""
    if took < MINUTE:
        return "less than a minute"
    for unit, length in (("days", DAY), ("hours", HOUR)):
        if took >= length:
            return f"{took / length:.1f} {unit}"
    return plural(round(took.total_seconds() / 60), "minute")
