"""What runs all the time: passes over rebuilds and cards, woken by changes or by the clock."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

from bot.core.checking import CheckService
from bot.core.ports import CardStore, Clock
from bot.core.runner import Pace, Runner
from bot.teams.notifier import Notifier

T = TypeVar("T")

logger = logging.getLogger(__name__)

IDLE_S = 60  # how long a loop sleeps when nothing wakes it
SLOWER = 6  # times, while hooks tell of changes


class Wakes:
    """Events that the loops wait for."""

    def __init__(self) -> None:
        self.changes = 0
        self.card_event = asyncio.Event()
        self.run_event = asyncio.Event()

    def cards(self) -> None:
        self.changes += 1
        self.card_event.set()

    def runs(self) -> None:
        self.changes += 1
        self.run_event.set()


def until_next_look_s(pace: Pace, poll_interval_s: float) -> float:
    """Seconds until the next look when nothing wakes the loop.

    Hooks or not, a run is never followed more than a minute late, or later than the interval that was asked for.
    """
    if pace is Pace.IDLE:
        return IDLE_S
    if pace is Pace.HINTS:
        return max(poll_interval_s, min(SLOWER * poll_interval_s, IDLE_S))
    return poll_interval_s


async def run_loop(
    checks: CheckService,
    runner: Runner,
    wake: asyncio.Event,
    one_pass: asyncio.Lock,
    poll_interval_s: float,
    between_passes_s: float,
) -> None:
    """Move rebuilds along for ever."""
    while True:
        wake.clear()
        async with one_pass:
            await _kept_alive(checks.end_holds, fallback=None)
            pace = await _kept_alive(runner.advance, fallback=Pace.POLL)
        await asyncio.sleep(between_passes_s)
        await _wait(wake, max(until_next_look_s(pace, poll_interval_s) - between_passes_s, 0))


async def card_loop(
    notifier: Notifier,
    store: CardStore,
    wake: asyncio.Event,
    one_pass: asyncio.Lock,
    clock: Clock,
    between_passes_s: float,
) -> None:
    """Deliver cards for ever."""
    while True:
        wake.clear()
        async with one_pass:
            await _kept_alive(notifier.deliver, fallback=None)
            next_at = await _kept_alive(store.next_card_at, fallback=None)
        await asyncio.sleep(between_passes_s)
        pause_s = (next_at - clock.now()).total_seconds() if next_at else IDLE_S
        await _wait(wake, min(max(pause_s, 0), IDLE_S))


async def _kept_alive(work: Callable[[], Awaitable[T]], fallback: T) -> T:
    """A mistake of ours in one pass is logged and must not end the loop."""
    try:
        return await work()
    except Exception:
        logger.exception("a pass failed; the next one tries again")
        return fallback


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not wait_for, which on Python 3.11 loses a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def stop(loops: list[asyncio.Task[None]], passes: list[asyncio.Lock]) -> None:
    """End the loops between two passes rather than within one: what was queued or posted is also recorded."""
    with suppress(TimeoutError):
        async with asyncio.timeout(15), AsyncExitStack() as held:
            for one_pass in passes:
                await held.enter_async_context(one_pass)
            for loop in loops:
                loop.cancel()
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
